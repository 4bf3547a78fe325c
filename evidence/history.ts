// The history: every statement so far, one a line, each naming the one before; and what is wrong with one that was changed.

import { CanonicalJsonError, canonicalJson } from './canonical-json.ts';
import { type Statement, statementDigest, statementSchema } from './statement.ts';

export interface HistoryEntry {
  readonly statement: Statement;
  /** What the next one has to name. */
  readonly digest: string;
}

export type HistoryFaultCode =
  /** The last line has no end: whoever wrote it was stopped. */
  | 'cut'
  /** Not JSON, or JSON that is no statement. */
  | 'not-a-statement'
  /** The same statement could be written otherwise, and then has another digest for who hashes the line. */
  | 'not-canonical'
  /** It names another statement than the one before it; the first has to name none. */
  | 'not-linked';

export interface HistoryFault {
  readonly code: HistoryFaultCode;
  /** From 1. */
  readonly line: number;
  readonly message: string;
}

export interface History {
  /** What could be read, oldest first. Nothing is left out if there is no fault. */
  readonly entries: readonly HistoryEntry[];
  readonly faults: readonly HistoryFault[];
}

/** Reads to the end, whatever is in between. Bounded by the length of `text`. */
export function readHistory(text: string): History {
  const lines = text.split('\n');
  const unfinished = lines.pop();
  const entries: HistoryEntry[] = [];
  const faults: HistoryFault[] = [];
  for (const [index, line] of lines.entries()) {
    const read = readLine(line, index + 1);
    if ('code' in read) {
      faults.push(read);
      continue;
    }
    const fault = linkFault(read.statement, entries.at(-1)?.digest ?? null, index + 1);
    if (fault !== undefined) faults.push(fault);
    entries.push(read);
  }
  if (unfinished !== '') {
    faults.push({ code: 'cut', line: lines.length + 1, message: 'the last line does not end' });
  }
  return { entries, faults };
}

/** As it stands in the file. */
export function historyLine(statement: Statement): string {
  return `${canonicalJson(statement)}\n`;
}

function readLine(line: string, number: number): HistoryEntry | HistoryFault {
  try {
    const statement = statementSchema.parse(JSON.parse(line));
    // Names that come twice, escapes that need not be, other white space: none of it is canonical.
    if (historyLine(statement) === `${line}\n`) return { statement, digest: statementDigest(statement) };
  } catch (error) {
    // What has no canonical form, half a surrogate pair say, is a statement all the same.
    if (!(error instanceof CanonicalJsonError))
      return { code: 'not-a-statement', line: number, message: `line ${number} is not a statement` };
  }
  return { code: 'not-canonical', line: number, message: `line ${number} is not canonical JSON (RFC 8785)` };
}

function linkFault({ previous }: Statement, expected: string | null, line: number): HistoryFault | undefined {
  if (previous === expected) return undefined;
  const message = `line ${line} names ${previous ?? 'no statement'} as the one before it, that is ${expected ?? 'none'}`;
  return { code: 'not-linked', line, message };
}
