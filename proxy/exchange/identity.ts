// Who a request is, from machine to machine: its id, and the trace that it is a part of (W3C Trace Context).

import { randomBytes } from 'node:crypto';

/** What other programs write too: no blanks, nothing that a log or a shell would read as its own. */
const REQUEST_ID = /^[A-Za-z0-9._~:/+=@-]{1,128}$/;

export function isRequestId(text: string): boolean {
  return REQUEST_ID.test(text);
}

/** The last digits of an id, which change with each. */
const LOW = Array.from({ length: 4_096 }, (_, low) => low.toString(16).padStart(3, '0'));
const HIGH_DIGITS = 9;

/**
 * 32 hexadecimal digits, as nginx's $request_id: 20 that are this maker's own, drawn once, and 12 that count. So no two are
 * alike, and one costs no more than to put two texts together. They are names, and no secrets.
 */
export function createRequestIds(own = randomBytes(10).toString('hex')): () => string {
  let high = 0;
  let low = 0;
  let beginning = own + '0'.repeat(HIGH_DIGITS);
  return () => {
    if (low === LOW.length) {
      low = 0;
      beginning = own + (++high).toString(16).padStart(HIGH_DIGITS, '0');
    }
    return beginning + LOW[low++]!;
  };
}

const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$/;
/** Trace Context §3.3.1: at most 32 members; vendors need keep no more than 512 characters. */
const LONGEST_STATE = 512;
const MOST_MEMBERS = 32;
const MEMBER =
  /^[ \t]*(?:[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])?[ \t]*$/;

/** Trace Context §3.2: of version 00 it has nothing behind its flags; of later ones it may. */
export function isTraceparent(text: string): boolean {
  const match = TRACEPARENT.exec(text);
  return match !== null && (match[1] !== '00' || match[2] === undefined);
}

export function isTracestate(text: string): boolean {
  if (text.length > LONGEST_STATE) return false;
  const members = text.split(',');
  return members.length <= MOST_MEMBERS && members.every((member) => MEMBER.test(member));
}

/** What of a trace came with a request. */
export interface TraceFields {
  /** Undefined: there is none, or more than one. */
  readonly traceparent: string | undefined;
  /** Several are one list; undefined: there is none. */
  readonly tracestate: string | undefined;
}

/** Whether both pass on: what is malformed passes with nothing of the other. */
export function isTrace({ traceparent, tracestate }: TraceFields): boolean {
  if (traceparent === undefined || !isTraceparent(traceparent)) return false;
  return tracestate === undefined || isTracestate(tracestate);
}
