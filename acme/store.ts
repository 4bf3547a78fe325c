// The state: the account, certificates with their keys, pending orders, and what failed or was put into DNS.

import { join } from 'node:path';
import * as z from 'zod';
import { whyUnwritable } from '../src/lib/atomic-file.ts';
import type { Certificate } from '../src/lib/certificate.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import type { Domain } from '../src/lib/domain.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { createRecords, type Records } from './records.ts';
import { createFiles, type Files } from './storage/files.ts';
import { createOverlay } from './storage/overlay.ts';
import { type Lease, type Storage, StorageError } from './storage.ts';
import {
  AccountSchema,
  type ChallengeTxt,
  type Ledger,
  LedgerEntrySchema,
  OrderSchema,
  type StoredAccount,
  type StoredOrder,
  type StoredVerdict,
  type StoredWindow,
  TxtSchema,
  ValidationSchema,
  VerdictSchema,
  WindowSchema,
} from './stored.ts';
import { createStoredCertificates, type DamagedCertificate, fileName } from './stored-certificates.ts';

export type StoreErrorCode = 'state-unwritable' | 'account-damaged';

export class StoreError extends CodedError<StoreErrorCode> {
  override readonly name = 'StoreError';
}

const LONGEST_VALIDATION_MS = 3_600_000;

const ACCOUNT = 'account.json';

/** In the place of an account: there was none. */
export const NOTHING = Symbol('nothing');

export interface Store {
  /** Everything of one ACME directory. */
  readonly folder: string;
  /** Whether processes on other machines write here too, and may at any moment. */
  readonly shared: boolean;
  /** See Storage.watch; of certificates. */
  watch(changed: () => void): () => void;
  /** Runs `work` on what can still be read; what it writes stays in this process's memory and is forgotten after it. */
  apart<T>(work: () => Promise<T>): Promise<T>;
  /** Rejects with StoreError `account-damaged` while a damaged account file lies there. */
  readAccount(): Promise<StoredAccount | undefined>;
  /** `over`: what was read, and must still be there where others write too. Left out: whatever is there. */
  writeAccount(account: StoredAccount, over?: StoredAccount | typeof NOTHING): Promise<void>;
  /** All that can be read and served. The name that a certificate is stored under comes first in its `names`. */
  readCertificates(): Promise<Certificate[]>;
  /** Files of this name that cannot be served, still in place or set aside, the newest first. */
  damagedCertificates(name: Domain): Promise<DamagedCertificate[]>;
  /** Replaces the one with the same first name, and drops that name's order, which is finished. */
  keepCertificate(certificate: Certificate): Promise<void>;
  /** Whether one is stored under this name that was issued later, or any at all if `than` is undefined. */
  hasNewer(name: Domain, than: Certificate | undefined): Promise<boolean>;
  readOrder(name: Domain): Promise<StoredOrder | undefined>;
  /** Where others write too: only over what intendOrder has written, with the same key. */
  writeOrder(name: Domain, order: StoredOrder): Promise<void>;
  /**
   * To be called before an order is placed. Of several processes that mean to order one gets through; the others reject with
   * StorageError `overtaken`. Where nobody else writes nothing is written. `over`: what readOrder said.
   */
  intendOrder(name: Domain, intent: StoredOrder, over: StoredOrder | undefined): Promise<void>;
  /** Where others write too: not if another order has taken its place. */
  dropOrder(name: Domain, order: StoredOrder): Promise<void>;
  readLedger(): Promise<Ledger>;
  /**
   * The whole of it, of which the entries with these names have changed or gone: where others write too, theirs stay as
   * they are.
   */
  writeLedger(ledger: Ledger, names?: readonly string[]): Promise<void>;
  readWindows(): Promise<Record<string, StoredWindow>>;
  writeWindows(windows: Record<string, StoredWindow>, names?: readonly string[]): Promise<void>;
  /** By domain. */
  readVerdicts(): Promise<Record<string, StoredVerdict>>;
  writeVerdicts(verdicts: Record<string, StoredVerdict>, names?: readonly string[]): Promise<void>;
  /** TXT values that were noted before they were set, and that may still be in DNS. */
  readChallenges(): Promise<ChallengeTxt[]>;
  addChallenge(txt: ChallengeTxt): Promise<void>;
  dropChallenge(txt: ChallengeTxt): Promise<void>;
  /** Lets every instance that shares this folder answer the tls-alpn-01 challenge of this domain. */
  shareChallenge(domain: Domain, keyAuthorization: string): Promise<void>;
  unshareChallenge(domain: Domain): Promise<void>;
  /** The key authorization (RFC 8555 §8.1), which is no secret. */
  sharedChallenge(domain: Domain): Promise<string | undefined>;
  /** Removes what a killed process left half written. Call it only while holding the lock. */
  sweep(): Promise<void>;
  /** See Storage.lease. */
  hold<T>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T>;
}

