// One run of a row, or of some that belong together: all peers alive at once, and loaded in short turns; or one alone.

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

/** A turn is short beside what disturbs a machine, and all peers have theirs within a few seconds. */
const TURN_MS = 300;
/** Between the moment when a load is let go on and the one from which it counts. */
const SETTLE_MS = 60;
/** For a load to open its connections, before the next one is started; a row may need more than that. */
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
  for (const entrant of entrants) {
    try {
      contenders.push(await enter(stage, entrant, durationMs));
    } catch (error) {
      outcomes.set(entrant, { failure: error as Error });
    }
  }
  for (let round = 0; round < rounds; round += 1) {
    // There and back, so that nobody always follows the same one.
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
      // What the load has seen from its first byte to its last.
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
  /** From when the load is let go on. */
  readonly settleMs: number;
  readonly countedMs: number;
}

/**
 * Who is alone has all of it in one turn: there is nobody to be fair to, and after every standstill a crowd would ask
 * all at once, and be read in the counted time before it is answered.
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

async function enter(stage: Stage, entrant: Entrant, durationMs: number): Promise<Contender> {
  const { row, peer } = entrant;
  const wish = { target: row.target(stage), accessLog: row.accessLog === true, prepare: peer.prepare };
  const proxy = await startProxy(stage, wish);
  try {
    const { subject } = proxy;
    await row.verify({ stage, subject });
    const load = await row.load({ stage, subject, durationMs });
    await sleep(openingMs(row));
    await load.pause();
    return { entrant, proxy, load, cpuUs: 0, units: 0 };
  } catch (error) {
    const explained = await proxy.explain(error);
    await proxy.stop();
    throw explained;
  }
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
