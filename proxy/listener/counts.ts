// What a listener counts. Each number has its place in one array, so that counting is one addition.

/** In the order of their places. All but `open` only rise. */
export const connectionCounts = [
  'accepted',
  'open',
  /** Accepted, but closed at once: there was no room. */
  'refused',
  'handshakes',
  'failedHandshakes',
  /** Bytes on the wire, TLS included, of connections that have ended. */
  'received',
  'sent',
  'requests',
] as const;

export const ACCEPTED = 0;
export const OPEN = 1;
export const REFUSED = 2;
export const HANDSHAKES = 3;
export const FAILED_HANDSHAKES = 4;
export const RECEIVED = 5;
export const SENT = 6;
export const REQUESTS = 7;

export function createConnectionCounts(): Float64Array {
  return new Float64Array(connectionCounts.length);
}
