// The frames of HTTP/2 (RFC 9113 §4 and §6): their numbers, and how they are written.

import { type Outbox, reserve } from '../socket/outbox.ts';

export const frameType = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const flag = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

/** RFC 9113 §7. */
export const errorCode = {
  noError: 0,
  protocolError: 1,
  internalError: 2,
  flowControlError: 3,
  streamClosed: 5,
  frameSizeError: 6,
  refusedStream: 7,
  cancel: 8,
  compressionError: 9,
  enhanceYourCalm: 11,
} as const;

/** RFC 9113 §6.5.2 and RFC 8441 §3. */
export const setting = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
  enableConnectProtocol: 8,
} as const;

/** RFC 9113 §3.4: what a client says first. */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
export const FRAME_HEADER_BYTES = 9;
/** The largest payload until SETTINGS allow more; here they never do. */
export const MAX_FRAME_BYTES = 16_384;
/** A window until SETTINGS say otherwise; SETTINGS do not change the window of a connection (RFC 9113 §6.9.2). */
export const DEFAULT_WINDOW = 65_535;
export const LARGEST_WINDOW = 2 ** 31 - 1;
export const LARGEST_STREAM_ID = 2 ** 31 - 1;

/** Writes a frame header over `bytes[at, at + 9)`. */
export function putFrameHeader(
  bytes: Buffer,
  at: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  bytes[at] = length >>> 16;
  bytes[at + 1] = length >>> 8;
  bytes[at + 2] = length;
  bytes[at + 3] = type;
  bytes[at + 4] = flags;
  putUint32(bytes, at + 5, streamId);
}

/** Appends a frame with a payload of 32-bit numbers: RST_STREAM, WINDOW_UPDATE, GOAWAY. */
export function writeNumbers(
  out: Outbox,
  type: number,
  flags: number,
  streamId: number,
  ...numbers: number[]
): void {
  const length = numbers.length * 4;
  reserve(out, FRAME_HEADER_BYTES + length);
  putFrameHeader(out.bytes, out.length, length, type, flags, streamId);
  out.length += FRAME_HEADER_BYTES;
  for (const number of numbers) {
    putUint32(out.bytes, out.length, number);
    out.length += 4;
  }
}

export function writeSettings(
  out: Outbox,
  settings: readonly (readonly [id: number, value: number])[],
): void {
  const length = settings.length * 6;
  reserve(out, FRAME_HEADER_BYTES + length);
  putFrameHeader(out.bytes, out.length, length, frameType.settings, 0, 0);
  out.length += FRAME_HEADER_BYTES;
  for (const [id, value] of settings) {
    out.bytes[out.length] = id >>> 8;
    out.bytes[out.length + 1] = id;
    putUint32(out.bytes, out.length + 2, value);
    out.length += 6;
  }
}

export function readUint32(bytes: Buffer, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

function putUint32(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}
