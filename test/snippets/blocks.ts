// What the pages show as code: the fenced blocks, and the commands and settings in their prose, each with its place.

import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** What people read. */
export const pages: readonly string[] = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  ...globSync('docs/*.md', { cwd: root }).sort(),
];

export interface Block {
  readonly page: string;
  /** `page:line` of the fence. */
  readonly place: string;
  /** What stands behind the fence; empty if nothing does. */
  readonly language: string;
  readonly text: string;
}

export interface Span {
  readonly place: string;
  readonly text: string;
}

export function read(page: string): string {
  return readFileSync(`${root}/${page}`, 'utf8');
}

/** Throws for a fence that nothing closes: what follows it would be taken for prose. */
export function blocksOf(page: string): Block[] {
  return taken(page).blocks;
}

/** Code within lines: what stands between single backticks, outside of the blocks. */
export function spansOf(page: string): Span[] {
  return taken(page).prose.flatMap(({ line, text }) =>
    [...text.matchAll(/`([^`]+)`/g)].map(([, span]) => ({ place: `${page}:${line}`, text: span! })),
  );
}

function taken(page: string) {
  const blocks: Block[] = [];
  const prose: { line: number; text: string }[] = [];
  let open: { language: string; line: number; lines: string[]; indent: number } | undefined;
  for (const [i, text] of read(page).split('\n').entries()) {
    const fence = /^( *)(?:```|~~~)(.*)$/.exec(text);
    if (fence === null) {
      if (open === undefined) prose.push({ line: i + 1, text });
      else open.lines.push(text.slice(open.indent));
    } else if (open === undefined) {
      open = { language: fence[2]!.trim(), line: i + 1, lines: [], indent: fence[1]!.length };
    } else {
      const { language, line, lines } = open;
      blocks.push({ page, place: `${page}:${line}`, language, text: `${lines.join('\n')}\n` });
      open = undefined;
    }
  }
  if (open !== undefined) throw new Error(`${page}:${open.line}: nothing closes this block`);
  return { blocks, prose };
}
