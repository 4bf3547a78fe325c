// State on disk: the account, certificates with their keys, pending orders, and what failed or was put into DNS.

import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ensurePrivateFolder, syncFolder, whyUnwritable } from '../src/lib/atomic-file.ts';
import type { Certificate } from '../src/lib/certificate.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import type { Domain } from '../src/lib/domain.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { createTurns } from '../src/lib/turns.ts';
import { createCertificateFiles, type DamagedCertificate, fileName } from './certificate-files.ts';
import { createStateFiles, filesIn, type StateFiles } from './state-files.ts';
import { createStateLock } from './state-lock.ts';
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

export type StoreErrorCode = 'state-unwritable' | 'account-damaged';

export class StoreError extends CodedError<StoreErrorCode> {
  override readonly name = 'StoreError';
}

const LONGEST_VALIDATION_MS = 3_600_000;

export interface Store {
  /** Everything of one ACME directory. */
  readonly folder: string;
  /** Rejects with StoreError `account-damaged` while a damaged account file lies there. */
  readAccount(): Promise<StoredAccount | undefined>;
  writeAccount(account: StoredAccount): Promise<void>;
  /** All that can be read and served. The name that a certificate is stored under comes first in its `names`. */
  readCertificates(): Promise<Certificate[]>;
  /** Files of this name that cannot be served, still in place or set aside, the newest first. */
  damagedCertificates(name: Domain): Promise<DamagedCertificate[]>;
  /** Replaces the one with the same first name, and drops that name's order, which is finished. */
  keepCertificate(certificate: Certificate): Promise<void>;
  readOrder(name: Domain): Promise<StoredOrder | undefined>;
  writeOrder(name: Domain, order: StoredOrder): Promise<void>;
  dropOrder(name: Domain): Promise<void>;
  readLedger(): Promise<Ledger>;
  writeLedger(ledger: Ledger): Promise<void>;
  readWindows(): Promise<Record<string, StoredWindow>>;
  writeWindows(windows: Record<string, StoredWindow>): Promise<void>;
  /** By domain. */
  readVerdicts(): Promise<Record<string, StoredVerdict>>;
  writeVerdicts(verdicts: Record<string, StoredVerdict>): Promise<void>;
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
  /** See StateLock.hold. */
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
}

/** Makes its folders if need be. Rejects with StoreError if it cannot. */
export async function createStore(options: StoreOptions): Promise<Store> {
  const { stateDir, directoryUrl, clock = systemClock, log = silentLog, lockPollMs, lockStaleMs } = options;
  const folder = join(stateDir, 'dstack-ingress', ...directoryFolder(directoryUrl));
  const [certificates, orders, validations] = ['certificates', 'orders', 'validations'].map((each) =>
    join(folder, each),
  ) as [string, string, string];
  const folders = [folder, certificates, orders, validations];
  if (options.readOnly === undefined) await makeFolders(folders);
  const lock = createStateLock({
    folder,
    clock,
    log,
    ...(lockPollMs === undefined ? {} : { pollMs: lockPollMs }),
    ...(lockStaleMs === undefined ? {} : { staleMs: lockStaleMs }),
  });
  const files = createStateFiles({ clock, log, onDamaged: options.readOnly?.damaged });
  const stored = createCertificateFiles(certificates, files, log);
  const orderPath = (name: Domain) => join(orders, `${fileName(name)}.json`);

  return {
    folder,
    ...accountIn(folder, directoryUrl, files),
    readCertificates: () => stored.readAll(),
    damagedCertificates: (name) => stored.damaged(name),
    async keepCertificate(certificate) {
      await stored.write(certificate);
      await rm(orderPath(certificate.names[0]!), { force: true });
    },
    readOrder: (name) => files.read(orderPath(name), OrderSchema),
    writeOrder: (name, order) => files.write(orderPath(name), order),
    dropOrder: (name) => rm(orderPath(name), { force: true }),
    ...recordsIn(folder, files),
    ...challengeNotesIn(folder, files),
    ...sharedChallengesIn(validations, files, clock),
    async sweep() {
      for (const each of folders) await sweepFolder(each);
    },
    hold: lock.hold,
  };
}

async function makeFolders(folders: readonly string[]): Promise<void> {
  try {
    for (const each of folders) await ensurePrivateFolder(each);
  } catch (cause) {
    const why = whyUnwritable(cause);
    throw new StoreError('state-unwritable', `the state folder ${folders[0]} cannot be written: ${why}`, {
      cause,
    });
  }
}

