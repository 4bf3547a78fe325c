// The mistakes of a routes file and of those it includes: collected, so that all are told at once.

import { isAlias, LineCounter } from 'yaml';
import type { Origin } from '../../../proxy/rules/model.ts';
import { describeMistake, inPlaceOrder, type Mistake } from '../../config/mistake.ts';

/** The file as a whole is refused; every mistake in it is listed as `file:line:column: subject: cure`. */
export class RoutesFileError extends Error {
  override readonly name = 'RoutesFileError';
  readonly code = 'invalid-routes-file';
  readonly path: string;
  readonly mistakes: readonly Mistake[];
  constructor(path: string, mistakes: readonly Mistake[], options?: ErrorOptions) {
    super(mistakes.map(describeMistake).join('\n'), options);
    this.path = path;
    this.mistakes = mistakes;
  }
}

/** Of one file. */
export interface Mistakes {
  readonly file: string;
  readonly lines: LineCounter;
  /** An alias is reported once, as an alias, whatever else is wrong with it. */
  at(node: Positioned, subject: string, cure: string): void;
  atOffset(offset: number, subject: string, cure: string): void;
  inFile(subject: string, cure: string): void;
  sorted(): Mistake[];
  /** `file:line:column` of a node. */
  originOf(node: Positioned): Origin;
}

export type Positioned = { readonly range?: readonly number[] | null | undefined } | undefined | null;

const MOST_MISTAKES = 50;

export function createMistakes(text: string, file: string): Mistakes {
  const lines = new LineCounter();
  const found: Mistake[] = [];
  const placeOf = (offset: number) => {
    const { line, col } = lines.linePos(Math.min(offset, text.length));
    return { file, line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const atOffset = (offset: number, subject: string, cure: string) => {
    if (found.length < MOST_MISTAKES) found.push({ place: placeOf(offset), subject, cure });
  };
  return {
    file,
    lines,
    atOffset,
    at(node, subject, cure) {
      if (!isAlias(node)) atOffset(node?.range?.[0] ?? 0, subject, cure);
    },
    inFile: (subject, cure) => found.push({ place: { file }, subject, cure }),
    sorted: () => found.sort(inPlaceOrder),
    originOf(node) {
      const { line, column } = placeOf(node?.range?.[0] ?? 0);
      return `${file}:${line}:${column}`;
    },
  };
}

/** Where each key was first seen, in whichever file. */
export type Seen = Map<string, { readonly file: string; readonly line: number }>;

/** Says so if it is. */
export function isRepeated(
  key: string,
  node: Positioned,
  seen: Seen,
  subject: string,
  mistakes: Mistakes,
): boolean {
  const first = seen.get(key);
  if (first !== undefined) {
    const where = first.file === mistakes.file ? `on line ${first.line}` : `in ${first.file}:${first.line}`;
    mistakes.at(node, `${subject} is already ${where}`, 'wants it once');
  } else seen.set(key, { file: mistakes.file, line: mistakes.lines.linePos(node?.range?.[0] ?? 0).line });
  return first !== undefined;
}
