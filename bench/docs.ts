// Puts a new table into the page that shows the last one.

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { writeFileAtomic } from '../src/lib/atomic-file.ts';

const page = fileURLToPath(new URL('../docs/performance.md', import.meta.url));
export const plotFile = fileURLToPath(new URL('../docs/connections.svg', import.meta.url));

export type Section = 'table' | 'connections' | 'memory';

/** Replaces what stands between the section's two markers. Throws if they are not there. */
export function replaceSection(text: string, section: Section, content: string): string {
  const [open, close] = [`<!-- bench:${section} -->`, `<!-- /bench:${section} -->`];
  const start = text.indexOf(open);
  const end = text.indexOf(close);
  if (start === -1 || end < start) throw new Error(`the page has no ${open} followed by ${close}`);
  return `${text.slice(0, start + open.length)}\n\n${content.trim()}\n\n${text.slice(end)}`;
}

export async function writeSection(section: Section, content: string): Promise<void> {
  const text = await readFile(page, 'utf8');
  await writeFileAtomic(page, replaceSection(text, section, content), 0o644);
}
