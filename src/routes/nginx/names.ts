// The names of servers beside the domains that have certificates: what is in one and not in the other.

import type { RuleSet, SiteName } from '../../../proxy/rules/model.ts';
import { compilePattern } from '../../../proxy/rules/pattern.ts';
import { type Mistake, placeOfOrigin } from '../../config/mistake.ts';
import { covers, type Domain, isWildcard } from '../../lib/domain.ts';
import { takes } from '../sites.ts';

/**
 * `isRouted`: whether something else says where a domain goes, as TARGET_ENDPOINT does. None of it need stop a start: a
 * name without a certificate is never asked for, and what the default server answers is as the owner wants it or not.
 */
export function judgeNames(
  { sites }: RuleSet,
  domains: readonly Domain[],
  isRouted: (domain: Domain) => boolean,
): { readonly uncovered: Mistake[]; readonly byDefault: Mistake[] } {
  const uncovered = sites.flatMap((site) =>
    site.names
      .filter((name) => !isCovered(name, domains))
      .map((name) => ({
        place: placeOfOrigin(site.origin),
        subject: `no certificate covers the server_name ${written(name)}`,
        cure: `add ${written(name)} to DOMAINS, or take it away`,
      })),
  );
  const fallback = sites.find(({ isDefault }) => isDefault === true);
  const left =
    fallback === undefined
      ? []
      : domains.filter((domain) => !isRouted(domain) && !sites.some((site) => takes(site, domain)));
  const byDefault = left.map((domain) => ({
    place: placeOfOrigin(fallback!.origin),
    subject: `${domain} has no server block of its own, and this one answers it as the default`,
    cure: `if it should not, write a server with server_name ${domain}, or ${domain}=host:port into ROUTING_MAP`,
  }));
  return { uncovered, byDefault };
}

/** `_` and its like are for the default, and nobody asks for them. */
function isCovered(name: SiteName, domains: readonly Domain[]): boolean {
  switch (name.kind) {
    case 'exact':
      return !name.name.includes('.') || domains.some((domain) => covers(domain, name.name));
    case 'any-labels':
    case 'one-label':
      return domains.some((domain) => domain.endsWith(`.${name.name}`));
    case 'any-ending':
      return domains.some((domain) => domain.startsWith(`${name.name}.`) || isWildcard(domain));
    case 'pattern': {
      const { test } = compilePattern(name.pattern);
      return domains.some((domain) => isWildcard(domain) || test(domain));
    }
  }
}

function written(name: SiteName): string {
  switch (name.kind) {
    case 'exact':
      return name.name;
    case 'any-labels':
    case 'one-label':
      return `*.${name.name}`;
    case 'any-ending':
      return `${name.name}.*`;
    case 'pattern':
      return `~${name.pattern.source}`;
  }
}
