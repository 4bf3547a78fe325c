// Sending on streams: header blocks, DATA within the peer's windows, turns, and the end of our side.

import { createByteQueue } from '../socket/byte-queue.ts';
import { giveBack, reserve } from '../socket/outbox.ts';
import { closeStream, endSocket } from './closing.ts';
import { errorCode, FRAME_HEADER_BYTES, flag, frameType, MAX_FRAME_BYTES, putFrameHeader } from './frames.ts';
import { hold, letGo } from './held.ts';
import { beginBlock, writeField } from './hpack.ts';
import { LingeringStream } from './lingering.ts';
import { flush, schedule } from './output.ts';
import { resetStream } from './resets.ts';
import { sendable } from './shares.ts';
import type { Http2ConnectionState, StreamState } from './state.ts';

/** What a stream may have queued before its source is asked to pause, while its peer takes what it is sent. */
const HIGH_WATER = 64 * 1024;
/** What the streams of a connection may have queued together before each pauses at its first byte. */
const HIGH_WATER_IN_ALL = 256 * 1024;
/** Gathered for one write to the socket. */
export const WRITE_BYTES = 64 * 1024;

const NO_BYTES = Buffer.alloc(0);

// --- Header blocks ---

export function beginHead(connection: Http2ConnectionState): void {
  const { out } = connection;
  reserve(out, FRAME_HEADER_BYTES);
  connection.headAt = out.length;
  out.length += FRAME_HEADER_BYTES;
  beginBlock(connection.encoder, out);
}

export function endHead(stream: StreamState, last: boolean): void {
  const { connection } = stream;
  const { out, headAt } = connection;
  const size = out.length - headAt - FRAME_HEADER_BYTES;
  const flags = last ? flag.endStream : 0;
  if (size <= MAX_FRAME_BYTES) {
    putFrameHeader(out.bytes, headAt, size, frameType.headers, flags | flag.endHeaders, stream.id);
  } else splitHead(connection, stream.id, flags, size);
  schedule(connection);
  if (last) endLocal(stream);
}

/** RFC 9113 §6.10. */
function splitHead({ out, headAt }: Http2ConnectionState, id: number, flags: number, size: number): void {
  const block = Buffer.from(out.bytes.subarray(headAt + FRAME_HEADER_BYTES, out.length));
  out.length = headAt;
  for (let at = 0; at < size; at += MAX_FRAME_BYTES) {
    const length = Math.min(MAX_FRAME_BYTES, size - at);
    const final = at + length === size ? flag.endHeaders : 0;
    reserve(out, FRAME_HEADER_BYTES + length);
    const type = at === 0 ? frameType.headers : frameType.continuation;
    putFrameHeader(out.bytes, out.length, length, type, (at === 0 ? flags : 0) | final, id);
    out.length += FRAME_HEADER_BYTES;
    out.length += block.copy(out.bytes, out.length, at, at + length);
  }
}

// --- DATA ---

/** Sends what windows and the socket take at once and queues the rest. False: enough is queued. */
export function sendData(
  stream: StreamState,
  bytes: Buffer,
  start: number,
  end: number,
  last: boolean,
): boolean {
  const pos = stream.queue === undefined ? writeData(stream, bytes, start, end, last) : start;
  if (pos < end) enqueue(stream, bytes, pos, end);
  else if (last && !stream.localEnded) waitForTurn(stream);
  if (stream.queued === 0 || (stream.queued < HIGH_WATER && isMoving(stream))) return true;
  stream.wantsDrain = true;
  return false;
}

/** Writes as much as windows and the socket allow. Returns the position after it. */
function writeData(stream: StreamState, bytes: Buffer, start: number, end: number, last: boolean): number {
  const { connection } = stream;
  const { out } = connection;
  let pos = start;
  while (pos < end) {
    if (out.length >= WRITE_BYTES) flush(connection);
    if (out.length >= WRITE_BYTES) return pos;
    const room = Math.min(sendable(stream), MAX_FRAME_BYTES);
    if (room <= 0) return pos;
    const size = Math.min(room, end - pos);
    const ends = last && pos + size === end;
    writeDataFrame(stream, bytes, pos, size, ends);
    pos += size;
    if (ends) {
      endLocal(stream);
      return pos;
    }
  }
  if (last && start === end) {
    writeDataFrame(stream, bytes, pos, 0, true);
    endLocal(stream);
  }
  return pos;
}

function writeDataFrame(stream: StreamState, bytes: Buffer, pos: number, size: number, ends: boolean): void {
  const { connection } = stream;
  const { out } = connection;
  reserve(out, FRAME_HEADER_BYTES + size);
  putFrameHeader(out.bytes, out.length, size, frameType.data, ends ? flag.endStream : 0, stream.id);
  out.length += FRAME_HEADER_BYTES;
  if (size > 0) out.length += bytes.copy(out.bytes, out.length, pos, pos + size);
  stream.sendWindow -= size;
  connection.sendWindow -= size;
  schedule(connection);
}

