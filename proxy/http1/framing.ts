// The fields that say where a message ends and what becomes of its connection (RFC 9112 §6, RFC 9110 §7.6.1).

import { isToken } from './characters.ts';
import { field } from './known-fields.ts';
import { LINE, type MessageHead, refused, valueAt } from './message.ts';

export function readSharedField(head: MessageHead, id: number, line: number): boolean {
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
    case field.userAgent:
      head.userAgentLine = line;
      return true;
    case field.xRequestId:
      head.requestIdLine = line;
      return true;
    case field.traceparent:
      head.traceparentLine = line;
      head.traceparents++;
      return true;
    case field.tracestate:
      head.tracestateLine = line;
      return true;
    default:
      return true;
  }
}

/** Numbers of 15 digits are always below 2^53, where they stop being exact. */
const LONGEST_LENGTH = 15;

/** RFC 9112 §6.3: one line, digits alone; a list, even of equals, is refused, and so are superfluous zeros. */
function readContentLength(head: MessageHead, line: number): boolean {
  if (head.contentLength !== -1) return refused(head, 'bad-request', 'more than one Content-Length');
  head.contentLength = plainLength(head, line);
  return head.contentLength !== -1 || refused(head, 'bad-request', 'a malformed Content-Length');
}

/** -1: it is not digits alone, or has zeros in front. */
export function plainLength({ text, lines }: MessageHead, line: number): number {
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

/** RFC 9112 §6.1: `chunked`, once and alone. Other codings would have to be undone to find the end of the body. */
function readTransferEncoding(head: MessageHead, line: number): boolean {
  if (head.chunked) return refused(head, 'bad-request', 'more than one Transfer-Encoding');
  const beforeValue = head.lines[line * LINE + 1]! + 1;
  // RFC 9110 §5.5 counts a tab beside a value as white space. Parsers that count it as part of the coding see no body.
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

/** RFC 9110 §7.6.1. Naming a field that every recipient needs is refused: two readers would see two messages. */
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

export function framingIsClear(head: MessageHead): boolean {
  if (!head.chunked) return true;
  // RFC 9112 §6.1 and §6.3: both at once smuggle requests, and HTTP/1.0 has no transfer codings.
  if (head.contentLength !== -1) {
    return refused(head, 'bad-request', 'both Content-Length and Transfer-Encoding');
  }
  return head.minor === 1 || refused(head, 'bad-request', 'Transfer-Encoding in HTTP/1.0');
}
