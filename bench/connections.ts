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
const FEW = 64;
const MANY = 4_096;

/** What a request costs a peer, in µs, with each number of connections, run by run. */
export interface Costs {
  readonly title: string;
  readonly points: readonly { readonly connections: number; readonly runs: readonly number[] }[];
}

/**
 * Each run measures every number of connections, one after the other, so that a slow minute of the machine does not look
 * like a cost of many connections. They do not take turns: connections that pause run into deadlines, and find cold caches.
 */
export async function measureConnections(
  stage: Stage,
  options: Options,
  peers: readonly Peer[],
  tell: Tell,
): Promise<readonly Costs[]> {
  const entrants = CONNECTIONS.flatMap((connections) =>
    peers.map((peer) => ({ row: keepAlive(connections), peer, connections, runs: [] as number[] })),
  );
  for (let run = 1; run <= options.runs; run += 1) {
    for (const entrant of entrants) {
      const { peer, connections, runs } = entrant;
      const outcome = (await measureInTurn(stage, options, [entrant])).get(entrant)!;
      if ('failure' in outcome) throw outcome.failure;
      const { value } = outcome;
      runs.push(value);
      tell(`${connections} connections ${run}/${options.runs} ${peer.id}: ${value.toFixed(2)} µs/request`);
    }
  }
  return peers.map(({ id, title }) => ({
    title,
    points: entrants
      .filter(({ peer }) => peer.id === id)
      .map(({ connections, runs }) => ({ connections, runs })),
  }));
}

/** For the plot: medians. */
export function seriesOf(costs: readonly Costs[]): readonly Series[] {
  return costs.map(({ title, points }) => ({
    title,
    points: points.map(({ connections, runs }) => ({ x: connections, y: median(runs) })),
  }));
}

/** Markdown: a line for each peer, and how much more a request costs at 4,096 connections than at 64. */
export function renderConnections(costs: readonly Costs[]): string {
  const numbers = CONNECTIONS.map((count) => count.toLocaleString('en'));
  const header = ['µs/request at', ...numbers, `${FEW} → ${MANY.toLocaleString('en')}`];
  const lines = [header, header.map((_, index) => (index === 0 ? '---' : '---:'))];
  for (const { title, points } of costs) {
    lines.push([title, ...points.map(({ runs }) => median(runs).toFixed(1)), growthOf(points)]);
  }
  return lines.map((line) => `| ${line.join(' | ')} |`).join('\n');
}

/** The median of the runs' own ratios, as in the table; where there are several, with the least and the greatest. */
function growthOf(points: Costs['points']): string {
  const at = (count: number) => points.find(({ connections }) => connections === count)!.runs;
  const growths = at(MANY).map((many, run) => many / at(FEW)[run]! - 1);
  const middle = change(median(growths));
  if (growths.length === 1) return middle;
  return `${middle} (${change(Math.min(...growths))} to ${change(Math.max(...growths))})`;
}

function change(share: number): string {
  return `${share < 0 ? '−' : '+'}${Math.abs(share * 100).toFixed(0)} %`;
}
