// JSON in the one form that a digest can be made of: the JSON Canonicalization Scheme (RFC 8785).

import { CodedError } from '../src/lib/coded-error.ts';

export type CanonicalJsonErrorCode = 'not-json' | 'too-deep';

export class CanonicalJsonError extends CodedError<CanonicalJsonErrorCode> {
  override readonly name = 'CanonicalJsonError';
}

/** What we sign has four levels. JSON.parse goes as deep as a stranger likes, and the stack does not. */
const MOST_LEVELS = 64;

/**
 * RFC 8785 §3.2 builds on what ECMAScript does: numbers (§3.2.2.3) and strings (§3.2.2.2) are as JSON.stringify writes
 * them, members stand in the order of their names as UTF-16 (§3.2.3), and there is no white space. Throws
 * CanonicalJsonError for what JSON cannot say and JSON.stringify would drop or bend: undefined, NaN, a function, an object
 * with a class, half a surrogate pair.
 */
export function canonicalJson(value: unknown): string {
  return written(value, MOST_LEVELS);
}

function written(value: unknown, levels: number): string {
  if (levels === 0) throw new CanonicalJsonError('too-deep', `more than ${MOST_LEVELS} levels of JSON`);
  switch (typeof value) {
    case 'string':
      return writtenString(value);
    case 'number':
      if (Number.isFinite(value)) return JSON.stringify(value);
      break;
    case 'boolean':
      return String(value);
    case 'object':
      if (value === null) return 'null';
      if (Array.isArray(value)) return `[${Array.from(value, (each) => written(each, levels - 1)).join()}]`;
      if (isPlain(value)) return `{${members(value, levels).join()}}`;
  }
  throw new CanonicalJsonError('not-json', `JSON has no ${typeof value} such as this one`);
}

function members(value: object, levels: number): string[] {
  return (
    Object.entries(value)
      // The comparison of strings is one of UTF-16 code units; no two names are equal.
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => `${writtenString(name)}:${written(member, levels - 1)}`)
  );
}

/** RFC 8785 §3.2.2.2: "lone surrogates" are an error; JSON.stringify would escape them. */
function writtenString(text: string): string {
  if (text.isWellFormed()) return JSON.stringify(text);
  throw new CanonicalJsonError('not-json', 'JSON has no string with half a surrogate pair');
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
