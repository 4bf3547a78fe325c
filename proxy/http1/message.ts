// HTTP/1.1 message heads and framing (RFC 9112): a request that can be read in two ways is refused; replies are put right.

import type { FaultCode } from '../faults.ts';
import { addPiece, beginPieces, gathered, type Pieces } from '../socket/pieces.ts';

/** Why a message is refused: the code for the client, the reason for the log. */
export interface Refusal {
  readonly code: FaultCode;
  readonly reason: string;
}

/** Of a reply, whose size is limited as well; applications send more than browsers do. */
export const MOST_REPLY_LINES = 1_000;

export interface HeadLimits {
  readonly maxHeaderBytes: number;
  readonly maxHeaderCount: number;
}

/** The fields that a relay must know; `other` is every other, `underscored` every name with an underscore. */
export const field = {
  other: 0,
  underscored: 1,
  host: 2,
  contentLength: 3,
  transferEncoding: 4,
  connection: 5,
  keepAlive: 6,
  proxyConnection: 7,
  te: 8,
  trailer: 9,
  upgrade: 10,
  expect: 11,
  forwarded: 12,
  xForwardedFor: 13,
  xForwardedProto: 14,
  xForwardedHost: 15,
  xForwardedPort: 16,
  xRealIp: 17,
  http2Settings: 18,
  proxyAuthenticate: 19,
  proxyAuthorization: 20,
  proxyAuthenticationInfo: 21,
  authorization: 22,
  cookie: 23,
} as const;
export const FIELD_KINDS = 24;

const fieldNames: readonly (readonly [string, number])[] = [
  ['host', field.host],
  ['content-length', field.contentLength],
  ['transfer-encoding', field.transferEncoding],
  ['connection', field.connection],
  ['keep-alive', field.keepAlive],
  ['proxy-connection', field.proxyConnection],
  ['te', field.te],
  ['trailer', field.trailer],
  ['upgrade', field.upgrade],
  ['expect', field.expect],
  ['forwarded', field.forwarded],
  ['x-forwarded-for', field.xForwardedFor],
  ['x-forwarded-proto', field.xForwardedProto],
  ['x-forwarded-host', field.xForwardedHost],
  ['x-forwarded-port', field.xForwardedPort],
  ['x-real-ip', field.xRealIp],
  ['http2-settings', field.http2Settings],
  ['proxy-authenticate', field.proxyAuthenticate],
  ['proxy-authorization', field.proxyAuthorization],
  ['proxy-authentication-info', field.proxyAuthenticationInfo],
  ['authorization', field.authorization],
  ['cookie', field.cookie],
];

const idByName = new Map(fieldNames);
const nameById: string[] = [];
for (const [name, id] of fieldNames) nameById[id] = name;

/** `name` in lower case. */
export function fieldId(name: string): number {
  return name.includes('_') ? field.underscored : (idByName.get(name) ?? field.other);
}

/** One line takes this many numbers of `MessageHead.lines`. */
export const LINE = 5;

/** A parsed head. The object is made once per connection and filled anew by each parse. */
export interface MessageHead {
  /** Latin-1, one character a byte, from the start line to the empty line, both included. */
  text: string;
  /** Offset in `text` of the first header line. */
  fieldsStart: number;
  count: number;
  /** Per header line: start of name, end of name, start of value, end of value (offsets in `text`), field id. */
  lines: Int32Array;
  /** Of HTTP/1.x. */
  minor: 0 | 1;
  /** Of a request; empty in a reply. */
  method: string;
  target: string;
  /** Of a reply; 0 in a request. */
  status: number;
  /** -1: none given. */
  contentLength: number;
  chunked: boolean;
  /** Of a reply: its length was said in a form that is not to be passed on; `contentLength` is what it means. */
  lengthRewritten: boolean;
  /** Of a request: the field's value as sent, and whether there was one, without which only HTTP/1.0 may be. */
  host: string;
  hasHost: boolean;
  /** Connection options (RFC 9110 §7.6.1). */
  close: boolean;
  keepAlive: boolean;
  upgrade: boolean;
  /** Lower-case names that Connection nominates, those that are always dropped left out. */
  nominated: readonly string[];
  /** The value of Upgrade; empty if there is none. */
  upgradeTo: string;
  expectsContinue: boolean;
  /** Why the last parse refused. */
  refusal: Refusal;
}

