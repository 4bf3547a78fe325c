// The CA's suggested renewal windows (ARI, RFC 9773): asked for in time, stored, and never a reason to renew later.

import type { Certificate } from '../src/lib/certificate.ts';
import { type Clock, monotonicMs } from '../src/lib/clock.ts';
import type { Log } from '../src/lib/log.ts';
import { type Entry, isInForce } from './entry.ts';
import { retryAfterOf } from './ledger.ts';
import { chooseWithin, type SuggestedWindow } from './renewal.ts';
import type { Store } from './store.ts';
import type { StoredWindow } from './stored.ts';

export type AskRenewalInfo = (
  certificate: Certificate,
  signal: AbortSignal,
) => Promise<SuggestedWindow | undefined>;

export interface RenewalWindowsOptions {
  store: Pick<Store, 'readWindows' | 'writeWindows'>;
  /** Undefined where the CA suggests none. */
  renewalInfo: AskRenewalInfo | undefined;
  clock: Clock;
  log: Log;
  /** In [0, 1). */
  random: () => number;
}

export interface RenewalWindows {
  /** Sets each entry's window, and asks the CA about those whose time has come. Rejects only when `signal` aborts or the disk fails. */
  refresh(entries: readonly Entry[], signal: AbortSignal): Promise<void>;
  /** How long until each of these is to be asked about. */
  nextAsksMs(entries: readonly Entry[]): number[];
  /** Leaves the CA time to learn of a certificate that it has just issued. */
  awaitFirst(entry: Entry): void;
}

const ASK_INTERVAL_MS = 6 * 3_600_000;
const SHORTEST_INTERVAL_MS = 60_000;
const LONGEST_INTERVAL_MS = 24 * 3_600_000;

export function createRenewalWindows(options: RenewalWindowsOptions): RenewalWindows {
  const { store, renewalInfo, clock, log, random } = options;

  async function refresh(entries: readonly Entry[], signal: AbortSignal): Promise<void> {
    if (renewalInfo === undefined) return;
    const stored = await store.readWindows();
    const changed: string[] = [];
    for (const entry of entries) {
      const name = entry.names[0]!;
      const fresh = await newWindow(entry, stored[name], renewalInfo, signal);
      if (fresh === undefined) continue;
      entry.window = fresh;
      stored[name] = fresh;
      changed.push(name);
    }
    if (changed.length > 0)
      await store
        .writeWindows(stored, changed)
        .catch((err: unknown) => log.warn({ err }, 'window not stored'));
  }

  /** Undefined if the window that we have stays as it is. */
  async function newWindow(
    entry: Entry,
    stored: StoredWindow | undefined,
    ask: AskRenewalInfo,
    signal: AbortSignal,
  ): Promise<StoredWindow | undefined> {
    const { certificate } = entry;
    if (certificate === undefined) return undefined;
    const known = stored?.certificate === certificate.sha256 ? stored : undefined;
    entry.window = known;
    // RFC 9773 §4.3: not after its end, and not before the CA wants to be asked again.
    if (entry.askWindowAt > monotonicMs(clock) || !isInForce(entry, clock.now().getTime())) return undefined;
    const fresh = await askWindow(entry, certificate, ask, signal);
    const unchanged = known !== undefined && known.start === fresh?.start && known.end === fresh.end;
    return unchanged ? undefined : fresh;
  }

  async function askWindow(entry: Entry, certificate: Certificate, ask: AskRenewalInfo, signal: AbortSignal) {
    try {
      const suggested = await ask(certificate, signal);
      askAgainIn(entry, suggested?.retryAfterMs ?? ASK_INTERVAL_MS);
      if (suggested === undefined) return undefined;
      const { start, end } = suggested;
      const chosen = chooseWithin(start, end, random()).toISOString();
      return { certificate: certificate.sha256, start: start.toISOString(), end: end.toISOString(), chosen };
    } catch (err) {
      signal.throwIfAborted();
      askAgainIn(entry, Math.max(retryAfterOf(err) ?? 0, ASK_INTERVAL_MS / 6));
      log.warn({ domain: entry.names[0], err }, 'renewal information not to be had');
      return undefined;
    }
  }

  function askAgainIn(entry: Entry, ms: number): void {
    const boundedMs = Math.min(Math.max(ms, SHORTEST_INTERVAL_MS), LONGEST_INTERVAL_MS);
    entry.askWindowAt = monotonicMs(clock) + boundedMs;
  }

  return {
    refresh,
    nextAsksMs(entries) {
      const now = clock.now().getTime();
      // An expired certificate is not asked about any more, so it must not end the sleep either.
      const asked = renewalInfo === undefined ? [] : entries.filter((entry) => isInForce(entry, now));
      return asked.map((entry) => entry.askWindowAt - monotonicMs(clock));
    },
    awaitFirst: (entry) => askAgainIn(entry, SHORTEST_INTERVAL_MS),
  };
}