function accountIn(
  folder: string,
  directoryUrl: string,
  files: StateFiles,
): Pick<Store, 'readAccount' | 'writeAccount'> {
  const path = join(folder, 'account.json');
  return {
    async readAccount() {
      const account = await files.read(path, AccountSchema);
      if (account !== undefined) return account;
      const damaged = (await filesIn(folder)).find((file) => /^account\.json(\..*damaged)?$/.test(file));
      if (damaged === undefined) return undefined;
      throw new StoreError(
        'account-damaged',
        `the account file of ${directoryUrl} was damaged and lies at ${join(folder, damaged)}: ` +
          `restore account.json, or remove the damaged file to register a new account`,
      );
    },
    writeAccount: (account) => files.write(path, account),
  };
}

function recordsIn(folder: string, files: StateFiles) {
  const [ledger, windows, verdicts] = ['ledger.json', 'windows.json', 'caa.json'].map((file) =>
    join(folder, file),
  ) as [string, string, string];
  const read = async <T>(path: string, schema: z.ZodType<T>): Promise<Record<string, T>> =>
    (await files.read(path, z.record(z.string(), schema))) ?? {};
  return {
    readLedger: () => read(ledger, LedgerEntrySchema),
    writeLedger: (entries: Ledger) => files.write(ledger, entries),
    readWindows: () => read(windows, WindowSchema),
    writeWindows: (entries: Record<string, StoredWindow>) => files.write(windows, entries),
    readVerdicts: () => read(verdicts, VerdictSchema),
    writeVerdicts: (entries: Record<string, StoredVerdict>) => files.write(verdicts, entries),
  };
}

function challengeNotesIn(
  folder: string,
  files: StateFiles,
): Pick<Store, 'readChallenges' | 'addChallenge' | 'dropChallenge'> {
  const path = join(folder, 'challenges.json');
  // Challenges of several orders change this one file.
  const inTurn = createTurns();
  const read = async () => (await files.read(path, z.array(TxtSchema))) ?? [];
  const change = (changed: (all: ChallengeTxt[]) => ChallengeTxt[]) =>
    inTurn(async () => {
      const before = await read();
      const after = changed(before);
      if (after.length !== before.length) await files.write(path, after);
    });
  return {
    readChallenges: () => inTurn(read),
    addChallenge: (txt) => change((all) => [...all.filter((each) => !sameTxt(each, txt)), txt]),
    dropChallenge: (txt) => change((all) => all.filter((each) => !sameTxt(each, txt))),
  };
}

function sharedChallengesIn(
  folder: string,
  files: StateFiles,
  clock: Clock,
): Pick<Store, 'shareChallenge' | 'unshareChallenge' | 'sharedChallenge'> {
  const pathOf = (domain: Domain) => join(folder, `${fileName(domain)}.json`);
  return {
    shareChallenge: (domain, keyAuthorization) =>
      files.write(pathOf(domain), { keyAuthorization, at: clock.now().toISOString() }),
    unshareChallenge: (domain) => rm(pathOf(domain), { force: true }),
    async sharedChallenge(domain) {
      const shared = await files.read(pathOf(domain), ValidationSchema);
      if (shared === undefined) return undefined;
      // A time in the future was written while the clock was wrong: the challenge may be of any age.
      const ageMs = Math.abs(clock.now().getTime() - new Date(shared.at).getTime());
      // An old one was left by a killed process: the CA does not ask for it any more.
      return ageMs < LONGEST_VALIDATION_MS ? shared.keyAuthorization : undefined;
    },
  };
}

async function sweepFolder(folder: string): Promise<void> {
  const left = (await readdir(folder)).filter((file) => file.endsWith('.tmp'));
  for (const file of left) await rm(join(folder, file), { force: true });
  if (left.length > 0) await syncFolder(folder);
}

/** Two folder names that no other directory URL has, so that staging and production never mix. */
function directoryFolder(directoryUrl: string): [string, string] {
  const { host, pathname, search } = new URL(directoryUrl);
  const path = encodeURIComponent(pathname.replace(/^\//, '') + search);
  return [host.replaceAll(':', '_'), path === '' ? '_' : path.slice(0, 200)];
}

function sameTxt(a: ChallengeTxt, b: ChallengeTxt): boolean {
  return a.name === b.name && a.value === b.value;
}