export interface StoreOptions {
  /** STATE_DIR. Other files in it, such as certbot's, are left alone. */
  stateDir: string;
  directoryUrl: string;
  clock?: Clock;
  log?: Log;
  /** See StateLockOptions. */
  lockPollMs?: number;
  lockStaleMs?: number;
  /** To read what another process keeps: no folder is made, and a damaged file is reported and stays in place. */
  readOnly?: { damaged(path: string, why: string): void };
  /** Where it is kept instead of in files of the state folder. */
  storage?: Storage | undefined;
}

/** Makes its folders if need be. Rejects with StoreError if it cannot. */
export async function createStore(options: StoreOptions): Promise<Store> {
  const { directoryUrl, clock = systemClock, log = silentLog } = options;
  const folder = directoryFolder(directoryUrl);
  const [certificates, orders, validations] = ['certificates', 'orders', 'validations'].map(
    (each) => `${folder}/${each}`,
  ) as [string, string, string];
  const folders = [folder, certificates, orders, validations];
  const overlay = createOverlay(options.storage ?? (await filesOf(options, folders)), (name) =>
    name.endsWith(ACCOUNT),
  );
  const { storage } = overlay;
  const shared = storage.alone === undefined;
  let held: Lease | undefined;
  const records = createRecords(storage, () => held);
  const stored = createStoredCertificates(certificates, { storage, records, log });
  const order = (name: Domain) => `${orders}/${fileName(name)}.json`;

  return {
    folder: storage.place(folder),
    shared,
    watch: (changed) => storage.watch(certificates, changed),
    apart: overlay.apart,
    ...accountIn(folder, directoryUrl, storage, records),
    readCertificates: () => stored.readAll(),
    damagedCertificates: (name) => stored.damaged(name),
    hasNewer: stored.hasNewer,
    async keepCertificate(certificate) {
      await stored.write(certificate);
      const isAnothers = ({ key }: StoredOrder) => key !== certificate.key;
      await records.remove(order(certificate.names[0]!), OrderSchema, isAnothers);
    },
    readOrder: (name) => records.read(order(name), OrderSchema),
    writeOrder: (name, value) =>
      records.write(order(name), value, OrderSchema, (there) => {
        if (there?.key === value.key) return value;
        throw new StorageError('overtaken', `another replica orders the certificate for ${name}`);
      }),
    async intendOrder(name, intent, over) {
      if (!shared) return;
      await records.change(order(name), OrderSchema, (there) => {
        if (there?.key === over?.key && there?.url === over?.url) return intent;
        throw new StorageError('overtaken', `another replica orders the certificate for ${name}`);
      });
    },
    dropOrder: (name, { key }) => records.remove(order(name), OrderSchema, (there) => there.key !== key),
    ...entriesIn(folder, records),
    ...challengeNotesIn(folder, records),
    ...sharedChallengesIn(validations, records, clock),
    sweep: async () => storage.alone?.sweep(folders),
    hold: (signal, work) =>
      storage.lease(`${folder}/lock`, signal, async (lease) => {
        held = lease;
        try {
          return await work(lease.signal);
        } finally {
          held = undefined;
        }
      }),
  };
}

/** Where the state lies in a state folder that certbot or lego may have files in as well. */
export function filesUnder(
  options: Pick<StoreOptions, 'stateDir' | 'clock' | 'log' | 'lockPollMs' | 'lockStaleMs' | 'readOnly'>,
): Files {
  const { stateDir, readOnly, ...others } = options;
  return createFiles({ root: join(stateDir, 'dstack-ingress'), onDamaged: readOnly?.damaged, ...others });
}

async function filesOf(options: StoreOptions, folders: readonly string[]): Promise<Storage> {
  const files = filesUnder(options);
  if (options.readOnly !== undefined) return files;
  try {
    await files.prepare(folders);
  } catch (cause) {
    const why = whyUnwritable(cause);
    const place = files.place(folders[0]!);
    throw new StoreError('state-unwritable', `the state folder ${place} cannot be written: ${why}`, {
      cause,
    });
  }
  return files;
}

