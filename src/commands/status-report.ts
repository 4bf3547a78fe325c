// What the status command finds out, as its JSON has it.

import type { Domain } from '../lib/domain.ts';

/** Times in ISO 8601, UTC. */
export interface DomainStatus {
  readonly domain: Domain;
  /** Whether there is a certificate for it that is in force. */
  readonly valid: boolean;
  readonly certificate:
    | {
        readonly names: readonly Domain[];
        readonly serial: string;
        readonly issuer: string;
        readonly notBefore: string;
        readonly notAfter: string;
        readonly sha256: string;
      }
    | undefined;
  readonly next: { readonly at: string; readonly reason: string };
  /** As the CA suggests (RFC 9773). */
  readonly window: { readonly start: string; readonly end: string } | undefined;
  /** Since when an order has been under way. */
  readonly orderSince: string | undefined;
  /** The last one since the last success. */
  readonly failure: { readonly at: string; readonly reason: string; readonly failures: number } | undefined;
  readonly caa: CaaStatus;
  /** Of all names of its certificate. */
  readonly records: RecordsStatus;
  /** Certificates stored for it that cannot be served, each with the reason; they are kept beside. */
  readonly damaged: readonly string[];
}

/** `at` is when it was looked at. */
export type CaaStatus =
  | { readonly state: 'unknown'; readonly why: string; readonly cure?: string | undefined }
  | {
      readonly state: 'pinned' | 'open' | 'forbids';
      readonly decidedBy: string | undefined;
      readonly findings: readonly string[];
      /** What to do about it, unless it is pinned. */
      readonly cure?: string | undefined;
      readonly at: string;
    };

export type RecordsStatus =
  | { readonly state: 'unknown'; readonly why: string }
  | { readonly state: 'in place' }
  | { readonly state: 'missing'; readonly what: string };

export interface UpstreamStatus {
  /** As a route names it. */
  readonly upstream: string;
  readonly state: 'reachable' | 'unreachable' | 'unknown';
  readonly why?: string;
}

export interface Status {
  readonly directory: string;
  readonly account: string | undefined;
  readonly at: string;
  /** State that could not be read, by what it is. */
  readonly problems: readonly string[];
  readonly domains: readonly DomainStatus[];
  /** Each address of each route, once. */
  readonly upstreams: readonly UpstreamStatus[];
}
