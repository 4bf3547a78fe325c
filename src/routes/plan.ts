// Which domains are served and where their requests go: made of the settings and the routes file together.

import type { RuleSet, Site } from '../../proxy/rules/model.ts';
import { createRouteTable, type Route, speaksTls, type UpstreamSettings } from '../../proxy/rules/routes.ts';
import type { Environment } from '../config/environment.ts';
import { parseUpstreamUrl } from '../config/upstream-url.ts';
import { parseSwitch, quote, splitLines, splitWords, ValueError } from '../config/values.ts';
import { baseOf, covers, type Domain, DomainError, isWildcard, parseDomain } from '../lib/domain.ts';
import { isTaken } from './sites.ts';
import type { UpstreamTimeouts } from './yaml/file.ts';

/** What the environment says. A routes file that is read again is joined with it. */
export interface FixedRouting {
  /** DOMAIN, ALIAS_DOMAIN and DOMAINS, each name once. */
  readonly domains: readonly Domain[];
  /** ALIAS_DOMAIN, which shares certificate and route with DOMAIN. */
  readonly alias: Alias | undefined;
  /** ROUTING_MAP. */
  readonly routes: readonly Route[];
  /** TARGET_ENDPOINT: for every domain that has no route of its own. */
  readonly fallback: UpstreamSettings | undefined;
  readonly timeouts: UpstreamTimeouts;
}

export interface Alias {
  readonly name: Domain;
  readonly of: Domain;
}

export interface RoutingPlan {
  /** Every name that needs records and a certificate, as first named, each once. */
  readonly domains: readonly Domain[];
  /** The names of each certificate: a wildcard and its base share one, and so do DOMAIN and its alias. */
  readonly certificates: readonly (readonly Domain[])[];
  readonly routes: readonly Route[];
  /** Of the hosts that need more than a route. */
  readonly rules: RuleSet | undefined;
}

/** What files say beside the settings. */
export interface FileRouting {
  readonly routes: readonly Route[];
  readonly rules: RuleSet | undefined;
  /** Hosts of the rules that are served whether or not DOMAINS lists them, as those of a routes file are. */
  readonly hosts: readonly Domain[];
}

export const nothingFiled: FileRouting = { routes: [], rules: undefined, hosts: [] };

/** What cannot be served of the settings and the file together, and what would mend it. */
export interface RoutingProblem {
  readonly domain: Domain;
  readonly subject: string;
  readonly cure: string;
}

/** Mistakes go to the environment's list. `bareIsH2c`: what a bare host:port stands for, see ALPN. */
export function readFixedRouting(
  environment: Environment,
  timeouts: UpstreamTimeouts,
  bareIsH2c: boolean,
): FixedRouting {
  const announced = environment.read('SEND_PROXY_PROTOCOL', parseSwitch) ?? false;
  const upstream = (text: string): UpstreamSettings => {
    const { protocol, address } = parseUpstreamUrl(text);
    if (announced && speaksTls(protocol)) {
      throw new ValueError(
        `${quote(text)} would get a PROXY header in front of TLS`,
        'wants an upstream without TLS, or SEND_PROXY_PROTOCOL=false',
      );
    }
    return {
      protocol: protocol === 'auto' && bareIsH2c ? 'h2c' : protocol,
      addresses: [address],
      ...timeouts,
      ...(announced && { announced }),
    };
  };
  const domain = environment.read('DOMAIN', parseSingleDomain);
  const alias = readAlias(environment, domain);
  const others = environment.read('DOMAINS', (text) =>
    parseAll(environment, 'DOMAINS', splitWords(text), parseDomain),
  );
  const fallback = environment.read('TARGET_ENDPOINT', upstream);
  const routes = environment.read('ROUTING_MAP', (text) =>
    withoutRepeats(
      environment,
      parseAll(environment, 'ROUTING_MAP', splitLines(text), (entry) => parseEntry(entry, upstream)),
    ),
  );
  return {
    domains: [...new Set([...(domain ? [domain] : []), ...(alias ? [alias.name] : []), ...(others ?? [])])],
    alias,
    routes: routes ?? [],
    fallback,
    timeouts,
  };
}

