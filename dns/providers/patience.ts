// How often and how long a provider's API is asked again before its answer is taken as final.

import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { DnsError } from '../error.ts';

export interface Patience {
  /** Including the first. Default 4. */
  readonly attempts?: number;
  /** No single wait is longer, whatever Retry-After says. Default 60 s. */
  readonly longestWaitMs?: number;
  /** The first wait when the API names none; each further one is doubled. Default 1 s. */
  readonly firstWaitMs?: number;
  readonly clock?: Clock;
}

/**
 * Repeats a harmless operation while it fails for a passing reason: no reply, a 5xx, a rate limit. If the API asks for a
 * longer wait than `longestWaitMs`, it rejects at once.
 */
export async function patiently<T>(operation: () => Promise<T>, patience: Patience = {}): Promise<T> {
  const { attempts = 4, longestWaitMs = 60_000, firstWaitMs = 1_000, clock = systemClock } = patience;
  for (let attempt = 1; ; attempt++) {
    try {
      return await operation();
    } catch (error) {
      if (!(error instanceof DnsError) || !passes(error) || attempt >= attempts) throw error;
      const waitMs = error.retryAfterMs ?? firstWaitMs * 2 ** (attempt - 1);
      if (error.retryAfterMs !== undefined && waitMs > longestWaitMs) throw error;
      await clock.sleep(Math.min(waitMs, longestWaitMs));
    }
  }
}

function passes(error: DnsError): boolean {
  return error.code === 'rate-limited' || error.code === 'unreachable';
}

/** RFC 9110 §10.2.3: seconds or an HTTP date. Undefined if absent or neither; never negative. */
export function readRetryAfter(value: string | undefined, now: Date): number | undefined {
  if (value === undefined) return undefined;
  const text = value.trim();
  if (/^\d{1,10}$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now.getTime());
}
