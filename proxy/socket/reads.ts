// Reads that save the way through a stream's buffer, and V8 the marking of its whole heap.

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
    countBlock(piece.buffer);
    take(piece);
    // The stream's own clause stops a socket that is full: what comes after a pause goes through it.
    return true;
  };
}

/** A half of what makes V8 mark its whole heap. */
const COLLECT_EVERY = 32 * 1024 * 1024;
let latest: ArrayBufferLike | undefined;
let sinceCollection = 0;

/**
 * Node decrypts into blocks of memory outside the heap, and V8 marks the whole heap once 64 MiB of them have come since
 * its last collection: a sixth of what an upload costs. Nearly all are dead by then, so the young generation is
 * collected before it, where the process has a gc() to ask (node --expose-gc).
 */
function countBlock(block: ArrayBufferLike): void {
  if (block === latest) return;
  latest = block;
  sinceCollection += block.byteLength;
  if (sinceCollection < COLLECT_EVERY) return;
  sinceCollection = 0;
  globalThis.gc?.({ type: 'minor' });
}
