// A DNS provider: what it can do with records, and how each kind describes itself.

import type { Clock } from '../src/lib/clock.ts';
import type { Patience } from './providers/patience.ts';

export { DnsError, type DnsErrorCode } from './error.ts';

export type RecordType = 'A' | 'AAAA' | 'CNAME' | 'TXT' | 'CAA';

export interface DnsRecord {
  /** Full name, lower case, without a trailing dot. */
  readonly name: string;
  readonly type: RecordType;
  /**
   * TXT: the text itself, unquoted. CNAME: the target without a trailing dot. CAA: `0 issue "value"` as in a zone file.
   */
  readonly value: string;
  /** The provider answers with its own addresses instead of the value: visitors reach the provider instead of us. */
  readonly proxied?: boolean;
  /** One of several that a routing policy of the provider's chooses among: others' may stand beside it. */
  readonly shared?: boolean;
}

/**
 * Every call reads or changes records by exact name, type and value, and leaves all others alone. A call that rejects
 * (DnsError) has changed nothing.
 */
export interface DnsProvider {
  readonly name: string;
  /** Whether a name can have CAA and CNAME records at once; if not, the target's address is written instead of a CNAME. */
  readonly caaBesideCname: boolean;
  /** It can write TXT records but read none: enough for challenges, not for a domain's other records. */
  readonly challengesOnly?: boolean;
  /** It stores no CAA parameters, so no record can name an account (RFC 8657). */
  readonly plainCaaOnly?: boolean;
  /** It makes an alias as one of several among which it chooses, so that the world may be shown another one. */
  readonly sharesAliases?: boolean;
  /** All records of exactly this name and type, from every page. */
  list(name: string, type: RecordType): Promise<DnsRecord[]>;
  /** Adds this value beside the others. Succeeds if it is there already, and turns off proxying for it. */
  add(record: DnsRecord, ttlSeconds?: number): Promise<void>;
  /** Removes this value only. Succeeds if it is not there. */
  remove(record: DnsRecord): Promise<void>;
}

export interface CredentialVariable {
  /** The name under which create() is given it. */
  readonly name: string;
  /** The names that lego and certbot users know. */
  readonly aliases?: readonly string[];
  readonly required: boolean;
  readonly secret: boolean;
  readonly meaning: string;
}

export interface ProviderOptions {
  /** For one call to the API. Default 30 s. */
  readonly timeoutMs?: number;
  /** How often and how long a failing or limiting API is asked again. */
  readonly patience?: Patience;
  readonly clock?: Clock;
}

export interface ProviderKind {
  /** As in DNS_PROVIDER. */
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly variables: readonly CredentialVariable[];
  /** `credentials` have the names of `variables`. Contacts nobody. Throws DnsError `unsupported` if one cannot be right. */
  create(credentials: Readonly<Record<string, string>>, options?: ProviderOptions): DnsProvider;
}
