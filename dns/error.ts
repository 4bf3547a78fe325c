// What a DNS provider or resolver did not do, and whether it is worth asking again.

export type DnsErrorCode =
  | 'zone-not-found'
  | 'unauthorized'
  | 'rate-limited'
  | 'conflict'
  | 'refused'
  | 'unreachable'
  | 'unintelligible'
  | 'unsupported'
  | 'not-visible';

/** The message names the provider or server, the subject and its own words; never a credential. */
export class DnsError extends Error {
  override readonly name = 'DnsError';
  readonly code: DnsErrorCode;
  /** How long the other side asked to be left alone. */
  readonly retryAfterMs?: number;
  constructor(
    code: DnsErrorCode,
    message: string,
    options?: ErrorOptions & { retryAfterMs?: number | undefined },
  ) {
    super(message, options);
    this.code = code;
    if (options?.retryAfterMs !== undefined) this.retryAfterMs = options.retryAfterMs;
  }
}
