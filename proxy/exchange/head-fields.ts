// The header fields of a message as rules see them, and a reply's as rules leave them.

import { STATUS_CODES } from 'node:http';
import { dropsFromReply } from '../http1/drops.ts';
import { LINE, lowerName, type MessageHead } from '../http1/message.ts';
import { isPseudo, kindOf } from '../http2/fields.ts';
import { createField, type HeaderField } from '../http2/hpack.ts';
import type { Field, Fields } from '../rules/compiled.ts';
import type { FieldEdits } from '../rules/reply-headers.ts';
import { finalDrops, type ReplyFraming, rewrittenLength } from './headers.ts';

/** What the rules make of a reply's head. */
export interface ReplyEdits extends FieldEdits {
  readonly status: number;
}

/** A field that a message was sent with. */
export interface SentField extends Field {
  /** Of its name. */
  readonly lower: string;
}

/** Of a head of HTTP/1.1, whose object is filled anew by the next parse. Nothing is cut out unless somebody asks. */
export class HeadFields implements Fields {
  private readonly head: MessageHead;
  private known: readonly SentField[] | undefined = undefined;

  constructor(head: MessageHead) {
    this.head = { ...head, lines: head.lines.slice(0, head.count * LINE) };
  }

  list(): readonly SentField[] {
    if (this.known !== undefined) return this.known;
    const { head } = this;
    const { text, lines } = head;
    const list: SentField[] = [];
    for (let line = 0; line < head.count; line++) {
      const at = line * LINE;
      list.push({
        name: text.slice(lines[at], lines[at + 1]),
        lower: lowerName(head, line),
        value: text.slice(lines[at + 2], lines[at + 3]),
      });
    }
    this.known = list;
    return list;
  }

  all(name: string): readonly string[] {
    return valuesOf(this.list(), name);
  }
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
  const { text, lines, count, nominated } = head;
  const drops = finalDrops(head, framing);
  const reason =
    edits.status === head.status
      ? text.slice(STATUS_LINE_START, head.fieldsStart).trim()
      : (STATUS_CODES[edits.status] ?? '');
  let kept = `HTTP/1.1 ${edits.status} ${reason}\r\n`;
  for (let line = 0; line < count; line++) {
    const at = line * LINE;
    if (drops[lines[at + 4]!] === 1) continue;
    const name = lowerName(head, line);
    if (isEditedAway(edits, name) || nominated.includes(name)) continue;
    kept += `${text.slice(lines[at], lines[at + 1])}: ${text.slice(lines[at + 2], lines[at + 3])}\r\n`;
  }
  for (const { name, value } of edits.own) if (isOwnable(name.toLowerCase())) kept += `${name}: ${value}\r\n`;
  return `${kept}${rewrittenLength(head)}${own}\r\n`;
}
