// Sites of rules beside domains: which domains they serve, and which they name.

import type { RuleSet, Site, SiteName } from '../../proxy/rules/model.ts';
import { compilePattern } from '../../proxy/rules/pattern.ts';
import { covers, type Domain, isWildcard, parseDomain } from '../lib/domain.ts';

/** Whether a site serves the domain by a name; of a wildcard, some of it. */
export function isTaken(rules: RuleSet | undefined, domain: Domain): boolean {
  return rules?.sites.some((site) => takes(site, domain)) === true;
}

/** The names that can have certificates: single hosts, and wildcards of one label. */
export function hostsOf({ sites }: RuleSet): Domain[] {
  return sites.flatMap(({ names }) =>
    names.flatMap((name) => {
      if (name.kind === 'exact') return [parseDomain(name.name)];
      return name.kind === 'one-label' ? [parseDomain(`*.${name.name}`)] : [];
    }),
  );
}

/** Whether requests for the domain may come to the site; of a wildcard, some of them. */
export function takes({ names }: Site, domain: Domain): boolean {
  return names.some((name) => takesUnder(name, domain));
}

function takesUnder(name: SiteName, domain: Domain): boolean {
  switch (name.kind) {
    case 'exact':
      return covers(domain, name.name);
    case 'any-labels':
      return domain.endsWith(`.${name.name}`);
    case 'one-label':
      return domain === `*.${name.name}` || covers(`*.${name.name}`, domain);
    case 'any-ending':
      return isWildcard(domain) || domain.startsWith(`${name.name}.`);
    case 'pattern':
      return isWildcard(domain) || compilePattern(name.pattern).test(domain);
  }
}
