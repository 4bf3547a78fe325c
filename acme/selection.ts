// Which of the stored certificates serves which of the wanted names; it needs nothing but what is on disk.

import type { Certificate } from '../src/lib/certificate.ts';
import type { Domain } from '../src/lib/domain.ts';

/** What can be served at once: for each wanted certificate the stored one, if there is one. */
export function servable(
  stored: readonly Certificate[],
  wanted: readonly (readonly Domain[])[],
): Certificate[] {
  return wanted.map((names) => pick(stored, names)).filter((certificate) => certificate !== undefined);
}

/** The one for exactly these names, or else the one stored under the first of them. */
export function pick(stored: readonly Certificate[], names: readonly Domain[]): Certificate | undefined {
  return (
    stored.filter((each) => sameSet(each.names, names)).sort((a, b) => +b.notAfter - +a.notAfter)[0] ??
    stored.find((each) => each.names[0] === names[0])
  );
}

/** Whether two lists have the same names, in whatever order. */
export function sameSet(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && new Set([...a, ...b]).size === a.length;
}
