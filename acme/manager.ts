// The loop that keeps the wanted certificates: loads, obtains, deploys, renews, backs off, and says what it does.

import type { Certificate } from '../src/lib/certificate.ts';
import { type Clock, monotonicMs, systemClock } from '../src/lib/clock.ts';
import type { Domain } from '../src/lib/domain.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { type Account, type AccountDocument, AccountError, storedDocument } from './account.ts';
import type { Issuer } from './issuer.ts';
import * as ledgers from './ledger.ts';
import { holdBack, planFor } from './plan.ts';
import {
  chooseWithin,
  type Renewal,
  type RenewalSettings,
  renewalInfoId,
  type SuggestedWindow,
} from './renewal.ts';
import { pick } from './selection.ts';
import type { Ledger, LedgerEntry, Store, StoredWindow } from './store.ts';
import { servesOn, urgencyOfOrder, urgencyOfPreparation } from './urgency.ts';

export interface Connection {
  readonly account: Account;
  readonly issuer: Issuer;
}

export interface ManagerOptions {
  /** Each entry is one certificate: its names, of which the first names it. */
  wanted: readonly (readonly Domain[])[];
  store: Store;
  /** Everything that needs the CA, made when something is due: a start with the CA unreachable still serves. */
  connect(signal: AbortSignal): Promise<Connection>;
  /** ARI; undefined where the CA offers none. A failure never delays a renewal. */
  renewalInfo?(certificate: Certificate, signal: AbortSignal): Promise<SuggestedWindow | undefined>;
  /** Takes away what a killed process left in DNS; called once, before anything else. */
  recover?(): Promise<void>;
  /** Makes all true that an order for these names depends on; no order without it, and no back-off when it fails. */
  prepare(account: Account, names: readonly Domain[], signal: AbortSignal): Promise<void>;
  /**
   * All that is to be served, `fresh` in place of the one before. Must resolve for `fresh` to count as served; on rejection
   * the old ones stay and it is tried again.
   */
  deploy(certificates: readonly Certificate[], fresh: Certificate): Promise<void>;
  /** The account as evidence shows it: what is on disk at load, what the CA confirmed later. */
  onAccount?(document: AccountDocument): void;
  /** The longest sleep between two passes. */
  intervalMs: number;
  renewal?: RenewalSettings;
  /** How many certificates are obtained at once. */
  parallel?: number;
  clock?: Clock;
  log?: Log;
  /** In [0, 1). */
  random?: () => number;
}

export interface CertificateStatus {
  readonly names: readonly Domain[];
  readonly certificate: Certificate | undefined;
  readonly next: Renewal | undefined;
  readonly failure: { readonly count: number; readonly reason: string; readonly notBefore: Date } | undefined;
}

export interface Manager {
  /** What is on disk for the wanted names, expired ones included; touches no network. */
  load(): Promise<readonly Certificate[]>;
  /** Resolves when `signal` aborts; never rejects. */
  run(signal: AbortSignal): Promise<void>;
  /** Renews all at once, due or not, or those of these first names; what fails is asked for until it has worked. */
  renewNow(names?: readonly Domain[]): void;
  /** The first names of what renewNow asked for and is not renewed yet. */
  asked(): readonly Domain[];
  status(): readonly CertificateStatus[];
}

interface Entry {
  readonly names: readonly Domain[];
  certificate: Certificate | undefined;
  /** Serving, but not on disk yet. */
  unsaved: boolean;
  /** Asked for by an operator: at once, or, once that has failed, as soon as the ledger lets it be tried again. */
  asked: 'at once' | 'again' | undefined;
  window: StoredWindow | undefined;
  /** On the monotonic clock. */
  askWindowAt: number;
  next: Renewal | undefined;
  told: string;
}

const ARI_INTERVAL_MS = 6 * 3_600_000;
const ARI_BOUNDS_MS = [60_000, 24 * 3_600_000] as const;
/** Between passes that could not reach the CA or write the records: none of these counts against a CA's limits. */
const PASS_DELAYS_MS = [10_000, 60_000, 300_000, 900_000, 3_600_000];

