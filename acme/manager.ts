// The loop that keeps the wanted certificates: loads, obtains, deploys, renews, backs off, and says what it does.

import type { Certificate } from '../src/lib/certificate.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import type { Domain } from '../src/lib/domain.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { createTurns } from '../src/lib/turns.ts';
import { type Account, type AccountDocument, AccountError, storedDocument } from './account.ts';
import { type CertificateStatus, type Entry, isInForce, newEntry, statusOf } from './entry.ts';
import type { Issuer } from './issuer.ts';
import { unprepared } from './ledger.ts';
import { createLedgerFile, type LedgerFile } from './ledger-file.ts';
import { holdBack, planFor } from './plan.ts';
import type { Renewal, RenewalSettings } from './renewal.ts';
import { type AskRenewalInfo, createRenewalWindows, type RenewalWindows } from './renewal-windows.ts';
import { createRenewer, type RenewalOutcome, type Renewer } from './renewer.ts';
import { pick } from './selection.ts';
import { isStoreAway } from './storage.ts';
import type { Store } from './store.ts';
import { servesOn, urgencyOfPreparation } from './urgency.ts';

/** What a renewal needs of the CA. */
export interface CaConnection {
  readonly account: Account;
  readonly issuer: Issuer;
}

export interface ManagerOptions {
  /** One list of names for each certificate; the first name stands for it. */
  wanted: readonly (readonly Domain[])[];
  store: Store;
  /** Called when a certificate is due, and not before, so that a start serves although the CA is unreachable. */
  connect(signal: AbortSignal): Promise<CaConnection>;
  /** ARI; undefined where the CA offers none. A failure never delays a renewal. */
  renewalInfo?: AskRenewalInfo;
  /** Removes what a killed process left in DNS. Called once, before anything else. */
  recover?(): Promise<void>;
  /**
   * What another replica serves for these names, where replicas have no store in common; undefined if there is nothing, or if
   * it was asked within the last `atMostEveryMs`. Never rejects.
   */
  peers?: (names: readonly Domain[], atMostEveryMs: number) => Promise<Certificate | undefined>;
  /** Prepares what an order for these names depends on. If it fails, nothing is ordered and nothing backs off. */
  prepare(account: Account, names: readonly Domain[], signal: AbortSignal): Promise<void>;
  /**
   * Serves these certificates; `fresh` is the new one among them. If it rejects, the old ones are taken to serve on, and the
   * renewal is tried again.
   */
  deploy(certificates: readonly Certificate[], fresh: Certificate): Promise<void>;
  /** Told the account for the evidence: at load the one on disk, later the one that the CA confirmed. */
  onAccount?(document: AccountDocument): void;
  /** Told how each attempt at a certificate ended. */
  onOutcome?(outcome: RenewalOutcome): void;
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

export interface Manager {
  /** Reads the certificates for the wanted names from disk, also expired ones. Contacts nobody. */
  load(): Promise<readonly Certificate[]>;
  /** Resolves when `signal` aborts; never rejects. */
  run(signal: AbortSignal): Promise<void>;
  /** Renews all, or those with these first names, now, due or not. A failed one stays asked for until it succeeds. */
  renewNow(names?: readonly Domain[]): void;
  /** The first names of those that renewNow asked for and that are not renewed yet. */
  asked(): readonly Domain[];
  status(): readonly CertificateStatus[];
}

/** Waits between passes that could not reach the CA or write the records: neither counts against a CA's limits. */
const PASS_DELAYS_MS = [10_000, 60_000, 300_000, 900_000, 3_600_000];
const UNSAVED_DELAY_MS = 60_000;
/** How often a replica looks for what another one has obtained. */
const FOLLOW_MS = 10_000;
/** Each such look is a connection through the public name. */
const ASK_PEERS_MS = 60_000;
/** The same while nothing can be served. */
const FOLLOW_WITHOUT_MS = 1_000;
/** An order changes several records: they are looked at together. */
const HINT_REST_MS = 250;

export function createManager(options: ManagerOptions): Manager {
  return new CertificateManager(options);
}

class CertificateManager implements Manager {
  readonly #options: ManagerOptions;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #random: () => number;
  readonly #entries: readonly Entry[];
  readonly #ledger: LedgerFile;
  readonly #windows: RenewalWindows;
  readonly #renewer: Renewer;
  /** Deployments take turns: each is given everything that serves. */
  readonly #deployInTurn = createTurns();
  #wake = new AbortController();
  #failedPasses = 0;
  #recovered = false;
  /** Whether it was told which account is on disk. */
  #account: 'untold' | 'told' | 'unreadable' = 'untold';
  /** The part of its life that a certificate has left when it is renewed without the store; replicas differ in it. */
  #lastResort: number | undefined;

