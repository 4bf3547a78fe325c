// The end of a TLS connection that nobody may take for the end of what was being sent.

import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/**
 * Clients take the end of a connection for the end of a body that has no other, even if TLS did not end before it: curl
 * does. They do not take a reset for it. Node names the socket under a TLS socket only as `_parent`; where that is missing,
 * the TLS socket is destroyed as any other.
 */
export function resetConnection(socket: TLSSocket): void {
  (socket as TLSSocket & { _parent?: Socket })._parent?.resetAndDestroy();
  socket.destroy();
}
