// One wanted certificate, and what the manager knows of it.

import type { Certificate } from '../src/lib/certificate.ts';
import type { Domain } from '../src/lib/domain.ts';
import type { Renewal } from './renewal.ts';
import type { LedgerEntry, StoredWindow } from './stored.ts';

export interface Entry {
  readonly names: readonly Domain[];
  certificate: Certificate | undefined;
  /** The certificate serves but is not on disk yet. */
  unsaved: boolean;
  /** An operator asked for renewal: at once, or, after a failure, as soon as the ledger allows another attempt. */
  asked: 'at once' | 'again' | undefined;
  window: StoredWindow | undefined;
  /** When the CA is asked for the window again, on the monotonic clock. */
  askWindowAt: number;
  next: Renewal | undefined;
  /** The plan that was logged last. */
  loggedPlan: string;
}

export interface CertificateStatus {
  readonly names: readonly Domain[];
  readonly certificate: Certificate | undefined;
  readonly next: Renewal | undefined;
  readonly failure: { readonly count: number; readonly reason: string; readonly notBefore: Date } | undefined;
}

export function newEntry(names: readonly Domain[]): Entry {
  return {
    names,
    certificate: undefined,
    unsaved: false,
    asked: undefined,
    window: undefined,
    askWindowAt: 0,
    next: undefined,
    loggedPlan: '',
  };
}

export function statusOf(
  { names, certificate, next }: Entry,
  held: LedgerEntry | undefined,
): CertificateStatus {
  const failing = held !== undefined && held.failures > 0;
  const failure = failing
    ? { count: held.failures, reason: held.reason, notBefore: new Date(held.notBefore) }
    : undefined;
  return { names, certificate, next, failure };
}

export function isInForce({ certificate }: Entry, nowMs: number): boolean {
  return certificate !== undefined && certificate.notAfter.getTime() > nowMs;
}
