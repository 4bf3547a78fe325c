// One run of a row, or of rows that belong together: all peers run at once and are loaded in short turns.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Load } from './load/children.ts';
import { cpuTimeUs } from './measure.ts';
import type { Options } from './options.ts';
import type { Peer } from './peers/peer.ts';
import type { LoadRow, Subject } from './rows/row.ts';
import { type RunningProxy, startProxy } from './site.ts';
import type { Stage } from './stage.ts';

/** A value in the row's unit, or why there is none. */
export type Outcome = { readonly value: number } | { readonly failure: Error };

/** Turns are so short that a disturbance of the machine hits all peers alike. */
const TURN_MS = 300;
/** How long a load runs before its turn is counted. */
const SETTLE_MS = 60;
/** How long a load may take to open its connections; a row may add to it. */
const OPENING_MS = 500;

/** A peer doing a row's work. */
export interface Entrant {
  readonly row: LoadRow;
  readonly peer: Peer;
}

interface Contender {
  readonly entrant: Entrant;
  readonly proxy: RunningProxy;
  readonly load: Load;
  cpuUs: number;
  units: number;
}

/** CPU time of each entrant per unit of its load. One that fails has no value, and the others go on. */
export async function measureInTurn(
  stage: Stage,
  options: Pick<Options, 'warmUpMs' | 'windowMs'>,
  entrants: readonly Entrant[],
): Promise<ReadonlyMap<Entrant, Outcome>> {
  const outcomes = new Map<Entrant, Outcome>();
  const contenders: Contender[] = [];
  const { warmUps, rounds, turn } = turnsOf(options, entrants.length);
  // Twice what it takes by the clock alone: asking takes time as well.
  const allOpeningMs = entrants.reduce((sum, { row }) => sum + openingMs(row), 0);
  const durationMs =
    2 * (allOpeningMs + entrants.length * rounds * (turn.settleMs + turn.countedMs + 2 * SETTLE_MS)) + 5_000;
  const give = async (contender: Contender, failure: unknown) => {
    outcomes.set(contender.entrant, { failure: await contender.proxy.explain(failure) });
    contenders.splice(contenders.indexOf(contender), 1);
    await contender.load.end().catch(() => {});
    await contender.proxy.stop();
  };
  // All proxies first: a connection that is about to open when its load is paused must not wait for their starts as well.
  const started: { readonly entrant: Entrant; readonly proxy: RunningProxy }[] = [];
  for (const entrant of entrants) {
    try {
      started.push({ entrant, proxy: await startFor(stage, entrant) });
    } catch (error) {
      outcomes.set(entrant, { failure: error as Error });
    }
  }
  for (const { entrant, proxy } of started) {
    try {
      contenders.push(await enter(stage, entrant, proxy, durationMs));
    } catch (error) {
      outcomes.set(entrant, { failure: await proxy.explain(error) });
      await proxy.stop();
    }
  }
  for (let round = 0; round < rounds; round += 1) {
    // Every second round goes backwards, so that no peer always follows the same one.
    const order = round % 2 === 0 ? [...contenders] : contenders.toReversed();
    for (const contender of order) {
      try {
        await takeTurn(contender, turn, round >= warmUps);
      } catch (error) {
        await give(contender, error);
      }
    }
  }
  for (const contender of [...contenders]) {
    try {
      // Rejects if the load has seen a fault at any time.
      await contender.load.end();
      if (contender.units === 0) throw new Error('nothing was done while counting');
      outcomes.set(contender.entrant, { value: contender.cpuUs / contender.units });
    } catch (error) {
      outcomes.set(contender.entrant, { failure: await contender.proxy.explain(error) });
    }
    await contender.proxy.stop();
  }
  return outcomes;
}

interface Turn {
  /** How long the load runs before it is counted. */
  readonly settleMs: number;
  readonly countedMs: number;
}

/**
 * A single entrant has all its time in one turn. After each pause its whole crowd would ask at once, and part of that work
 * would fall into the counted time.
 */
function turnsOf(options: Pick<Options, 'warmUpMs' | 'windowMs'>, entrants: number) {
  const { warmUpMs, windowMs } = options;
  if (entrants === 1) return { warmUps: 0, rounds: 1, turn: { settleMs: warmUpMs, countedMs: windowMs } };
  const warmUps = Math.ceil(warmUpMs / TURN_MS);
  const rounds = warmUps + Math.ceil(windowMs / TURN_MS);
  return { warmUps, rounds, turn: { settleMs: SETTLE_MS, countedMs: TURN_MS } };
}

function openingMs(row: LoadRow): number {
  return OPENING_MS + (row.moreOpeningMs ?? 0);
}

function startFor(stage: Stage, { row, peer }: Entrant): Promise<RunningProxy> {
  return startProxy(stage, {
    target: row.target(stage),
    accessLog: row.accessLog === true,
    nginxFile: row.nginxFile,
    prepare: peer.prepare,
  });
}

async function enter(
  stage: Stage,
  entrant: Entrant,
  proxy: RunningProxy,
  durationMs: number,
): Promise<Contender> {
  const { row } = entrant;
  const { subject } = proxy;
  await row.verify({ stage, subject });
  const load = await row.load({ stage, subject, durationMs });
  await sleep(openingMs(row));
  await load.pause();
  return { entrant, proxy, load, cpuUs: 0, units: 0 };
}

async function takeTurn(contender: Contender, { settleMs, countedMs }: Turn, counts: boolean): Promise<void> {
  const { load, proxy } = contender;
  await load.resume();
  await sleep(settleMs);
  const before = await reading(load, proxy.subject);
  await sleep(countedMs);
  const after = await reading(load, proxy.subject);
  await load.pause();
  if (!counts) return;
  contender.units += after.units - before.units;
  contender.cpuUs += after.cpuUs - before.cpuUs;
}

async function reading(load: Load, { pid }: Subject): Promise<{ units: number; cpuUs: number }> {
  return { units: await load.units(), cpuUs: cpuTimeUs(pid) };
}
