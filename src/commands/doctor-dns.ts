// What the doctor finds in the DNS: resolvers that answer, the gateway, where each domain leads, and what CAA lets happen.

import type { Resolver } from '../../dns/resolver.ts';
import type { AgentInfo } from '../../evidence/agent.ts';
import type { Config } from '../config/config.ts';
import { baseOf, type Domain, isWildcard } from '../lib/domain.ts';
import { seeCaa } from '../records/caa-sight.ts';
import { addressee, addressName, DEFAULT_TXT_PREFIX } from '../records/records.ts';
import { type Finding, findingsOf, told } from './doctor-report.ts';

/** No public DNS has these (RFC 6761, RFC 8375, RFC 6762). */
export function isPublic(domain: Domain): boolean {
  return !/(^|\.)(localhost|test|invalid|local|home\.arpa|internal)$/.test(domain);
}

/** Each resolver by itself, then the zones' own servers at port 53. */
export async function resolverFindings(resolver: Resolver, name: string): Promise<Finding[]> {
  const { ok, warn, fail } = findingsOf('resolvers');
  const { views = [], quorum = 1 } = resolver;
  const asked = await Promise.all(
    views.map(async (view) => ({
      server: view.server,
      why: await view.resolve(name, 'A').then(() => undefined, told),
    })),
  );
  const silent = asked.filter(({ why }) => why !== undefined);
  const level = asked.length - silent.length < quorum ? fail : warn;
  const findings: Finding[] = silent.map(({ server, why }) =>
    level(
      server,
      why!,
      'records are looked up there before an order, and too few answers stop it',
      'let this machine reach it, or name others with DOH_RESOLVERS or DNS_RESOLVERS',
    ),
  );
  if (findings.length === 0) findings.push(ok(asked.map(({ server }) => server).join(', '), 'answer'));
  if (silent.length === asked.length) return findings;
  return [...findings, ...(await portFindings(resolver, name))];
}

async function portFindings({ authority }: Resolver, name: string): Promise<Finding[]> {
  const { ok, warn } = findingsOf('resolvers');
  if (authority === undefined) return [];
  try {
    const views = await authority.viewsOf(name);
    await Promise.any(views.map((view) => view.resolve(name, 'CAA')));
    return [ok('port 53', `the name servers of ${name} answer`)];
  } catch (error) {
    const why = error instanceof AggregateError ? told(error.errors[0]) : told(error);
    return [
      warn(
        'port 53',
        `no name server of ${name} answers: ${why}`,
        'new records are seen only once the resolvers forget the old ones, and CAA beside an alias not at all',
        'let this machine reach port 53 outside, over UDP and TCP',
      ),
    ];
  }
}

export async function gatewayFindings(
  config: Config,
  resolver: Resolver,
  info: () => Promise<AgentInfo>,
): Promise<Finding[]> {
  const { gatewayDomain } = config.dns;
  if (gatewayDomain === undefined) return [];
  const { ok, fail } = findingsOf('gateway');
  const gateway = await addressesOf(gatewayDomain, resolver);
  // Of resolvers that do not answer another check tells.
  if (gateway === undefined) return [];
  if (gateway.length === 0) {
    return [
      fail(
        `GATEWAY_DOMAIN=${gatewayDomain}`,
        'has no address',
        'every domain is an alias of it, so none leads anywhere',
        'wants the name of the dstack gateway, as its operator gives it',
      ),
    ];
  }
  const wanted = await addresseeOf(config, info);
  const each = await Promise.all(
    config.domains
      .filter(isPublic)
      .map(async (domain) => [
        ...(await leadFindings(domain, gatewayDomain, gateway, config, resolver)),
        ...(await textFindings(domain, wanted, config, resolver)),
      ]),
  );
  const findings = each.flat();
  return findings.length > 0
    ? findings
    : [ok(gatewayDomain, 'all domains lead to it, and it knows where to find this app')];
}

/** Undefined: nobody says who we are. */
async function addresseeOf(
  { dns, acme }: Config,
  info: () => Promise<AgentInfo>,
): Promise<string | undefined> {
  if (dns.appId !== undefined) return dns.appId;
  return info().then(
    (ids) => addressee(acme.challenge, ids),
    () => undefined,
  );
}

/** Undefined: nobody can tell. */
async function addressesOf(name: string, resolver: Resolver): Promise<string[] | undefined> {
  try {
    const found = await Promise.all([resolver.resolve(name, 'A'), resolver.resolve(name, 'AAAA')]);
    return found.flat();
  } catch {
    return undefined;
  }
}

