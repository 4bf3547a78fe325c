// Which site a host belongs to: exact names, then `*.x` the longest first, then `x.*`, then patterns in order, then the default.

import type { CompiledSite } from './compiled.ts';
import { byBeginning, byEnding } from './map.ts';
import type { Site } from './model.ts';

export interface SiteTable {
  /** `host` in lower case, without port and final dot. Patterns are left to whoever runs the request. */
  find(host: string): CompiledSite | undefined;
  /** The same without the default site. */
  findNamed(host: string): CompiledSite | undefined;
  /** Takes what no name fits. */
  readonly byDefault: CompiledSite | undefined;
}

export function createSites(sites: readonly (readonly [Site, CompiledSite])[]): SiteTable {
  const exact = new Map<string, CompiledSite>();
  const oneLabel = new Map<string, CompiledSite>();
  const endings = new Map<string, CompiledSite>();
  const beginnings = new Map<string, CompiledSite>();
  const patterns: CompiledSite[] = [];
  const tables = { exact, 'one-label': oneLabel, 'any-labels': endings, 'any-ending': beginnings };
  let byDefault: CompiledSite | undefined;
  for (const [site, compiled] of sites) {
    if (site.isDefault === true) byDefault ??= compiled;
    for (const name of site.names) {
      if (name.kind === 'pattern') continue;
      // The first of a name wins: nginx warns of the second, and ignores it.
      const table = tables[name.kind];
      const key = name.name.toLowerCase();
      if (!table.has(key)) table.set(key, compiled);
    }
    if (compiled.matchers.length > 0) patterns.push(compiled);
  }
  const findNamed = (host: string) =>
    exact.get(host) ??
    (oneLabel.size > 0 ? oneLabel.get(afterFirstLabel(host)) : undefined) ??
    (endings.size > 0 ? byEnding(endings, host) : undefined) ??
    (beginnings.size > 0 ? byBeginning(beginnings, host) : undefined) ??
    patterns.find(({ matchers }) => matchers.some(({ pattern }) => pattern.test(host)));
  return { find: (host) => findNamed(host) ?? byDefault, findNamed, byDefault };
}

function afterFirstLabel(host: string): string {
  const dot = host.indexOf('.');
  return dot > 0 ? host.slice(dot + 1) : '';
}

/** As names are compared: lower case, without port and one final dot. */
export function hostName(host: string): string {
  const colon = host.startsWith('[') ? host.indexOf(':', host.indexOf(']')) : host.indexOf(':');
  const name = (colon < 0 ? host : host.slice(0, colon)).toLowerCase();
  return name.endsWith('.') ? name.slice(0, -1) : name;
}