function accountIn(
  folder: string,
  directoryUrl: string,
  storage: Storage,
  records: Records,
): Pick<Store, 'readAccount' | 'writeAccount'> {
  const name = `${folder}/${ACCOUNT}`;
  return {
    async readAccount() {
      const account = await records.read(name, AccountSchema);
      // Elsewhere what cannot be read has been an error already.
      if (account !== undefined || storage.alone === undefined) return account;
      const damaged = (await storage.list(folder)).find((file) => /^account\.json(\..*damaged)?$/.test(file));
      if (damaged === undefined) return undefined;
      throw new StoreError(
        'account-damaged',
        `the account file of ${directoryUrl} was damaged and lies at ${storage.place(`${folder}/${damaged}`)}: ` +
          `restore account.json, or remove the damaged file to register a new account`,
      );
    },
    writeAccount: (account, over) =>
      records.write(name, account, AccountSchema, (there) => {
        if (over === undefined || isSame(there, over)) return account;
        throw new StorageError('overtaken', `another process has written the account of ${directoryUrl}`);
      }),
  };
}

/** Both are of one schema, which gives their members one order. */
function isSame(there: StoredAccount | undefined, over: StoredAccount | typeof NOTHING): boolean {
  return JSON.stringify(there ?? {}) === JSON.stringify(over === NOTHING ? {} : over);
}

function entriesIn(folder: string, records: Records) {
  const [ledger, windows, verdicts] = ['ledger.json', 'windows.json', 'caa.json'].map(
    (record) => `${folder}/${record}`,
  ) as [string, string, string];
  const read = async <T>(name: string, schema: z.ZodType<T>): Promise<Record<string, T>> =>
    (await records.read(name, z.record(z.string(), schema))) ?? {};
  const write = <T>(
    name: string,
    schema: z.ZodType<T>,
    entries: Readonly<Record<string, T>>,
    keys: readonly string[],
  ) =>
    records.write(name, { ...entries }, z.record(z.string(), schema), (before = {}) => {
      const others = Object.entries(before).filter(([key]) => !keys.includes(key));
      const ours = Object.entries(entries).filter(([key]) => keys.includes(key));
      return Object.fromEntries([...others, ...ours]);
    });
  return {
    readLedger: () => read(ledger, LedgerEntrySchema),
    writeLedger: (entries: Ledger, names = Object.keys(entries)) =>
      write(ledger, LedgerEntrySchema, entries, names),
    readWindows: () => read(windows, WindowSchema),
    writeWindows: (entries: Record<string, StoredWindow>, names = Object.keys(entries)) =>
      write(windows, WindowSchema, entries, names),
    readVerdicts: () => read(verdicts, VerdictSchema),
    writeVerdicts: (entries: Record<string, StoredVerdict>, names = Object.keys(entries)) =>
      write(verdicts, VerdictSchema, entries, names),
  } satisfies Partial<Store>;
}

function challengeNotesIn(
  folder: string,
  records: Records,
): Pick<Store, 'readChallenges' | 'addChallenge' | 'dropChallenge'> {
  const name = `${folder}/challenges.json`;
  const schema = z.array(TxtSchema);
  const change = (changed: (all: ChallengeTxt[]) => ChallengeTxt[]) =>
    records.change(name, schema, (before = []) => {
      const after = changed(before);
      return after.length === before.length ? undefined : after;
    });
  return {
    readChallenges: async () => (await records.read(name, schema)) ?? [],
    addChallenge: (txt) => change((all) => [...all.filter((each) => !sameTxt(each, txt)), txt]),
    dropChallenge: (txt) => change((all) => all.filter((each) => !sameTxt(each, txt))),
  };
}

function sharedChallengesIn(
  folder: string,
  records: Records,
  clock: Clock,
): Pick<Store, 'shareChallenge' | 'unshareChallenge' | 'sharedChallenge'> {
  const nameOf = (domain: Domain) => `${folder}/${fileName(domain)}.json`;
  return {
    shareChallenge(domain, keyAuthorization) {
      const shared = { keyAuthorization, at: clock.now().toISOString() };
      return records.write(nameOf(domain), shared, ValidationSchema, () => shared);
    },
    unshareChallenge: (domain) => records.remove(nameOf(domain), ValidationSchema),
    async sharedChallenge(domain) {
      const shared = await records.read(nameOf(domain), ValidationSchema);
      if (shared === undefined) return undefined;
      // A time in the future was written while the clock was wrong: the challenge may be of any age.
      const ageMs = Math.abs(clock.now().getTime() - new Date(shared.at).getTime());
      // An old one was left by a killed process: the CA does not ask for it any more.
      return ageMs < LONGEST_VALIDATION_MS ? shared.keyAuthorization : undefined;
    },
  };
}

/** Two folders that no other directory URL has, so that staging and production never mix. */
export function directoryFolder(directoryUrl: string): string {
  const { host, pathname, search } = new URL(directoryUrl);
  const path = encodeURIComponent(pathname.replace(/^\//, '') + search);
  return `${host.replaceAll(':', '_')}/${path === '' ? '_' : path.slice(0, 200)}`;
}

function sameTxt(a: ChallengeTxt, b: ChallengeTxt): boolean {
  return a.name === b.name && a.value === b.value;
}
