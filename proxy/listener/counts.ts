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
  /** Of the handshakes that were completed: by version, and whether a session was resumed. */
  'tls12',
  'tls12Resumed',
  'tls13',
  'tls13Resumed',
  /** Of those that failed: the client took too long. */
  'handshakeTimeouts',
] as const;

export const ACCEPTED = 0;
export const OPEN = 1;
export const REFUSED = 2;
export const HANDSHAKES = 3;
export const FAILED_HANDSHAKES = 4;
export const RECEIVED = 5;
export const SENT = 6;
export const REQUESTS = 7;
export const TLS_1_2 = 8;
/** One place behind that of the version. */
export const RESUMED = 1;
export const TLS_1_3 = 10;
export const HANDSHAKE_TIMEOUTS = 12;

export function createConnectionCounts(): Float64Array {
  return new Float64Array(connectionCounts.length);
}
