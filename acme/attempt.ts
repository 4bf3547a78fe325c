// One attempt at a certificate: its names, its deadline, and how it waits for the CA.

import type { Clock } from '../src/lib/clock.ts';
import { monotonicMs } from '../src/lib/clock.ts';
import type { Domain } from '../src/lib/domain.ts';
import { IssuerError } from './issuer.ts';
import type { Polled } from './order.ts';

export const FIRST_POLL_MS = 500;
export const LONGEST_POLL_MS = 15_000;

export interface Attempt {
  readonly names: readonly Domain[];
  readonly signal: AbortSignal;
  /** Waits for as long as we or the CA want, whichever is longer. */
  pause(ownMs: number, askedMs?: number): Promise<void>;
  /** RFC 8555 §7.5.1: no sooner than the CA's Retry-After asks, and less and less often where it asks for nothing. */
  poll<T>(look: () => Promise<Polled<T>>, isDone: (value: T) => boolean, firstMs?: number): Promise<T>;
  /** The same attempt under another signal. */
  under(signal: AbortSignal): Attempt;
}

export function createAttempt(
  names: readonly Domain[],
  signal: AbortSignal,
  deadlineMs: number,
  clock: Clock,
): Attempt {
  const endsAt = monotonicMs(clock) + deadlineMs;

  function under(current: AbortSignal): Attempt {
    const attempt: Attempt = {
      names,
      signal: current,
      async pause(ownMs, askedMs) {
        const waitMs = Math.max(ownMs, askedMs ?? 0);
        // The attempt holds a lock that others wait for: it does not wait in vain.
        if (monotonicMs(clock) + waitMs > endsAt) throw outOfTime(names, deadlineMs, askedMs);
        await clock.sleep(waitMs, current);
      },
      async poll(look, isDone, firstMs = 0) {
        if (firstMs > 0) await attempt.pause(0, firstMs);
        for (let delayMs = FIRST_POLL_MS; ; delayMs = Math.min(delayMs * 2, LONGEST_POLL_MS)) {
          const { value, retryAfterMs } = await look();
          if (isDone(value)) return value;
          await attempt.pause(delayMs, retryAfterMs);
        }
      },
      under,
    };
    return attempt;
  }

  return under(signal);
}

export function outOfTime(
  names: readonly Domain[],
  deadlineMs: number,
  askedMs: number | undefined,
  cause?: unknown,
): IssuerError {
  const asked = askedMs === undefined ? '' : `, the CA asks to wait ${Math.ceil(askedMs / 1000)} s more`;
  return new IssuerError(
    'deadline-passed',
    `the certificate for ${names.join(', ')} was not obtained in ${deadlineMs} ms${asked}`,
    { retryAfterMs: askedMs, cause },
  );
}
