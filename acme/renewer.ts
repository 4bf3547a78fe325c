// One renewal of one certificate: noted before it begins, obtained, deployed, stored, and the outcome noted.

import type { Certificate } from '../src/lib/certificate.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Log } from '../src/lib/log.ts';
import type { Entry } from './entry.ts';
import { type Issuer, IssuerError } from './issuer.ts';
import { begun, failed, longestDelayMs, obtained } from './ledger.ts';
import type { LedgerFile } from './ledger-file.ts';
import { type Renewal, renewalInfoId } from './renewal.ts';
import type { RenewalWindows } from './renewal-windows.ts';
import type { Store } from './store.ts';
import type { LedgerEntry } from './stored.ts';
import { servesOn, urgencyOfOrder } from './urgency.ts';

export interface RenewerOptions {
  store: Pick<Store, 'keepCertificate'>;
  ledger: LedgerFile;
  windows: Pick<RenewalWindows, 'awaitFirst'>;
  /** Makes `fresh` serve in the place of the entry's certificate. */
  deploy(entry: Entry, fresh: Certificate): Promise<void>;
  plan(entry: Entry): Renewal;
  /** Told how each attempt ended; one that a stop has cut short did not end. */
  onOutcome?(outcome: RenewalOutcome): void;
  clock: Clock;
  log: Log;
  random: () => number;
}

export type RenewalOutcome = 'obtained' | 'failed';

export interface Renewer {
  /** Never rejects: a failure is noted and logged. */
  renew(entry: Entry, issuer: Issuer, signal: AbortSignal): Promise<void>;
  /** Stores what serves. A failure is logged, and the entry stays unsaved. */
  save(entry: Entry): Promise<void>;
}

export function createRenewer(options: RenewerOptions): Renewer {
  const { store, ledger, windows, deploy, plan, clock, log, random } = options;

  async function renew(entry: Entry, issuer: Issuer, signal: AbortSignal): Promise<void> {
    const { names, certificate: old } = entry;
    // While the records were prepared another replica's certificate may have been taken over.
    if (plan(entry).at > clock.now()) return;
    const before = ledger.entryFor(names);
    log.info({ domain: names[0], names, reason: entry.next?.reason }, 'certificate due');
    try {
      // Fatal to the attempt: without this note, a process that crashes in each attempt would order without end.
      await ledger.note(begun(before, names, clock.now()));
      await replace(entry, old, issuer, before, signal);
      const { serial, notAfter, issuer: by } = entry.certificate!;
      log.info({ domain: names[0], serial, notAfter, by, next: entry.next?.at }, 'certificate obtained');
      options.onOutcome?.('obtained');
    } catch (err) {
      await giveUp(entry, before, err, signal);
    }
  }

  async function replace(
    entry: Entry,
    old: Certificate | undefined,
    issuer: Issuer,
    before: LedgerEntry | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { names } = entry;
    // After a failure the hint is left out, as it may have been the reason.
    const replaces = old === undefined || (before?.failures ?? 0) > 0 ? undefined : renewalInfoId(old);
    const fresh = await issuer.obtain(names, signal, { replaces, follows: old });
    await deploy(entry, fresh);
    adopt(entry, fresh);
    await save(entry);
    const lifeMs = fresh.notAfter.getTime() - fresh.notBefore.getTime();
    const oldAgeMs = old === undefined ? undefined : clock.now().getTime() - old.notBefore.getTime();
    await ledger.note(obtained(names, lifeMs, oldAgeMs, clock.now())).catch(() => {});
    entry.next = plan(entry);
  }

  function adopt(entry: Entry, fresh: Certificate): void {
    entry.certificate = fresh;
    entry.unsaved = true;
    entry.asked = undefined;
    entry.window = undefined;
    windows.awaitFirst(entry);
  }

  async function giveUp(entry: Entry, before: LedgerEntry | undefined, err: unknown, signal: AbortSignal) {
    // A stop is no failure: the ledger says what it said before, and the stored order waits for the next start. Neither is
    // it one that another replica was faster: its certificate is there to be taken over.
    if (signal.aborted || (err instanceof IssuerError && err.code === 'obtained-elsewhere')) {
      await (before === undefined ? ledger.forget(entry.names) : ledger.note(before)).catch(() => {});
      return;
    }
    options.onOutcome?.('failed');
    const now = clock.now();
    const held = failed(before, entry.names, err, now, random(), longestDelayMs(entry.certificate, now));
    await ledger
      .note(held)
      .catch((cause: unknown) => log.error({ err: cause }, 'failure could not be noted on disk'));
    if (entry.asked !== undefined) entry.asked = 'again';
    entry.next = plan(entry);
    const fields = { domain: entry.names[0], err, failures: held.failures, next: held.notBefore };
    const serves = servesOn(entry.certificate, clock.now());
    log[urgencyOfOrder(err, held.failures, serves)](fields, 'certificate not obtained');
  }

  async function save(entry: Entry): Promise<void> {
    try {
      await store.keepCertificate(entry.certificate!);
      entry.unsaved = false;
    } catch (err) {
      log.error({ domain: entry.names[0], err }, 'certificate serves but could not be stored');
    }
  }

  return { renew, save };
}