async function leadFindings(
  domain: Domain,
  gatewayDomain: string,
  gateway: readonly string[],
  config: Config,
  resolver: Resolver,
): Promise<Finding[]> {
  const { fail } = findingsOf('gateway');
  // Any name below a wildcard's base leads where the wildcard does.
  const name = isWildcard(domain) ? `dstack-ingress-doctor.${baseOf(domain)}` : domain;
  const found = await addressesOf(name, resolver);
  if (found === undefined || found.some((address) => gateway.includes(address))) return [];
  if (found.length === 0) {
    if (writesThem(config)) return [];
    return [
      fail(
        domain,
        'has no address',
        'visitors do not find it',
        `make the record: ${domain} CNAME ${gatewayDomain}`,
      ),
    ];
  }
  if (sharesIt(config)) return [];
  return [
    fail(
      domain,
      `leads to ${found.slice(0, 4).join(', ')}, which is not the gateway`,
      'visitors reach something else, which ends their TLS or refuses them',
      `make it an alias: ${domain} CNAME ${gatewayDomain}; where the provider proxies (an orange cloud), turn that off`,
    ),
  ];
}

/** Where the provider chooses among the aliases of several deployments, another one than ours is as good. */
function sharesIt({ dns }: Config): boolean {
  const { recordsMode, provider } = dns;
  return recordsMode === 'auto' && provider?.kind.create(provider.credentials).sharesAliases === true;
}

/** What is not there yet will be written at the start. */
function writesThem({ dns }: Config): boolean {
  return dns.recordsMode === 'auto' || dns.recordsMode === 'webhook' || dns.delegationZone !== undefined;
}

/** As the gateway reads it: the first text, `<app or instance id>:<port>`, nothing trimmed. */
async function textFindings(
  domain: Domain,
  wanted: string | undefined,
  config: Config,
  resolver: Resolver,
): Promise<Finding[]> {
  const { warn, fail } = findingsOf('gateway');
  const { txtPrefix, publicPort } = config.dns;
  const name = addressName(domain, txtPrefix);
  const right = `${wanted ?? '<app id>'}:${publicPort}`;
  const why = 'the gateway looks there for the app that is to get the connection, and cuts it otherwise';
  let values: readonly string[];
  try {
    values = await resolver.resolve(name, 'TXT');
    if (values.length === 0 && txtPrefix === DEFAULT_TXT_PREFIX && !isWildcard(domain))
      values = await resolver.resolve(addressName(domain, '_tapp-address'), 'TXT');
  } catch {
    // The resolvers have a check of their own.
    return [];
  }
  const cure = `make it the only text there: ${name} TXT "${right}"`;
  const [value, ...others] = values;
  if (value === undefined) return writesThem(config) ? [] : [fail(name, 'has no text', why, cure)];
  if (others.length > 0)
    return [fail(name, `has ${values.length} texts`, `${why}; it takes one of them`, cure)];
  const [, id = '', port = ''] = /^([0-9a-z]+):(\d{1,5})$/.exec(value) ?? [];
  if (id === '') return [fail(name, `says ${JSON.stringify(value)}, which is no address`, why, cure)];
  if (wanted !== undefined && id !== wanted)
    return [(writesThem(config) ? warn : fail)(name, `names ${id}, and this app is ${wanted}`, why, cure)];
  if (port !== String(publicPort))
    return [
      (writesThem(config) ? warn : fail)(
        name,
        `names port ${port}, and PUBLIC_PORT is ${publicPort}`,
        why,
        cure,
      ),
    ];
  return [];
}

export interface CaaBasis {
  /** The CA's names; empty: not known. */
  readonly identities: readonly string[];
  /** Undefined: there is none yet. */
  readonly account: string | undefined;
}

export async function caaFindings(config: Config, resolver: Resolver, basis: CaaBasis): Promise<Finding[]> {
  const { identities, account } = basis;
  const domains = config.domains.filter(isPublic);
  if (identities.length === 0) return [];
  const each = await Promise.all(
    domains.map((domain) => caaFinding({ domain, identities, accountUrl: account ?? '', config, resolver })),
  );
  return each;
}

interface CaaCase {
  readonly domain: Domain;
  readonly identities: readonly string[];
  /** Empty: there is none yet. */
  readonly accountUrl: string;
  readonly config: Config;
  readonly resolver: Resolver;
}

async function caaFinding({ domain, identities, accountUrl, config, resolver }: CaaCase): Promise<Finding> {
  const { ok, warn, fail } = findingsOf('caa');
  const pins = config.dns.setCaa;
  const why = 'the CA looks at it before it issues';
  try {
    const question = { domain, identities, accountUrl, method: config.acme.challenge };
    const { state, verdict, cause = '', cure = '' } = await seeCaa(resolver, question, pins);
    switch (state) {
      case 'pinned':
        return ok(domain, `this account alone may have certificates (CAA at ${verdict.decidedBy})`);
      case 'hidden':
        return warn(domain, cause, 'what the CA sees cannot be seen from here', cure);
      case 'forbids':
        return fail(
          domain,
          cause,
          `${why}: it refuses the next order`,
          accountUrl === '' ? 'remove what names another account, or bring that account back' : cure,
        );
      case 'open':
        if (pins && accountUrl === '')
          return ok(domain, 'nothing forbids the first order; the record is written before it');
        return warn(
          domain,
          cause,
          'whoever passes a validation of the domain, the network in front included, gets a certificate for it',
          pins ? cure : 'set SET_CAA=true',
        );
    }
  } catch (error) {
    return warn(domain, `CAA cannot be looked up: ${told(error)}`, why, 'see resolvers');
  }
}
