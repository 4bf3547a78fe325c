// Why a DNS provider or resolver failed, and whether asking again may help.

import type { HttpError } from '../src/lib/fetch.ts';

export type DnsErrorCode =
  | 'zone-not-found'
  /** The credentials are unknown or have expired. */
  | 'credentials-refused'
  /** The credentials are known but may not do this. */
  | 'permission-missing'
  | 'rate-limited'
  | 'conflict'
  | 'refused'
  | 'unreachable'
  | 'unintelligible'
  | 'unsupported'
  | 'not-visible';

/** Only an operator can repair these: waiting changes nothing. */
const OPERATORS: readonly DnsErrorCode[] = ['zone-not-found', 'credentials-refused', 'permission-missing'];

export interface DnsErrorOptions extends ErrorOptions {
  readonly retryAfterMs?: number | undefined;
  readonly provider?: string | undefined;
  readonly variable?: string | undefined;
  readonly cure?: string | undefined;
}

/** The message names the provider or server, the subject and its own words, then the cure; never a credential. */
export class DnsError extends Error {
  override readonly name = 'DnsError';
  readonly code: DnsErrorCode;
  readonly subject: string;
  /** How long the other side wants us to wait. */
  readonly retryAfterMs?: number;
  readonly provider?: string;
  /** The setting to look at. */
  readonly variable?: string;
  /** What an operator should do, where it is known. */
  readonly cure?: string;
  constructor(code: DnsErrorCode, subject: string, options: DnsErrorOptions = {}) {
    const { retryAfterMs, provider, variable, cure, ...others } = options;
    super(cure === undefined ? subject : `${subject}; ${cure}`, others);
    this.code = code;
    this.subject = subject;
    if (retryAfterMs !== undefined) this.retryAfterMs = retryAfterMs;
    if (provider !== undefined) this.provider = provider;
    if (variable !== undefined) this.variable = variable;
    if (cure !== undefined) this.cure = cure;
  }
}

/** What an HTTP request without a reply means here. Only `unreachable` is worth asking again. */
export function dnsCodeOf({ code }: HttpError): DnsErrorCode {
  if (code === 'too-large' || code === 'malformed') return 'unintelligible';
  return code === 'bad-request' ? 'unsupported' : 'unreachable';
}

/** Whether it, or what caused it, stays so until an operator changes a setting or something at the provider. */
export function needsOperator(error: unknown): boolean {
  return refusalIn(error, OPERATORS);
}

/** Whether it is likely to pass by itself. */
export function isPassing(error: unknown): boolean {
  return refusalIn(error, ['unreachable', 'rate-limited']);
}

function refusalIn(error: unknown, codes: readonly DnsErrorCode[]): boolean {
  let cause = error;
  // Bounded, because an error can be its own cause.
  for (let depth = 0; depth < 8 && cause instanceof Error; depth++) {
    if (cause instanceof DnsError) return codes.includes(cause.code);
    cause = cause.cause;
  }
  return false;
}
