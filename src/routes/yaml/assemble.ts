// Drafts to what serves: a host without rules is a plain route, one with any is a site of the rules, whole.

import type { Content, Location, Policy, RuleSet, Site } from '../../../proxy/rules/model.ts';
import type { PathRoute, Route, UpstreamSettings } from '../../../proxy/rules/routes.ts';
import { covers, isWildcard } from '../../lib/domain.ts';
import type { Mistakes } from './mistakes.ts';
import type { Shared, UpstreamTimeouts } from './reading.ts';
import { type Level, type PathDraft, type RouteDraft, refuseTcp, speaksTcp } from './routes.ts';

export interface Draft {
  readonly route: RouteDraft;
  readonly mistakes: Mistakes;
}

/** `defaults`: what the file says of all its hosts. */
export function assemble(
  drafts: readonly Draft[],
  defaults: Level,
  shared: Shared,
): { routes: Route[]; rules: RuleSet } {
  const ruled = new Set(withRules(drafts, defaults));
  for (const { route, mistakes } of ruled) refuseTcp(route, mistakes);
  const routes = drafts.filter((draft) => !ruled.has(draft)).flatMap(({ route }) => plainRoutes(route));
  const sites = drafts.filter((draft) => ruled.has(draft)).map(({ route }) => siteOf(route, defaults));
  if (sites.length === 0) return { routes, rules: { sites } };
  return {
    routes,
    rules: {
      sites,
      policy: { ...defaults.policy, ...timeoutsOf(defaults.manner.timeouts) },
      upstreams: [...shared.groups.values()],
      requestZones: shared.requestZones,
      connectionZones: shared.connectionZones,
    },
  };
}

/**
 * Those that say more than plain routes can, and those that a name of these would take from the plain routes: the rules are
 * asked first.
 */
function withRules(drafts: readonly Draft[], defaults: Level): Draft[] {
  const ruled = drafts.filter(({ route }) => !isPlain(route, defaults));
  let rest = drafts.filter((draft) => !ruled.includes(draft) && !draft.route.paths.some(isTcp));
  for (;;) {
    const taken = rest.filter(({ route }) => isTakenBy(route, ruled));
    if (taken.length === 0) return ruled;
    ruled.push(...taken);
    rest = rest.filter((draft) => !taken.includes(draft));
  }
}

function isTcp({ content }: PathDraft): boolean {
  return speaksTcp(content);
}

function isPlain({ hosts, policy, clientAuth, paths }: RouteDraft, defaults: Level): boolean {
  if (clientAuth !== undefined || !isEmpty(policy)) return false;
  if (!paths.some(isTcp) && !isEmpty(defaults.policy)) return false;
  return hosts.every(({ domain }) => domain !== undefined) && paths.every(isPlainPath);
}

function isPlainPath(path: PathDraft): boolean {
  const { match, when, policy, maintenance, content } = path;
  if (match.prefix === undefined || when !== undefined || !isEmpty(policy)) return false;
  return content.isPlain && (maintenance === undefined || isTcp(path));
}

function isEmpty(policy: Policy): boolean {
  return Object.keys(policy).length === 0;
}

function isTakenBy({ hosts }: RouteDraft, ruled: readonly Draft[]): boolean {
  const names = ruled.flatMap(({ route }) => route.hosts);
  if (names.some(({ domain }) => domain === undefined)) return true;
  const wildcards = names.flatMap(({ domain }) =>
    domain !== undefined && isWildcard(domain) ? [domain] : [],
  );
  return hosts.some(({ domain }) => wildcards.some((wildcard) => covers(wildcard, domain!)));
}

// Plain routes

function plainRoutes({ hosts, paths }: RouteDraft): Route[] {
  const plain = paths.map(plainPath);
  return hosts.map(({ domain }) => ({ host: domain!, paths: plain }));
}

function plainPath({ match, content, manner }: PathDraft): PathRoute {
  const destination = content.destination!;
  if (destination.kind === 'plain') return { prefix: match.prefix!, upstream: destination.settings };
  const { protocol, group } = destination.upstream;
  const upstream: UpstreamSettings = {
    protocol,
    addresses: group.servers.map(({ host, port }) => ({ host, port: port! })),
    ...manner.timeouts,
    ...(group.health !== undefined && { health: group.health }),
  };
  return { prefix: match.prefix!, upstream };
}

// Sites

function siteOf({ hosts, origin, policy, clientAuth, paths }: RouteDraft, defaults: Level): Site {
  return {
    origin,
    names: hosts.map(({ name }) => name),
    label: hosts[0]!.label,
    ...(isEmpty(policy) ? {} : { policy }),
    locations: paths.map((path) => locationOf(path, defaults)),
    // As plain routes have it: names are passed as they came.
    underscoresInHeaders: true,
    ignoreInvalidHeaders: false,
    ...(clientAuth !== undefined ? { clientAuth: clientAuth.clientAuth } : {}),
  };
}

function locationOf(path: PathDraft, defaults: Level): Location {
  const { origin, match, when, content, manner } = path;
  const timeouts = timeoutsOf(manner.timeouts);
  const usual = timeoutsOf(defaults.manner.timeouts);
  const policy: Policy = {
    ...content.policy,
    ...path.policy,
    ...(JSON.stringify(timeouts) === JSON.stringify(usual) ? {} : timeouts),
  };
  return {
    origin,
    match: match.match,
    ...(when !== undefined && { when }),
    ...(isEmpty(policy) ? {} : { policy }),
    ...(content.rewrite.length > 0 && { rewrite: content.rewrite }),
    content: underMaintenance(path),
  };
}

function underMaintenance({ content, maintenance }: PathDraft): Content {
  if (maintenance === undefined) return content.content();
  const { allow } = maintenance;
  if (allow === undefined) return maintenance.content;
  return { ...maintenance.content, except: { addresses: allow, content: content.content() } };
}

function timeoutsOf(timeouts: UpstreamTimeouts): Policy {
  const { connectTimeoutMs, readTimeoutMs, sendTimeoutMs, totalTimeoutMs } = timeouts;
  return {
    connectTimeoutMs,
    readTimeoutMs,
    sendTimeoutMs,
    ...(totalTimeoutMs !== undefined && { totalTimeoutMs }),
  };
}
