// What an error of a socket comes to, whoever has the socket: its end.

import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/**
 * Node destroys most sockets of which it reports an error, but not all: a TLS socket that was asked to renegotiate goes
 * on as if nothing had been said, and whoever only waits for 'close' waits for ever. Every listener of 'error' on a
 * connection is made here. `noted` hears of the error first; 'close' follows and says the rest.
 */
export function destroyOnError(socket: Socket, noted?: (error: Error) => void): void {
  if (noted !== undefined) socket.on('error', noted);
  socket.on('error', destroyLater);
}

/** A TLS socket may report from within OpenSSL's reading, where it must not be taken apart. */
function destroyLater(this: Socket): void {
  if (!this.destroyed) setImmediate(destroy, this);
}

function destroy(socket: Socket): void {
  socket.destroy();
}

/**
 * RFC 9113 §9.2.1: TLS 1.2 must not renegotiate, and whoever tries has broken the connection. A client that tries makes
 * the socket report an error. OpenSSL's own SSL_OP_NO_RENEGOTIATION would answer each attempt with a warning, tell
 * nobody, and keep the warnings of a client that reads none of them: it is not set.
 */
export function forbidRenegotiation(socket: TLSSocket): void {
  socket.disableRenegotiation();
}

/** Whether this is the error of a client that tried. */
export function isRenegotiation(error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ERR_TLS_RENEGOTIATION_DISABLED' || code === 'ERR_TLS_SESSION_ATTACK';
}
