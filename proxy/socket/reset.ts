// Ends a TLS connection by a reset, so that the client cannot take its end for the end of a body.

import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/**
 * Where a body ends with the connection, clients such as curl accept any end, even one without TLS's close_notify. They do
 * not accept a reset. Node has the socket under a TLS socket only as `_parent`; where that is missing, the TLS socket is
 * destroyed without a reset.
 */
export function resetConnection(socket: TLSSocket): void {
  (socket as TLSSocket & { _parent?: Socket })._parent?.resetAndDestroy();
  socket.destroy();
}