const NOTHING: readonly string[] = [];
const NOT_REFUSED: Refusal = { code: 'failed', reason: 'not refused' };

export function createMessageHead(): MessageHead {
  return {
    text: '',
    fieldsStart: 0,
    count: 0,
    lines: new Int32Array(24 * LINE),
    minor: 1,
    method: '',
    target: '',
    status: 0,
    contentLength: -1,
    chunked: false,
    lengthRewritten: false,
    host: '',
    hasHost: false,
    close: false,
    keepAlive: false,
    upgrade: false,
    nominated: NOTHING,
    upgradeTo: '',
    expectsContinue: false,
    refusal: NOT_REFUSED,
  };
}

/** More bytes are needed. */
export const INCOMPLETE = 0;
/** The message must not be forwarded; `head.refusal` says why, and the connection is of no further use. */
export const REFUSED = -1;

/**
 * Reads a request head from `bytes[start, end)`. Returns the number of bytes it took, INCOMPLETE, or REFUSED as soon
 * as a byte shows it.
 */
export function parseRequestHead(
  head: MessageHead,
  bytes: Buffer,
  start: number,
  end: number,
  limits: HeadLimits,
): number {
  reset(head);
  let base = start;
  // RFC 9112 §2.2: one empty line before a request line is ignored.
  if (bytes[base] === CR) {
    if (base + 1 >= end) return INCOMPLETE;
    if (bytes[base + 1] !== LF) return refuse(head, 'bad-request', 'a CR without LF');
    base += 2;
  }
  if (base >= end) return INCOMPLETE;
  const last = Math.min(end, base + limits.maxHeaderBytes);
  const fields = readRequestLine(head, bytes, base, last);
  if (fields === REFUSED) return REFUSED;
  if (fields === INCOMPLETE) return incomplete(head, end - base, limits, 'target-too-long');
  const after = readFields(head, bytes, base, fields, last, limits.maxHeaderCount);
  if (after === REFUSED) return REFUSED;
  if (after === INCOMPLETE) return incomplete(head, end - base, limits, 'headers-too-large');
  head.text = bytes.toString('latin1', base, after);
  readStartLineText(head, fields - base);
  return readRequestFields(head) ? after - start : REFUSED;
}

/** Reads a reply head from `bytes[start, end)`; results as parseRequestHead. Every refusal is 'upstream-malformed'. */
export function parseReplyHead(
  head: MessageHead,
  bytes: Buffer,
  start: number,
  end: number,
  limits: HeadLimits,
): number {
  reset(head);
  const last = Math.min(end, start + limits.maxHeaderBytes);
  const fields = readStatusLine(head, bytes, start, last);
  if (fields === REFUSED) return REFUSED;
  if (fields === INCOMPLETE) return incomplete(head, end - start, limits, 'upstream-malformed');
  const after = readFields(head, bytes, start, fields, last, MOST_REPLY_LINES);
  if (after === INCOMPLETE) return incomplete(head, end - start, limits, 'upstream-malformed');
  if (after !== REFUSED) {
    head.text = bytes.toString('latin1', start, after);
    head.fieldsStart = fields - start;
    if (readReplyFields(head)) return after - start;
  }
  return refuse(head, 'upstream-malformed', head.refusal.reason);
}

/** A head's field value by line number. */
export function valueAt(head: MessageHead, line: number): string {
  return head.text.slice(head.lines[line * LINE + 2], head.lines[line * LINE + 3]);
}

/** A head's field name by line number, as sent. */
export function nameAt(head: MessageHead, line: number): string {
  return head.text.slice(head.lines[line * LINE], head.lines[line * LINE + 1]);
}

/** A head's field name by line number, in lower case. */
export function lowerName(head: MessageHead, line: number): string {
  return nameById[head.lines[line * LINE + 4]!] ?? nameAt(head, line).toLowerCase();
}

const CR = 13;
const LF = 10;
const SP = 32;
const HTAB = 9;
const COLON = 58;
const SLASH = 47;

