// When to try again after a failure: after 1, 10 and 100 minutes, then daily, also across restarts.

import type { Certificate } from '../src/lib/certificate.ts';
import type { Domain } from '../src/lib/domain.ts';
import { AcmeProblem, isBusy } from './answer.ts';
import { IssuerError } from './issuer.ts';
import type { Ledger, LedgerEntry } from './stored.ts';

const MINUTE_MS = 60_000;
const DELAYS_MS = [1, 10, 100, 24 * 60].map((minutes) => minutes * MINUTE_MS);
/** A host that kills the process does not trouble the CA: so many times the next attempt need not wait. */
const FREE_CRASHES = 2;
/** Let's Encrypt allows 5 certificates of the same names in 7 days, which is one in 34 hours. */
const LONGEST_REST_MS = 34 * 60 * MINUTE_MS;
/** The longest wait that is ever written: a back-off, a Retry-After or a rest. */
const LONGEST_WAIT_MS = LONGEST_REST_MS + 60 * MINUTE_MS;

/** The entry that counts for exactly these names; undefined if there is none. */
export function entryFor(ledger: Ledger, names: readonly Domain[]): LedgerEntry | undefined {
  const entry = ledger[names[0]!];
  return entry !== undefined && entry.names.join() === names.join() ? entry : undefined;
}

/**
 * When the entry allows an attempt. A time too far ahead was written while the clock was wrong, and is ignored. The rest
 * after a new certificate is ignored when that certificate is gone.
 */
export function heldUntil(entry: LedgerEntry, now: Date, haveCertificate: boolean): Date {
  const notBefore = new Date(entry.notBefore);
  const resting = entry.failures + entry.crashes === 0 && entry.failedAt === undefined;
  if (resting && !haveCertificate) return new Date(0);
  return notBefore.getTime() - now.getTime() > LONGEST_WAIT_MS ? new Date(0) : notBefore;
}

/** Written before an attempt: the next process finds it if this one is killed. */
export function begun(before: LedgerEntry | undefined, names: readonly Domain[], now: Date): LedgerEntry {
  const failures = before?.failures ?? 0;
  const crashes = (before?.crashes ?? 0) + 1;
  const tries = failures + Math.max(0, crashes - FREE_CRASHES);
  const notBefore = new Date(now.getTime() + delayMs(tries)).toISOString();
  return { names: [...names], failures, crashes, notBefore, reason: 'the attempt did not end' };
}

/** `random` in [0, 1) spreads the attempts of many by up to a tenth; `longestMs` bounds our own back-off. */
export function failed(
  before: LedgerEntry | undefined,
  names: readonly Domain[],
  error: unknown,
  now: Date,
  random: number,
  longestMs = Number.POSITIVE_INFINITY,
): LedgerEntry {
  const failures = (before?.failures ?? 0) + 1;
  const ownMs = Math.min(delayMs(failures), longestMs);
  const askedMs = retryAfterOf(error);
  // A CA that says when is believed at first; one that keeps saying "soon" is not.
  const waitMs = askedMs === undefined ? ownMs : Math.max(askedMs, failures > 3 ? ownMs : 1000);
  const notBefore = new Date(now.getTime() + Math.round(waitMs * (1 + random / 10))).toISOString();
  return { names: [...names], failures, crashes: 0, notBefore, ...told(error, now) };
}

/**
 * Noted when no attempt was made because the account or the records were missing. It is no reason to wait, unless the CA
 * itself asked for that.
 */
export function unprepared(
  before: LedgerEntry | undefined,
  names: readonly Domain[],
  error: unknown,
  now: Date,
): LedgerEntry {
  const { failures = 0, crashes = 0 } = before ?? {};
  const askedMs = retryAfterOf(error) ?? 0;
  const notBefore =
    askedMs > 0
      ? new Date(now.getTime() + askedMs).toISOString()
      : (before?.notBefore ?? new Date(0).toISOString());
  return { names: [...names], failures, crashes, notBefore, ...told(error, now) };
}

/**
 * Makes a new certificate rest, so that one that seems due at once is not ordered again and again. If the certificate
 * before it was younger than a quarter of its life, the rest is as long as Let's Encrypt needs to allow one more for the
 * same names.
 */
export function obtained(
  names: readonly Domain[],
  lifeMs: number,
  predecessorAgeMs: number | undefined,
  now: Date,
): LedgerEntry {
  const early = predecessorAgeMs !== undefined && predecessorAgeMs < lifeMs / 4;
  const restMs = early ? Math.min(LONGEST_REST_MS, lifeMs / 4) : Math.min(60 * MINUTE_MS, lifeMs / 10);
  const notBefore = new Date(now.getTime() + Math.max(Math.round(restMs), 0)).toISOString();
  return { names: [...names], failures: 0, crashes: 0, notBefore, reason: 'obtained only now' };
}

function told(error: unknown, now: Date): { reason: string; failedAt: string } {
  return {
    reason: error instanceof Error ? error.message : String(error),
    failedAt: now.toISOString(),
  };
}

/** Bounds the back-off so that several attempts fit into the rest of a short-lived certificate. */
export function longestDelayMs(certificate: Pick<Certificate, 'notAfter'> | undefined, now: Date): number {
  if (certificate === undefined) return Number.POSITIVE_INFINITY;
  const leftMs = certificate.notAfter.getTime() - now.getTime();
  return Math.max(leftMs / 8, 100 * MINUTE_MS);
}

function delayMs(tries: number): number {
  return tries === 0 ? 0 : DELAYS_MS[Math.min(tries, DELAYS_MS.length) - 1]!;
}

/** The delay that the CA asked for, if that is why something failed. */
export function retryAfterOf(error: unknown): number | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof AcmeProblem && isBusy(cause)) return cause.retryAfterMs;
    if (cause instanceof IssuerError && cause.retryAfterMs !== undefined) return cause.retryAfterMs;
  }
  return undefined;
}
