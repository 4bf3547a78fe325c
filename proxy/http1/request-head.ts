// Reads the head of an HTTP/1.1 request (RFC 9112 §3): one that can be read in two ways is refused.

import { CR, LF, SP, TOKEN } from './characters.ts';
import { readFields } from './field-lines.ts';
import { framingIsClear, readSharedField } from './framing.ts';
import { field } from './known-fields.ts';
import {
  type HeadLimits,
  INCOMPLETE,
  incomplete,
  LINE,
  type MessageHead,
  REFUSED,
  refuse,
  refused,
  reset,
  valueAt,
} from './message.ts';

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

/** A request target: visible ASCII without "#", which would begin a fragment (RFC 9112 §3.2). */
const TARGET = new Uint8Array(256).fill(1, SP + 1, 127);
TARGET['#'.charCodeAt(0)] = 0;

const LONGEST_METHOD = 32;
const SLASH = 47;

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
