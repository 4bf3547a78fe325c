// State on disk: the account, certificates with their keys, pending orders, and what failed or was put into DNS.

import { createHash, randomBytes } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import {
  ensurePrivateFolder,
  readFileIfPresent,
  syncFolder,
  whyUnwritable,
  writeFileAtomic,
} from '../src/lib/atomic-file.ts';
import { type Certificate, CertificateError, readCertificate } from '../src/lib/certificate.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import { type Domain, DomainError, parseDomain } from '../src/lib/domain.ts';
import { GuardedFileError } from '../src/lib/guarded-file.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { isPrivateKey } from '../src/lib/private-key.ts';
import { createStateLock } from './state-lock.ts';

export type StoreErrorCode = 'state-unwritable' | 'account-damaged';

export class StoreError extends CodedError<StoreErrorCode> {
  override readonly name = 'StoreError';
}

const AccountSchema = z.object({
  /** PEM, PKCS#8. Absent when the key is derived and never stored. */
  key: z.string().optional(),
  /** The key that is to follow, while the CA may know either. */
  nextKey: z.string().optional(),
  /** Absent until the CA has confirmed it. */
  url: z.string().optional(),
  publicKey: z.record(z.string(), z.string()).optional(),
});
export type StoredAccount = z.infer<typeof AccountSchema>;

const TimeSchema = z.iso.datetime();

const OrderSchema = z.object({
  names: z.array(z.string()),
  url: z.url(),
  /** The future certificate's key: PEM, PKCS#8. An order without it can never be finished. */
  key: z.string().refine(isPrivateKey),
  account: z.string(),
  createdAt: TimeSchema,
});
/** An order that the CA knows, and the key that its certificate will have. */
export type StoredOrder = z.infer<typeof OrderSchema>;

const LedgerEntrySchema = z.object({
  /** The names it was for: other names start afresh. */
  names: z.array(z.string()),
  /** Attempts that ended in a failure, in a row. */
  failures: z.number().int().min(0),
  /** Attempts that did not end at all: the process was killed. */
  crashes: z.number().int().min(0),
  /** No attempt before this. */
  notBefore: TimeSchema,
  reason: z.string(),
  /** When what `reason` says went wrong; absent where nothing did. */
  failedAt: TimeSchema.optional(),
});
export type LedgerEntry = z.infer<typeof LedgerEntrySchema>;
/** By the certificate's first name. */
export type Ledger = Record<string, LedgerEntry>;

const WindowSchema = z
  .object({
    /** SHA-256 of the certificate that it is about. */
    certificate: z.string(),
    start: TimeSchema,
    end: TimeSchema,
    chosen: TimeSchema,
  })
  // One that was not chosen within it would put the renewal off to whenever.
  .refine(
    ({ start, end, chosen }) => new Date(start) <= new Date(chosen) && new Date(chosen) <= new Date(end),
  );
export type StoredWindow = z.infer<typeof WindowSchema>;

const VerdictSchema = z.object({
  allowed: z.boolean(),
  pinned: z.boolean(),
  decidedBy: z.string().optional(),
  findings: z.array(z.string()),
  /** Those that the records were compared with. */
  identities: z.array(z.string()),
  checkedAt: TimeSchema,
  /** Why what was seen need not be what the CA sees. */
  unsure: z.string().optional(),
  /** What to do about it, unless the account is pinned. */
  cure: z.string().optional(),
});
/** What CAA said about a domain when it was looked at last. */
export type StoredVerdict = z.infer<typeof VerdictSchema>;

const TxtSchema = z.object({ name: z.string(), value: z.string() });
export type ChallengeTxt = z.infer<typeof TxtSchema>;

const ValidationSchema = z.object({ keyAuthorization: z.string(), at: TimeSchema });
const LONGEST_VALIDATION_MS = 3_600_000;
const NOT_WRITTEN = 'it is not the JSON that was written';

