// Keeps the published evidence equal to what is served: rebuilt with every change, retried until the agent answers.

import type { Bundle } from '../evidence/bundle.ts';
import type { Certificate } from './lib/certificate.ts';
import { type Clock, systemClock } from './lib/clock.ts';
import type { Log } from './lib/log.ts';
import { newestWins } from './lib/newest-wins.ts';

/** The account's public document. What else it holds does not matter here. */
export interface AccountDocument {
  readonly uri: string;
}

export interface PublisherOptions {
  /** Quotes and packs; rejects if the agent refuses. */
  build(account: AccountDocument, certificates: readonly Certificate[]): Promise<Bundle>;
  /** Puts the files where other containers read them. */
  write(bundle: Bundle): Promise<void>;
  /** Shows it to visitors; undefined: there is none yet. */
  serve(bundle: Bundle | undefined): Promise<void>;
  readonly log: Log;
  readonly clock?: Clock;
  /** How long a swap of certificates waits for the evidence that should go with it. */
  readonly patienceMs?: number;
  /** Quotes age: the firmware they speak of may be out of date by then. */
  readonly requoteMs?: number;
}

export interface Publisher {
  setAccount(account: AccountDocument): void;
  /**
   * Carries out `swap`, after which these certificates are served. The evidence is made beforehand and replaced right
   * after it, so that it describes something else for no longer than that; if the agent does not answer in time the
   * swap goes ahead and there is no evidence until it does. Rejects only if `swap` does. One call at a time.
   */
  deploy(certificates: readonly Certificate[], swap: () => Promise<void>): Promise<void>;
  /** Until aborted. */
  run(signal: AbortSignal): Promise<void>;
  /** What visitors are shown now; undefined: there is none, or what there was is out of date. */
  shown(): Bundle | undefined;
  /** Resolves with the first complete bundle. */
  readonly complete: Promise<void>;
}

const PATIENCE_MS = 20_000;
const REQUOTE_MS = 24 * 3_600_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 5 * 60_000;

export function createPublisher(options: PublisherOptions): Publisher {
  const { log, clock = systemClock } = options;
  const completed = Promise.withResolvers<void>();
  let account: AccountDocument | undefined;
  let certificates: readonly Certificate[] = [];
  /** Counts what the evidence must describe; a bundle of an older count is out of date. */
  let wanted = 0;
  let published = 0;
  let wake: () => void = () => {};

  let latest: { bundle: Bundle; describes: number } | undefined;
  // Two writes at once could end in either order, and the older one would stay in the folder.
  const write = newestWins(async () => {
    const { bundle, describes } = latest!;
    if (describes !== wanted) return;
    await options.write(bundle).catch((err: unknown) => {
      log.error({ err }, 'evidence cannot be written to its folder');
    });
  });

  /** Whether it is shown now; not if it is out of date. */
  async function publish(bundle: Bundle, describes: number): Promise<boolean> {
    if (describes !== wanted) return false;
    latest = { bundle, describes };
    await write();
    if (describes !== wanted || latest.bundle !== bundle) return false;
    await options.serve(bundle);
    published = describes;
    log.info({ builtAt: bundle.builtAt, names: Object.keys(bundle.certificates) }, 'evidence published');
    completed.resolve();
    return true;
  }

  /** One try; says how long to wait before the next, and whether it failed. */
  async function attempt(retryMs: number): Promise<{ pauseMs: number; failed: boolean }> {
    if (account === undefined || certificates.length === 0) return { pauseMs: LAST_RETRY_MS, failed: false };
    const describes = wanted;
    try {
      await publish(await options.build(account, certificates), describes);
      return { pauseMs: options.requoteMs ?? REQUOTE_MS, failed: false };
    } catch (err) {
      log.error({ err, retryMs }, 'evidence cannot be made');
      return { pauseMs: retryMs, failed: true };
    }
  }

  return {
    complete: completed.promise,
    shown: () => (published !== 0 && published === wanted ? latest?.bundle : undefined),
    setAccount(document) {
      if (document.uri === account?.uri) return;
      account = document;
      wanted++;
      wake();
    },
    async deploy(next, swap) {
      const isPublished = published !== 0 && published === wanted;
      // Evidence that is not published cannot become false: visitors need not wait for the agent.
      const describedAccount = account;
      const bundle = isPublished && account !== undefined ? await inTime(options, account, next) : undefined;
      await swap();
      certificates = next;
      const describes = ++wanted;
      try {
        // A bundle for an account that is no longer ours would describe what is not served.
        const current = bundle !== undefined && account === describedAccount;
        if (current && (await publish(bundle, describes))) return;
        if (published !== wanted) await options.serve(undefined);
      } catch (err) {
        log.error({ err }, 'evidence cannot be handed to the workers');
      }
      wake();
    },
    async run(signal) {
      let retryMs = FIRST_RETRY_MS;
      while (!signal.aborted) {
        const woken = new AbortController();
        wake = () => woken.abort();
        const { pauseMs, failed } = await attempt(retryMs);
        retryMs = failed ? Math.min(retryMs * 2, LAST_RETRY_MS) : FIRST_RETRY_MS;
        await clock.sleep(pauseMs, AbortSignal.any([signal, woken.signal])).catch(() => {});
      }
    },
  };
}

/** Undefined where it fails or takes longer than new certificates can wait. */
async function inTime(
  { build, clock = systemClock, patienceMs = PATIENCE_MS, log }: PublisherOptions,
  account: AccountDocument,
  certificates: readonly Certificate[],
): Promise<Bundle | undefined> {
  const gaveUp = new AbortController();
  const patience = clock.sleep(patienceMs, gaveUp.signal).then(
    () => undefined,
    () => undefined,
  );
  try {
    return await Promise.race([build(account, certificates), patience]);
  } catch (err) {
    log.warn({ err }, 'evidence for new certificates failed, they are served without it for now');
    return undefined;
  } finally {
    gaveUp.abort();
  }
}
