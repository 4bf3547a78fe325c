// What each stream may use of the window that an upstream lends to all of them (RFC 9113 §5.2.2).

import type { Http2ConnectionState, StreamState } from './state.ts';

/**
 * Some upstreams give credit for the connection only when a handler reads (Go's do): uploads that are not read would use
 * up the window, and every other upload of the session would stop. So a stream that has so many times what is left of the
 * window in its hands waits until it has less. One stream alone gets four fifths of the window; of n streams that are not
 * read each gets 4/(4n+1), and 1/(4n+1) stays for those that are.
 */
const TIMES_WHAT_IS_LEFT = 4;
/** With less than this for so long, a session takes no new streams: enough of its streams are not read. */
const LEAST_WINDOW = 4 * 1024;
const STARVED_MS = 1_000;

/** How many bytes the stream may send now; 0 or less: none. */
export function sendable(stream: StreamState): number {
  const { connection, sendWindow } = stream;
  const left = connection.sendWindow;
  const lent = connection.widest - left;
  // With half of the window left, any frame is within the share of its stream. All streams of a client are its own.
  if (lent <= left || connection.isServer) return Math.min(sendWindow, left);
  // The peer says what it has read of the stream, not of the connection: the stream has no more in its hands than either.
  const inHands = Math.min(lent, Math.max(0, connection.peerWindow - sendWindow));
  const share = Math.floor((TIMES_WHAT_IS_LEFT * left - inHands) / (TIMES_WHAT_IS_LEFT + 1));
  return Math.min(sendWindow, left, share);
}

/** The peer has opened the connection's window. */
export function noteWindow(connection: Http2ConnectionState): void {
  const { sendWindow } = connection;
  if (sendWindow > connection.widest) connection.widest = sendWindow;
  if (sendWindow >= LEAST_WINDOW) connection.starvedSince = Number.POSITIVE_INFINITY;
}

/** Whether there was next to no window since it was asked a while ago. */
export function isStarved(connection: Http2ConnectionState): boolean {
  if (connection.sendWindow >= LEAST_WINDOW) return false;
  const now = connection.deadlines.now();
  connection.starvedSince = Math.min(connection.starvedSince, now);
  return now - connection.starvedSince > STARVED_MS;
}
