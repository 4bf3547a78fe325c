// The table: every row for every peer, run after run.

import { type Entrant, measureInTurn, type Outcome } from './in-turn.ts';
import { versionOf, watchMachine } from './machine.ts';
import type { Options } from './options.ts';
import type { Peer } from './peers/peer.ts';
import { howToGet, provide } from './programs.ts';
import type { Row, SingleRow } from './rows/row.ts';
import { withProxy } from './site.ts';
import type { Stage } from './stage.ts';
import type { Cell, Report } from './table.ts';

export type Tell = (text: string) => void;

interface AnyEntrant {
  readonly row: Row;
  readonly peer: Peer;
}

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
  for (const group of groupsOf(rows)) cells.push(...(await measureGroup(stage, options, group, peers, tell)));
  return {
    startedAt,
    machine: machine(),
    runs: options.runs,
    warmUpMs: options.warmUpMs,
    windowMs: options.windowMs,
    rows: rows.map((row) => ({
      id: row.id,
      title: row.title,
      unit: row.unit,
      ...('beside' in row && { beside: row.beside }),
    })),
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

/** Rows that are measured in one go: those of loads with the ones that are to be compared with them. */
function groupsOf(rows: readonly Row[]): readonly (readonly Row[])[] {
  const leader = (row: Row) => ('load' in row ? (row.beside ?? row.id) : row.id);
  return [...Map.groupBy(rows, leader).values()];
}

async function measureGroup(
  stage: Stage,
  options: Options,
  rows: readonly Row[],
  peers: readonly Peer[],
  tell: Tell,
): Promise<Cell[]> {
  const entrants = rows.flatMap((row) =>
    peers.filter((peer) => peer.rows.includes(row.id)).map((peer) => ({ row, peer })),
  );
  const values = new Map(entrants.map((entrant) => [entrant, [] as number[]]));
  const failures = new Map<AnyEntrant, string>();
  for (let run = 1; run <= options.runs; run += 1) {
    const taking = entrants.filter((entrant) => !failures.has(entrant));
    for (const [entrant, outcome] of await measureRun(stage, options, taking)) {
      const { row, peer } = entrant;
      if ('value' in outcome) {
        values.get(entrant)!.push(outcome.value);
        tell(`${row.id} ${run}/${options.runs} ${peer.id}: ${outcome.value.toFixed(2)} ${row.unit}`);
      } else {
        failures.set(entrant, outcome.failure.message.replaceAll(/\s+/g, ' '));
        tell(`${row.id} ${run}/${options.runs} ${peer.id}: FAILED: ${outcome.failure.message}`);
      }
    }
  }
  return entrants.map((entrant) => cellOf(entrant, values.get(entrant)!, failures.get(entrant)));
}

async function measureRun(
  stage: Stage,
  options: Options,
  entrants: readonly AnyEntrant[],
): Promise<ReadonlyMap<AnyEntrant, Outcome>> {
  const loads = entrants.filter(isOfLoad);
  const outcomes = new Map<AnyEntrant, Outcome>(await measureInTurn(stage, options, loads));
  for (const entrant of entrants) {
    const { row, peer } = entrant;
    if ('measure' in row) outcomes.set(entrant, await measureOnce(stage, row, peer));
  }
  return outcomes;
}

function isOfLoad(entrant: AnyEntrant): entrant is Entrant {
  return 'load' in entrant.row;
}

async function measureOnce(stage: Stage, row: SingleRow, peer: Peer): Promise<Outcome> {
  const wish = { target: row.target(stage), nginxFile: row.nginxFile, prepare: peer.prepare };
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
function cellOf({ row, peer }: AnyEntrant, values: readonly number[], failure: string | undefined): Cell {
  const cell = { row: row.id, peer: peer.id };
  return failure === undefined ? { ...cell, values } : { ...cell, values: [], failure };
}
