// Keeps the published evidence equal to what is served: rebuilt with every change, retried until the agent answers.

import { isDeepStrictEqual } from 'node:util';
import type { Bundle, BundleFile } from '../evidence/bundle.ts';
import { HistoryError } from '../evidence/history-file.ts';
import type { Attestation } from '../evidence/statement.ts';
import type { Statements } from '../evidence/statements.ts';
import { whyUnwritable } from './lib/atomic-file.ts';
import type { Certificate } from './lib/certificate.ts';
import { type Clock, systemClock } from './lib/clock.ts';
import type { Log } from './lib/log.ts';
import { newestWins } from './lib/newest-wins.ts';

/** The account's public document. What else it holds does not matter here. */
export interface AccountDocument {
  readonly uri: string;
  readonly body?: { readonly key?: Readonly<Record<string, string>> };
}

export interface PublisherOptions {
  /** Quotes and packs; rejects if the agent refuses. */
  build(account: AccountDocument, certificates: readonly Certificate[]): Promise<Bundle>;
  /** Evidence without a statement is still evidence: it is published, and the statement tried again. */
  readonly statements: Statements;
  /** Puts the files where other containers read them. */
  write(bundle: Bundle): Promise<void>;
  /**
   * Shows it to visitors; undefined: there is none yet. `next` is shown to those alone who were served a certificate that
   * only it is about.
   */
  serve(bundle: Bundle | undefined, next?: Bundle): Promise<void>;
  /** Told each statement that was kept, just before it is published. */
  onAttested?(attestation: Attestation): void;
  readonly log: Log;
  readonly clock?: Clock;
  /** How long a swap of certificates waits for the evidence that should go with it. */
  readonly patienceMs?: number;
  /** Quotes age: the firmware they speak of may be out of date by then. */
  readonly requoteMs?: number;
}

export interface Publisher {
  setAccount(account: AccountDocument): void;
  /** Shown beside the evidence, now and from now on; undefined: no longer. Rejects if the workers cannot be told. */
  setCollateral(file: BundleFile | undefined): Promise<void>;
  /**
   * Carries out `swap`, after which these certificates are served. The evidence is made beforehand and replaced right
   * after it, so that it describes something else for no longer than that; if the agent does not answer in time the
   * swap goes ahead and there is no evidence until it does. Rejects only if `swap` does. One call at a time.
   */
  deploy(certificates: readonly Certificate[], swap: () => Promise<void>): Promise<void>;
  /** Until aborted. */
  run(signal: AbortSignal): Promise<void>;
  /** Shows this file beside the others from now on, in the place of the one with its name. It is not written to the folder. */
  showBeside(file: BundleFile): Promise<void>;
  /** What visitors are shown now; undefined: there is none. */
  shown(): Bundle | undefined;
  /** Resolves with the first complete bundle. */
  readonly complete: Promise<void>;
}

const PATIENCE_MS = 20_000;
const REQUOTE_MS = 24 * 3_600_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 5 * 60_000;

/** What has been made of one account and some certificates, before it is true. */
interface Draft {
  readonly bundle: Bundle;
  /** Undefined: it could not be made, and why has been said. */
  readonly attestation: Attestation | undefined;
}

