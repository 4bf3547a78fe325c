// The TCP socket under a TLS socket, which Node names in a field of its own alone (`_parent`).
//
// The public way is a table of all open connections by their addresses, which costs two strings and a table entry for
// each connection.
// Measured: that costs 16 µs a connection, of some 300 that a handshake costs.

import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { uses } from './switch.ts';

const isOn = uses('raw-sockets');
const byAddress = new Map<string, Socket>();

/** To be called with each socket before its handshake begins. */
export function rememberRawSocket(raw: Socket): void {
  if (isOn) return;
  const address = addressOf(raw);
  byAddress.set(address, raw);
  raw.once('close', () => {
    if (byAddress.get(address) === raw) byAddress.delete(address);
  });
}

/** Undefined: the connection is gone, or this Node does not tell. */
export function rawSocketUnder(socket: TLSSocket): Socket | undefined {
  return isOn ? (socket as TLSSocket & { _parent?: Socket })._parent : byAddress.get(addressOf(socket));
}

/** What no two open connections share. */
function addressOf(socket: Socket): string {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