/** What the peer's windows would take beside what is queued; 0 while much is queued for other streams. */
export function roomOf(stream: StreamState): number {
  const { connection, queued } = stream;
  if (connection.held - queued >= HIGH_WATER_IN_ALL) return 0;
  return sendable(stream) - queued;
}

/** Whether what the stream has queued is on its way, and not kept by a peer that takes nothing. */
function isMoving(stream: StreamState): boolean {
  return sendable(stream) > 0 && stream.connection.held < HIGH_WATER_IN_ALL;
}

// --- Turns ---

/** Copies the bytes. */
function enqueue(stream: StreamState, bytes: Buffer, start: number, end: number): void {
  stream.queue ??= createByteQueue();
  stream.queue.append(bytes, start, end);
  stream.queued += end - start;
  hold(stream.connection, end - start);
  waitForTurn(stream);
}

export function waitForTurn(stream: StreamState): void {
  if (stream.waiting) return;
  stream.waiting = true;
  stream.connection.waiting.push(stream);
}

/** What is queued goes out, in turns of one frame, as far as windows and the socket allow. */
export function pump(connection: Http2ConnectionState): void {
  const { waiting, out } = connection;
  if (waiting.length === 0) return;
  for (let moved = true; moved && waiting.length > 0; ) {
    moved = false;
    let kept = 0;
    for (let i = 0; i < waiting.length; i++) {
      const stream = waiting[i]!;
      if (connection.closed) return;
      if (out.length >= WRITE_BYTES) flush(connection);
      if (out.length < WRITE_BYTES && !stream.closed && writeQueued(stream)) moved = true;
      if (!stream.closed && hasMore(stream)) waiting[kept++] = stream;
      else stream.waiting = false;
    }
    waiting.length = kept;
  }
}

function hasMore(stream: StreamState): boolean {
  return stream.queue !== undefined || stream.wantsDrain || (stream.ending && !stream.localEnded);
}

/** One frame of what the stream has queued, or its end. Returns whether there was anything that could go. */
function writeQueued(stream: StreamState): boolean {
  const { queue, connection } = stream;
  if (queue === undefined) {
    const drained = stream.wantsDrain;
    stream.wantsDrain = false;
    writeEnd(stream);
    if (drained && !stream.closed) stream.user.streamDrained();
    return true;
  }
  const size = Math.min(sendable(stream), MAX_FRAME_BYTES, queue.headLength);
  if (size <= 0) return false;
  const ends = size === queue.length && stream.ending && stream.trailers === undefined;
  writeDataFrame(stream, queue.head, queue.headStart, size, ends);
  queue.drop(size);
  if (queue.length === 0) stream.queue = undefined;
  stream.queued -= size;
  letGo(connection, size);
  if (ends) endLocal(stream);
  // Not before all of it has gone: what comes next may be a whole read of an upstream.
  else if (stream.wantsDrain && stream.queued === 0) {
    stream.wantsDrain = false;
    stream.user.streamDrained();
  }
  return true;
}

/** The socket has taken what was in flight. */
export function continueSending(connection: Http2ConnectionState, error: Error | null | undefined): void {
  const { inFlight, out } = connection;
  connection.inFlight = undefined;
  if (error) return;
  giveBack(inFlight!);
  if (!connection.closed) pump(connection);
  if (out.length > 0) flush(connection);
  else if (connection.finished) endSocket(connection);
}

// --- The end of our side ---

/** Nothing is queued any more: the end itself, with the trailers if there are any. */
export function writeEnd(stream: StreamState): void {
  const { connection, trailers } = stream;
  if (trailers === undefined) {
    if (stream.ending && !stream.localEnded) writeData(stream, NO_BYTES, 0, 0, true);
    return;
  }
  stream.trailers = undefined;
  beginHead(connection);
  for (const { name, value, neverIndexed } of trailers) {
    writeField(connection.encoder, connection.out, name, value, neverIndexed);
  }
  endHead(stream, true);
}

function endLocal(stream: StreamState): void {
  stream.localEnded = true;
  if (stream.closed) return;
  if (stream.remoteEnded) closeStream(stream, 'complete', errorCode.noError);
  else if (stream.refusesRest) letFinish(stream);
}

/** A reset right behind the end of a reply is an error to many clients, who would never see the reply. */
export function letFinish(stream: StreamState): void {
  stream.user = new LingeringStream(stream.user, stream.connection.deadlines, () =>
    resetStream(stream, errorCode.noError, 'complete'),
  );
}
