// What was accepted without effect, or with another one than nginx's: told once by kind.

import type { Place } from '../../config/mistake.ts';
import { placeOf } from './blocks.ts';
import type { Word } from './lexer.ts';
import { type AcceptedKind, acceptedKinds, noticeableKinds } from './table.ts';

export interface Note {
  readonly kind: string;
  /** Of the first. */
  readonly place: Place;
  readonly text: string;
  /** Names of the directives, each once. */
  readonly directives: readonly string[];
  /** Whether visitors get something else than nginx would give them. */
  readonly isWarning: boolean;
}

/** One line: what is to be known, and which directives it is about. */
export function describeNote({ text, directives }: Note): string {
  return `${text} (${directives.join(', ')})`;
}

export interface Notes {
  accepted(kind: AcceptedKind, directive: Word): void;
  /** What concerns one place alone. */
  warn(at: Word, text: string): void;
  all(): Note[];
}

export function createNotes(): Notes {
  const kinds = new Map<AcceptedKind, { first: Word; names: Set<string> }>();
  const warnings: Note[] = [];
  return {
    accepted(kind, directive) {
      const known = kinds.get(kind);
      if (known === undefined) kinds.set(kind, { first: directive, names: new Set([directive.text]) });
      else known.names.add(directive.text);
    },
    warn(at, text) {
      if (warnings.length < MOST_WARNINGS)
        warnings.push({ kind: 'place', place: placeOf(at), text, directives: [at.text], isWarning: true });
    },
    all: () => [
      ...[...kinds].map(([kind, { first, names }]) => ({
        kind,
        place: placeOf(first),
        text: acceptedKinds[kind],
        directives: [...names],
        isWarning: noticeableKinds.has(kind),
      })),
      ...warnings,
    ],
  };
}

const MOST_WARNINGS = 50;
