// An error of a socket ends the socket, whoever owns it.

import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/**
 * Node destroys most sockets of which it reports an error, but not all: a TLS socket that was asked to renegotiate goes
 * on after the error, and code that waits for 'close' would wait for ever. So every listener of 'error' on a connection is
 * made here. `noted` is called with the error first; 'close' follows.
 */
export function destroyOnError(socket: Socket, noted?: (error: Error) => void): void {
  if (noted !== undefined) socket.on('error', noted);
  socket.on('error', destroyLater);
}

/** A TLS socket may report an error while OpenSSL is still reading, and must not be destroyed until that has returned. */
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
