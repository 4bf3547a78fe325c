// Hands what a client's TLS socket reads to one function.

import type { TLSSocket } from 'node:tls';
import { readStraight } from './insides/straight-reads.ts';
import { countBlock } from './insides/young-collection.ts';

/** Calls `take` with each piece that arrives, in order, as a 'data' listener does, and ends with the same 'end'. */
export function onData(socket: TLSSocket, take: (bytes: Buffer) => void): void {
  const counted = (piece: Buffer) => {
    countBlock(piece.buffer);
    take(piece);
  };
  socket.on('data', counted);
  readStraight(socket, counted);
}