function readAlias(environment: Environment, domain: Domain | undefined): Alias | undefined {
  const name = environment.read('ALIAS_DOMAIN', parseSingleDomain);
  if (name === undefined) return undefined;
  if (!environment.has('DOMAIN')) {
    environment.refuse(
      'ALIAS_DOMAIN',
      'is set without DOMAIN, whose certificate and route it would share',
      'wants DOMAIN set as well',
    );
  }
  return domain === undefined ? undefined : { name, of: domain };
}

function parseSingleDomain(text: string): Domain {
  if (/[\s,]/.test(text))
    throw new ValueError(`${quote(text)} is more than one domain`, 'wants them in DOMAINS');
  return parseDomain(text);
}

/** Every item that parses; a mistake for every one that does not. */
function parseAll<T>(
  environment: Environment,
  variable: string,
  items: string[],
  parse: (item: string) => T,
): T[] {
  return items.flatMap((item) => {
    try {
      return [parse(item)];
    } catch (error) {
      if (!(error instanceof ValueError) && !(error instanceof DomainError)) throw error;
      environment.refuse(variable, error.subject, error.cure);
      return [];
    }
  });
}

function parseEntry(entry: string, upstream: (text: string) => UpstreamSettings): Route {
  const [, name, target] = /^([^=]*)=(.*)$/s.exec(entry) ?? [];
  if (!name?.trim() || !target?.trim()) {
    throw new ValueError(
      `${quote(entry)} is not an entry`,
      'wants domain=upstream, as in app.example.com=app:80',
    );
  }
  const host = parseDomain(name);
  try {
    return { host, paths: [{ prefix: '/', upstream: upstream(target.trim()) }] };
  } catch (cause) {
    if (!(cause instanceof ValueError)) throw cause;
    throw new ValueError(`the upstream of ${host}: ${cause.subject}`, cause.cure, { cause });
  }
}

function withoutRepeats(environment: Environment, routes: Route[]): Route[] {
  const seen = new Set<Domain>();
  return routes.filter(({ host }) => {
    if (!seen.has(host)) return seen.add(host);
    environment.refuse('ROUTING_MAP', `${host} has two entries`, 'wants one');
    return false;
  });
}

/**
 * The hosts of the file are served as well. A name that a listed wildcard covers needs no certificate of its own. A plan
 * with problems must not be used.
 */
export function planRouting(
  fixed: FixedRouting,
  { routes: fileRoutes, rules, hosts }: FileRouting,
): { plan: RoutingPlan; problems: RoutingProblem[] } {
  const problems: RoutingProblem[] = [];
  const domains = withUncovered(fixed.domains, [...fileRoutes.map(({ host }) => host), ...hosts]);
  for (const { host } of fixed.routes) {
    if (fileRoutes.some((route) => route.host === host)) {
      problems.push({
        domain: host,
        subject: `${host} is in ROUTING_MAP and in the routes file`,
        cure: 'wants one of them',
      });
    } else if (siteNaming(rules, host) !== undefined) {
      problems.push({
        domain: host,
        subject: `${host} is in ROUTING_MAP and at ${siteNaming(rules, host)!.origin}`,
        cure: 'wants one of them',
      });
    } else if (!isCovered(domains, host)) {
      problems.push({
        domain: host,
        subject: `${host} has a route, but is not among the domains`,
        cure: 'wants it in DOMAINS',
      });
    }
  }
  const named = [...fixed.routes, ...fileRoutes];
  const own = [...named, ...aliasRoutes(named, fixed.alias)];
  const { knows } = createRouteTable(own);
  const without = domains.filter((domain) => !knows(domain) && !isTaken(rules, domain));
  const takesAll = rules?.sites.some(({ isDefault }) => isDefault === true) === true;
  if (fixed.fallback !== undefined) problems.push(...unusedFallback(domains, without, rules));
  else if (!takesAll) {
    for (const domain of without) {
      problems.push({
        domain,
        subject: `${domain} has no upstream`,
        cure: 'wants TARGET_ENDPOINT, or an entry in ROUTING_MAP or the routes file',
      });
    }
  }
  const rest = without.flatMap((host) =>
    fixed.fallback === undefined ? [] : [{ host, paths: [{ prefix: '/', upstream: fixed.fallback }] }],
  );
  const certificates = groupNames(domains, fixed.alias);
  return { plan: { domains, certificates, routes: [...own, ...rest], rules }, problems };
}

