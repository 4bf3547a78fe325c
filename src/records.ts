// Which DNS records a domain needs so that the gateway finds us, visitors find the gateway, and only our account gets certificates.

import { DnsError } from '../dns/error.ts';
import { formatCaa, normalizeName } from '../dns/presentation.ts';
import type { DnsRecord } from '../dns/provider.ts';
import { baseOf, type Domain, isWildcard } from './lib/domain.ts';

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
}

export interface CaaSettings {
  /** The names by which the CA goes in CAA, from its directory's `meta.caaIdentities` (RFC 8555 §9.7.6). */
  readonly identities: readonly string[];
  readonly accountUri: string;
  /** The challenge types that we use (RFC 8657 §4). */
  readonly methods: readonly string[];
}

export const DEFAULT_TXT_PREFIX = '_dstack-app-address';

/**
 * Whom the gateway is to connect to. With dns-01 any instance of the app may answer. With tls-alpn-01 it must be the one
 * that placed the order, and the gateway picks one of several instances of an app at will.
 */
export function addressee(
  challenge: string,
  ids: { appId: string; instanceId?: string | undefined },
): string {
  return challenge === 'tls-alpn-01' && ids.instanceId ? ids.instanceId : ids.appId;
}

/** In the order in which they are to be made: CNAME, TXT, CAA of each domain. Throws DnsError `unsupported`. */
export function recordsFor(domains: readonly Domain[], settings: RecordSettings): DnsRecord[] {
  const records = domains.flatMap((domain) => [
    { name: domain, type: 'CNAME', value: normalizeName(settings.gatewayDomain) } as const,
    {
      name: addressName(domain, settings.txtPrefix),
      type: 'TXT',
      value: `${settings.addressee}:${settings.port}`,
    } as const,
    ...caaRecords(domain, settings.caa),
  ]);
  return records;
}

/**
 * Where the gateway looks for the address: `_dstack-app-address.<name>`, or, for all names one label below a base,
 * `_dstack-app-address-wildcard.<base>`.
 */
export function addressName(domain: Domain, prefix = DEFAULT_TXT_PREFIX): string {
  return isWildcard(domain) ? `${prefix}-wildcard.${baseOf(domain)}` : `${prefix}.${domain}`;
}

/** RFC 8659 §5: a wildcard is looked up at its base, and there `issuewild` speaks for it alone. */
function caaRecords(domain: Domain, caa: CaaSettings | undefined): DnsRecord[] {
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
