// Reads that save the way through a stream's buffer.

import type { TLSSocket } from 'node:tls';

/**
 * Calls `take` with each piece that arrives, in order, as a 'data' listener does, and ends with the same 'end'. A piece
 * that finds the stream flowing and nothing waiting is handed over as the socket pushes it (Readable.push): the stream
 * would schedule a tick after every piece to see whether it should read more, which a socket does on its own.
 */
export function onData(socket: TLSSocket, take: (bytes: Buffer) => void): void {
  // What was buffered meanwhile comes this way, and everything, should Node one day push by another door.
  socket.on('data', take);
  const { push } = socket;
  socket.push = (piece: Buffer | null): boolean => {
    if (piece === null || socket.readableFlowing !== true || socket.readableLength > 0) {
      return push.call(socket, piece);
    }
    take(piece);
    // The stream's own clause stops a socket that is full: what comes after a pause goes through it.
    return true;
  };
}
