// A routes file without rules, read for tests that look at plain routes alone.

import type { Route } from '../../proxy/rules/routes.ts';
import { RoutesFileError, readRoutesFile, type UpstreamTimeouts } from '../../src/routes/yaml/file.ts';

/** Throws RoutesFileError with every mistake, and for a file that needs rules. */
export function parseRoutesFile(text: string, path: string, timeouts: UpstreamTimeouts): Route[] {
  const { routes, rules, mistakes } = readRoutesFile(text, path, { timeouts });
  const needing = rules.sites.map(({ label }) => ({
    place: { file: path },
    subject: `${label} needs rules`,
    cure: 'wants a host with upstreams alone',
  }));
  const found = [...mistakes, ...needing];
  if (found.length > 0) throw new RoutesFileError(path, found);
  return [...routes];
}