/** RFC 9110 §5.6.2: a token's characters, each with its lower case. 0: not of a token. */
const TOKEN = new Uint8Array(256);
for (const char of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
  TOKEN[char.charCodeAt(0)] = char.toLowerCase().charCodeAt(0);
}

/** RFC 9110 §5.5: VCHAR, SP, HTAB and obs-text may be in a value; NUL, CR, LF and every other control may not. */
const VALUE = new Uint8Array(256).fill(1, SP).fill(0, 127, 128);
VALUE[HTAB] = 1;

/** A request target: visible ASCII without "#", which would begin a fragment (RFC 9112 §3.2). */
const TARGET = new Uint8Array(256).fill(1, SP + 1, 127);
TARGET['#'.charCodeAt(0)] = 0;

const UNDERSCORE = 95;
const LONGEST_METHOD = 32;

/** Names by a hash that the parser computes while it checks them: slot -> id. */
const SLOTS = 2048;
const idBySlot = new Uint8Array(SLOTS);
const bytesById: Uint8Array[] = [];
for (const [name, id] of fieldNames) {
  const bytes = Buffer.from(name);
  let hash = 0;
  for (const byte of bytes) hash = mix(hash, byte);
  if (idBySlot[slotOf(hash)] !== 0) throw new Error(`two known field names share a slot: ${name}`);
  idBySlot[slotOf(hash)] = id;
  bytesById[id] = bytes;
}

function mix(hash: number, byte: number): number {
  return (Math.imul(hash, 31) + byte) | 0;
}

function slotOf(hash: number): number {
  return (hash ^ (hash >>> 15)) & (SLOTS - 1);
}

function reset(head: MessageHead): void {
  head.count = 0;
  head.method = '';
  head.target = '';
  head.status = 0;
  head.contentLength = -1;
  head.chunked = false;
  head.lengthRewritten = false;
  head.host = '';
  head.hasHost = false;
  head.close = false;
  head.keepAlive = false;
  head.upgrade = false;
  head.nominated = NOTHING;
  head.upgradeTo = '';
  head.expectsContinue = false;
}

function refuse(head: MessageHead, code: FaultCode, reason: string): typeof REFUSED {
  head.refusal = { code, reason };
  return REFUSED;
}

function incomplete(head: MessageHead, size: number, limits: HeadLimits, code: FaultCode): number {
  if (size < limits.maxHeaderBytes) return INCOMPLETE;
  return refuse(head, code, `no end within ${limits.maxHeaderBytes} bytes`);
}

/** Returns the position after the line. RFC 9112 §3: method SP request-target SP HTTP-version CRLF, single spaces. */
function readRequestLine(head: MessageHead, bytes: Buffer, start: number, end: number): number {
  let pos = start;
  while (pos < end && TOKEN[bytes[pos]!] !== 0) pos++;
  if (pos - start > LONGEST_METHOD) return refuse(head, 'bad-request', 'the method is too long');
  if (pos >= end) return INCOMPLETE;
  if (bytes[pos] !== SP || pos === start) return refuse(head, 'bad-request', 'no method');
  const target = ++pos;
  while (pos < end && TARGET[bytes[pos]!] !== 0) pos++;
  if (pos >= end) return INCOMPLETE;
  if (bytes[pos] !== SP || pos === target)
    return refuse(head, 'bad-request', 'the request target is malformed');
  const version = ++pos;
  if (end - version < 10) {
    return startsLikeVersion(bytes, version, end)
      ? INCOMPLETE
      : refuse(head, 'bad-request', 'no HTTP version');
  }
  if (!startsLikeVersion(bytes, version, version + 10)) return refuse(head, 'bad-request', 'no HTTP version');
  // RFC 9110 §15.6.6: a major version that is not ours.
  if (bytes[version + 5] !== 49) return refuse(head, 'version-refused', 'not HTTP/1');
  const minor = bytes[version + 7]! - 48;
  if (minor > 1) return refuse(head, 'version-refused', 'not HTTP/1.0 or HTTP/1.1');
  head.minor = minor as 0 | 1;
  head.fieldsStart = target - start;
  return version + 10;
}

