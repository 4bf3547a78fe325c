// Reads the field lines of a head or a trailer section (RFC 9112 §5).

import { COLON, CR, HTAB, LF, SP, TOKEN, VALUE } from './characters.ts';
import { field, knownId } from './known-fields.ts';
import { INCOMPLETE, LINE, type MessageHead, refuse } from './message.ts';

const UNDERSCORE = 95;

/** Reads field lines up to the empty line (RFC 9112 §5). Returns the position after it. */
export function readFields(
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
  const valueEnd = withoutBlanks(bytes, value, pos);
  const id = underscored ? field.underscored : knownId(hash, bytes, start, nameEnd);
  addLine(head, start - base, nameEnd - base, value - base, valueEnd - base, id);
  return pos + 2;
}

/** The end of `bytes[start, end)` without the blanks at its end (RFC 9110 §5.5). */
function withoutBlanks(bytes: Buffer, start: number, end: number): number {
  let last = end;
  while (last > start && (bytes[last - 1] === SP || bytes[last - 1] === HTAB)) last--;
  return last;
}

function addLine(
  head: MessageHead,
  name: number,
  nameEnd: number,
  value: number,
  valueEnd: number,
  id: number,
): void {
  const at = head.count * LINE;
  if (at === head.lines.length) head.lines = grown(head.lines);
  const { lines } = head;
  lines[at] = name;
  lines[at + 1] = nameEnd;
  lines[at + 2] = value;
  lines[at + 3] = valueEnd;
  lines[at + 4] = id;
  head.count++;
}

function grown(lines: Int32Array): Int32Array {
  const larger = new Int32Array(lines.length * 2);
  larger.set(lines);
  return larger;
}
