// Interim replies on their way to a client (RFC 9110 §15.2): any number passes, as fast as the client takes them.

/** With so much waiting for the client, the upstream is not read until it has gone. */
export const INTERIM_PAUSE_BYTES = 64 * 1024;

/**
 * More than this is not kept. Header blocks of HTTP/2 have no flow control: an upstream's stream that goes on sending
 * them to a client that takes none is given up.
 */
export const MOST_INTERIM_BYTES = 1024 * 1024;

export const UNTAKEN = 'more interim replies than the client takes';
