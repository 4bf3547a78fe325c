// The text of a file to the root node of one sound YAML document; whatever YAML itself refuses is told with its cure.

import { type ErrorCode, isScalar, type Node, parseAllDocuments, visit } from 'yaml';
import { quote } from '../../config/values.ts';
import type { Mistakes } from './mistakes.ts';

/** What a kind of file should hold: the cures for one that holds nothing, and for one that is no YAML at all. */
export interface Shape {
  readonly empty: string;
  readonly other: string;
}

const ROUTES: Shape = {
  empty: 'wants "routes:" and a list',
  other: 'wants YAML 1.2 in the shape that docs/routes.md shows',
};

/** The root node of a file that is one sound YAML 1.2 document of plain data. */
export function parseYaml(text: string, mistakes: Mistakes, shape = ROUTES): Node | undefined {
  const documents = parseAllDocuments(text, {
    lineCounter: mistakes.lines,
    prettyErrors: false,
    stringKeys: true,
  });
  const [document, second] = Array.isArray(documents) ? documents : [];
  if (second !== undefined) {
    mistakes.atOffset(second.range?.[0] ?? 0, 'a second YAML document begins here', 'wants one');
    return undefined;
  }
  const faults = [...(document?.errors ?? []), ...(document?.warnings ?? [])];
  for (const { pos, code, message } of faults)
    mistakes.atOffset(pos[0], `is not sound YAML: ${wordsOf(message)}`, cureOf(code, shape));
  if (faults.length > 0) return undefined;
  if (document?.contents == null || (isScalar(document.contents) && document.contents.value === null)) {
    mistakes.inFile('is empty', shape.empty);
    return undefined;
  }
  refuseAliases(document.contents, mistakes);
  return document.contents;
}

/** Nesting by the thousand exhausts the parser's stack, and it says so in the engine's words. */
function wordsOf(message: string): string {
  return /call stack/.test(message) ? 'it is nested too deeply' : message;
}

function cureOf(code: ErrorCode, shape: Shape): string {
  switch (code) {
    case 'TAB_AS_INDENT':
      return 'wants spaces';
    case 'DUPLICATE_KEY':
      return 'wants each key once';
    case 'BAD_ALIAS':
    case 'BAD_SCALAR_START':
    case 'TAG_RESOLVE_FAILED':
      return 'wants quotes around a text that begins with a special character, as in "*.example.com"';
    case 'BLOCK_AS_IMPLICIT_KEY':
      return 'wants one key on a line, and quotes around a text that holds ": "';
    case 'MISSING_CHAR':
    case 'UNEXPECTED_TOKEN':
      return 'wants every quote and bracket closed, and nothing behind it';
    case 'BAD_INDENT':
      return 'wants what belongs together to begin in the same column, and every bracket closed';
    default:
      return shape.other;
  }
}

/** An alias can stand for more than the file holds, and a schema cannot see it: each value is written where it is used. */
function refuseAliases(root: Node, mistakes: Mistakes): void {
  visit(root, {
    Alias(_, { source, range }) {
      const text = `*${source}`;
      // YAML reads an unquoted wildcard so.
      const cure = source.startsWith('.') ? `wants quotes: ${quote(text)}` : 'wants the value itself';
      mistakes.atOffset(range?.[0] ?? 0, `${text} is an alias`, cure);
    },
  });
}
