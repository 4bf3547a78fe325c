// Deadlines that move with every byte, any number of them on one coarse timer.

import { createRoster, type RosterMember } from './roster.ts';

/** Set `at` (milliseconds of `now()`) anew at each sign of life; Infinity suspends it. */
export interface Deadline extends RosterMember {
  at: number;
  /** Called once, after which the deadline is no longer watched. */
  readonly expired: () => void;
}

export interface Deadlines {
  /** Monotonic milliseconds, the time scale of `Deadline.at`. */
  now(): number;
  /** As now(), but up to one tick behind: for callers that ask with every message. */
  coarse(): number;
  /** As now(), but read once for all that is asked between enter() and leave(): what one read of a socket brings. */
  instant(): number;
  /** Every enter() is followed by a leave() before anything else is waited for; they may be nested. */
  enter(): void;
  leave(): void;
  /** A `Deadline.at` that lies `ms` ahead, by the coarse clock: never early, and late by one more tick at most. */
  after(ms: number): number;
  watch(deadline: Deadline): void;
  forget(deadline: Deadline): void;
}

/** Deadlines are late by up to one tick. A timer for each request would be exact, and cost more. */
const TICK_MS = 250;

export function createDeadlines(now: () => number = () => performance.now(), tickMs = TICK_MS): Deadlines {
  const watched = createRoster<Deadline>();
  let timer: NodeJS.Timeout | undefined;
  let swept = 0;
  const sweep = () => {
    const time = now();
    swept = time;
    watched.each((deadline) => {
      if (deadline.at > time) return;
      watched.remove(deadline);
      deadline.expired();
    });
    if (watched.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
  // While no timer runs, the coarse clock stands still.
  const coarse = () => (timer === undefined ? now() : swept);
  let depth = 0;
  /** Undefined: it has not been read since the outermost enter(). */
  let moment: number | undefined;
  return {
    now,
    coarse,
    instant() {
      if (depth === 0) return now();
      moment ??= now();
      return moment;
    },
    enter() {
      depth++;
    },
    leave() {
      depth--;
      if (depth === 0) moment = undefined;
    },
    after: (ms) => coarse() + tickMs + ms,
    watch(deadline) {
      watched.add(deadline);
      if (timer !== undefined) return;
      swept = now();
      // The timer must not keep the process alive: the sockets that it watches do that.
      timer = setInterval(sweep, tickMs).unref();
    },
    forget: watched.remove,
  };
}
