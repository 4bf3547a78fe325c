// WINDOW_UPDATE, PING, GOAWAY and PRIORITY that arrive (RFC 9113 §6).

import { countExcess, strike } from './abuse.ts';
import { closeStream, end as endConnection, fail, finishIfIdle } from './closing.ts';
import {
  errorCode,
  FRAME_HEADER_BYTES,
  flag,
  frameType,
  LARGEST_STREAM_ID,
  LARGEST_WINDOW,
  readUint32,
  writeNumbers,
} from './frames.ts';
import { noteRoundTrip, ticksOf } from './growth.ts';
import { schedule } from './output.ts';
import { isIdle, resetStream } from './resets.ts';
import { noteWindow } from './shares.ts';
import type { Http2ConnectionState } from './state.ts';

export function receiveWindowUpdate(
  connection: Http2ConnectionState,
  id: number,
  bytes: Buffer,
  start: number,
  end: number,
) {
  if (end - start !== 4) return fail(connection, errorCode.frameSizeError, 'WINDOW_UPDATE of the wrong size');
  const increment = readUint32(bytes, start) & LARGEST_WINDOW;
  countExcess(connection, FRAME_HEADER_BYTES + 4 - 2 * increment);
  if (id === 0) return openConnectionWindow(connection, increment);
  const stream = connection.streams.get(id);
  if (stream === undefined) {
    if (isIdle(connection, id)) fail(connection, errorCode.protocolError, 'WINDOW_UPDATE of an idle stream');
    return;
  }
  if (increment === 0) return resetStream(stream, errorCode.protocolError, 'malformed');
  stream.sendWindow += increment;
  if (stream.sendWindow > LARGEST_WINDOW) return resetStream(stream, errorCode.flowControlError, 'malformed');
  if (stream.waiting) connection.opened = true;
}

function openConnectionWindow(connection: Http2ConnectionState, increment: number) {
  if (increment === 0) return fail(connection, errorCode.protocolError, 'WINDOW_UPDATE of nothing');
  connection.sendWindow += increment;
  if (connection.sendWindow > LARGEST_WINDOW) {
    return fail(connection, errorCode.flowControlError, 'a window too large');
  }
  noteWindow(connection);
  connection.opened = true;
}

export function ping(connection: Http2ConnectionState, answered: () => void): void {
  connection.pinged = answered;
  connection.pingSentAt = ticksOf(connection);
  writeNumbers(connection.out, frameType.ping, 0, 0, 0, 0);
  schedule(connection);
}

export function receivePing(
  connection: Http2ConnectionState,
  id: number,
  flags: number,
  bytes: Buffer,
  start: number,
  end: number,
) {
  if (id !== 0) return fail(connection, errorCode.protocolError, 'PING with a stream');
  if (end - start !== 8) return fail(connection, errorCode.frameSizeError, 'PING of the wrong size');
  if ((flags & flag.ack) !== 0) {
    const { pinged } = connection;
    connection.pinged = undefined;
    if (pinged === undefined) return countExcess(connection, FRAME_HEADER_BYTES + 8);
    noteRoundTrip(connection, connection.pingSentAt);
    return pinged();
  }
  const [first, second] = [readUint32(bytes, start), readUint32(bytes, start + 4)];
  writeNumbers(connection.out, frameType.ping, flag.ack, 0, first, second);
  schedule(connection);
  strike(connection);
}

export function receiveGoaway(
  connection: Http2ConnectionState,
  id: number,
  bytes: Buffer,
  start: number,
  end: number,
) {
  if (id !== 0) return fail(connection, errorCode.protocolError, 'GOAWAY with a stream');
  if (end - start < 8) return fail(connection, errorCode.frameSizeError, 'GOAWAY of the wrong size');
  connection.leaving = true;
  connection.blame = readUint32(bytes, start + 4);
  strike(connection);
  if (connection.closed) return;
  connection.user.goingAway?.();
  if (connection.isServer) return endConnection(connection);
  const last = readUint32(bytes, start) & LARGEST_STREAM_ID;
  for (const stream of connection.streams.list()) {
    if (stream.id > last) closeStream(stream, 'refused', errorCode.refusedStream);
  }
  finishIfIdle(connection);
}

/** RFC 9113 §5.3.2: priorities are not used any more. */
export function receivePriority(connection: Http2ConnectionState, id: number, start: number, end: number) {
  if (id === 0) return fail(connection, errorCode.protocolError, 'PRIORITY without a stream');
  if (end - start !== 5) return fail(connection, errorCode.frameSizeError, 'PRIORITY of the wrong size');
  countExcess(connection, FRAME_HEADER_BYTES + 5);
}
