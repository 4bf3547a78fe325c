// SETTINGS, ours and the peer's (RFC 9113 §6.5).

import { reserve } from '../socket/outbox.ts';
import { countExcess, strike } from './abuse.ts';
import { fail } from './closing.ts';
import {
  DEFAULT_WINDOW,
  errorCode,
  FRAME_HEADER_BYTES,
  flag,
  frameType,
  LARGEST_WINDOW,
  MAX_FRAME_BYTES,
  PREFACE,
  putFrameHeader,
  readUint32,
  setting,
  writeNumbers,
  writeSettings,
} from './frames.ts';
import { noteRoundTrip, ticksOf } from './growth.ts';
import { limitTable } from './hpack.ts';
import { schedule } from './output.ts';
import type { Http2ConnectionState } from './state.ts';

/** The first bytes of a connection (RFC 9113 §3.4): the preface, our SETTINGS, the window of the connection. */
export function greet(connection: Http2ConnectionState): void {
  const { out } = connection;
  if (!connection.isServer) {
    reserve(out, PREFACE.length);
    out.length += PREFACE.copy(out.bytes, out.length);
  }
  const common = [
    [setting.initialWindowSize, connection.streamWindow],
    [setting.maxHeaderListSize, connection.fieldLimits.bytes],
  ] as const;
  const own = connection.isServer
    ? ([
        [setting.maxConcurrentStreams, connection.maxConcurrentStreams],
        [setting.enableConnectProtocol, 1],
      ] as const)
    : ([[setting.enablePush, 0]] as const);
  writeSettings(out, [...common, ...own]);
  connection.settingsSentAt = ticksOf(connection);
  writeNumbers(out, frameType.windowUpdate, 0, 0, connection.connectionWindow - DEFAULT_WINDOW);
  schedule(connection);
}

export function receiveSettings(
  connection: Http2ConnectionState,
  id: number,
  flags: number,
  bytes: Buffer,
  start: number,
  end: number,
) {
  const size = end - start;
  if (id !== 0) return fail(connection, errorCode.protocolError, 'SETTINGS with a stream');
  if ((flags & flag.ack) !== 0) return receiveAcknowledgement(connection, size);
  if (size % 6 !== 0) return fail(connection, errorCode.frameSizeError, 'SETTINGS of the wrong size');
  // RFC 9113 §6.5.2: a peer that names no limit has none.
  if (!connection.greeted) connection.peerMaxStreams = Number.POSITIVE_INFINITY;
  let window = connection.peerWindow;
  for (let at = start; at < end; at += 6) {
    const name = (bytes[at]! << 8) | bytes[at + 1]!;
    const value = readUint32(bytes, at + 2);
    const refusal = applySetting(connection, name, value);
    if (refusal !== errorCode.noError) return fail(connection, refusal, `setting ${name} cannot be ${value}`);
    if (name === setting.initialWindowSize) window = value;
  }
  if (!moveWindows(connection, window)) {
    return fail(connection, errorCode.flowControlError, 'a window too large');
  }
  acknowledge(connection);
  if (!connection.greeted) {
    connection.greeted = true;
    connection.user.greeted?.();
  }
  strike(connection);
  connection.opened = true;
}

function receiveAcknowledgement(connection: Http2ConnectionState, size: number) {
  if (size !== 0) return fail(connection, errorCode.frameSizeError, 'an acknowledgement with settings in it');
  if (!connection.greeted) return fail(connection, errorCode.protocolError, 'no SETTINGS at the beginning');
  if (connection.roundTrip === 0) noteRoundTrip(connection, connection.settingsSentAt);
  countExcess(connection, FRAME_HEADER_BYTES);
}

function acknowledge(connection: Http2ConnectionState): void {
  const { out } = connection;
  reserve(out, FRAME_HEADER_BYTES);
  putFrameHeader(out.bytes, out.length, 0, frameType.settings, flag.ack, 0);
  out.length += FRAME_HEADER_BYTES;
  schedule(connection);
}

/** RFC 9113 §6.9.2. The last of several in a frame counts: no stream can have seen the others. */
function moveWindows(connection: Http2ConnectionState, size: number): boolean {
  const difference = size - connection.peerWindow;
  connection.peerWindow = size;
  if (difference === 0) return true;
  for (const stream of connection.streams.list()) {
    stream.sendWindow += difference;
    if (stream.sendWindow > LARGEST_WINDOW) return false;
  }
  return true;
}

/** Returns the error that the setting is; RFC 9113 §6.5.2. */
function applySetting(connection: Http2ConnectionState, name: number, value: number): number {
  switch (name) {
    case setting.headerTableSize:
      limitTable(connection.encoder, value);
      break;
    case setting.enablePush:
      // Only clients have a use for it; a server may only say 0.
      if (value > (connection.isServer ? 1 : 0)) return errorCode.protocolError;
      break;
    case setting.maxConcurrentStreams:
      connection.peerMaxStreams = value;
      break;
    case setting.initialWindowSize:
      if (value > LARGEST_WINDOW) return errorCode.flowControlError;
      break;
    case setting.maxHeaderListSize:
      connection.peerMaxHeadBytes = value;
      break;
    case setting.maxFrameSize:
      if (value < MAX_FRAME_BYTES || value >= 2 ** 24) return errorCode.protocolError;
      break;
    case setting.enableConnectProtocol:
      if (value > 1) return errorCode.protocolError;
  }
  return errorCode.noError;
}
