// A DNS provider: the zones we may write; which one it is, by its name or by the credentials that are set.

export type RecordType = 'A' | 'AAAA' | 'CNAME' | 'TXT' | 'CAA';

export interface DnsRecord {
  /** Full name, lower case, without a trailing dot. */
  readonly name: string;
  readonly type: RecordType;
  /**
   * TXT: the text itself, unquoted. CNAME: the target without a trailing dot. CAA: `0 issue "value"` as in a zone file.
   */
  readonly value: string;
}

/**
 * Every call reads or changes records by exact name, type and value; none rewrites a zone. Calls reject with DnsError
 * and leave what they did not finish as it was.
 */
export interface DnsProvider {
  readonly name: string;
  /** Whether CAA can stand beside a CNAME of the same name; where not, the address of the target is written instead. */
  readonly caaBesideCname: boolean;
  /** All records at this very name of this type, every page read. */
  list(name: string, type: RecordType): Promise<DnsRecord[]>;
  /** Adds this value beside the others of its name and type; already there is success. */
  add(record: DnsRecord, ttlSeconds?: number): Promise<void>;
  /** Removes this value only; not there is success. */
  remove(record: DnsRecord): Promise<void>;
}

export type DnsErrorCode =
  | 'zone-not-found'
  | 'unauthorized'
  | 'rate-limited'
  | 'conflict'
  | 'refused'
  | 'unreachable'
  | 'unintelligible'
  | 'unsupported';

/** What the provider's API did not do. The message names the provider, the subject and the API's own words. */
export class DnsError extends Error {
  override readonly name = 'DnsError';
  readonly code: DnsErrorCode;
  constructor(code: DnsErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
