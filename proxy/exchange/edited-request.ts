// The fields of a request as rules let them leave for the upstream; what concerns the client's connection never does.

import { dropsFromRequest } from '../http1/drops.ts';
import { field, nameById } from '../http1/known-fields.ts';
import { LINE, type MessageHead } from '../http1/message.ts';
import type { Field } from '../rules/compiled.ts';
import { saidBit } from '../rules/field-names.ts';
import type { Forward } from '../rules/step.ts';
import type { SentField } from './head-fields.ts';

/** Host and the framing of the body are said by whoever sends it. */
const saidElsewhere: ReadonlySet<string> = new Set(['host', 'content-length', 'transfer-encoding']);
/** Of no use without a body. */
const ofBody: ReadonlySet<string> = new Set(['expect', 'trailer']);

export interface EditedRequest {
  readonly sent: readonly SentField[];
  /** The names that the request's Connection nominated. */
  readonly nominated: readonly string[];
  /** The forwarded family, where rules do not set it. */
  readonly forwarded: readonly (readonly [name: string, value: string])[];
  /** What is said of this request alone, unless rules say it themselves. */
  readonly own: readonly (readonly [name: string, value: string])[];
  /** Whether its body goes along. */
  readonly withBody: boolean;
  /** Names with an underscore that are still there pass: gRPC's metadata has them. */
  readonly passUnderscores?: boolean;
}

export function editedRequest(step: Forward, request: EditedRequest): Field[] {
  const fields: Field[] = request.sent.filter((field) => passes(field, step, request));
  fields.push(...step.own);
  const said = step.forwardedFields ? [...request.forwarded, ...request.own] : request.own;
  for (const [name, value] of said) if ((step.says & saidBit(name)) === 0) fields.push({ name, value });
  return fields;
}

function passes(
  { lower }: Pick<SentField, 'lower'>,
  step: Forward,
  request: Pick<EditedRequest, 'nominated' | 'withBody' | 'passUnderscores'>,
): boolean {
  const { nominated, withBody, passUnderscores = step.passUnderscores || step.passInvalid } = request;
  if (saidElsewhere.has(lower)) return false;
  if (ofBody.has(lower)) return withBody;
  if (!step.passHeaders || step.removed.has(lower)) return false;
  if (nominated.includes(lower)) return false;
  // A name with an underscore is the one thing of that table which rules may let through.
  if (dropsFromRequest(lower)) return passUnderscores && lower.includes('_');
  return step.passInvalid || /^[a-z0-9-]+$/.test(lower);
}

/**
 * The lines of a head of HTTP/1.1 that leave, as they came: what editedRequest() makes of the client's fields, without
 * cutting them out one by one.
 */
export function keptLines(
  { text, lines, count, fieldsStart }: MessageHead,
  step: Forward,
  request: Pick<EditedRequest, 'nominated' | 'withBody'>,
): string {
  let kept = '';
  let start = fieldsStart;
  for (let line = 0; line < count; line++) {
    const at = line * LINE;
    const end = line + 1 < count ? lines[at + LINE]! : text.length - EMPTY_LINE;
    const name = lines[at]!;
    const nameEnd = lines[at + 1]!;
    const id = lines[at + 4]!;
    if (isSimple(id) && isPlain(text, name, nameEnd) && !isAsked(step, request, nameEnd - name)) continue;
    const lower = nameById[id] ?? text.slice(name, nameEnd).toLowerCase();
    if (passes({ lower }, step, request)) continue;
    if (name > start) kept += text.slice(start, name);
    start = end;
  }
  return kept + text.slice(start, text.length - EMPTY_LINE);
}

const EMPTY_LINE = '\r\n'.length;

/** A field of which the tables know nothing. */
function isSimple(id: number): boolean {
  return id === field.other;
}

function isAsked(step: Forward, { nominated }: Pick<EditedRequest, 'nominated'>, length: number): boolean {
  return !step.passHeaders || nominated.length > 0 || step.removed.mayHave(length);
}

/** Letters, digits and hyphens, as passes() wants them. */
function isPlain(text: string, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    const code = text.charCodeAt(i);
    const lower = code | 32;
    if (!((lower >= 97 && lower <= 122) || (code >= 48 && code <= 57) || code === 45)) return false;
  }
  return true;
}

/** As lines of an HTTP/1.1 head. */
export function linesOf(fields: readonly Field[]): string {
  let lines = '';
  for (const { name, value } of fields) lines += `${name}: ${value}\r\n`;
  return lines;
}
