// Time as a value that can be handed in: now, how long since, and a sleep that can be aborted.

export interface Clock {
  /** The date. It can be set forward and back at any time: spans are measured with `monotonicMs`. */
  now(): Date;
  /** Milliseconds since some moment, which only ever grow. A clock that leaves it out is one whose `now` is never set back. */
  monotonicMs?(): number;
  /** Resolves after `ms` milliseconds (any length), rejects with the signal's reason when it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** setTimeout takes 32 bits: a longer delay would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
  async sleep(ms, signal) {
    for (let left = ms; left > 0; left -= LONGEST_TIMER_MS) {
      await timer(Math.min(left, LONGEST_TIMER_MS), signal);
    }
  },
};

/** For spans: the difference of two readings is the time that passed, whatever happened to the date in between. */
export function monotonicMs(clock: Clock): number {
  return clock.monotonicMs?.() ?? clock.now().getTime();
}

function timer(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      clearTimeout(handle);
      reject(signal?.reason);
    };
    const handle = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
