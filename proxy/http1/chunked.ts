// Reads a chunked body (RFC 9112 §7.1).

import {
  type BodyReader,
  DATA,
  DATA_CR,
  DATA_LF,
  END,
  EXT_ANY,
  EXT_NAME_FIRST,
  refuseBody,
  SIZE,
  SIZE_BLANK,
  SIZE_FIRST,
  SIZE_LF,
  TRAILER,
  TRAILER_END_LF,
  TRAILER_FIRST,
  takeContent,
} from './body-reader.ts';
import { CR, HTAB, LF, SEMICOLON, SP, TOKEN } from './characters.ts';
import { readExtensions } from './chunk-extensions.ts';
import { type HeadLimits, REFUSED } from './message.ts';
import { readTrailers } from './trailers.ts';

/** 2^48 bytes in one chunk are enough. */
const LONGEST_SIZE = 12;

const HEX = new Int8Array(256).fill(-1);
for (let i = 0; i < 16; i++) {
  HEX[i.toString(16).charCodeAt(0)] = i;
  HEX[i.toString(16).toUpperCase().charCodeAt(0)] = i;
}

/**
 * Takes one run, as readBody() does. RFC 9112 §7.1 tolerates blanks around a chunk's size; parsers disagree on them, so a
 * request with such blanks is refused.
 */
export function readChunked(
  body: BodyReader,
  bytes: Buffer,
  start: number,
  end: number,
  limits: HeadLimits,
): number {
  for (let pos = start; pos < end; pos++) {
    const before = body.state;
    if (before === DATA) return readChunkData(body, pos, end);
    if (before >= TRAILER) return readCutOut(body, bytes, pos, pos, end, limits);
    const state = afterFramingByte(body, before, bytes[pos]!);
    if (state === REFUSED) return REFUSED;
    body.state = state;
    if (state < END) continue;
    if (state === END) {
      body.done = true;
      return pos + 1;
    }
    // This byte begins the first trailer line, or is the semicolon or the blank in front of what is cut out.
    return readCutOut(body, bytes, pos, state === TRAILER ? pos : pos + 1, end, limits);
  }
  return end;
}

/** What is not passed on, from `cut` on; `start` is the first byte of it that has not been looked at. */
function readCutOut(
  body: BodyReader,
  bytes: Buffer,
  cut: number,
  start: number,
  end: number,
  limits: HeadLimits,
): number {
  if (body.state === TRAILER) return readTrailers(body, bytes, start, end, limits);
  return readExtensions(body, bytes, cut, start, end);
}

function readChunkData(body: BodyReader, pos: number, end: number): number {
  const next = takeContent(body, pos, Math.min(end, pos + body.remaining));
  body.remaining -= next - pos;
  if (body.remaining === 0) body.state = DATA_CR;
  return next;
}

/** The state after one byte of framing; REFUSED: the byte may not be there. */
function afterFramingByte(body: BodyReader, state: number, byte: number): number {
  switch (state) {
    case SIZE_FIRST:
    case SIZE:
      return afterSizeByte(body, state, byte);
    case SIZE_LF:
      if (byte !== LF) return refuseBody(body, 'a chunk size line without LF');
      body.digits = 0;
      return body.remaining === 0 ? TRAILER_FIRST : DATA;
    case DATA_CR:
      return byte === CR ? DATA_LF : refuseBody(body, 'a chunk longer than its size');
    case DATA_LF:
      return byte === LF ? SIZE_FIRST : refuseBody(body, 'a chunk without LF');
    case TRAILER_FIRST:
      if (byte === CR) return TRAILER_END_LF;
      return TOKEN[byte] === 0 ? refuseBody(body, 'a malformed trailer section') : TRAILER;
    default:
      return byte === LF ? END : refuseBody(body, 'a trailer section without LF');
  }
}

function afterSizeByte(body: BodyReader, state: number, byte: number): number {
  const digit = HEX[byte]!;
  if (digit >= 0) {
    if (++body.digits > LONGEST_SIZE) return refuseBody(body, 'a chunk size that is too long');
    body.remaining = body.remaining * 16 + digit;
    return SIZE;
  }
  if (state === SIZE_FIRST) return refuseBody(body, 'a malformed chunk size');
  if (byte === CR) return SIZE_LF;
  if (byte === SEMICOLON) return body.lenient ? EXT_ANY : EXT_NAME_FIRST;
  if (body.lenient && (byte === SP || byte === HTAB)) return SIZE_BLANK;
  return refuseBody(body, 'a malformed chunk size');
}
