// CPU per request against the number of connections, and whether it grows.

import { measureInTurn } from './in-turn.ts';
import type { Options } from './options.ts';
import type { Peer } from './peers/peer.ts';
import type { Series } from './plot.ts';
import { keepAlive } from './rows/http.ts';
import type { Tell } from './side-by-side.ts';
import type { Stage } from './stage.ts';
import { median } from './statistics.ts';

export const CONNECTIONS = [1, 4, 16, 64, 256, 1_024, 4_096] as const;

const START_MS = 500;
/** All of them have to be open before it counts: 3 ms is a P-384 handshake, with requests in between. */
const OPENING_MS_EACH = 6;

export async function measureConnections(
  stage: Stage,
  options: Options,
  peers: readonly Peer[],
  tell: Tell,
): Promise<readonly Series[]> {
  const points = new Map(peers.map((peer) => [peer.id, [] as { x: number; y: number }[]]));
  for (const connections of CONNECTIONS) {
    const values = new Map(peers.map((peer) => [peer.id, [] as number[]]));
    for (let run = 1; run <= options.runs; run += 1) {
      const startMs = START_MS + connections * OPENING_MS_EACH;
      const row = keepAlive(connections);
      // One after the other: a crowd that stands still for long runs into the deadlines of its handshakes.
      for (const peer of peers) {
        const entrant = { row, peer };
        const outcome = (await measureInTurn(stage, options, [entrant], startMs)).get(entrant)!;
        if ('failure' in outcome) throw outcome.failure;
        const { value } = outcome;
        values.get(peer.id)!.push(value);
        tell(`${connections} connections ${run}/${options.runs} ${peer.id}: ${value.toFixed(2)} µs/request`);
      }
    }
    for (const peer of peers) {
      points.get(peer.id)!.push({ x: connections, y: median(values.get(peer.id)!) });
    }
  }
  return peers.map((peer) => ({ title: peer.title, points: points.get(peer.id)! }));
}

/** Markdown: a line for each peer, and how much more a request costs at 4,096 connections than at 64. */
export function renderConnections(series: readonly Series[]): string {
  const header = ['µs/request at', ...CONNECTIONS.map((count) => count.toLocaleString('en')), '64 → 4,096'];
  const lines = [header, header.map((_, index) => (index === 0 ? '---' : '---:'))];
  for (const { title, points } of series) {
    const at = (connections: number) => points.find((point) => point.x === connections)!.y;
    const growth = at(4_096) / at(64) - 1;
    const sign = growth < 0 ? '−' : '+';
    const change = `${sign}${Math.abs(growth * 100).toFixed(0)} %`;
    lines.push([title, ...points.map((point) => point.y.toFixed(1)), change]);
  }
  return lines.map((line) => `| ${line.join(' | ')} |`).join('\n');
}
