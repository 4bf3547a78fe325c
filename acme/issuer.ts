// What an issuer and a challenge solver promise, and why an order may lead to no certificate.

import type { Certificate } from '../src/lib/certificate.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import type { Domain } from '../src/lib/domain.ts';

export type ChallengeType = 'dns-01' | 'tls-alpn-01' | 'http-01' | 'dns-persist-01';

/** One challenge of one authorization, ready to be answered. */
export interface Challenge {
  /** The name without "*." (RFC 8555 §7.1.4). */
  readonly domain: Domain;
  readonly wildcard: boolean;
  readonly type: ChallengeType;
  /** RFC 8555 §8.1. dns-01 and tls-alpn-01 publish its SHA-256. Empty for dns-persist-01, which has no token. */
  readonly keyAuthorization: string;
}

/** Answers challenges of one type. For every call of present, cleanUp is called once, also after a failure. */
export interface Solver {
  readonly type: ChallengeType;
  present(challenge: Challenge): Promise<void>;
  /** Resolves once the CA can see what was presented. */
  wait(challenge: Challenge, signal: AbortSignal): Promise<void>;
  cleanUp(challenge: Challenge): Promise<void>;
  /** Removes what a killed process had presented. */
  recover?(): Promise<void>;
}

export interface Issuer {
  /**
   * Obtains one certificate for all these names; the first one gives the file name. Finishes a stored order for the same
   * names instead of placing another; the order stays stored until Store.keepCertificate. Rejects with AcmeProblem, AcmeTransportError,
   * IssuerError, or the solver's error.
   */
  obtain(names: readonly Domain[], signal: AbortSignal, options?: ObtainOptions): Promise<Certificate>;
}

export interface ObtainOptions {
  /** The ARI identifier of the certificate that this one follows (RFC 9773 §5). */
  replaces?: string | undefined;
  /** The certificate that this one follows: where others order too, nothing is ordered once the store has a later one. */
  follows?: Certificate | undefined;
}

export type IssuerErrorCode =
  | 'no-challenge'
  | 'authorization-failed'
  | 'order-failed'
  | 'order-unfinished'
  | 'deadline-passed'
  | 'replaced-elsewhere'
  | 'obtained-elsewhere'
  | 'certificate-unfit';

/** Why the CA's answers did not lead to a certificate. The cause is the CA's problem document, if it sent one. */
export class IssuerError extends CodedError<IssuerErrorCode> {
  override readonly name = 'IssuerError';
  /** The wait that the CA asked for, where it is longer than an attempt may last. */
  readonly retryAfterMs: number | undefined;
  constructor(
    code: IssuerErrorCode,
    message: string,
    options: ErrorOptions & { retryAfterMs?: number | undefined } = {},
  ) {
    super(code, message, options);
    this.retryAfterMs = options.retryAfterMs;
  }
}
