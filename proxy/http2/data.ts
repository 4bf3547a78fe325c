// DATA frames that arrive (RFC 9113 §6.1): checked against windows and announced lengths, small ones gathered, handed over.

import { countExcess, strike } from './abuse.ts';
import { closeStream, fail } from './closing.ts';
import { refund, take } from './credit.ts';
import { errorCode, FRAME_HEADER_BYTES, flag } from './frames.ts';
import { hold } from './held.ts';
import { isIdle, mayLagBehind, resetStream } from './resets.ts';
import type { Http2ConnectionState, StreamState } from './state.ts';

/** DATA frames up to this are put together with their neighbours before they go on. */
const SMALL_PIECE = 2 * 1024;

/** Reads a frame's header. `padding`: -1 if the frame says that it is padded and is empty. */
export function beginData(
  connection: Http2ConnectionState,
  id: number,
  flags: number,
  length: number,
  padding: number,
) {
  if (id === 0) return fail(connection, errorCode.protocolError, 'DATA without a stream');
  const content = (flags & flag.padded) === 0 ? length : length - 1 - padding;
  if (padding < 0 || content < 0) return fail(connection, errorCode.protocolError, 'more padding than frame');
  connection.receiveWindow -= length;
  if (connection.receiveWindow < 0) {
    return fail(connection, errorCode.flowControlError, 'more DATA than the window of the connection');
  }
  const stream = connection.streams.get(id);
  connection.dataStream = undefined;
  connection.dataLeft = content;
  connection.paddingLeft = Math.max(0, padding);
  connection.dataEnds = (flags & flag.endStream) !== 0;
  if (!connection.dataEnds) countExcess(connection, FRAME_HEADER_BYTES + length - 3 * content);
  if (connection.closed) return;
  if (stream === undefined) return beginStrayData(connection, id, length);
  const refusal = countData(stream, length, content);
  if (refusal !== errorCode.noError) {
    resetStream(stream, refusal, 'malformed');
    return refund(connection, length);
  }
  connection.dataStream = stream;
  if (length > content) takePadding(stream, length - content);
  if (content > 0) return;
  if (!connection.dataEnds) strike(connection);
  if (connection.paddingLeft === 0) finishData(connection);
}

/** Of a stream that is not open. */
function beginStrayData(connection: Http2ConnectionState, id: number, length: number) {
  if (isIdle(connection, id)) return fail(connection, errorCode.protocolError, 'DATA of an idle stream');
  if (!mayLagBehind(connection, id))
    return fail(connection, errorCode.streamClosed, 'DATA of a closed stream');
  refund(connection, length);
}

/** Counts what comes; returns the error that it is on its stream. */
function countData(stream: StreamState, length: number, content: number): number {
  if (stream.remoteEnded) return errorCode.streamClosed;
  if (!stream.connection.isServer && !stream.replied) return errorCode.protocolError;
  stream.receiveWindow -= length;
  if (stream.receiveWindow < 0) return errorCode.flowControlError;
  if (stream.expects >= 0 && stream.received + content > stream.expects) return errorCode.protocolError;
  stream.received += content;
  return errorCode.noError;
}

function takePadding(stream: StreamState, size: number): void {
  if (!stream.connection.isServer) refund(stream.connection, size);
  take(stream, size);
}

/** Reads what there is of the frame's content and padding. Returns the position after it. */
export function readData(connection: Http2ConnectionState, bytes: Buffer, pos: number, end: number): number {
  const stream = connection.dataStream;
  let at = pos;
  if (connection.dataLeft > 0) {
    const size = Math.min(end - at, connection.dataLeft);
    connection.dataLeft -= size;
    if (stream !== undefined) gather(stream, bytes, at, at + size, end);
    at += size;
  }
  const skipped = Math.min(end - at, connection.paddingLeft);
  connection.paddingLeft -= skipped;
  if (connection.dataLeft === 0 && connection.paddingLeft === 0) finishData(connection);
  return at + skipped;
}

/**
 * DATA goes on as it comes if the pieces are large. Small ones are moved together, in the memory that they came in, and
 * go on as one: frames of one octet must not become as many writes on the other side.
 */
function gather(stream: StreamState, bytes: Buffer, start: number, end: number, stop: number) {
  const { connection } = stream;
  const size = end - start;
  if (connection.gatheredFor === undefined) {
    const more = end < stop && size <= SMALL_PIECE && !connection.dataEnds;
    if (!more) return hand(stream, bytes, start, end, isLastPiece(stream));
    connection.gatheredFor = stream;
    connection.gatheredStart = start;
    connection.gatheredEnd = end;
    return;
  }
  if (size > SMALL_PIECE) {
    handOver(connection, bytes);
    return hand(stream, bytes, start, end, false);
  }
  if (size === 1) bytes[connection.gatheredEnd] = bytes[start]!;
  else bytes.copyWithin(connection.gatheredEnd, start, end);
  connection.gatheredEnd += size;
}

/** What was gathered goes to its stream. */
export function handOver(connection: Http2ConnectionState, bytes: Buffer): void {
  const stream = connection.gatheredFor;
  if (stream === undefined) return;
  connection.gatheredFor = undefined;
  hand(stream, bytes, connection.gatheredStart, connection.gatheredEnd, false);
}

function hand(stream: StreamState, bytes: Buffer, start: number, end: number, last: boolean): void {
  const { connection } = stream;
  const size = end - start;
  // A session to an upstream carries streams of many clients: one that is paused must not use up the window of all. What
  // can come of it is bounded by the window of its stream.
  if (!connection.isServer) refund(connection, size);
  if (!stream.closed) stream.user.streamData(bytes, start, end, last);
  if (stream.closed) {
    if (connection.isServer) refund(connection, size);
  } else if (stream.paused) {
    stream.withheld += size;
    hold(connection, size);
  } else take(stream, size);
}

function isLastPiece({ connection, expects, received }: StreamState): boolean {
  if (!connection.dataEnds || connection.dataLeft > 0 || connection.paddingLeft > 0) return false;
  return expects < 0 || received === expects;
}

function finishData(connection: Http2ConnectionState): void {
  const stream = connection.dataStream;
  connection.dataStream = undefined;
  if (connection.dataEnds && stream !== undefined && !stream.closed) endRemote(stream);
}

/** The peer's message is whole, if its length is what it was announced to be. */
export function endRemote(stream: StreamState) {
  if (stream.expects >= 0 && stream.received !== stream.expects) {
    return resetStream(stream, errorCode.protocolError, 'malformed');
  }
  stream.remoteEnded = true;
  stream.user.streamEnded();
  if (stream.localEnded && !stream.closed) closeStream(stream, 'complete', errorCode.noError);
}
