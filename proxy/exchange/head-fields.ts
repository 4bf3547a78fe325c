// The header fields of a message as rules see them, and a reply's as rules leave them.

import { STATUS_CODES } from 'node:http';
import { dropsFromReply } from '../http1/drops.ts';
import { LINE, lowerName, type MessageHead, valueAt } from '../http1/message.ts';
import { isPseudo, kindOf } from '../http2/fields.ts';
import { createField, type HeaderField } from '../http2/hpack.ts';
import type { Field, FieldEdits, Fields } from '../rules/compiled.ts';
import { finalDrops, type ReplyFraming, rewrittenLength } from './headers.ts';

/** What the rules make of a reply's head. */
export interface ReplyEdits extends FieldEdits {
  readonly status: number;
  /** `own` is the same object for all replies of a place. */
  readonly isFixed: boolean;
}

/** By the lists that rules make once for all replies of a place. */
const texts = new WeakMap<readonly Field[], string>();

function ownTextOf(own: readonly Field[]): string {
  let text = texts.get(own);
  if (text === undefined) {
    text = ownText(own);
    texts.set(own, text);
  }
  return text;
}

/** A field that a message was sent with. */
export interface SentField extends Field {
  /** Of its name. */
  readonly lower: string;
}

/**
 * Of a head of HTTP/1.1. The object of the head is filled anew by the next parse: as long as it still holds this one, its
 * lines are used as they were read; afterwards the text is cut into lines again.
 */
export class HeadFields implements Fields {
  private readonly head: MessageHead;
  private readonly text: string;
  private readonly fieldsStart: number;
  private known: readonly SentField[] | undefined = undefined;

  constructor(head: MessageHead) {
    this.head = head;
    this.text = head.text;
    this.fieldsStart = head.fieldsStart;
  }

  /** The head as it was read; undefined: it has made room for another. */
  get read(): MessageHead | undefined {
    return this.head.text === this.text ? this.head : undefined;
  }

  list(): readonly SentField[] {
    this.known ??= this.text.slice(this.fieldsStart, -EMPTY_LINE).split('\r\n').flatMap(sentField);
    return this.known;
  }

  all(name: string): readonly string[] {
    const { read } = this;
    if (read === undefined || this.known !== undefined) return valuesOf(this.list(), name);
    const { lines, count } = read;
    let found: string[] | undefined;
    for (let line = 0; line < count; line++) {
      const at = line * LINE;
      if (lines[at + 1]! - lines[at]! !== name.length || lowerName(read, line) !== name) continue;
      found ??= [];
      found.push(valueAt(read, line));
    }
    return found ?? NONE;
  }
}

/** And the end of the line before it. */
const EMPTY_LINE = '\r\n\r\n'.length;

/** Of a line that has been read before: it has a colon. */
function sentField(line: string): SentField[] {
  const colon = line.indexOf(':');
  if (colon < 0) return [];
  const name = line.slice(0, colon);
  return [{ name, lower: name.toLowerCase(), value: withoutBlanks(line.slice(colon + 1)) }];
}

/** RFC 9110 §5.5: of blanks around a value; String's own trim() would take bytes of the value for some. */
function withoutBlanks(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 32 || code === 9;
}

const NONE: readonly string[] = [];

/** `name` in lower case. */
export function valuesOf(list: readonly SentField[], name: string): readonly string[] {
  let found: string[] | undefined;
  for (const { lower, value } of list) {
    if (lower !== name) continue;
    found ??= [];
    found.push(value);
  }
  return found ?? NONE;
}

/** Of a reply of HTTP/2; the list may be used for the next one. */
export function fieldsIn(list: readonly HeaderField[]): Fields {
  const kept = [...list];
  return { all: (wanted) => kept.filter(({ name }) => name === wanted).map(({ value }) => value) };
}

/** What of a reply of HTTP/1.1 passes to somebody who frames it anew and dates it. */
export function contentFieldsOf(head: MessageHead): readonly SentField[] {
  return new HeadFields(head)
    .list()
    .filter(({ lower }) => isContentField(lower) && !head.nominated.includes(lower));
}

/** The same of HTTP/2. */
export function contentFieldsIn(fields: readonly HeaderField[]): readonly SentField[] {
  return fields
    .filter((field) => !isPseudo(kindOf(field)) && isContentField(field.name))
    .map(({ name, value }) => ({ name, lower: name, value }));
}

function isContentField(lower: string): boolean {
  return isOwnable(lower) && lower !== 'date';
}

/** Whether a field of the upstream's does not pass. */
export function isEditedAway({ hidden, removed }: FieldEdits, lower: string): boolean {
  return hidden.has(lower) || removed.includes(lower);
}

/** Rules add no field that frames a message or concerns one connection alone. */
export function isOwnable(lower: string): boolean {
  return !framing.has(lower) && !dropsFromReply(lower);
}

const framing: ReadonlySet<string> = new Set(['content-length', 'transfer-encoding', 'trailer']);

/** Those that rules add, names in lower case. */
export function ownFields({ own }: Pick<ReplyEdits, 'own'>): (readonly [name: string, value: string])[] {
  return own
    .map(({ name, value }) => [name.toLowerCase(), value] as const)
    .filter(([name]) => isOwnable(name));
}

/** Of an upstream's reply of HTTP/2. */
export function editedFields(fields: readonly HeaderField[], edits: ReplyEdits): HeaderField[] {
  return [
    ...fields.filter(({ name }) => !isEditedAway(edits, name)),
    ...ownFields(edits).map(([name, value]) => createField(name, value)),
  ];
}

const STATUS_LINE_START = 'HTTP/1.1 200'.length;

/** The head of an upstream's final reply of HTTP/1.1 for a client of HTTP/1.1. `own` are complete header lines. */
export function editedReplyText(
  head: MessageHead,
  framing: ReplyFraming,
  own: string,
  edits: ReplyEdits,
): string {
  const { text, lines, count, fieldsStart } = head;
  const drops = finalDrops(head, framing);
  const reason =
    edits.status === head.status
      ? text.slice(STATUS_LINE_START, fieldsStart - '\r\n'.length).trim()
      : (STATUS_CODES[edits.status] ?? '');
  let kept = `HTTP/1.1 ${edits.status} ${reason}\r\n`;
  let start = fieldsStart;
  for (let line = 0; line < count; line++) {
    const at = line * LINE;
    if (drops[lines[at + 4]!] === 0 && !isLineEditedAway(head, line, edits)) continue;
    if (lines[at]! > start) kept += text.slice(start, lines[at]);
    start = line + 1 < count ? lines[at + LINE]! : text.length - '\r\n'.length;
  }
  kept += text.slice(start, text.length - '\r\n'.length);
  return `${kept}${edits.isFixed ? ownTextOf(edits.own) : ownText(edits.own)}${rewrittenLength(head)}${own}\r\n`;
}

/** Those that rules add, as lines of HTTP/1.1. */
function ownText(own: readonly Field[]): string {
  let lines = '';
  for (const { name, value } of own) if (isOwnable(name.toLowerCase())) lines += `${name}: ${value}\r\n`;
  return lines;
}

function isLineEditedAway(head: MessageHead, line: number, { hidden, removed }: FieldEdits): boolean {
  const at = line * LINE;
  const { nominated, lines } = head;
  const mayBeHidden = hidden.mayHave(lines[at + 1]! - lines[at]!);
  if (!mayBeHidden && removed.length === 0 && nominated.length === 0) return false;
  const name = lowerName(head, line);
  return (mayBeHidden && hidden.has(name)) || removed.includes(name) || nominated.includes(name);
}
