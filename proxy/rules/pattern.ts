// Regular expressions of rules: nginx's (PCRE) run as JavaScript's, and never longer than a subject is worth.

import { bytesOf, textOf } from './bytes.ts';
import type { Pattern } from './model.ts';
import { degreeOf } from './pattern-cost.ts';
import { type Captures, createMachine } from './pattern-machine.ts';
import { type Edge, type Node, PatternError, parsePattern } from './pattern-syntax.ts';

/** Why a reader must refuse it. */
export interface PatternFault {
  readonly fault: string;
  readonly cure: string;
}

/** `text` as the file has it, after the lexer's own escapes. */
export function readPattern(text: string, ignoreCase = false): Pattern | PatternFault {
  const pattern = { source: text, flags: ignoreCase ? 'i' : '' } as const;
  try {
    return { ...pattern, names: compilePattern({ ...pattern, names: [] }).names };
  } catch (error) {
    if (!(error instanceof PatternError)) throw error;
    return { fault: textOf(error.message), cure: error.cure };
  }
}

export function isPatternFault(read: Pattern | PatternFault): read is PatternFault {
  return 'fault' in read;
}

export interface CompiledPattern {
  readonly names: readonly string[];
  /** The whole match, then the groups; undefined: no match. Throws SubjectTooLong rather than say that it does not fit. */
  exec(subject: string): Captures | undefined;
  test(subject: string): boolean;
  /** Of a name in `names`: its place among the captures. */
  indexOf(name: string): number;
}

/** The subject is longer than this pattern can be tried on in good time. A rule that forbids must not be passed by with it. */
export class SubjectTooLong extends Error {
  override readonly name = 'SubjectTooLong';
}

/** Bytes up to which backtracking is let loose, by degree: a few milliseconds at the worst. */
const LONGEST_BY_DEGREE = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 1_024, 128];

/**
 * Linear patterns run as JavaScript's own at any length. Others do so up to a length, and beyond it on a machine without
 * backtracking. Those of them that look around have no such machine: longer subjects are refused.
 */
export function compilePattern({
  source,
  flags,
}: Pick<Pattern, 'source' | 'flags' | 'names'>): CompiledPattern {
  const { root, captures, names } = parsePattern(bytesOf(source), flags === 'i');
  const regexp = new RegExp(emit(root));
  const degree = degreeOf(root);
  const longest = LONGEST_BY_DEGREE[degree] ?? 0;
  const machine = longest === Number.POSITIVE_INFINITY ? undefined : createMachine(root, captures);
  if (longest === 0 && machine === undefined)
    throw new PatternError(
      'its repetitions overlap and it looks around: it could take forever',
      'write it without (?=…) and (?!…), or so that no repetition can take what another one does',
    );
  const indices = new Map<string, number>();
  numberNames(root, indices);
  const exec = (subject: string): Captures | undefined => {
    if (subject.length <= longest) return regexp.exec(subject) ?? undefined;
    if (machine === undefined) throw new SubjectTooLong();
    return machine(subject);
  };
  return {
    names,
    exec,
    test: (subject) => (subject.length <= longest ? regexp.test(subject) : exec(subject) !== undefined),
    indexOf: (name) => indices.get(name)!,
  };
}

function numberNames(node: Node, indices: Map<string, number>): void {
  if (node.kind === 'capture' && node.name !== undefined) indices.set(node.name, node.index);
  if ('item' in node) numberNames(node.item, indices);
  if ('items' in node) for (const item of node.items) numberNames(item, indices);
}

const edgeSources: Readonly<Record<Edge, string>> = {
  start: '^',
  end: '$',
  'line-end': '(?=\\n?$)',
  word: '\\b',
  'not-word': '\\B',
};

/** The tree in JavaScript's syntax, without flags: sets are written out, with both cases where case is ignored. */
function emit(node: Node): string {
  switch (node.kind) {
    case 'byte':
      return emitSet(node.set);
    case 'sequence':
      return `(?:${node.items.map(emit).join('')})`;
    case 'choice':
      return `(?:${node.items.map(emit).join('|')})`;
    case 'capture':
      return `(${emit(node.item)})`;
    case 'repeat': {
      const max = node.max === Number.POSITIVE_INFINITY ? '' : node.max;
      return `(?:${emit(node.item)}){${node.min},${max}}${node.lazy ? '?' : ''}`;
    }
    case 'edge':
      return edgeSources[node.at];
    case 'look':
      return `(?${node.ahead ? '' : '<'}${node.not ? '!' : '='}${emit(node.item)})`;
  }
}

function emitSet(set: Uint8Array): string {
  let ranges = '';
  for (let low = set.indexOf(1); low >= 0; ) {
    const end = set.indexOf(0, low);
    const high = end < 0 ? 255 : end - 1;
    ranges += low === high ? emitByte(low) : `${emitByte(low)}-${emitByte(high)}`;
    low = end < 0 ? -1 : set.indexOf(1, end);
  }
  return `[${ranges}]`;
}

function emitByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, '0')}`;
}
