// Which DNS records a domain needs so that the gateway finds us, visitors find the gateway, and only our account gets certificates.

import { DnsError } from '../../dns/error.ts';
import type { DnsRecord } from '../../dns/provider.ts';
import { formatCaa, normalizeName, sameRecord } from '../../dns/wire/presentation.ts';
import { baseOf, type Domain, isWildcard } from '../lib/domain.ts';
import { type PersistentValidation, persistentRecords } from './persistent-validation.ts';

export interface RecordSettings {
  /** The gateway's name: what visitors' connections go to. */
  readonly gatewayDomain: string;
  /** The app id, or the instance id where only this instance may be reached: see addressee(). */
  readonly addressee: string;
  /** The port of this container that the gateway connects to. */
  readonly port: number;
  /** Default `_dstack-app-address`. */
  readonly txtPrefix?: string;
  /** Absent: no CAA. */
  readonly caa?: CaaSettings;
  /** With dns-persist-01. */
  readonly persistence?: PersistentValidation;
  /** A zone that we write in place of the domains' own, which point into it: see delegationRecords(). */
  readonly delegationZone?: string;
}

export interface CaaSettings {
  /** The CA's names in CAA records, from its directory's `meta.caaIdentities` (RFC 8555 §9.7.6). */
  readonly identities: readonly string[];
  readonly accountUri: string;
  /** The challenge types that we use (RFC 8657 §4). */
  readonly methods: readonly string[];
}

export const DEFAULT_TXT_PREFIX = '_dstack-app-address';

/**
 * Whom the gateway is to connect to. With dns-01 any instance of the app may answer. With tls-alpn-01 and http-01 it must
 * be the one that placed the order, and the gateway picks one of several instances of an app at will.
 */
export function addressee(
  challenge: string,
  ids: { appId: string; instanceId?: string | undefined },
): string {
  return connectsToUs(challenge) && ids.instanceId ? ids.instanceId : ids.appId;
}

/** Whether the CA connects to us to check such a challenge. */
export function connectsToUs(challenge: string): boolean {
  return challenge === 'tls-alpn-01' || challenge === 'http-01';
}

/**
 * In the order in which they are to be made: alias, address, CAA of each domain. With a delegation zone these are their
 * counterparts in it. Throws DnsError `unsupported`.
 */
export function recordsFor(domains: readonly Domain[], settings: RecordSettings): DnsRecord[] {
  const { delegationZone: zone } = settings;
  const place = (name: string) => (zone === undefined ? name : delegatedName(name, zone));
  const records = domains.flatMap((domain): DnsRecord[] => [
    // In the delegation zone a wildcard and its base share one alias: that is where the base's CAA can stand.
    {
      name: place(zone === undefined ? domain : baseOf(domain)),
      type: 'CNAME',
      value: normalizeName(settings.gatewayDomain),
    },
    {
      name: place(addressName(domain, settings.txtPrefix)),
      type: 'TXT',
      value: `${settings.addressee}:${settings.port}`,
    },
    ...caaRecords(domain, settings.caa).map((record) => ({ ...record, name: place(record.name) })),
  ]);
  const { persistence } = settings;
  return withoutRepeats([...records, ...(persistence ? persistentRecords(domains, persistence) : [])]);
}

/**
 * What the owner of the domains' own zone makes once, so that everything that changes later changes in the delegation
 * zone: an alias for the name, the gateway's address text and the ACME challenge. A wildcard needs a fourth one, at its
 * base, for that is where CAA is looked up (RFC 8659 §5); a zone's apex cannot have it.
 */
export function delegationRecords(
  domains: readonly Domain[],
  settings: { readonly delegationZone: string; readonly txtPrefix?: string; readonly challenges: boolean },
): DnsRecord[] {
  const { delegationZone: zone, txtPrefix, challenges } = settings;
  const records = domains.flatMap((domain) => {
    const base = baseOf(domain);
    const alias = (name: string, to = name): DnsRecord => ({
      name,
      type: 'CNAME',
      value: delegatedName(to, zone),
    });
    return [
      alias(domain, base),
      ...(isWildcard(domain) ? [alias(base)] : []),
      alias(addressName(domain, txtPrefix)),
      ...(challenges ? [alias(challengeName(domain))] : []),
    ];
  });
  return withoutRepeats(records);
}

/** Where a dns-01 challenge is answered (RFC 8555 §8.4), in the delegation zone if there is one. */
export function challengeName(domain: Domain, delegationZone?: string): string {
  const name = `_acme-challenge.${baseOf(domain)}`;
  return delegationZone === undefined ? name : delegatedName(name, delegationZone);
}

/** `name` -> `name.zone`. Throws DnsError `unsupported` if that is longer than DNS allows. */
function delegatedName(name: string, zone: string): string {
  const delegated = `${name}.${normalizeName(zone)}`;
  if (delegated.length > 253) throw new DnsError('unsupported', `${delegated} is too long for a DNS name`);
  return delegated;
}

function withoutRepeats(records: readonly DnsRecord[]): DnsRecord[] {
  const first = (record: DnsRecord, index: number) =>
    records.findIndex((other) => sameRecord(other, record)) === index;
  return records.filter(first);
}

/**
 * Where the gateway looks for the address: `_dstack-app-address.<name>`, or, for all names one label below a base,
 * `_dstack-app-address-wildcard.<base>`.
 */
export function addressName(domain: Domain, prefix = DEFAULT_TXT_PREFIX): string {
  return isWildcard(domain) ? `${prefix}-wildcard.${baseOf(domain)}` : `${prefix}.${domain}`;
}

/** RFC 8659 §5: a wildcard is looked up at its base, and there `issuewild` speaks for it alone. */
export function caaRecords(domain: Domain, caa: CaaSettings | undefined): DnsRecord[] {
  if (caa === undefined) return [];
  const tag = isWildcard(domain) ? 'issuewild' : 'issue';
  return caa.identities.map((identity) => ({
    name: baseOf(domain),
    type: 'CAA',
    value: formatCaa({ flags: 0, tag, value: caaPin(identity, caa) }),
  }));
}

/**
 * RFC 8657: only this account, only by these methods. Let's Encrypt's Boulder takes no blank inside a value and no
 * semicolon after the last parameter.
 */
function caaPin(identity: string, { accountUri, methods }: CaaSettings): string {
  // RFC 8659 §4.2: a parameter's value is printable ASCII but for the semicolon.
  if (!/^[\x21-\x3a\x3c-\x7e]+$/.test(accountUri)) {
    throw new DnsError('unsupported', `CAA cannot name the account ${JSON.stringify(accountUri)}`);
  }
  return `${identity};accounturi=${accountUri};validationmethods=${methods.join(',')}`;
}
