// What an attack is: one that stands for a kind, and what its loops have in common.

import { setTimeout as sleep } from 'node:timers/promises';
import type { WorkerSettings } from '../../src/workers/messages.ts';
import type { hosts } from './hosts.ts';

/** One that stands for a kind: begins to misbehave as hard as it can, in a process of its own. */
export interface Attack {
  /** As its file is called. */
  readonly name: string;
  /** What it does, in a few words. */
  readonly does: string;
  /** Settings of the worker that it needs to be felt. */
  readonly worker?: Partial<WorkerSettings>;
  start(target: Target): Promise<RunningAttack>;
}

export interface RunningAttack {
  /** Resolves when all rounds are over; rejects if the attack itself is broken. */
  readonly over: Promise<void>;
  stop(): Promise<void>;
}

/** Where to attack. Plain data: it crosses to the attacker's process. */
export interface Target {
  /** Of 127.0.0.1, TLS, for every host of `hosts`. */
  readonly port: number;
  /** PEM. */
  readonly ca: string;
  readonly hosts: typeof hosts;
  /** How often each of its loops goes round; Infinity until it is stopped. */
  readonly rounds: number;
}

/** For attacks: `count` loops at once, each going round until there were enough rounds or it is stopped. */
export function inLoops(
  target: Target,
  count: number,
  round: (stopped: AbortSignal) => Promise<void>,
): RunningAttack {
  const end = new AbortController();
  const loop = async () => {
    for (let i = 0; i < target.rounds && !end.signal.aborted; i++) await round(end.signal);
  };
  const over = Promise.all(Array.from({ length: count }, loop)).then(() => {});
  return {
    over,
    async stop() {
      end.abort();
      await over;
    },
  };
}

/** Waits, but not beyond the end of the attack. */
export async function pause(ms: number, stopped: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal: stopped }).catch(() => {});
}
