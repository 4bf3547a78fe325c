// What may be sent to an upstream again, how often, and with how much of its body (RFC 9110 §9.2.2, RFC 9113 §8.7).

import type { Loss } from '../upstream/http1-pool.ts';
import { isIdempotent } from './methods.ts';

/**
 * Of a request body, kept until the reply begins: content bytes. The framing of a chunked body may take as much again,
 * where it is kept as well.
 */
export const REPLAY_BYTES = 64 * 1024;

/** Whether a body of this announced length is kept at all (-1: unknown): a copy of the beginning of a larger one is of no use. */
export function isWorthKeeping(contentLength: number): boolean {
  return contentLength <= REPLAY_BYTES;
}

/**
 * How often a request is sent again that the upstream never began with. Servers that end a connection after so many
 * requests (nginx: 1,000) refuse in that moment whatever had been sent ahead, and the next connection may be near its
 * own end. An upstream that refuses because it has too much to do is not asked without end.
 */
export const MOST_REFUSALS = 4;

/** What has happened to an exchange so far. */
export interface Tries {
  /** Times that the upstream did not begin with it. */
  refusals: number;
  /** Whether it was sent again although the upstream may have begun with it. */
  repeated: boolean;
}

/** Whether the request may be sent again, which is then noted. `bodyKept`: all that was sent of its body is still here. */
export function mayTryAgain(tries: Tries, loss: Loss, method: string, bodyKept: boolean): boolean {
  if (!bodyKept) return false;
  switch (loss) {
    case 'unbegun':
      // RFC 9113 §8.7: whatever its method.
      return ++tries.refusals <= MOST_REFUSALS;
    case 'unheard':
      // RFC 9110 §9.2.2: only what does once what it does twice; and what was sent again is not sent a third time.
      if (tries.repeated || !isIdempotent(method)) return false;
      tries.repeated = true;
      return true;
    default:
      return false;
  }
}
