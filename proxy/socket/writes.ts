// Writes that save system calls and copies.

import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { encryptsAtOnce } from './insides/lent-writes.ts';

interface Sink {
  write(data: string | Uint8Array, encoding?: BufferEncoding): boolean;
}

/** `text` (latin-1) and `bytes[start, end)` leave as one write: one TLS record, one system call. Copies the bytes. */
export function writeJoined(sink: Sink, text: string, bytes: Buffer, start: number, end: number): boolean {
  if (start >= end) return sink.write(text, 'latin1');
  const joined = Buffer.allocUnsafe(text.length + end - start);
  joined.write(text, 0, 'latin1');
  bytes.copy(joined, text.length, start, end);
  return sink.write(joined);
}

/** A larger write gains nothing from waiting for others, and copying it would only cost. */
const SMALL = 16 * 1024;

/** Where replies are put together: room for one read and many small ones. Used anew in every turn, it stays cached. */
const block = Buffer.allocUnsafeSlow(512 * 1024);
/** How much of it is used by what leaves at the end of this turn. */
let used = 0;

/**
 * A reply's head (latin-1) and what has come with it, to a TLS socket: one TLS record, one system call. Copies the bytes.
 * What is small leaves at the end of this turn: a system call has to wake a receiver that sleeps on another core, and
 * replies that are written one right after the other find it awake.
 */
export function writeReply(
  socket: TLSSocket,
  text: string,
  bytes: Buffer,
  start: number,
  end: number,
): boolean {
  const size = text.length + end - start;
  const lasts = encryptsAtOnce(socket) && used + size <= block.length;
  if (size <= SMALL) gather(socket);
  if (!lasts) return writeJoined(socket, text, bytes, start, end);
  const joined = block.subarray(used, used + size);
  if (text !== '') joined.write(text, 0, 'latin1');
  bytes.copy(joined, text.length, start, end);
  if (size <= SMALL) used += size;
  return socket.write(joined);
}

/**
 * Writes bytes that are only lent. What is small leaves as a reply does, copied, at the end of this turn; an idle
 * TLS socket encrypts the rest at once and is done with it; what would have to wait behind other writes is copied.
 */
export function writeLent(socket: TLSSocket, bytes: Buffer, start: number, end: number): boolean {
  if (end - start <= SMALL) return writeReply(socket, '', bytes, start, end);
  const piece = bytes.subarray(start, end);
  return socket.write(encryptsAtOnce(socket) ? piece : Buffer.from(piece));
}

type Gathered = Pick<Socket, 'write' | 'destroyed'>;
type Gathering = Pick<Socket, 'writableCorked' | 'cork' | 'uncork'>;
const gathering: Gathering[] = [];

/**
 * What is written to `socket` from here to the end of this turn of the event loop leaves in one system call, and with
 * what is written to others. A client's upload arrives in records of 16 KiB, many in one turn. To be followed by a write.
 */
export function gather(socket: Gathering): void {
  if (socket.writableCorked > 0) return;
  socket.cork();
  if (gathering.push(socket) === 1) setImmediate(flushGathered);
}

/** What was gathered for all sockets leaves now. */
export function flushGathered(): void {
  settle();
  for (const socket of gathering.splice(0)) socket.uncork();
  if (gathering.length === 0) used = 0;
}

/** What was gathered for `socket` leaves now: before destroy(), which would throw it away. */
export function flush(socket: Gathering): void {
  settle();
  while (socket.writableCorked > 0) socket.uncork();
}

interface Piece {
  readonly socket: Gathered;
  readonly memory: ArrayBuffer;
  readonly start: number;
  end: number;
}
let held: Piece | undefined;

/**
 * Writes `bytes[start, end)` to a socket that is gathering. Node decrypts record after record into one block of memory:
 * those that adjoin one another there leave as one piece, so it is held back for the next. To be followed by settle()
 * before anything else is written to this socket.
 */
export function writeAdjoining(socket: Gathered, bytes: Buffer, start: number, end: number): void {
  const memory = bytes.buffer as ArrayBuffer;
  const first = bytes.byteOffset + start;
  const last = bytes.byteOffset + end;
  if (held?.socket === socket && held.memory === memory && held.end === first) {
    held.end = last;
    return;
  }
  settle();
  held = { socket, memory, start: first, end: last };
}

/** What writeAdjoining() holds back goes to its socket. */
export function settle(): void {
  // Asked again: the loss of this socket may have made another exchange write.
  while (held !== undefined) {
    const { socket, memory, start, end } = held;
    held = undefined;
    if (!socket.destroyed) socket.write(Buffer.from(memory, start, end - start));
  }
}

/** What may wait in one socket. Node's own mark is lower, and a single turn of reading exceeds it. */
const MOST_WAITING = 256 * 1024;

/** Whether the source of what is written to `socket` should pause until it has drained. */
export function isFull(socket: Pick<Socket, 'writableNeedDrain' | 'writableLength'>): boolean {
  return socket.writableNeedDrain && socket.writableLength >= MOST_WAITING;
}
