// A DNS provider: the zones we may write, and what each kind of provider says of itself.

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
  /** The provider answers with addresses of its own in place of the value, so that visitors reach it and not us. */
  readonly proxied?: boolean;
}

/**
 * Every call reads or changes records by exact name, type and value; none rewrites a zone. Calls reject with DnsError
 * and leave what they did not finish as it was.
 */
export interface DnsProvider {
  readonly name: string;
  /** Whether CAA can stand beside a CNAME of the same name; where not, the address of the target is written instead. */
  readonly caaBesideCname: boolean;
  /** Writes TXT records without reading any: enough for challenges, not for the other records of a domain. */
  readonly challengesOnly?: boolean;
  /** Holds CAA values without parameters only, so none that names an account (RFC 8657). */
  readonly plainCaaOnly?: boolean;
  /** All records at this very name of this type, every page read. */
  list(name: string, type: RecordType): Promise<DnsRecord[]>;
  /** Adds this value beside the others of its name and type; already there is success. A proxied one stops being so. */
  add(record: DnsRecord, ttlSeconds?: number): Promise<void>;
  /** Removes this value only; not there is success. */
  remove(record: DnsRecord): Promise<void>;
}

export interface CredentialVariable {
  /** The name under which create() is given it. */
  readonly name: string;
  /** Other names of the same thing, as lego and certbot users know them. */
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
  /** `credentials` by the names of `variables`; contacts nothing. Throws DnsError `unsupported` if one cannot be right. */
  create(credentials: Readonly<Record<string, string>>, options?: ProviderOptions): DnsProvider;
}