/** TARGET_ENDPOINT beside a site for the one domain that it could serve: one of them would silently be without effect. */
function unusedFallback(
  domains: readonly Domain[],
  without: readonly Domain[],
  rules: RuleSet | undefined,
): RoutingProblem[] {
  const [domain] = domains;
  const site = domain === undefined ? undefined : siteNaming(rules, domain);
  if (domain === undefined || site === undefined || without.length > 0) return [];
  return [
    {
      domain,
      subject: `${domain} is at ${site.origin}, and TARGET_ENDPOINT is set as well`,
      cure: 'take TARGET_ENDPOINT away, or the server of that name',
    },
  ];
}

/** The site that has the host among its names as it stands. */
function siteNaming(rules: RuleSet | undefined, host: Domain): Site | undefined {
  return rules?.sites.find(({ names }) => names.some((name) => name.kind === 'exact' && name.name === host));
}

/** The alias has the paths of its domain unless it has some of its own. None where both use TARGET_ENDPOINT. */
function aliasRoutes(named: readonly Route[], alias: Alias | undefined): Route[] {
  if (alias === undefined || named.some(({ host }) => host === alias.name)) return [];
  const exact = named.filter(({ host }) => host === alias.of);
  const model = exact.length > 0 ? exact : named.filter(({ host }) => covers(host, alias.of));
  return model.map(({ paths }) => ({ host: alias.name, paths }));
}

function withUncovered(listed: readonly Domain[], more: readonly Domain[]): Domain[] {
  const wildcards = more.filter(isWildcard);
  const known = [...listed, ...wildcards];
  return [...new Set([...listed, ...more.filter((host) => isWildcard(host) || !isCovered(known, host))])];
}

function isCovered(domains: readonly Domain[], host: Domain): boolean {
  return domains.some((domain) => covers(domain, host));
}

/**
 * Each group in the order of its first name; a wildcard does not cover its base, so the two are ordered together. A name
 * beside a wildcard that covers it is left out: Let's Encrypt refuses such an order as redundant.
 */
function groupNames(domains: readonly Domain[], alias: Alias | undefined): Domain[][] {
  const groups = new Map<Domain, Domain[]>();
  for (const domain of domains) {
    const base = baseOf(domain);
    const key = alias !== undefined && base === baseOf(alias.name) ? baseOf(alias.of) : base;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [domain]);
    else group.push(domain);
  }
  return [...groups.values()].map((names) =>
    names.filter((name) => !names.some((other) => other !== name && covers(other, name))),
  );
}

const MOST_DESCRIBED = 50;

/** Where each host goes, as it would be written: `http://app:80`, or each path with its own. */
export function describeRoutes({
  routes,
  rules,
}: Pick<RoutingPlan, 'routes' | 'rules'>): Record<string, string> {
  const sites = (rules?.sites ?? [])
    .slice(0, MOST_DESCRIBED)
    .map(({ label, origin }) => [label, `rules at ${origin}`]);
  const described = routes.slice(0, MOST_DESCRIBED).map(({ host, paths }) => {
    const [only] = paths;
    const plain = paths.length === 1 && only!.prefix === '/';
    const each = paths.map(({ prefix, upstream }) => `${prefix} to ${describeUpstream(upstream)}`);
    return [host, plain ? describeUpstream(only!.upstream) : each.join('; ')];
  });
  const more = routes.length + (rules?.sites.length ?? 0) - described.length - sites.length;
  return Object.fromEntries([...described, ...sites, ...(more > 0 ? [['and', `${more} more`]] : [])]);
}

function describeUpstream({ protocol, addresses }: UpstreamSettings): string {
  const scheme = protocol === 'auto' ? '' : `${protocol}://`;
  return addresses
    .map(({ host, port }) => `${scheme}${host.includes(':') ? `[${host}]` : host}:${port}`)
    .join(', ');
}