/** Whether the bytes begin `HTTP/d.d CR LF`, as far as they go. */
function startsLikeVersion(bytes: Buffer, start: number, end: number): boolean {
  for (let i = 0; start + i < end && i < VERSION_LINE.length; i++) {
    const byte = bytes[start + i]!;
    const wanted = VERSION_LINE.charCodeAt(i);
    if (wanted === 48 ? byte < 48 || byte > 57 : byte !== wanted) return false;
  }
  return true;
}

const VERSION_LINE = 'HTTP/0.0\r\n';

function readStartLineText(head: MessageHead, fieldsStart: number): void {
  const target = head.fieldsStart;
  head.method = head.text.slice(0, target - 1);
  // Before the target's end: a space, the version of 8 characters, and CRLF.
  head.target = head.text.slice(target, fieldsStart - 11);
  head.fieldsStart = fieldsStart;
}

/** RFC 9112 §4; the space before an absent reason may be missing, as many servers send it. */
function readStatusLine(head: MessageHead, bytes: Buffer, start: number, end: number): number {
  for (let i = 0; i < 12; i++) {
    if (start + i >= end) return INCOMPLETE;
    const byte = bytes[start + i]!;
    const wanted = STATUS_START.charCodeAt(i);
    const fits = wanted === 48 ? byte >= 48 && byte <= 57 : byte === wanted;
    if (!fits) return refuse(head, 'upstream-malformed', 'the status line is malformed');
  }
  const minor = bytes[start + 7]! - 48;
  head.status = (bytes[start + 9]! - 48) * 100 + (bytes[start + 10]! - 48) * 10 + (bytes[start + 11]! - 48);
  if (minor > 1 || head.status < 100) {
    return refuse(head, 'upstream-malformed', 'the version or status is unknown');
  }
  head.minor = minor as 0 | 1;
  let pos = start + 12;
  if (pos < end && bytes[pos] !== SP && bytes[pos] !== CR) {
    return refuse(head, 'upstream-malformed', 'the status is malformed');
  }
  while (pos < end && VALUE[bytes[pos]!] === 1) pos++;
  if (pos + 1 >= end) return INCOMPLETE;
  if (bytes[pos] !== CR || bytes[pos + 1] !== LF) {
    return refuse(head, 'upstream-malformed', 'the status line has a control character');
  }
  return pos + 2;
}

const STATUS_START = 'HTTP/1.0 000';

/** Reads field lines up to the empty line (RFC 9112 §5). Returns the position after it. */
function readFields(
  head: MessageHead,
  bytes: Buffer,
  base: number,
  start: number,
  end: number,
  mostLines: number,
): number {
  let pos = start;
  for (;;) {
    if (pos + 1 >= end) return INCOMPLETE;
    if (bytes[pos] === CR) {
      if (bytes[pos + 1] !== LF) return refuse(head, 'bad-request', 'a CR without LF');
      return pos + 2;
    }
    if (head.count === mostLines) {
      return refuse(head, 'headers-too-large', `more than ${mostLines} header lines`);
    }
    pos = readField(head, bytes, base, pos, end);
    if (pos <= 0) return pos;
  }
}

function readField(head: MessageHead, bytes: Buffer, base: number, start: number, end: number): number {
  let pos = start;
  let hash = 0;
  let underscored = false;
  for (; pos < end; pos++) {
    const char = TOKEN[bytes[pos]!]!;
    if (char === 0) break;
    if (char === UNDERSCORE) underscored = true;
    hash = (Math.imul(hash, 31) + char) | 0;
  }
  if (pos >= end) return INCOMPLETE;
  // Also RFC 9112 §5.1, no space before the colon, and §5.2, no folded lines.
  if (bytes[pos] !== COLON || pos === start) return refuse(head, 'bad-request', 'a field name is malformed');
  const nameEnd = pos++;
  while (pos < end && (bytes[pos] === SP || bytes[pos] === HTAB)) pos++;
  const value = pos;
  while (pos < end && VALUE[bytes[pos]!] === 1) pos++;
  if (pos >= end) return INCOMPLETE;
  if (bytes[pos] !== CR) return refuse(head, 'bad-request', 'a control character in a field value');
  if (pos + 1 >= end) return INCOMPLETE;
  if (bytes[pos + 1] !== LF) return refuse(head, 'bad-request', 'a CR without LF');
  let valueEnd = pos;
  while (valueEnd > value && (bytes[valueEnd - 1] === SP || bytes[valueEnd - 1] === HTAB)) valueEnd--;
  const at = head.count * LINE;
  if (at === head.lines.length) head.lines = grown(head.lines);
  const { lines } = head;
  lines[at] = start - base;
  lines[at + 1] = nameEnd - base;
  lines[at + 2] = value - base;
  lines[at + 3] = valueEnd - base;
  lines[at + 4] = underscored ? field.underscored : knownId(hash, bytes, start, nameEnd);
  head.count++;
  return pos + 2;
}

