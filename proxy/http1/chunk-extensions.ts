// Chunk extensions (RFC 9112 §7.1.1): checked, and cut out of what is passed on.

import {
  type BodyReader,
  EXT_ANY,
  EXT_ESCAPED,
  EXT_NAME,
  EXT_NAME_FIRST,
  EXT_QUOTED,
  EXT_QUOTED_END,
  EXT_VALUE,
  EXT_VALUE_FIRST,
  refuseBody,
  SIZE_BLANK,
  SIZE_LF,
} from './body-reader.ts';
import { CR, HTAB, SEMICOLON, SP, TOKEN, VALUE } from './characters.ts';
import { REFUSED } from './message.ts';

const EQUALS = 61;
const QUOTE = 34;
const BACKSLASH = 92;

/** In one body. Nobody reads extensions, so long ones can only be meant to keep us busy. */
const MAX_EXTENSION_BYTES = 16_384;

/** RFC 9112 §7.1.1: a recipient ignores extensions that it does not know. Those in `bytes[cut, end)` are cut out. */
export function readExtensions(
  body: BodyReader,
  bytes: Buffer,
  cut: number,
  start: number,
  end: number,
): number {
  let pos = start;
  body.cutStart = cut;
  for (; pos < end; pos++) {
    const next = afterExtensionByte(body.state, bytes[pos]!);
    if (next === REFUSED) return refuseBody(body, 'a malformed chunk extension');
    if (next === SIZE_LF) {
      // The CR is framing again, and passed on.
      body.state = SIZE_LF;
      body.cutEnd = pos;
      return pos + 1;
    }
    body.state = next;
    if (++body.extensionBytes > MAX_EXTENSION_BYTES) return refuseBody(body, 'too many chunk extensions');
  }
  body.cutEnd = pos;
  return pos;
}

function afterExtensionByte(state: number, byte: number): number {
  switch (state) {
    case EXT_NAME_FIRST:
      return TOKEN[byte] !== 0 ? EXT_NAME : REFUSED;
    case EXT_NAME:
      if (byte === EQUALS) return EXT_VALUE_FIRST;
      return TOKEN[byte] !== 0 ? EXT_NAME : afterExtension(byte);
    case EXT_VALUE_FIRST:
      if (byte === QUOTE) return EXT_QUOTED;
      return TOKEN[byte] !== 0 ? EXT_VALUE : REFUSED;
    case EXT_VALUE:
      return TOKEN[byte] !== 0 ? EXT_VALUE : afterExtension(byte);
    case EXT_QUOTED:
      return afterQuotedByte(byte);
    case EXT_ESCAPED:
      return VALUE[byte] === 1 ? EXT_QUOTED : REFUSED;
    case EXT_QUOTED_END:
      return afterExtension(byte);
    default:
      return afterLenientByte(state, byte);
  }
}

/** RFC 9110 §5.6.4. */
function afterQuotedByte(byte: number): number {
  if (byte === QUOTE) return EXT_QUOTED_END;
  if (byte === BACKSLASH) return EXT_ESCAPED;
  return VALUE[byte] === 1 ? EXT_QUOTED : REFUSED;
}

/** Of replies: blanks after a chunk's size, and anything behind a semicolon. */
function afterLenientByte(state: number, byte: number): number {
  if (byte === CR) return SIZE_LF;
  if (state === EXT_ANY) return VALUE[byte] === 1 ? EXT_ANY : REFUSED;
  if (byte === SP || byte === HTAB) return SIZE_BLANK;
  return byte === SEMICOLON ? EXT_ANY : REFUSED;
}

function afterExtension(byte: number): number {
  if (byte === CR) return SIZE_LF;
  return byte === SEMICOLON ? EXT_NAME_FIRST : REFUSED;
}
