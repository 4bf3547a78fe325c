// The TXT record of dns-persist-01 (draft-ietf-acme-dns-persist): it stays, and lets one account of one CA validate a name.

import { createHash, createPublicKey } from 'node:crypto';
import { DnsError } from '../../dns/error.ts';
import type { DnsRecord } from '../../dns/provider.ts';
import { baseOf, type Domain, isWildcard } from '../lib/domain.ts';

export interface PersistentValidation {
  /** The CA's name in such records. */
  readonly issuer: string;
  readonly accountUri: string;
  /** Of a CA that follows revision 02 and wants the account's URL hashed; the one before wanted it as it is. */
  readonly hash?: {
    /** `meta.accountHashPrefix` of its directory. */
    readonly prefix: string;
    /** Of the account's key (RFC 7638), base64url. */
    readonly thumbprint: string;
  };
}

const LABEL = '_validation-persist';

/** One for each name and its wildcard together. Throws DnsError `unsupported` if the record cannot be written so. */
export function persistentRecords(domains: readonly Domain[], validation: PersistentValidation): DnsRecord[] {
  const bases = [...new Set(domains.map(baseOf))];
  return bases.map((base) => {
    const wildcard = domains.some((domain) => isWildcard(domain) && baseOf(domain) === base);
    return { name: `${LABEL}.${base}`, type: 'TXT', value: recordValue(base, wildcard, validation) };
  });
}

/** Other CAs and accounts may have records under such a name, which stand beside ours. */
export function isPersistentName(name: string): boolean {
  return name.startsWith(`${LABEL}.`);
}

/** Draft §4.1: written like the value of a CAA property (RFC 8659 §4.2). */
function recordValue(base: Domain, wildcard: boolean, { issuer, accountUri, hash }: PersistentValidation) {
  const account = hash === undefined ? accountUri : hashedUri(base, accountUri, hash.prefix, hash.thumbprint);
  for (const part of [issuer, account]) {
    if (/^[\x21-\x3a\x3c-\x7e]+$/.test(part)) continue;
    throw new DnsError('unsupported', `${LABEL}.${base} cannot name ${JSON.stringify(part)}`);
  }
  return `${issuer};accounturi=${account}${wildcard ? ';policy=wildcard' : ''}`;
}

/** Draft §4.1: the name's length in one octet, the name, the key's thumbprint, the account's URL. */
function hashedUri(name: string, accountUri: string, prefix: string, thumbprint: string): string {
  const digest = createHash('sha256')
    .update(Buffer.of(name.length))
    .update(name + thumbprint + accountUri)
    .digest('base64url');
  return `${prefix}sha-256/${digest}`;
}

/** RFC 7638 §3: over the required members alone, in lexicographic order. `account` has one of the two. */
export function thumbprintOf(account: {
  readonly key?: string | undefined;
  readonly publicKey?: Readonly<Record<string, string>> | undefined;
}): string {
  const jwk = account.publicKey ?? publicKeyOf(account.key);
  const sorted = Object.fromEntries(Object.entries(jwk).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256').update(JSON.stringify(sorted)).digest('base64url');
}

function publicKeyOf(key: string | undefined): Record<string, string> {
  if (key === undefined) throw new DnsError('unsupported', 'the key of the ACME account is not known yet');
  return createPublicKey(key).export({ format: 'jwk' }) as Record<string, string>;
}
