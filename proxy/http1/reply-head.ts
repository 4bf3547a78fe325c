// Reads the head of an HTTP/1.1 reply (RFC 9112 §4), leniently where no two readers could disagree.

import { CR, LF, SP, VALUE } from './characters.ts';
import { readFields } from './field-lines.ts';
import { framingIsClear, plainLength, readSharedField } from './framing.ts';
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

/** Of a reply. Applications send more lines than browsers do, and the size of the head is limited as well. */
export const MOST_REPLY_LINES = 1_000;

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

function readReplyFields(head: MessageHead): boolean {
  for (let line = 0; line < head.count; line++) {
    const id = head.lines[line * LINE + 4]!;
    if (id === field.contentLength) {
      if (!readReplyLength(head, line)) return false;
    } else if (id > field.host && !readSharedField(head, id, line)) return false;
  }
  return framingIsClear(head);
}

/**
 * RFC 9110 §8.6: equal lengths, in one line or several, count as one, and zeros in front change nothing. The length is
 * passed on as one number, so that every later reader sees the same.
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