function grown(lines: Int32Array): Int32Array {
  const larger = new Int32Array(lines.length * 2);
  larger.set(lines);
  return larger;
}

function knownId(hash: number, bytes: Buffer, start: number, end: number): number {
  const id = idBySlot[slotOf(hash)]!;
  if (id === 0) return field.other;
  const name = bytesById[id]!;
  if (name.length !== end - start) return field.other;
  for (let i = 0; i < name.length; i++) {
    if (TOKEN[bytes[start + i]!] !== name[i]) return field.other;
  }
  return id;
}

// RFC 9112 §3.2: origin-form, absolute-form, asterisk-form; authority-form belongs to CONNECT.
const TARGET_FORM = /^(?:\/|https?:\/\/[a-z0-9._:[\]-]+(?:[/?]|$)|\*$)/i;

function readRequestFields(head: MessageHead): boolean {
  if (head.target.charCodeAt(0) !== SLASH && !TARGET_FORM.test(head.target) && head.method !== 'CONNECT') {
    return refused(head, 'bad-request', 'the request target has none of the forms');
  }
  let hosts = 0;
  const { lines, count } = head;
  for (let line = 0; line < count; line++) {
    const id = lines[line * LINE + 4]!;
    if (id <= field.underscored) continue;
    if (id === field.host) {
      hosts++;
      head.host = valueAt(head, line);
    } else if (id === field.expect) {
      // RFC 9110 §10.1.1: the only expectation there is.
      if (valueAt(head, line).toLowerCase() !== '100-continue') {
        return refused(head, 'expectation-failed', 'an unknown expectation');
      }
      head.expectsContinue = true;
    } else if (!readSharedField(head, id, line)) return false;
  }
  head.hasHost = hosts === 1;
  // RFC 9112 §3.2: HTTP/1.0 knew of none.
  if (hosts > 1) return refused(head, 'bad-request', 'more than one Host');
  if (hosts === 0 && head.minor === 1) return refused(head, 'bad-request', 'no Host');
  return framingIsClear(head);
}

function readReplyFields(head: MessageHead): boolean {
  for (let line = 0; line < head.count; line++) {
    const id = head.lines[line * LINE + 4]!;
    if (id === field.contentLength) {
      if (!readReplyLength(head, line)) return false;
    } else if (id > field.host && !readSharedField(head, id, line)) return false;
  }
  return framingIsClear(head);
}

function readSharedField(head: MessageHead, id: number, line: number): boolean {
  switch (id) {
    case field.contentLength:
      return readContentLength(head, line);
    case field.transferEncoding:
      return readTransferEncoding(head, line);
    case field.connection:
      return readConnection(head, valueAt(head, line));
    case field.upgrade:
      head.upgradeTo =
        head.upgradeTo === '' ? valueAt(head, line) : `${head.upgradeTo}, ${valueAt(head, line)}`;
      return true;
    default:
      return true;
  }
}

/** 2^53 is no length, and 15 digits are always below it. */
const LONGEST_LENGTH = 15;

/** RFC 9112 §6.3: one line, digits alone; a list, even of equals, is refused, and so are superfluous zeros. */
function readContentLength(head: MessageHead, line: number): boolean {
  if (head.contentLength !== -1) return refused(head, 'bad-request', 'more than one Content-Length');
  head.contentLength = plainLength(head, line);
  return head.contentLength !== -1 || refused(head, 'bad-request', 'a malformed Content-Length');
}