export function createPublisher(options: PublisherOptions): Publisher {
  const { log, clock = systemClock } = options;
  const completed = Promise.withResolvers<void>();
  let account: AccountDocument | undefined;
  let certificates: readonly Certificate[] = [];
  /** Counts what the evidence must describe; a bundle of an older count is out of date. */
  let [wanted, published] = [0, 0];
  let wake: () => void = () => {};
  const show = createShow(options);
  const beside = createBeside();
  const write = createWriter(options);

  /** Whether it came to be shown: there may be something newer to describe by then. */
  async function put(bundle: Bundle, describes: number): Promise<boolean> {
    const isNewest = await write(bundle, () => describes === wanted);
    if (describes !== wanted || !isNewest) return false;
    return show.put(bundle).then(() => true);
  }

  /** `without`: it is shown, but has no statement. */
  async function publish(draft: Draft, describes: number): Promise<'outdated' | 'without' | 'whole'> {
    if (describes !== wanted) return 'outdated';
    const files = await committed(options, draft);
    const bundle = beside.added({ ...draft.bundle, files: [...draft.bundle.files, ...files] });
    if (describes !== wanted || !(await put(bundle, describes))) return 'outdated';
    published = describes;
    log.info({ builtAt: bundle.builtAt, names: Object.keys(bundle.certificates) }, 'evidence published');
    completed.resolve();
    return files.length === 0 ? 'without' : 'whole';
  }

  async function attempt(retryMs: number): Promise<Attempt> {
    if (account === undefined || certificates.length === 0) return { pauseMs: LAST_RETRY_MS, failed: false };
    const describes = wanted;
    try {
      const outcome = await publish(await drafted(options, account, certificates), describes);
      if (outcome !== 'without') return { pauseMs: options.requoteMs ?? REQUOTE_MS, failed: false };
    } catch (err) {
      log.error({ err, retryMs }, 'evidence cannot be made');
    }
    return { pauseMs: retryMs, failed: true };
  }

  return {
    complete: completed.promise,
    shown: show.shown,
    showBeside: show.beside,
    setAccount(document) {
      if (account !== undefined && isSameAccount(document, account)) return;
      account = document;
      wanted++;
      wake();
    },
    async setCollateral(file) {
      beside.set(file);
      const bundle = show.shown();
      // What is being made will have it.
      if (bundle !== undefined && published === wanted) await put(beside.added(bundle), wanted);
    },
    async deploy(next, swap) {
      const isPublished = published !== 0 && published === wanted;
      // Evidence that is not published cannot become false: visitors need not wait for the agent.
      const described = account;
      const draft =
        isPublished && described !== undefined ? await inTime(options, described, next) : undefined;
      await show.during(swap, draft?.bundle);
      certificates = next;
      const describes = ++wanted;
      try {
        // A bundle for an account that is no longer ours would describe what is not served.
        if (draft !== undefined && account === described && (await publish(draft, describes)) === 'whole')
          return;
        if (published !== wanted) await show.put(undefined);
      } catch (err) {
        log.error({ err }, 'evidence cannot be handed to the workers');
      }
      wake();
    },
    run: (signal) =>
      keepTrying(attempt, clock, signal, (next) => {
        wake = next;
      }),
  };
}

/** How long to wait before the next one. */
interface Attempt {
  readonly pauseMs: number;
  readonly failed: boolean;
}

/** `onTry` is given what ends the wait after that try: what changes during one is tried at once. */
async function keepTrying(
  attempt: (retryMs: number) => Promise<Attempt>,
  clock: Clock,
  signal: AbortSignal,
  onTry: (wake: () => void) => void,
): Promise<void> {
  let retryMs = FIRST_RETRY_MS;
  while (!signal.aborted) {
    const woken = new AbortController();
    onTry(() => woken.abort());
    const { pauseMs, failed } = await attempt(retryMs);
    retryMs = failed ? Math.min(retryMs * 2, LAST_RETRY_MS) : FIRST_RETRY_MS;
    await clock.sleep(pauseMs, AbortSignal.any([signal, woken.signal])).catch(() => {});
  }
}

/** A file that is shown beside every bundle, or none. */
function createBeside() {
  let file: BundleFile | undefined;
  const names = new Set<string>();
  return {
    set(next: BundleFile | undefined): void {
      file = next;
      if (next !== undefined) names.add(next.name);
    },
    added(bundle: Bundle): Bundle {
      if (names.size === 0) return bundle;
      const others = bundle.files.filter(({ name }) => !names.has(name));
      return { ...bundle, files: file === undefined ? others : [...others, file] };
    },
  };
}

