// The table: every row for every peer, in turn, run after run.

import { versionOf, watchMachine } from './machine.ts';
import type { Options } from './options.ts';
import type { Peer } from './peers/peer.ts';
import { howToGet, provide } from './programs.ts';
import type { Row } from './rows/row.ts';
import { withProxy } from './site.ts';
import type { Stage } from './stage.ts';
import type { Cell, Report } from './table.ts';

export type Tell = (text: string) => void;

/** Measures A B C A B C, row by row. Nothing that fails ends it: the report says so. */
export async function measureSideBySide(
  stage: Stage,
  options: Options,
  wanted: { readonly rows: readonly Row[]; readonly peers: readonly Peer[] },
  tell: Tell,
): Promise<Report> {
  const machine = watchMachine();
  const startedAt = new Date().toISOString();
  const { rows, peers, leftOut } = available(wanted);
  const cells: Cell[] = [];
  for (const row of rows) {
    const taking = peers.filter((peer) => peer.rows.includes(row.id));
    cells.push(...(await measureRow(stage, options, row, taking, tell)));
  }
  return {
    startedAt,
    machine: machine(),
    runs: options.runs,
    warmUpMs: options.warmUpMs,
    windowMs: options.windowMs,
    rows: rows.map(({ id, title, unit }) => ({ id, title, unit })),
    peers: peers.map((peer) => ({
      id: peer.id,
      title: peer.title,
      version: versionOf(peer.version),
    })),
    cells,
    leftOut,
  };
}

function available({ rows, peers }: { rows: readonly Row[]; peers: readonly Peer[] }) {
  const needed = [...peers.flatMap((peer) => peer.needs ?? []), ...rows.flatMap((row) => row.tools)];
  const missing = provide(needed);
  const leftOut: string[] = [];
  const has = (title: string, needs: (typeof needed)[number] | undefined) => {
    if (needs === undefined || !missing.has(needs.program)) return true;
    leftOut.push(`${title}: ${howToGet(needs)}`);
    return false;
  };
  return {
    rows: rows.filter((row) => row.tools.every((tool) => has(row.title, tool))),
    peers: peers.filter((peer) => has(peer.title, peer.needs)),
    leftOut,
  };
}

async function measureRow(
  stage: Stage,
  options: Options,
  row: Row,
  peers: readonly Peer[],
  tell: Tell,
): Promise<Cell[]> {
  const values = new Map(peers.map((peer) => [peer.id, [] as number[]]));
  const failures = new Map<string, string>();
  for (let run = 1; run <= options.runs; run += 1) {
    for (const peer of peers) {
      if (failures.has(peer.id)) continue;
      try {
        const value = await measureOnce(stage, options, row, peer);
        values.get(peer.id)!.push(value);
        tell(`${row.id} ${run}/${options.runs} ${peer.id}: ${value.toFixed(2)} ${row.unit}`);
      } catch (error) {
        failures.set(peer.id, (error as Error).message.replaceAll(/\s+/g, ' '));
        tell(`${row.id} ${run}/${options.runs} ${peer.id}: FAILED: ${(error as Error).message}`);
      }
    }
  }
  return peers.map((peer) => cellOf(row, peer, values.get(peer.id)!, failures.get(peer.id)));
}

/** A peer that failed once has no value: a median of the runs that went well would hide it. */
function cellOf(row: Row, peer: Peer, values: readonly number[], failure: string | undefined): Cell {
  const cell = { row: row.id, peer: peer.id };
  return failure === undefined ? { ...cell, values } : { ...cell, values: [], failure };
}

function measureOnce(stage: Stage, options: Options, row: Row, peer: Peer): Promise<number> {
  const wish = {
    target: row.target(stage),
    accessLog: row.accessLog === true,
    prepare: peer.prepare,
  };
  return withProxy(stage, wish, async (subject) => {
    const measurement = { subject, stage, warmUpMs: options.warmUpMs, windowMs: options.windowMs };
    await row.verify(measurement);
    return row.measure(measurement);
  });
}