/** -1: it is not digits alone, or has zeros in front. */
function plainLength({ text, lines }: MessageHead, line: number): number {
  const start = lines[line * LINE + 2]!;
  const end = lines[line * LINE + 3]!;
  let length = 0;
  let sound = end > start && end - start <= LONGEST_LENGTH;
  for (let at = start; sound && at < end; at++) {
    const digit = text.charCodeAt(at) - 48;
    sound = digit >= 0 && digit <= 9 && (digit > 0 || at > start || end === start + 1);
    length = length * 10 + digit;
  }
  return sound ? length : -1;
}

/**
 * RFC 9110 §8.6: equal lengths, in one line or several, may be taken for one, and zeros in front change nothing. It is
 * passed on as one number, so that nobody behind can read anything else in it.
 */
function readReplyLength(head: MessageHead, line: number): boolean {
  let length = plainLength(head, line);
  if (length === -1 || head.contentLength !== -1) {
    head.lengthRewritten = true;
    length = replyLength(valueAt(head, line));
  }
  if (length === -1) return refused(head, 'bad-request', 'a malformed Content-Length');
  if (head.contentLength !== -1 && head.contentLength !== length)
    return refused(head, 'bad-request', 'Content-Lengths that differ');
  head.contentLength = length;
  return true;
}

/** What a reply's Content-Length means; -1: nothing that is clear. */
export function replyLength(value: string): number {
  let length = -1;
  for (const part of value.split(',')) {
    const digits = /^[ \t]*0*(0|[1-9]\d{0,14})[ \t]*$/.exec(part);
    if (digits === null || (length !== -1 && Number(digits[1]) !== length)) return -1;
    length = Number(digits[1]);
  }
  return length;
}

/** RFC 9112 §6.1: `chunked`, once and alone. Other codings would have to be undone to find the end of the body. */
function readTransferEncoding(head: MessageHead, line: number): boolean {
  if (head.chunked) return refused(head, 'bad-request', 'more than one Transfer-Encoding');
  const beforeValue = head.lines[line * LINE + 1]! + 1;
  // RFC 9110 §5.5 calls a tab beside a value white space; parsers that take it for a part of the coding see no body.
  if (head.text.slice(beforeValue, head.text.indexOf('\r', beforeValue)).includes('\t')) {
    return refused(head, 'bad-request', 'a tab in Transfer-Encoding');
  }
  const coding = valueAt(head, line).toLowerCase();
  if (coding === 'chunked') {
    head.chunked = true;
    return true;
  }
  if (/^(?:x-)?(?:gzip|deflate|compress)\s*(?:,\s*chunked)?$/.test(coding)) {
    return refused(head, 'not-implemented', 'a transfer coding that is not supported');
  }
  return refused(head, 'bad-request', 'a malformed Transfer-Encoding');
}

/** RFC 9110 §7.6.1. Naming a field that every recipient needs would make two readers of one message: refused. */
function readConnection(head: MessageHead, value: string): boolean {
  const options = value.toLowerCase();
  if (options === 'keep-alive') {
    head.keepAlive = true;
    return true;
  }
  for (const part of options.split(',')) {
    const option = part.trim();
    if (option === 'close') head.close = true;
    else if (option === 'keep-alive') head.keepAlive = true;
    else if (option === 'upgrade') head.upgrade = true;
    else if (option === '' || option === 'te') continue;
    else if (!isToken(option)) return refused(head, 'bad-request', 'a malformed Connection');
    else if (NEVER_NOMINATED.has(option)) return refused(head, 'bad-request', `Connection names ${option}`);
    else head.nominated = [...head.nominated, option];
  }
  return true;
}

const NEVER_NOMINATED = new Set(['host', 'content-length', 'transfer-encoding', 'expect']);

function framingIsClear(head: MessageHead): boolean {
  if (!head.chunked) return true;
  // RFC 9112 §6.1 and §6.3: both at once is how requests are smuggled; HTTP/1.0 knows no transfer codings.
  if (head.contentLength !== -1) {
    return refused(head, 'bad-request', 'both Content-Length and Transfer-Encoding');
  }
  return head.minor === 1 || refused(head, 'bad-request', 'Transfer-Encoding in HTTP/1.0');
}

function refused(head: MessageHead, code: FaultCode, reason: string): false {
  refuse(head, code, reason);
  return false;
}