  constructor(options: ManagerOptions) {
    const { store, renewalInfo, clock = systemClock, log = silentLog, random = Math.random } = options;
    const ledger = createLedgerFile(store);
    const windows = createRenewalWindows({ store, renewalInfo, clock, log, random });
    this.#options = options;
    this.#store = store;
    this.#clock = clock;
    this.#log = log;
    this.#random = random;
    this.#entries = options.wanted.map(newEntry);
    this.#ledger = ledger;
    this.#windows = windows;
    this.#renewer = createRenewer({
      store,
      ledger,
      windows,
      deploy: (entry, fresh) => this.#deploy(entry, fresh),
      plan: (entry) => this.#plan(entry),
      onOutcome: (outcome) => options.onOutcome?.(outcome),
      clock,
      log,
      random,
    });
  }

  async load(): Promise<readonly Certificate[]> {
    const stored = await this.#store.readCertificates();
    for (const entry of this.#entries) entry.certificate = pick(stored, entry.names);
    await this.#announceStored();
    if (this.#store.shared) await this.#deployLoaded();
    return this.#entries.map(({ certificate }) => certificate).filter((each) => each !== undefined);
  }

  /** The store may answer only now: then what is served was read while it was away. */
  async #deployLoaded(): Promise<void> {
    for (const entry of this.#entries) {
      if (entry.certificate === undefined) continue;
      await this.#deploy(entry, entry.certificate).catch((err: unknown) => {
        this.#log.warn({ err, domain: entry.names[0] }, 'certificate of another replica cannot be served');
      });
    }
  }

  async #announceStored(): Promise<void> {
    try {
      const document = await storedDocument(this.#store);
      if (document !== undefined) this.#tellAccount(document);
      else this.#account = 'untold';
    } catch (err) {
      if (this.#account !== 'unreadable') this.#log.error({ err }, 'account cannot be read from disk');
      this.#account = 'unreadable';
    }
  }

  #tellAccount(document: AccountDocument): void {
    this.#account = 'told';
    this.#options.onAccount?.(document);
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#keepOn(signal), this.#follow(signal)]);
  }

  async #keepOn(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const sleepMs = await this.#passAndPlan(signal);
      if (signal.aborted) return;
      await this.#clock.sleep(sleepMs, AbortSignal.any([signal, this.#wake.signal])).catch(() => {});
      if (this.#wake.signal.aborted) this.#wake = new AbortController();
    }
  }

  /** Takes over what other replicas obtain, without waiting for the lease: they may be at the next certificate already. */
  async #follow(signal: AbortSignal): Promise<void> {
    if (!this.#store.shared && this.#options.peers === undefined) return;
    let hint = new AbortController();
    const unwatch = this.#store.watch(() => hint.abort());
    while (!signal.aborted) {
      const nowMs = this.#clock.now().getTime();
      const serves = this.#entries.some((entry) => isInForce(entry, nowMs));
      const restMs = (serves ? FOLLOW_MS : FOLLOW_WITHOUT_MS) * (0.8 + 0.4 * this.#random());
      await this.#clock.sleep(restMs, AbortSignal.any([signal, hint.signal])).catch(() => {});
      if (hint.signal.aborted) await this.#clock.sleep(HINT_REST_MS, signal).catch(() => {});
      hint = new AbortController();
      if (signal.aborted) break;
      // That the store is away has been said by whoever asked it.
      await this.#adopt(await this.#store.readCertificates().catch(() => [])).catch((err: unknown) => {
        this.#log.warn({ err }, 'certificate of another replica cannot be served');
      });
      // A pass stores it, and tells the account.
      if (await this.#adoptFromPeers(serves ? ASK_PEERS_MS : 0)) this.#wake.abort();
    }
    unwatch();
  }

  /** Resolves to whether there was one. */
  async #adoptFromPeers(atMostEveryMs: number): Promise<boolean> {
    const { peers } = this.#options;
    if (peers === undefined) return false;
    const found = await Promise.all(this.#entries.map(({ names }) => peers(names, atMostEveryMs)));
    const now = this.#clock.now();
    const before = this.#entries.map(({ certificate }) => certificate);
    await this.#adopt(found.filter((one) => one !== undefined && one.notAfter > now) as Certificate[]).catch(
      (err: unknown) => this.#log.warn({ err }, 'certificate of another replica cannot be served'),
    );
    const adopted = this.#entries.filter(({ certificate }, i) => certificate !== before[i]);
    for (const entry of adopted) entry.unsaved = true;
    return adopted.length > 0;
  }

  /** Resolves to how long to sleep before the next pass. */
  async #passAndPlan(signal: AbortSignal): Promise<number> {
    try {
      await this.#store.hold(signal, (held) => this.#pass(held));
      this.#failedPasses = 0;
      return this.#nextPassMs();
    } catch (err) {
      const sleepMs = this.#failedPassDelayMs();
      if (signal.aborted) return sleepMs;
      if (this.#store.shared && isStoreAway(err)) await this.#renewApart(signal);
      this.#failedPasses += 1;
      const urgent = this.#failedPasses > 2 || err instanceof AccountError;
      const next = new Date(this.#clock.now().getTime() + sleepMs);
      this.#log[urgent ? 'error' : 'warn']({ err, next }, 'certificates cannot be renewed');
      return sleepMs;
    }
  }

  /** One look at everything, under the lock: another process may have renewed since the last one. */
  async #pass(signal: AbortSignal): Promise<void> {
    if (!this.#recovered) {
      await this.#store.sweep();
      await this.#options.recover?.();
      this.#recovered = true;
    }
    await this.#adoptFromDisk();
    await this.#adoptFromPeers(0);
    // Its key may have been replaced beside us.
    await this.#announceStored();
    await this.#ledger.refresh();
    await this.#windows.refresh(this.#entries, signal);
    for (const entry of this.#entries) if (entry.unsaved) await this.#renewer.save(entry);
    const due = this.#entries.filter((entry) => this.#isDueNow(entry));
    for (const entry of this.#entries) this.#logPlan(entry);
    // Whoever has his certificate from a peer has not met the account yet.
    const isNew = this.#options.peers !== undefined && this.#account !== 'told';
    if (due.length === 0 && !isNew) return;
    const connection = await this.#connectFor(due, signal);
    this.#tellAccount(connection.account.document);
    await this.#renewPrepared(due, connection, signal);
    signal.throwIfAborted();
  }

  /** The store cannot be used, and a certificate is about to end: that every replica orders its own is the lesser evil. */
  async #renewApart(signal: AbortSignal): Promise<void> {
    const now = this.#clock.now().getTime();
    this.#lastResort ??= 0.02 + 0.08 * this.#random();
    const share = this.#lastResort;
    const ending = this.#entries.filter(({ certificate }) => {
      if (certificate === undefined) return false;
      const lifeMs = certificate.notAfter.getTime() - certificate.notBefore.getTime();
      return certificate.notAfter.getTime() - now < lifeMs * share;
    });
    const due = ending.filter((entry) => this.#isDueNow(entry));
    if (due.length === 0) return;
    const domains = due.map(({ names }) => names[0]);
    this.#log.warn({ domains }, 'certificates are about to end, renewing them without the store');
    const before = due.map(({ certificate }) => certificate);
    try {
      await this.#store.apart(async () => {
        const connection = await this.#connectFor(due, signal);
        await this.#renewPrepared(due, connection, signal);
      });
    } catch (err) {
      if (!signal.aborted)
        this.#log.error({ err, domains }, 'certificates cannot be renewed without the store');
    }
    for (const [i, entry] of due.entries()) if (entry.certificate !== before[i]) entry.unsaved = true;
  }

  async #adoptFromDisk(): Promise<void> {
    const stored = await this.#store.readCertificates();
    for (const entry of this.#entries) {
      // The file was removed, or set aside as damaged: the certificate in memory is whole, and is stored again.
      if (pick(stored, entry.names) === undefined && entry.certificate !== undefined) entry.unsaved = true;
    }
    await this.#adopt(stored);
  }

  async #adopt(stored: readonly Certificate[]): Promise<void> {
    let adopted = false;
    for (const entry of this.#entries) {
      const found = pick(stored, entry.names);
      if (found === undefined || found.sha256 === entry.certificate?.sha256) continue;
      if (entry.certificate !== undefined && found.notAfter <= entry.certificate.notAfter) continue;
      this.#log.info(
        { domain: entry.names[0], serial: found.serial },
        'certificate of another process found on disk',
      );
      await this.#deploy(entry, found);
      entry.certificate = found;
      adopted = true;
    }
    // A replica that serves what another has obtained is not ready before it can say by which account.
    if (adopted || this.#account === 'unreadable') await this.#announceStored();
  }

  #isDueNow(entry: Entry): boolean {
    entry.next = this.#plan(entry);
    return entry.next.at.getTime() <= this.#clock.now().getTime();
  }

  #plan(entry: Entry): Renewal {
    const now = this.#clock.now();
    const held = this.#ledger.entryFor(entry.names);
    if (entry.asked === undefined) return planFor({ ...entry, held }, now, this.#options.renewal);
    const wish = { at: now, reason: 'asked for' };
    if (entry.asked === 'at once' || held === undefined) return wish;
    return holdBack(wish, held, now, entry.certificate !== undefined);
  }

  async #connectFor(due: readonly Entry[], signal: AbortSignal): Promise<CaConnection> {
    try {
      return await this.#options.connect(signal);
    } catch (err) {
      if (!signal.aborted) for (const entry of due) await this.#noteUnprepared(entry, err);
      throw err;
    }
  }

  /** Prepares all together, which shows at once all that is missing; if that fails, each alone, so that none holds up another. */
  async #renewPrepared(due: readonly Entry[], connection: CaConnection, signal: AbortSignal): Promise<void> {
    const prepare = (entries: readonly Entry[]) => {
      const names = entries.flatMap((entry) => entry.names);
      return this.#options.prepare(connection.account, names, signal);
    };
    const together = prepare(due);
    const shared = due.length === 1 || (await succeeds(together));
    signal.throwIfAborted();
    const failures: unknown[] = [];
    await inParallel(due, this.#options.parallel ?? 4, async (entry) => {
      try {
        await (shared ? together : prepare([entry]));
      } catch (err) {
        signal.throwIfAborted();
        await this.#noteUnprepared(entry, err);
        failures.push(err);
        const urgency = urgencyOfPreparation(err, servesOn(entry.certificate, this.#clock.now()));
        this.#log[urgency]({ domain: entry.names[0], err }, 'certificate cannot be ordered yet');
        return;
      }
      await this.#renewer.renew(entry, connection.issuer, signal);
    });
    if (failures.length > 0) throw failures[0];
  }

  /** Shows the reason to whoever reads the ledger. The CA refused nothing, so the next attempt need not wait. */
  async #noteUnprepared(entry: Entry, err: unknown): Promise<void> {
    const before = this.#ledger.entryFor(entry.names);
    await this.#ledger.note(unprepared(before, entry.names, err, this.#clock.now())).catch(() => {});
  }

  #deploy(changed: Entry, fresh: Certificate): Promise<void> {
    return this.#deployInTurn(() => {
      const serving = this.#entries.map((entry) => (entry === changed ? fresh : entry.certificate));
      return this.#options.deploy(
        serving.filter((certificate) => certificate !== undefined),
        fresh,
      );
    });
  }

  #logPlan(entry: Entry): void {
    const { next, certificate, names } = entry;
    const text = `${certificate?.serial} ${next?.reason}`;
    if (next === undefined || certificate === undefined || entry.loggedPlan === text) return;
    entry.loggedPlan = text;
    const { at, reason } = next;
    this.#log.info({ domain: names[0], serial: certificate.serial, next: at, reason }, 'renewal planned');
  }

  #nextPassMs(): number {
    const now = this.#clock.now().getTime();
    const renewals = this.#entries.map((entry) =>
      entry.unsaved ? UNSAVED_DELAY_MS : this.#plan(entry).at.getTime() - now,
    );
    const asks = this.#windows.nextAsksMs(this.#entries);
    return Math.max(Math.min(...renewals, ...asks, this.#options.intervalMs), 0);
  }

  #failedPassDelayMs(): number {
    const delayMs = PASS_DELAYS_MS[Math.min(this.#failedPasses, PASS_DELAYS_MS.length - 1)]!;
    return Math.round(delayMs * (1 + this.#random() / 10));
  }

  renewNow(names?: readonly Domain[]): void {
    for (const entry of this.#entries) if (names?.includes(entry.names[0]!) ?? true) entry.asked = 'at once';
    this.#wake.abort();
  }

  asked(): readonly Domain[] {
    return this.#entries.filter(({ asked }) => asked !== undefined).map(({ names }) => names[0]!);
  }

  status(): readonly CertificateStatus[] {
    return this.#entries.map((entry) => statusOf(entry, this.#ledger.entryFor(entry.names)));
  }
}

async function succeeds(promise: Promise<unknown>): Promise<boolean> {
  try {
    await promise;
    return true;
  } catch {
    return false;
  }
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