export function createManager(options: ManagerOptions): Manager {
  const { store, clock = systemClock, log = silentLog, random = Math.random, parallel = 4 } = options;
  const entries = options.wanted.map(newEntry);
  /** Ledger entries that the disk would not take. */
  const unwritten: Ledger = {};
  let ledger: Ledger = {};
  let wake = new AbortController();
  let failedPasses = 0;
  let recovered = false;

  async function load(): Promise<readonly Certificate[]> {
    const stored = await store.readCertificates();
    for (const entry of entries) entry.certificate = pick(stored, entry.names);
    await announceStored();
    return served();
  }

  async function announceStored(): Promise<void> {
    try {
      const document = await storedDocument(store);
      if (document !== undefined) options.onAccount?.(document);
    } catch (err) {
      log.error({ err }, 'account cannot be read from disk');
    }
  }

  async function run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let sleepMs: number;
      try {
        await store.hold(signal, pass);
        failedPasses = 0;
        sleepMs = nextLookMs();
      } catch (err) {
        if (signal.aborted) return;
        sleepMs = passDelayMs();
        failedPasses += 1;
        const fields = { err, next: inMs(sleepMs) };
        if (failedPasses > 2 || err instanceof AccountError)
          log.error(fields, 'certificates cannot be renewed');
        else log.warn(fields, 'certificates cannot be renewed');
      }
      await clock.sleep(sleepMs, AbortSignal.any([signal, wake.signal])).catch(() => {});
      if (wake.signal.aborted) wake = new AbortController();
    }
  }

  /** One look at everything, under the lock: another process may have renewed since the last one. */
  async function pass(signal: AbortSignal): Promise<void> {
    if (!recovered) {
      await store.sweep();
      await options.recover?.();
      recovered = true;
    }
    await adoptFromDisk();
    ledger = { ...(await store.readLedger()), ...unwritten };
    await refreshWindows(signal);
    for (const entry of entries) if (entry.unsaved) await save(entry);
    const due = entries.filter(isDueNow);
    for (const entry of entries) tellPlan(entry);
    if (due.length === 0) return;
    const connection = await connectFor(due, signal);
    options.onAccount?.(connection.account.document);
    await renewPrepared(due, connection, signal);
    signal.throwIfAborted();
  }

  async function connectFor(due: readonly Entry[], signal: AbortSignal): Promise<Connection> {
    try {
      return await options.connect(signal);
    } catch (err) {
      if (!signal.aborted) for (const entry of due) await noteUnprepared(entry, err);
      throw err;
    }
  }

  /** Together at first, which shows all that is missing at once; then one by one, so that none holds up another. */
  async function renewPrepared(due: readonly Entry[], connection: Connection, signal: AbortSignal) {
    const prepare = (entries: readonly Entry[]) =>
      options.prepare(
        connection.account,
        entries.flatMap(({ names }) => names),
        signal,
      );
    const failures: unknown[] = [];
    const alone = async (entry: Entry, prepared: Promise<void>) => {
      try {
        await prepared;
      } catch (err) {
        signal.throwIfAborted();
        await noteUnprepared(entry, err);
        const serves = servesOn(entry.certificate, clock.now());
        log[urgencyOfPreparation(err, serves)](
          { domain: entry.names[0], err },
          'certificate cannot be ordered yet',
        );
        failures.push(err);
        return;
      }
      await renew(entry, connection, signal);
    };
    const together = prepare(due);
    const holds =
      due.length === 1 ||
      (await together.then(
        () => true,
        () => false,
      ));
    signal.throwIfAborted();
    await inParallel(due, parallel, (entry) => alone(entry, holds ? together : prepare([entry])));
    if (failures.length > 0) throw failures[0];
  }

  /** For whoever looks into the ledger: it was not the CA that refused, so nothing has to wait. */
  function noteUnprepared(entry: Entry, err: unknown): Promise<void> {
    const before = ledgers.entryFor(ledger, entry.names);
    return note(entry, ledgers.unprepared(before, entry.names, err, clock.now())).catch(() => {});
  }

  async function adoptFromDisk(): Promise<void> {
    const stored = await store.readCertificates();
    let adopted = false;
    for (const entry of entries) {
      const found = pick(stored, entry.names);
      // It was set aside as damaged, say: what serves is whole, and is stored anew.
      if (found === undefined && entry.certificate !== undefined) entry.unsaved = true;
      if (found === undefined || found.sha256 === entry.certificate?.sha256) continue;
      if (entry.certificate !== undefined && found.notAfter <= entry.certificate.notAfter) continue;
      log.info(
        { domain: entry.names[0], serial: found.serial },
        'certificate of another process found on disk',
      );
      await deploy(entry, found);
      entry.certificate = found;
      adopted = true;
    }
    if (adopted) await announceStored();
  }

  function isDueNow(entry: Entry): boolean {
    entry.next = plan(entry);
    return entry.next.at.getTime() <= clock.now().getTime();
  }

  function plan(entry: Entry): Renewal {
    const now = clock.now();
    const held = ledgers.entryFor(ledger, entry.names);
    if (entry.asked === undefined) return planFor({ ...entry, held }, now, options.renewal);
    const wish = { at: now, reason: 'asked for' };
    if (entry.asked === 'at once' || held === undefined) return wish;
    return holdBack(wish, held, now, entry.certificate !== undefined);
  }

  async function renew(entry: Entry, { issuer }: Connection, signal: AbortSignal): Promise<void> {
    const { names, certificate: old } = entry;
    const before = ledgers.entryFor(ledger, names);
    log.info({ domain: names[0], names, reason: entry.next?.reason }, 'certificate due');
    try {
      // First of all, and fatal to the attempt: without it a crash loop would order without end.
      await note(entry, ledgers.begun(before, names, clock.now()));
      // A hint that may have been what failed last time is left out.
      const replaces = old === undefined || (before?.failures ?? 0) > 0 ? undefined : renewalInfoId(old);
      const fresh = await issuer.obtain(names, signal, { replaces });
      await deploy(entry, fresh);
      adopt(entry, fresh);
      await save(entry);
      const lifeMs = fresh.notAfter.getTime() - fresh.notBefore.getTime();
      const oldAgeMs = old === undefined ? undefined : clock.now().getTime() - old.notBefore.getTime();
      await note(entry, ledgers.obtained(names, lifeMs, oldAgeMs, clock.now())).catch(() => {});
      entry.next = plan(entry);
      const { serial, notAfter, issuer: by } = fresh;
      log.info({ domain: names[0], serial, notAfter, by, next: entry.next.at }, 'certificate obtained');
    } catch (err) {
      await giveUp(entry, before, err, signal);
    }
  }

  async function giveUp(entry: Entry, before: LedgerEntry | undefined, err: unknown, signal: AbortSignal) {
    if (signal.aborted) {
      // We were asked to stop: that is nobody's failure, and the stored order waits for the next start.
      if (before !== undefined) await note(entry, before).catch(() => {});
      else await forget(entry).catch(() => {});
      return;
    }
    const longestMs = ledgers.longestDelayMs(entry.certificate, clock.now());
    const held = ledgers.failed(before, entry.names, err, clock.now(), random(), longestMs);
    await note(entry, held).catch((cause: unknown) =>
      log.error({ err: cause }, 'failure could not be noted on disk'),
    );
    if (entry.asked !== undefined) entry.asked = 'again';
    entry.next = plan(entry);
    const fields = { domain: entry.names[0], err, failures: held.failures, next: held.notBefore };
    const serves = servesOn(entry.certificate, clock.now());
    log[urgencyOfOrder(err, held.failures, serves)](fields, 'certificate not obtained');
  }

  function adopt(entry: Entry, fresh: Certificate): void {
    entry.certificate = fresh;
    entry.unsaved = true;
    entry.asked = undefined;
    entry.window = undefined;
    entry.askWindowAt = monotonicMs(clock) + ARI_BOUNDS_MS[0];
  }

  async function save(entry: Entry): Promise<void> {
    try {
      await store.keepCertificate(entry.certificate!);
      entry.unsaved = false;
    } catch (err) {
      log.error({ domain: entry.names[0], err }, 'certificate serves but could not be stored');
    }
  }

  // Deployments one after the other, each with everything that serves.
  let deploying: Promise<unknown> = Promise.resolve();
  function deploy(changed: Entry, fresh: Certificate): Promise<void> {
    const turn = deploying.then(() =>
      options.deploy(
        entries
          .map((entry) => (entry === changed ? fresh : entry.certificate))
          .filter((certificate) => certificate !== undefined),
        fresh,
      ),
    );
    deploying = turn.catch(() => {});
    return turn;
  }

  // Changes of the ledger likewise: several certificates share the file.
  let noting: Promise<unknown> = Promise.resolve();
  function note(entry: Entry, held: LedgerEntry): Promise<void> {
    return changeLedger((all) => ({ ...all, [entry.names[0]!]: held }), entry, held);
  }

  function forget(entry: Entry): Promise<void> {
    return changeLedger(({ [entry.names[0]!]: _, ...rest }) => rest, entry, undefined);
  }

  function changeLedger(change: (all: Ledger) => Ledger, entry: Entry, held: LedgerEntry | undefined) {
    const name = entry.names[0]!;
    ledger = change(ledger);
    if (held === undefined) delete unwritten[name];
    else unwritten[name] = held;
    const turn = noting.then(async () => {
      await store.writeLedger(ledger);
      if (unwritten[name] === held) delete unwritten[name];
    });
    noting = turn.catch(() => {});
    return turn;
  }

  async function refreshWindows(signal: AbortSignal): Promise<void> {
    if (options.renewalInfo === undefined) return;
    const windows = await store.readWindows();
    let changed = false;
    for (const entry of entries) {
      const name = entry.names[0]!;
      if (entry.certificate === undefined) continue;
      const known = windows[name]?.certificate === entry.certificate.sha256 ? windows[name] : undefined;
      entry.window = known;
      // RFC 9773 §4.3: not after its end, and not before the CA wants to be asked again.
      if (entry.askWindowAt > monotonicMs(clock) || !isInForce(entry, clock.now().getTime())) continue;
      const fresh = await askWindow(entry, entry.certificate, signal);
      if (fresh === undefined || (known?.start === fresh.start && known.end === fresh.end)) continue;
      entry.window = fresh;
      windows[name] = fresh;
      changed = true;
    }
    if (changed)
      await store.writeWindows(windows).catch((err: unknown) => log.warn({ err }, 'window not stored'));
  }

  async function askWindow(entry: Entry, certificate: Certificate, signal: AbortSignal) {
    const ask = (ms: number) => {
      const [least, most] = ARI_BOUNDS_MS;
      entry.askWindowAt = monotonicMs(clock) + Math.min(Math.max(ms, least), most);
    };
    try {
      const suggested = await options.renewalInfo!(certificate, signal);
      ask(suggested?.retryAfterMs ?? ARI_INTERVAL_MS);
      if (suggested === undefined) return undefined;
      const { start, end } = suggested;
      const chosen = chooseWithin(start, end, random()).toISOString();
      return { certificate: certificate.sha256, start: start.toISOString(), end: end.toISOString(), chosen };
    } catch (err) {
      signal.throwIfAborted();
      ask(Math.max(ledgers.retryAfterOf(err) ?? 0, ARI_INTERVAL_MS / 6));
      log.warn({ domain: entry.names[0], err }, 'renewal information not to be had');
      return undefined;
    }
  }

  function tellPlan(entry: Entry): void {
    const { next, certificate, names } = entry;
    const text = `${certificate?.serial} ${next?.reason}`;
    if (next === undefined || certificate === undefined || entry.told === text) return;
    entry.told = text;
    log.info(
      { domain: names[0], serial: certificate.serial, next: next.at, reason: next.reason },
      'renewal planned',
    );
  }

  function nextLookMs(): number {
    const now = clock.now().getTime();
    // Of an expired one the CA is not asked any more, so its moment must not wake us either.
    const asked = options.renewalInfo === undefined ? [] : entries.filter((each) => isInForce(each, now));
    const waits = [
      ...entries.map((entry) => (entry.unsaved ? PASS_DELAYS_MS[1]! : plan(entry).at.getTime() - now)),
      ...asked.map((entry) => entry.askWindowAt - monotonicMs(clock)),
      options.intervalMs,
    ];
    return Math.max(Math.min(...waits), 0);
  }

  function passDelayMs(): number {
    const delay = PASS_DELAYS_MS[Math.min(failedPasses, PASS_DELAYS_MS.length - 1)]!;
    return Math.round(delay * (1 + random() / 10));
  }

  const inMs = (ms: number): Date => new Date(clock.now().getTime() + ms);
  const served = () => entries.map((entry) => entry.certificate).filter((each) => each !== undefined);

  return {
    load,
    run,
    renewNow(names) {
      for (const entry of entries) if (names?.includes(entry.names[0]!) ?? true) entry.asked = 'at once';
      wake.abort();
    },
    asked: () => entries.filter(({ asked }) => asked !== undefined).map(({ names }) => names[0]!),
    status: () => entries.map((entry) => statusOf(entry, ledgers.entryFor(ledger, entry.names))),
  };
}

function newEntry(names: readonly Domain[]): Entry {
  return {
    names,
    certificate: undefined,
    unsaved: false,
    asked: undefined,
    window: undefined,
    askWindowAt: 0,
    next: undefined,
    told: '',
  };
}

function statusOf({ names, certificate, next }: Entry, held: LedgerEntry | undefined): CertificateStatus {
  const failing = held !== undefined && held.failures > 0;
  const failure = failing
    ? { count: held.failures, reason: held.reason, notBefore: new Date(held.notBefore) }
    : undefined;
  return { names, certificate, next, failure };
}

function isInForce({ certificate }: Entry, nowMs: number): boolean {
  return certificate !== undefined && certificate.notAfter.getTime() > nowMs;
}

async function inParallel<T>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  const lane = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(width, queue.length) }, lane));
}
