// Obtains one certificate from an ACME CA (RFC 8555 §7.4); defines what an issuer and a challenge solver are.

import type { Certificate } from '../src/lib/certificate.ts';
import type { Domain } from '../src/lib/domain.ts';

export type ChallengeType = 'dns-01' | 'tls-alpn-01';

/** One challenge of one authorization, ready to be answered. */
export interface Challenge {
  /** The name without "*." (RFC 8555 §7.1.4). */
  readonly domain: Domain;
  readonly wildcard: boolean;
  readonly type: ChallengeType;
  /** RFC 8555 §8.1. dns-01 publishes, and tls-alpn-01 certifies, its SHA-256. */
  readonly keyAuthorization: string;
}

/** Answers challenges of one type. cleanUp is called once for every present that was begun, also after a failure. */
export interface Solver {
  readonly type: ChallengeType;
  present(challenge: Challenge): Promise<void>;
  /** Resolves once the CA can see what was presented. */
  wait(challenge: Challenge, signal: AbortSignal): Promise<void>;
  cleanUp(challenge: Challenge): Promise<void>;
}

export interface Issuer {
  /** One certificate for all these names, the first gives its file name. Rejects with AcmeProblem or an issuer's error. */
  obtain(names: readonly Domain[], signal: AbortSignal): Promise<Certificate>;
}