/** A certificate of ours that was set aside, judged anew. */
export interface DamagedCertificate {
  readonly path: string;
  readonly why: string;
}

export interface Store {
  /** Everything of one ACME directory. */
  readonly folder: string;
  /** Rejects with StoreError `account-damaged` while an account file that could not be read lies aside. */
  readAccount(): Promise<StoredAccount | undefined>;
  writeAccount(account: StoredAccount): Promise<void>;
  /** All that can be read and served; the name it is stored under comes first in `names`. */
  readCertificates(): Promise<Certificate[]>;
  /** What lies under this name and cannot be served: still in its place, or set aside, the newest first. */
  damagedCertificates(name: Domain): Promise<DamagedCertificate[]>;
  /** Replaces the one of the same first name, and drops that name's pending order, which is thereby done. */
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
  /** TXT values that were about to be set and are not known to be gone. */
  readChallenges(): Promise<ChallengeTxt[]>;
  addChallenge(txt: ChallengeTxt): Promise<void>;
  dropChallenge(txt: ChallengeTxt): Promise<void>;
  /** Lets every instance that shares this folder answer the tls-alpn-01 challenge of this domain. */
  shareChallenge(domain: Domain, keyAuthorization: string): Promise<void>;
  unshareChallenge(domain: Domain): Promise<void>;
  /** The key authorization (RFC 8555 §8.1), which is no secret. */
  sharedChallenge(domain: Domain): Promise<string | undefined>;
  /** Removes what a killed process left half written. Only under the lock. */
  sweep(): Promise<void>;
  /** See StateLock.hold. */
  hold<T>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T>;
}

export interface StoreOptions {
  /** STATE_DIR; whatever else lies in it (a certbot tree) is left alone. */
  stateDir: string;
  directoryUrl: string;
  clock?: Clock;
  log?: Log;
  /** See StateLockOptions. */
  lockPollMs?: number;
  lockStaleMs?: number;
  /** For a look at what another process keeps, not for writing: no folder is made, and what is damaged is only told. */
  readOnly?: { damaged(path: string, why: string): void };
}