/** A statement names URL and key, and a rollover changes the key. Some documents do not have it. */
function isSameAccount(one: AccountDocument, other: AccountDocument): boolean {
  const [key, otherKey] = [one.body?.key, other.body?.key];
  const known = key !== undefined && otherKey !== undefined;
  return one.uri === other.uri && (!known || isDeepStrictEqual(key, otherKey));
}

/** Two writes at once could end in either order, and the older one would stay in the folder. */
function createWriter({ write, log }: PublisherOptions) {
  let latest: { bundle: Bundle; isDue: () => boolean };
  const writeLatest = newestWins(async () => {
    const { bundle, isDue } = latest;
    if (!isDue()) return;
    await write(bundle).catch((err: unknown) => {
      log.error({ err }, 'evidence cannot be written to its folder');
    });
  });
  /** Resolves to whether nothing newer has been given since. */
  return async (bundle: Bundle, isDue: () => boolean): Promise<boolean> => {
    latest = { bundle, isDue };
    await writeLatest();
    return latest.bundle === bundle;
  };
}

/** What visitors see, and what they are about to see. */
function createShow({ serve, log }: PublisherOptions) {
  let current: Bundle | undefined;
  let coming: Bundle | undefined;
  const companion = createBeside();

  async function put(bundle: Bundle | undefined): Promise<void> {
    current = bundle && companion.added(bundle);
    await serve(current, coming);
  }

  async function announce(next: Bundle | undefined): Promise<void> {
    coming = next;
    await serve(current, next).catch((err: unknown) => {
      log.error({ err }, 'evidence cannot be handed to the workers');
    });
  }

  return {
    shown: () => current,
    put,
    /** With everything that is put from now on, too. It vouches for itself. */
    async beside(file: BundleFile): Promise<void> {
      companion.set(file);
      if (current !== undefined) await put(current);
    },
    /** Who is served the new certificates first must not be shown evidence about the old ones. Rejects only if `swap` does. */
    async during(swap: () => Promise<void>, next: Bundle | undefined): Promise<void> {
      if (next === undefined) return swap();
      await announce(next);
      try {
        await swap();
      } catch (error) {
        await announce(undefined);
        throw error;
      }
      coming = undefined;
    },
  };
}

async function drafted(
  { build, statements, log }: PublisherOptions,
  account: AccountDocument,
  certificates: readonly Certificate[],
): Promise<Draft> {
  const bundle = await build(account, certificates);
  const attestation = await statements.draft(account, certificates).catch((err: unknown) => {
    log.error({ err }, 'no statement can be made, the evidence is published without');
    return undefined;
  });
  return { bundle, attestation };
}

/** The files that show the statement; none if it could not be kept: what is not in the history was never said. */
async function committed({ statements, onAttested, log }: PublisherOptions, { attestation }: Draft) {
  if (attestation === undefined) return [];
  try {
    const files = await statements.commit(attestation);
    onAttested?.(attestation);
    return files;
  } catch (err) {
    if (err instanceof HistoryError) log.info({ err }, 'a statement was overtaken by another one');
    else
      log.error(
        { err, why: whyUnwritable(err) },
        'the history of statements cannot be written, none is published',
      );
    return [];
  }
}

/** Undefined where it fails or takes longer than new certificates can wait. */
async function inTime(
  options: PublisherOptions,
  account: AccountDocument,
  certificates: readonly Certificate[],
): Promise<Draft | undefined> {
  const { clock = systemClock, patienceMs = PATIENCE_MS, log } = options;
  const gaveUp = new AbortController();
  const patience = clock.sleep(patienceMs, gaveUp.signal).then(
    () => undefined,
    () => undefined,
  );
  try {
    return await Promise.race([drafted(options, account, certificates), patience]);
  } catch (err) {
    log.warn({ err }, 'evidence for new certificates failed, they are served without it for now');
    return undefined;
  } finally {
    gaveUp.abort();
  }
}
