// What of a file is sent: by the conditions and ranges that were asked for (RFC 9110 §13 and §14), decided as nginx decides them.

import type { Fields } from '../rules/compiled.ts';

export interface FileFacts {
  readonly bytes: number;
  /** In whole seconds: HTTP's dates know no parts of them. */
  readonly modified: number;
  /** Undefined: it is not told. */
  readonly etag: string | undefined;
}

/** From its first byte to before its last. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

export type Portion =
  | { readonly kind: 'whole' }
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'failed-condition' }
  /** At least one. */
  | { readonly kind: 'ranges'; readonly ranges: readonly Range[] }
  | { readonly kind: 'no-such-range' };

const WHOLE: Portion = { kind: 'whole' };

export function portionOf(file: FileFacts, headers: Fields): Portion {
  const one = (name: string) => headers.all(name)[0];
  const since = one('if-unmodified-since');
  if (since !== undefined && secondsOf(since) < file.modified) return { kind: 'failed-condition' };
  const matching = listOf(headers, 'if-match');
  if (matching !== undefined && !names(matching, file.etag, 'strong')) return { kind: 'failed-condition' };
  if (isUnchanged(file, one('if-modified-since'), listOf(headers, 'if-none-match')))
    return { kind: 'unchanged' };
  const range = one('range');
  if (range === undefined || !/^bytes=./i.test(range) || !holds(one('if-range'), file)) return WHOLE;
  return readRanges(range.slice('bytes='.length), file.bytes);
}

function listOf(headers: Fields, name: string): string | undefined {
  const lines = headers.all(name);
  return lines.length === 0 ? undefined : lines.join(', ');
}

/** A date that is not exactly the file's is another version's: an older file may have been put back. */
function isUnchanged(file: FileFacts, since: string | undefined, etags: string | undefined): boolean {
  if (since === undefined && etags === undefined) return false;
  if (since !== undefined && secondsOf(since) !== file.modified) return false;
  return etags === undefined || names(etags, file.etag, 'weak');
}

/** RFC 9110 §8.8.3.2: compared strongly, a weak one is equal to nothing. */
function names(list: string, etag: string | undefined, how: 'strong' | 'weak'): boolean {
  if (list.trim() === '*') return true;
  if (etag === undefined) return false;
  return Array.from(list.matchAll(/(W\/)?("[^"]*")/g)).some(
    ([, weak, tag]) => tag === etag && (how === 'weak' || weak === undefined),
  );
}

/** RFC 9110 §13.1.5: a range of another version than the client has is of no use to it. */
function holds(condition: string | undefined, { etag, modified }: FileFacts): boolean {
  if (condition === undefined) return true;
  return condition.endsWith('"') ? condition === etag : secondsOf(condition) === modified;
}

/** NaN, which is equal to nothing and less than nothing: it is no date. */
function secondsOf(date: string): number {
  // Anything else that Date.parse takes is no date of HTTP's (RFC 9110 §5.6.7).
  return /^(?:\w{3}, |\w{6,9}, |\w{3} \w{3} )/.test(date) ? Date.parse(date) / 1000 : Number.NaN;
}

/** More than anybody needs, and what a server must not be made to put together (RFC 9110 §17.15). */
const MOST_RANGES = 100;

function readRanges(text: string, bytes: number): Portion {
  const specs = text.split(',');
  const ranges: Range[] = [];
  for (const spec of specs) {
    const range = readRange(spec, bytes);
    if (range === undefined) return { kind: 'no-such-range' };
    if (range.start < range.end) ranges.push(range);
    else if (range.start === 0) return WHOLE;
  }
  if (ranges.length === 0) return { kind: 'no-such-range' };
  const asked = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  // Parts that overlap so much are no parts any more.
  return asked > bytes || ranges.length > MOST_RANGES ? WHOLE : { kind: 'ranges', ranges };
}

/** Undefined: it is none. */
function readRange(spec: string, bytes: number): Range | undefined {
  const [, first = '', last = ''] = /^ *(\d*) *- *(\d*) *$/.exec(spec) ?? [];
  if (first === '' && last === '') return undefined;
  if (first === '') return { start: Math.max(0, bytes - Number(last)), end: bytes };
  const end = last === '' ? bytes : Math.min(Number(last) + 1, bytes);
  return { start: Number(first), end };
}
