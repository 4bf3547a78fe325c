// The state of reading one message body.

import type { FaultCode } from '../faults.ts';
import type { Pieces } from '../socket/pieces.ts';
import { type MessageHead, NOT_REFUSED, REFUSED, type Refusal } from './message.ts';

export type BodyKind = 'none' | 'length' | 'chunked' | 'until-close';

/**
 * Where one body is being read. Made once per direction, begun anew for each message by beginBody(). After each
 * readBody() it says what lay in the bytes that were taken.
 */
export interface BodyReader {
  kind: BodyKind;
  /** The end was reached; for 'until-close' only the close of the connection can say so. */
  done: boolean;
  /** Content in the bytes of the last call: `[dataStart, dataEnd)`, perhaps empty. */
  dataStart: number;
  dataEnd: number;
  /** Framing in the bytes of the last call that is not to be passed on: chunk extensions and the trailer section. */
  cutStart: number;
  cutEnd: number;
  /** Content bytes so far. */
  received: number;
  /** Set when REFUSED was returned. */
  refusal: Refusal;
  /** The trailer fields, once done, if there were any; a head without a start line. */
  trailers: MessageHead | undefined;
  /** Of a reply: blanks after a chunk's size, and whatever an extension is made of, are cut out instead of refused. */
  lenient: boolean;
  /** Content bytes still to come: of the body or of the chunk. */
  remaining: number;
  state: number;
  digits: number;
  extensionBytes: number;
  /** The trailer section so far. */
  trailerBytes: Pieces | undefined;
}

export function createBodyReader(): BodyReader {
  return {
    kind: 'none',
    done: true,
    dataStart: 0,
    dataEnd: 0,
    cutStart: 0,
    cutEnd: 0,
    received: 0,
    refusal: NOT_REFUSED,
    trailers: undefined,
    lenient: false,
    remaining: 0,
    state: 0,
    digits: 0,
    extensionBytes: 0,
    trailerBytes: undefined,
  };
}

/** `length` counts for kind 'length' alone. */
export function beginBody(body: BodyReader, kind: BodyKind, length = 0): void {
  body.kind = kind;
  body.remaining = kind === 'length' ? length : 0;
  body.done = kind === 'none' || (kind === 'length' && length === 0);
  body.received = 0;
  body.state = SIZE_FIRST;
  body.digits = 0;
  body.extensionBytes = 0;
  body.trailerBytes = undefined;
  body.trailers = undefined;
  body.lenient = false;
}

/** RFC 9112 §6.3, requests: without a length there is no body. */
export function beginRequestBody(body: BodyReader, head: MessageHead): void {
  if (head.chunked) beginBody(body, 'chunked');
  else if (head.contentLength > 0) beginBody(body, 'length', head.contentLength);
  else beginBody(body, 'none');
}

/** RFC 9112 §6.3, replies: HEAD, 1xx, 204 and 304 have none; without a length it lasts until the close. */
export function beginReplyBody(body: BodyReader, head: MessageHead, method: string): void {
  const { status } = head;
  if (method === 'HEAD' || status < 200 || status === 204 || status === 304) beginBody(body, 'none');
  else if (head.chunked) beginBody(body, 'chunked');
  else if (head.contentLength >= 0) beginBody(body, 'length', head.contentLength);
  else beginBody(body, 'until-close');
  body.lenient = true;
}

export function takeContent(body: BodyReader, pos: number, end: number): number {
  body.dataStart = pos;
  body.dataEnd = end;
  body.received += end - pos;
  return end;
}

export function refuseBody(
  body: BodyReader,
  reason: string,
  code: FaultCode = 'bad-request',
): typeof REFUSED {
  body.refusal = { code, reason };
  return REFUSED;
}

/** Where a chunked body is being read. */
export const SIZE_FIRST = 0;
export const SIZE = 1;
export const SIZE_LF = 2;
export const DATA = 3;
export const DATA_CR = 4;
export const DATA_LF = 5;
export const TRAILER_FIRST = 6;
export const TRAILER_END_LF = 7;
export const END = 8;
/** This state and all after it lie in what is cut out: the trailer section, or what stands behind a chunk's size. */
export const TRAILER = 9;
export const EXT_NAME_FIRST = 10;
export const EXT_NAME = 11;
export const EXT_VALUE_FIRST = 12;
export const EXT_VALUE = 13;
export const EXT_QUOTED = 14;
export const EXT_ESCAPED = 15;
export const EXT_QUOTED_END = 16;
/** Of replies alone: blanks after the size, and anything behind a semicolon. */
export const SIZE_BLANK = 17;
export const EXT_ANY = 18;