/** Makes its folders if need be. Rejects with StoreError if it cannot. */
export async function createStore(options: StoreOptions): Promise<Store> {
  const { stateDir, directoryUrl, clock = systemClock, log = silentLog } = options;
  const folder = join(stateDir, 'dstack-ingress', ...directoryFolder(directoryUrl));
  const certificates = join(folder, 'certificates');
  const orders = join(folder, 'orders');
  const validations = join(folder, 'validations');
  try {
    if (options.readOnly === undefined)
      for (const each of [folder, certificates, orders, validations]) await ensurePrivateFolder(each);
  } catch (cause) {
    const why = whyUnwritable(cause);
    throw new StoreError('state-unwritable', `the state folder ${folder} cannot be written: ${why}`, {
      cause,
    });
  }
  const lock = createStateLock({
    folder,
    clock,
    log,
    ...(options.lockPollMs === undefined ? {} : { pollMs: options.lockPollMs }),
    ...(options.lockStaleMs === undefined ? {} : { staleMs: options.lockStaleMs }),
  });

  async function setAside(path: string, cause: Error): Promise<void> {
    if (options.readOnly !== undefined) return options.readOnly.damaged(path, cause.message);
    const stamp = clock.now().toISOString().replaceAll(':', '');
    // Two in one millisecond must not be one file.
    const aside = `${path}.${stamp}.${randomBytes(3).toString('hex')}.damaged`;
    try {
      await rename(path, aside);
      log.error({ path, aside, why: cause.message, err: cause }, 'damaged state file set aside');
    } catch (err) {
      // Another process was first, or the disk takes no change: either way what is damaged counts as not there.
      if ((err as NodeJS.ErrnoException).code === 'ENOENT') return;
      log.error({ path, why: cause.message, err }, 'damaged state file cannot be set aside');
    }
  }

  async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
    const bytes = await readFileIfPresent(path);
    if (bytes === undefined) return undefined;
    try {
      return schema.parse(JSON.parse(bytes.toString('utf8')));
    } catch {
      // The parser's words may quote the file, which may hold a key.
      await setAside(path, new Error(NOT_WRITTEN));
      return undefined;
    }
  }

  const writeJson = (path: string, value: unknown) =>
    writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);

  const accountPath = join(folder, 'account.json');
  const ledgerPath = join(folder, 'ledger.json');
  const windowsPath = join(folder, 'windows.json');
  const verdictsPath = join(folder, 'caa.json');
  const challengesPath = join(folder, 'challenges.json');
  const validationPath = (domain: Domain) => join(validations, `${fileName(domain)}.json`);
  const orderPath = (name: Domain) => join(orders, `${fileName(name)}.json`);

  /** Parsed before, with the text that it was parsed from. */
  const parsed = new Map<string, { text: string; certificate: Certificate }>();
  async function readStoredCertificate(file: string): Promise<Certificate | undefined> {
    const path = join(certificates, file);
    try {
      const text = (await readFileIfPresent(path))?.toString('utf8');
      if (text === undefined) return undefined;
      const known = parsed.get(file);
      if (known?.text === text) return known.certificate;
      const certificate = parseStored(text);
      parsed.set(file, { text, certificate });
      return certificate;
    } catch (error) {
      if (isDiskError(error)) log.error({ path, err: error }, 'certificate cannot be read from disk');
      else await setAside(path, redacted(error));
      return undefined;
    }
  }

  // Challenges of several orders change the one file.
  let changing: Promise<unknown> = Promise.resolve();
  function changeChallenges(change: (all: ChallengeTxt[]) => ChallengeTxt[]): Promise<void> {
    const turn = changing.then(async () => {
      const before = (await readJson(challengesPath, z.array(TxtSchema))) ?? [];
      const after = change(before);
      if (after.length !== before.length) await writeJson(challengesPath, after);
    });
    changing = turn.catch(() => {});
    return turn;
  }

  return {
    folder,
    async readAccount() {
      const account = await readJson(accountPath, AccountSchema);
      if (account !== undefined) return account;
      const damaged = (await filesIn(folder)).find((file) => /^account\.json(\..*damaged)?$/.test(file));
      if (damaged === undefined) return undefined;
      throw new StoreError(
        'account-damaged',
        `the account file of ${directoryUrl} was damaged and lies at ${join(folder, damaged)}: ` +
          `restore account.json, or remove the damaged file to register a new account`,
      );
    },
    writeAccount: (account) => writeJson(accountPath, account),

    async readCertificates() {
      const files = (await filesIn(certificates)).filter((file) => file.endsWith('.json')).sort();
      const found = await Promise.all(files.map(readStoredCertificate));
      return found.filter((certificate) => certificate !== undefined);
    },
    async damagedCertificates(name) {
      const start = `${fileName(name)}.json.`;
      const files = (await filesIn(certificates))
        .filter((file) => `${file}.` === start || (file.startsWith(start) && file.endsWith('.damaged')))
        .sort()
        .reverse();
      const found = await Promise.all(files.map((file) => judgeDamaged(join(certificates, file))));
      return found.filter((each) => each !== undefined);
    },
    async keepCertificate(certificate) {
      const name = certificate.names[0]!;
      // Key and chain in one file, so that no crash can leave one without the other.
      const { chain, key } = certificate;
      await writeJson(join(certificates, `${fileName(name)}.json`), { name, chain, key });
      await rm(orderPath(name), { force: true });
    },

    readOrder: (name) => readJson(orderPath(name), OrderSchema),
    writeOrder: (name, order) => writeJson(orderPath(name), order),
    dropOrder: (name) => rm(orderPath(name), { force: true }),

    readLedger: async () => (await readJson(ledgerPath, z.record(z.string(), LedgerEntrySchema))) ?? {},
    writeLedger: (ledger) => writeJson(ledgerPath, ledger),
    readWindows: async () => (await readJson(windowsPath, z.record(z.string(), WindowSchema))) ?? {},
    writeWindows: (windows) => writeJson(windowsPath, windows),
    readVerdicts: async () => (await readJson(verdictsPath, z.record(z.string(), VerdictSchema))) ?? {},
    writeVerdicts: (verdicts) => writeJson(verdictsPath, verdicts),

    async readChallenges() {
      await changing;
      return (await readJson(challengesPath, z.array(TxtSchema))) ?? [];
    },
    addChallenge: (txt) => changeChallenges((all) => [...all.filter((each) => !sameTxt(each, txt)), txt]),
    dropChallenge: (txt) => changeChallenges((all) => all.filter((each) => !sameTxt(each, txt))),

    shareChallenge: (domain, keyAuthorization) =>
      writeJson(validationPath(domain), { keyAuthorization, at: clock.now().toISOString() }),
    unshareChallenge: (domain) => rm(validationPath(domain), { force: true }),
    async sharedChallenge(domain) {
      const shared = await readJson(validationPath(domain), ValidationSchema);
      if (shared === undefined) return undefined;
      // One from the future is of a clock that was wrong, and as old as can be.
      const ageMs = Math.abs(clock.now().getTime() - new Date(shared.at).getTime());
      // What a killed process left is no answer to anything any more.
      return ageMs < LONGEST_VALIDATION_MS ? shared.keyAuthorization : undefined;
    },

    async sweep() {
      for (const each of [folder, certificates, orders, validations]) {
        const left = (await readdir(each)).filter((file) => file.endsWith('.tmp'));
        for (const file of left) await rm(join(each, file), { force: true });
        if (left.length > 0) await syncFolder(each);
      }
    },
    hold: lock.hold,
  };
}

