// What may be sent to an upstream again, how often, and with how much of its body (RFC 9110 §9.2.2, RFC 9113 §8.7).

import type { FaultCode } from '../faults.ts';
import type { Retry, RetryCause } from '../rules/model.ts';
import type { Deadlines } from '../socket/deadlines.ts';
import type { Endpoint } from '../upstream/balance.ts';
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

/** The tries of a request whose rules say what is tried again. */
export interface RuledTries {
  readonly rule: Retry;
  /** Where it has been. */
  readonly tried: Set<Endpoint>;
  /** Where the rule limits their time. */
  readonly since: number;
  count: number;
  /** Attempts that had left when the last try began: with another one since then it may have been sent. */
  attempts: number;
}

export function beginTries(rule: Retry, { now }: Pick<Deadlines, 'now'>): RuledTries {
  const { timeoutMs = 0 } = rule;
  // The clock is read where somebody wants to know.
  return { rule, tried: new Set(), since: timeoutMs > 0 ? now() : 0, count: 1, attempts: 0 };
}

export interface TryAsked {
  readonly now: number;
  readonly method: string;
  /** The upstream may have begun with it. */
  readonly sent: boolean;
  readonly bodyKept: boolean;
  /** There is a server that was not tried. */
  readonly hasOther: boolean;
}

/** Whether rules want another try, which is then noted. */
export function wantsTry(tries: RuledTries, cause: RetryCause, asked: TryAsked): boolean {
  const { rule, tried } = tries;
  const { tries: most = 0, timeoutMs = 0, nonIdempotent, sameServers } = rule;
  if (!rule.on.includes(cause) || !asked.bodyKept) return false;
  // RFC 9110 §9.2.2: unless whoever wrote the rule knows better.
  if (asked.sent && nonIdempotent !== true && !isIdempotent(asked.method)) return false;
  if (most > 0 && tries.count >= most) return false;
  if (timeoutMs > 0 && asked.now - tries.since >= timeoutMs) return false;
  if (!asked.hasOther) {
    if (sameServers !== true) return false;
    tried.clear();
  }
  tries.count++;
  return true;
}

/** In the words of rules. Undefined: another try would come to the same. */
export function causeOf(code: FaultCode): RetryCause | undefined {
  switch (code) {
    case 'upstream-refused':
    case 'upstream-unresolved':
    case 'upstream-untrusted':
    case 'upstream-closed':
      return 'error';
    case 'connect-timeout':
    case 'upstream-timeout':
      return 'timeout';
    case 'upstream-malformed':
      return 'invalid-reply';
    default:
      return undefined;
  }
}

/** Whether a reply with this status, which rules try again after, is counted against its server. */
export function isFailure(status: number): boolean {
  return status === 429 || status >= 500;
}

/**
 * A kept connection that ended just as it was used, or a request that the upstream says it has not begun with: that is no
 * try of any rule, and the same server is asked again.
 */
export function isNoTry(loss: Loss, reused: boolean): boolean {
  return loss === 'unbegun' || (loss === 'unheard' && reused);
}
