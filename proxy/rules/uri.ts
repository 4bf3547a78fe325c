// A request's path as rules see it: decoded once, slashes merged, dot segments resolved; and how it is escaped again.

import { percent } from './bytes.ts';

export interface DecodedPath {
  /** Decoded bytes, no query. */
  readonly uri: string;
  /** The path held an escape: it is escaped again on the way out (RFC 3986 §2.1). */
  readonly quoted: boolean;
  /** The path held a `+`. */
  readonly plus: boolean;
}

const SLASH = 47;
const DOT = 46;
const PERCENT = 37;

/** `path` of a target in origin form, without its query. Undefined: a bad escape, NUL, or a way out above the root. */
export function decodePath(path: string, mergeSlashes: boolean): DecodedPath | undefined {
  const plus = path.includes('+');
  if (isPlain(path)) return { uri: path, quoted: false, plus };
  const written = new Segments(path.length);
  let at = 0;
  while (at < path.length) {
    let byte = path.charCodeAt(at++);
    let literal = false;
    if (byte === PERCENT) {
      byte = escapeAt(path, at);
      if (byte <= 0) return undefined;
      at += 2;
      // Decoded, these three are nothing but themselves.
      literal = byte === PERCENT || byte === 35 || byte === 63;
    }
    if (byte !== SLASH) written.add(byte, literal);
    else if (!written.slash(mergeSlashes)) return undefined;
  }
  if (!written.close()) return undefined;
  const uri = written.text();
  return { uri, quoted: path.includes('%'), plus: plus || uri.includes('+') };
}

/** Nothing to decode, merge or resolve. */
function isPlain(path: string): boolean {
  let last = 0;
  for (let i = 0; i < path.length; i++) {
    const byte = path.charCodeAt(i);
    if (byte === PERCENT || (last === SLASH && (byte === SLASH || byte === DOT))) return false;
    last = byte;
  }
  return true;
}

/** The byte whose two digits begin at `at`; -1: they are no digits. */
function escapeAt(path: string, at: number): number {
  const high = digit(path.charCodeAt(at));
  const low = digit(path.charCodeAt(at + 1));
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

function digit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  const lower = code | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

/** What is written so far; dot segments are resolved where they end (RFC 3986 §5.2.4). */
class Segments {
  readonly #bytes: Buffer;
  #length = 0;
  /** Where the segment under way begins. */
  #start = 0;
  /** Of which the segment consists so far; -1: of other things as well. */
  #dots = -1;

  constructor(most: number) {
    this.#bytes = Buffer.allocUnsafe(most);
  }

  add(byte: number, literal: boolean): void {
    this.#dots = byte === DOT && !literal && this.#dots >= 0 && this.#dots < 2 ? this.#dots + 1 : -1;
    this.#bytes[this.#length++] = byte;
  }

  /** False: above the root. */
  slash(merge: boolean): boolean {
    const dotted = this.#dots > 0;
    if (!this.close()) return false;
    const empty = this.#length > 0 && this.#bytes[this.#length - 1] === SLASH;
    if (!dotted && (!empty || !merge)) this.#bytes[this.#length++] = SLASH;
    this.#start = this.#length;
    this.#dots = 0;
    return true;
  }

  /** The end of a segment. False: above the root. */
  close(): boolean {
    if (this.#dots === 1) this.#length = this.#start;
    if (this.#dots !== 2) return true;
    if (this.#start < 2) return false;
    const parent = this.#bytes.lastIndexOf(SLASH, this.#start - 2);
    this.#length = parent + 1;
    return parent >= 0;
  }

  text(): string {
    return this.#bytes.toString('latin1', 0, this.#length);
  }
}

/** Which bytes an escape is made of, one table a purpose. */
function table(characters: string): Uint8Array {
  const escaped = new Uint8Array(256).fill(1, 0, 33).fill(1, 127);
  for (const character of characters) escaped[character.charCodeAt(0)] = 1;
  return escaped;
}

const inPath = table('"#%<>?\\^`{|}');
const inArgument = table('#%&+;?');

/** A decoded path as it goes into a request line. */
export function escapePath(uri: string): string {
  return escapeBy(inPath, uri);
}

/** A decoded text as part of a query. */
export function escapeArgument(text: string): string {
  return escapeBy(inArgument, text);
}

function escapeBy(escaped: Uint8Array, text: string): string {
  let out = '';
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const byte = text.charCodeAt(i);
    if (escaped[byte] === 0) continue;
    out += text.slice(start, i) + percent[byte & 255];
    start = i + 1;
  }
  return start === 0 ? text : out + text.slice(start);
}

/** Whether a text can be a request target or a redirect's: no space, no control (RFC 9112 §3.2). */
export function isSendable(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const byte = text.charCodeAt(i);
    if (byte <= 32 || byte === 127) return false;
  }
  return true;
}

/** `/path?query` of our own -> its parts. */
export function splitQuery(text: string): { readonly uri: string; readonly args: string } {
  const question = text.indexOf('?');
  return question < 0
    ? { uri: text, args: '' }
    : { uri: text.slice(0, question), args: text.slice(question + 1) };
}