/** RFC 9110 §5.6.2. */
export function isToken(text: string): boolean {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text);
}

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

/**
 * Takes one run from `bytes[pos, end)`: content, framing to leave out, or the end. Returns the position after it, or
 * REFUSED. Call it until the bytes are used up or `done`; bytes after `done` belong to the next message.
 * Without `cutStart..cutEnd` the bytes taken can be passed on as they are: they are proven to be well-formed.
 */
export function readBody(
  body: BodyReader,
  bytes: Buffer,
  pos: number,
  end: number,
  limits: HeadLimits,
): number {
  body.dataStart = body.dataEnd = body.cutStart = body.cutEnd = pos;
  if (body.done) return pos;
  if (body.kind === 'until-close') return takeContent(body, pos, end);
  if (body.kind === 'length') {
    const next = takeContent(body, pos, Math.min(end, pos + body.remaining));
    body.remaining -= next - pos;
    body.done = body.remaining === 0;
    return next;
  }
  return readChunked(body, bytes, pos, end, limits);
}

function takeContent(body: BodyReader, pos: number, end: number): number {
  body.dataStart = pos;
  body.dataEnd = end;
  body.received += end - pos;
  return end;
}

const SIZE_FIRST = 0;
const SIZE = 1;
const SIZE_LF = 2;
const EXT_NAME_FIRST = 3;
const EXT_NAME = 4;
const EXT_VALUE_FIRST = 5;
const EXT_VALUE = 6;
const EXT_QUOTED = 7;
const EXT_ESCAPED = 8;
const EXT_QUOTED_END = 9;
const DATA = 10;
const DATA_CR = 11;
const DATA_LF = 12;
const TRAILER_FIRST = 13;
const TRAILER_END_LF = 14;
const TRAILER = 15;
/** Of replies alone: blanks after the size, and anything after a semicolon. */
const SIZE_BLANK = 16;
const EXT_ANY = 17;

const SEMICOLON = 59;
const EQUALS = 61;
const QUOTE = 34;
const BACKSLASH = 92;

/** 2^48 bytes in one chunk are enough. */
const LONGEST_SIZE = 12;
/** Of one body: extensions are bytes that nobody reads. */
const MAX_EXTENSION_BYTES = 16_384;

const HEX = new Int8Array(256).fill(-1);
for (let i = 0; i < 16; i++) {
  HEX[i.toString(16).charCodeAt(0)] = i;
  HEX[i.toString(16).toUpperCase().charCodeAt(0)] = i;
}

/** RFC 9112 §7.1; of requests without the "bad whitespace" that its grammar tolerates and parsers disagree on. */
function readChunked(
  body: BodyReader,
  bytes: Buffer,
  start: number,
  end: number,
  limits: HeadLimits,
): number {
  let pos = start;
  while (pos < end) {
    const byte = bytes[pos]!;
    switch (body.state) {
      case SIZE_FIRST:
      case SIZE: {
        const digit = HEX[byte]!;
        if (digit >= 0) {
          if (++body.digits > LONGEST_SIZE) return refuseBody(body, 'a chunk size that is too long');
          body.remaining = body.remaining * 16 + digit;
          body.state = SIZE;
        } else if (body.state === SIZE_FIRST) return refuseBody(body, 'a malformed chunk size');
        else if (byte === CR) body.state = SIZE_LF;
        else if (byte === SEMICOLON) {
          body.state = body.lenient ? EXT_ANY : EXT_NAME_FIRST;
          return readExtensions(body, bytes, pos, pos + 1, end);
        } else if (body.lenient && (byte === SP || byte === HTAB)) {
          body.state = SIZE_BLANK;
          return readExtensions(body, bytes, pos, pos + 1, end);
        } else return refuseBody(body, 'a malformed chunk size');
        pos++;
        break;
      }
      case SIZE_LF:
        if (byte !== LF) return refuseBody(body, 'a chunk size line without LF');
        body.state = body.remaining === 0 ? TRAILER_FIRST : DATA;
        body.digits = 0;
        pos++;
        break;
      case DATA: {
        const next = takeContent(body, pos, Math.min(end, pos + body.remaining));
        body.remaining -= next - pos;
        if (body.remaining === 0) body.state = DATA_CR;
        return next;
      }
      case DATA_CR:
        if (byte !== CR) return refuseBody(body, 'a chunk longer than its size');
        body.state = DATA_LF;
        pos++;
        break;
      case DATA_LF:
        if (byte !== LF) return refuseBody(body, 'a chunk without LF');
        body.state = SIZE_FIRST;
        pos++;
        break;
      case TRAILER_FIRST:
        if (byte !== CR) {
          if (TOKEN[byte] === 0) return refuseBody(body, 'a malformed trailer section');
          body.state = TRAILER;
          return readTrailers(body, bytes, pos, end, limits);
        }
        body.state = TRAILER_END_LF;
        pos++;
        break;
      case TRAILER_END_LF:
        if (byte !== LF) return refuseBody(body, 'a trailer section without LF');
        body.done = true;
        return pos + 1;
      case TRAILER:
        return readTrailers(body, bytes, pos, end, limits);
      default:
        return readExtensions(body, bytes, pos, pos, end);
    }
  }
  return pos;
}

