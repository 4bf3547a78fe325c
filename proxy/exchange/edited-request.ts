// The fields of a request as rules let them leave for the upstream; what concerns the client's connection never does.

import { dropsFromRequest } from '../http1/drops.ts';
import type { Field } from '../rules/compiled.ts';
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
  if (said.length === 0) return fields;
  const taken = new Set(step.own.map(({ name }) => name.toLowerCase()));
  for (const [name, value] of said)
    if (!step.removed.has(name) && !taken.has(name)) fields.push({ name, value });
  return fields;
}

function passes({ lower }: SentField, step: Forward, request: EditedRequest): boolean {
  const { nominated, withBody, passUnderscores = step.passUnderscores || step.passInvalid } = request;
  if (saidElsewhere.has(lower)) return false;
  if (ofBody.has(lower)) return withBody;
  if (!step.passHeaders || step.removed.has(lower)) return false;
  if (nominated.includes(lower)) return false;
  // A name with an underscore is the one thing of that table which rules may let through.
  if (dropsFromRequest(lower)) return passUnderscores && lower.includes('_');
  return step.passInvalid || /^[a-z0-9-]+$/.test(lower);
}

/** As lines of an HTTP/1.1 head. */
export function linesOf(fields: readonly Field[]): string {
  let lines = '';
  for (const { name, value } of fields) lines += `${name}: ${value}\r\n`;
  return lines;
}
