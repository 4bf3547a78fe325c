// Leases over any engine: taken, confirmed at a third of their time, and given up when they can no longer be confirmed.

import { randomBytes } from 'node:crypto';
import { type Clock, monotonicMs, systemClock } from '../../src/lib/clock.ts';
import { type Log, silentLog } from '../../src/lib/log.ts';
import { createTurns } from '../../src/lib/turns.ts';
import { type Lease, type Storage, StorageError } from '../storage.ts';

/** What an engine can do with a lease. Each call has a deadline, and may have happened when it fails. */
export interface LeaseVerbs {
  /** Resolves to false if another token has it. Taking what one has already renews it. */
  take(name: string, token: string, ttlMs: number): Promise<boolean>;
  /** Resolves to false if this token does not have it any more. */
  renew(name: string, token: string, ttlMs: number): Promise<boolean>;
  release(name: string, token: string): Promise<void>;
}

export interface LeaseTimes {
  readonly ttlMs: number;
  /** How often whoever waits asks again. */
  readonly pollMs: number;
}

export interface LeasesOptions extends LeaseTimes {
  readonly verbs: LeaseVerbs;
  readonly place: (name: string) => string;
  readonly clock?: Clock;
  readonly log?: Log;
}

/** A process that was suspended finds out by this clock, which goes on meanwhile, before it writes anything. */
export function createLeases(options: LeasesOptions): Storage['lease'] {
  const { verbs, ttlMs, pollMs, place, clock = systemClock, log = silentLog } = options;
  const inTurn = createTurns();
  /** Without a confirmation for so long it is given up, while nobody else can have it yet. */
  const trustMs = (ttlMs * 2) / 3;

  async function take(name: string, token: string, signal: AbortSignal): Promise<number> {
    for (let told = false; ; told = true) {
      signal.throwIfAborted();
      const asked = monotonicMs(clock);
      if (await verbs.take(name, token, ttlMs)) return asked;
      if (!told) log.info({ lease: place(name) }, 'another replica works on the store, waiting');
      await clock.sleep(pollMs * (0.75 + Math.random() / 2), signal);
    }
  }

  async function holding<T>(
    name: string,
    signal: AbortSignal,
    work: (lease: Lease) => Promise<T>,
  ): Promise<T> {
    const token = randomBytes(12).toString('hex');
    let confirmed = await take(name, token, signal);
    const lost = new AbortController();
    const lose = (why: string) => {
      if (lost.signal.aborted) return;
      log.error({ lease: place(name), why }, 'lease on the store lost');
      lost.abort(new StorageError('lease-lost', `the lease on ${place(name)} was lost: ${why}`));
    };
    const isHeld = () => {
      if (monotonicMs(clock) - confirmed >= trustMs) lose('it was not confirmed in time');
      return !lost.signal.aborted;
    };
    let asking = false;
    let nextBeat = confirmed + ttlMs / 3;
    const beat = async () => {
      if (!isHeld() || asking || monotonicMs(clock) < nextBeat) return;
      asking = true;
      const asked = monotonicMs(clock);
      // No answer is no verdict: it is asked again at once, until the time is up.
      const renewed = await verbs.renew(name, token, ttlMs).catch(() => undefined);
      asking = false;
      if (renewed === false) lose('another replica has taken it');
      if (renewed !== true) return;
      confirmed = asked;
      nextBeat = asked + ttlMs / 3;
    };
    // More often than it is asked, because the end of the trust must be noticed in time.
    const heart = setInterval(() => void beat(), ttlMs / 15);
    heart.unref();
    try {
      return await work({ name, token, isHeld, signal: AbortSignal.any([signal, lost.signal]) });
    } finally {
      clearInterval(heart);
      // What cannot be given back ends by itself.
      if (!lost.signal.aborted) await verbs.release(name, token).catch(() => {});
    }
  }

  return (name, signal, work) => inTurn(() => holding(name, signal, work));
}

/** Throws StorageError `lease-lost` where a write under this lease must not happen. */
export function refuseIfLost(lease: Lease | undefined): void {
  if (lease === undefined || lease.isHeld()) return;
  throw new StorageError('lease-lost', `nothing is written: the lease ${lease.name} was lost`);
}