/** Throws what readCertificate does, or what says that it is no such file. */
function parseStored(text: string): Certificate {
  const stored = JSON.parse(text) as { name?: unknown; chain?: unknown; key?: unknown };
  const name = parseDomain(String(stored.name));
  return withFirst(readCertificate(String(stored.chain), String(stored.key), name), name);
}

/** What another OpenSSL set aside, this one may well load: then there is nothing to tell. */
async function judgeDamaged(path: string): Promise<DamagedCertificate | undefined> {
  try {
    parseStored((await readFileIfPresent(path))?.toString('utf8') ?? '');
    return undefined;
  } catch (error) {
    return { path, why: redacted(error).message };
  }
}

/** Two folder names that no other directory URL shares: so staging and production never mix. */
function directoryFolder(directoryUrl: string): [string, string] {
  const { host, pathname, search } = new URL(directoryUrl);
  const path = encodeURIComponent(pathname.replace(/^\//, '') + search);
  return [host.replaceAll(':', '_'), path === '' ? '_' : path.slice(0, 200)];
}

/** A domain has no underscore, and a file name at most 255 bytes with what atomic writes add. */
function fileName(name: Domain): string {
  const plain = name.replace('*', '_');
  if (plain.length <= 200) return plain;
  return `${plain.slice(0, 150)}_${createHash('sha256').update(name).digest('hex').slice(0, 32)}`;
}

function withFirst(certificate: Certificate, first: Domain): Certificate {
  return { ...certificate, names: [first, ...certificate.names.filter((name) => name !== first)] };
}

/** A folder that is not there yet holds nothing. */
async function filesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function isDiskError(error: unknown): boolean {
  return error instanceof GuardedFileError || typeof (error as NodeJS.ErrnoException).syscall === 'string';
}

/** Parsers quote what they read, and in a damaged file a key may stand anywhere. */
function redacted(error: unknown): Error {
  if (error instanceof CertificateError) return error;
  const why = error instanceof DomainError ? 'one of its names is no domain name' : NOT_WRITTEN;
  return new Error(why);
}

function sameTxt(a: ChallengeTxt, b: ChallengeTxt): boolean {
  return a.name === b.name && a.value === b.value;
}