/** RFC 9112 §7.1.1: unknown extensions are ignored; here they are checked and cut out. */
function readExtensions(body: BodyReader, bytes: Buffer, cut: number, start: number, end: number): number {
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
      if (byte === QUOTE) return EXT_QUOTED_END;
      if (byte === BACKSLASH) return EXT_ESCAPED;
      return VALUE[byte] === 1 ? EXT_QUOTED : REFUSED;
    case EXT_ESCAPED:
      return VALUE[byte] === 1 ? EXT_QUOTED : REFUSED;
    case SIZE_BLANK:
      if (byte === SP || byte === HTAB) return SIZE_BLANK;
      if (byte === CR) return SIZE_LF;
      return byte === SEMICOLON ? EXT_ANY : REFUSED;
    case EXT_ANY:
      if (byte === CR) return SIZE_LF;
      return VALUE[byte] === 1 ? EXT_ANY : REFUSED;
    default:
      return afterExtension(byte);
  }
}

function afterExtension(byte: number): number {
  if (byte === CR) return SIZE_LF;
  return byte === SEMICOLON ? EXT_NAME_FIRST : REFUSED;
}

/** RFC 9112 §7.1.2. The section is collected whole, cut out, and left for the caller to pass on what may pass. */
function readTrailers(
  body: BodyReader,
  bytes: Buffer,
  start: number,
  end: number,
  limits: HeadLimits,
): number {
  const before = body.trailerBytes?.length ?? 0;
  const room = limits.maxHeaderBytes - before;
  const last = Math.min(end, start + room);
  if (body.trailerBytes === undefined) body.trailerBytes = beginPieces(bytes, start, last);
  else addPiece(body.trailerBytes, bytes, start, last, limits.maxHeaderBytes);
  const section = gathered(body.trailerBytes);
  const blank = section.indexOf('\r\n\r\n', Math.max(0, before - 3), 'latin1');
  body.cutStart = start;
  if (blank === -1) {
    if (end - start >= room)
      return refuseBody(body, 'a trailer section that is too large', 'headers-too-large');
    body.cutEnd = end;
    return end;
  }
  const size = blank + 4;
  const head = createMessageHead();
  if (readFields(head, section, 0, 0, size, limits.maxHeaderCount) !== size)
    return refuseBody(body, 'a malformed trailer section');
  head.text = section.toString('latin1', 0, size);
  // RFC 9110 §6.5.1: the length of a message cannot be said after it.
  if (readsFraming(head)) return refuseBody(body, 'a trailer section with a length');
  body.trailers = head;
  body.trailerBytes = undefined;
  body.done = true;
  body.cutEnd = start + size - before;
  return body.cutEnd;
}

function readsFraming({ lines, count }: MessageHead): boolean {
  for (let line = 0; line < count; line++) {
    const id = lines[line * LINE + 4];
    if (id === field.contentLength || id === field.transferEncoding) return true;
  }
  return false;
}

function refuseBody(body: BodyReader, reason: string, code: FaultCode = 'bad-request'): typeof REFUSED {
  body.refusal = { code, reason };
  return REFUSED;
}
