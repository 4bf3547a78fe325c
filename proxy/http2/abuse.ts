// Frames that cost us work and bring nothing: counted, and too many end the connection.

import { end, fail } from './closing.ts';
import { errorCode } from './frames.ts';
import type { Http2ConnectionState } from './state.ts';

/** Frames that make us work and bring nothing: so many in each window of time. */
const STRIKES = 500;
const STRIKE_WINDOW_MS = 10_000;
/**
 * Octets of framing that bring next to nothing: so many in the same time, beyond twice the content that they bring. A
 * session to an upstream carries many visitors, and no visitor makes its frames.
 */
const EXCESS_OF_CLIENT = 1024 * 1024;
const EXCESS_OF_UPSTREAM = 16 * EXCESS_OF_CLIENT;
/** Visitors who leave pages and calls that run out of time stay below this. */
const RESTLESS = 16;
/** Browsers cancel whole pages of requests at once; more than this is rapid reset (CVE-2023-44487). */
const RESET_BURST = 500;
const RESETS_PER_S = 33;
/**
 * Upstreams count our resets as we count those of clients, and ours are those of many clients: a session that has sent
 * so many takes no new streams, long before the upstream cuts it with all that are in it. They count for less with time.
 */
const RESETS_OF_SESSION = 64;
const RESETS_FORGOTTEN_PER_S = 10;

export function strike(connection: Http2ConnectionState): void {
  const now = connection.deadlines.instant();
  if (now - connection.strikesSince > STRIKE_WINDOW_MS) {
    connection.strikesSince = now;
    connection.strikes = 0;
  }
  if (++connection.strikes > STRIKES) {
    fail(connection, errorCode.enhanceYourCalm, 'too many frames that bring nothing');
  }
}

/** `octets` of framing beyond twice their content; nothing is counted below 0. Looks at the clock now and then. */
export function countExcess(connection: Http2ConnectionState, octets: number): void {
  if (octets <= 0) return;
  connection.excess += octets;
  if (connection.excess <= (connection.isServer ? EXCESS_OF_CLIENT : EXCESS_OF_UPSTREAM)) return;
  const now = connection.deadlines.instant();
  const period = now - connection.excessSince;
  connection.excess = 0;
  connection.excessSince = now;
  if (period < STRIKE_WINDOW_MS) {
    fail(connection, errorCode.enhanceYourCalm, 'frames with next to nothing in them');
  }
}

/** A reset by a client, or one that it made us send. */
export function countReset(connection: Http2ConnectionState): void {
  if (addReset(connection, RESETS_PER_S) > RESET_BURST) {
    fail(connection, errorCode.enhanceYourCalm, 'too many resets');
  }
}

/** A reset that we send to an upstream: after enough of them the session ends with the streams that it has. */
export function countOwnReset(connection: Http2ConnectionState): void {
  if (addReset(connection, RESETS_FORGOTTEN_PER_S) >= RESETS_OF_SESSION) end(connection);
}

export function isRestless(connection: Http2ConnectionState): boolean {
  return connection.resets >= RESTLESS;
}

function addReset(connection: Http2ConnectionState, forgottenPerS: number): number {
  const now = connection.deadlines.instant();
  const forgotten = ((now - connection.resetsAt) / 1_000) * forgottenPerS;
  connection.resets = Math.max(0, connection.resets - forgotten) + 1;
  connection.resetsAt = now;
  return connection.resets;
}
