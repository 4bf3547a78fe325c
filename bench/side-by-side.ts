// The table: every row for every peer, run after run.

import { measureInTurn, type Outcome } from './in-turn.ts';
import { versionOf, watchMachine } from './machine.ts';
import type { Options } from './options.ts';
import type { Peer } from './peers/peer.ts';
import { howToGet, provide } from './programs.ts';
import type { Row, SingleRow } from './rows/row.ts';
import { withProxy } from './site.ts';
import type { Stage } from './stage.ts';
import type { Cell, Report } from './table.ts';

export type Tell = (text: string) => void;

/** Row by row, run by run, within a run all peers in turn. Nothing that fails ends it: the report says so. */
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
    const taking = peers.filter(({ id }) => !failures.has(id));
    for (const [{ id }, outcome] of await measureRun(stage, options, row, taking)) {
      if ('value' in outcome) {
        values.get(id)!.push(outcome.value);
        tell(`${row.id} ${run}/${options.runs} ${id}: ${outcome.value.toFixed(2)} ${row.unit}`);
      } else {
        failures.set(id, outcome.failure.message.replaceAll(/\s+/g, ' '));
        tell(`${row.id} ${run}/${options.runs} ${id}: FAILED: ${outcome.failure.message}`);
      }
    }
  }
  return peers.map((peer) => cellOf(row, peer, values.get(peer.id)!, failures.get(peer.id)));
}

async function measureRun(
  stage: Stage,
  options: Options,
  row: Row,
  peers: readonly Peer[],
): Promise<ReadonlyMap<Peer, Outcome>> {
  if ('load' in row) return measureInTurn(stage, options, row, peers);
  const outcomes = new Map<Peer, Outcome>();
  for (const peer of peers) outcomes.set(peer, await measureOnce(stage, row, peer));
  return outcomes;
}

async function measureOnce(stage: Stage, row: SingleRow, peer: Peer): Promise<Outcome> {
  const wish = { target: row.target(stage), prepare: peer.prepare };
  try {
    const value = await withProxy(stage, wish, async (subject) => {
      await row.verify({ subject, stage });
      return row.measure({ subject, stage });
    });
    return { value };
  } catch (failure) {
    return { failure: failure as Error };
  }
}

/** A peer that failed once has no value: a median of the runs that went well would hide it. */
function cellOf(row: Row, peer: Peer, values: readonly number[], failure: string | undefined): Cell {
  const cell = { row: row.id, peer: peer.id };
  return failure === undefined ? { ...cell, values } : { ...cell, values: [], failure };
}
