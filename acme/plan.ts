// When to order a certificate next, and why: by its age, the CA's suggestion and earlier failures.

import type { Certificate } from '../src/lib/certificate.ts';
import type { Domain } from '../src/lib/domain.ts';
import { heldUntil } from './ledger.ts';
import { type Renewal, type RenewalSettings, type RenewalWindow, renewAt } from './renewal.ts';
import { sameSet } from './selection.ts';
import type { LedgerEntry, StoredWindow } from './stored.ts';

export interface Situation {
  readonly names: readonly Domain[];
  readonly certificate: Certificate | undefined;
  /** The one about this very certificate. */
  readonly window: StoredWindow | undefined;
  /** The one for exactly these names. */
  readonly held: LedgerEntry | undefined;
}

/** A moment in the past means at once. */
export function planFor(situation: Situation, now: Date, settings?: RenewalSettings): Renewal {
  const wish = wishFor(situation, now, settings);
  const { held } = situation;
  return held === undefined ? wish : holdBack(wish, held, now, situation.certificate !== undefined);
}

/** The wish, or later if the ledger does not allow it yet. */
export function holdBack(wish: Renewal, held: LedgerEntry, now: Date, haveCertificate: boolean): Renewal {
  const at = heldUntil(held, now, haveCertificate);
  if (at <= wish.at) return wish;
  const failing = held.failures + held.crashes > 0;
  return { at, reason: failing ? `${wish.reason}; failed before` : wish.reason };
}

function wishFor({ certificate, names, window }: Situation, now: Date, settings?: RenewalSettings): Renewal {
  if (certificate === undefined) return { at: now, reason: 'no certificate yet' };
  if (!sameSet(certificate.names, names)) return { at: now, reason: 'its names have changed' };
  return renewAt(certificate, asWindow(window), now, settings);
}

function asWindow(window: StoredWindow | undefined): RenewalWindow | undefined {
  if (window === undefined) return undefined;
  return { start: new Date(window.start), end: new Date(window.end), chosen: new Date(window.chosen) };
}
