// The order that an earlier attempt left on disk: taken up again, or given up when it can no longer be finished.

import type { Clock } from '../src/lib/clock.ts';
import type { Domain } from '../src/lib/domain.ts';
import type { Log } from '../src/lib/log.ts';
import { AcmeProblem, AcmeTransportError } from './answer.ts';
import type { Attempt } from './attempt.ts';
import { IssuerError } from './issuer.ts';
import { fetchOrder, type Order, type Post } from './order.ts';
import { sameSet } from './selection.ts';
import type { Store } from './store.ts';
import type { StoredOrder } from './stored.ts';

export interface PendingOrdersOptions {
  post: Post;
  /** The account that orders now. */
  accountUrl: string;
  store: Pick<Store, 'readOrder' | 'dropOrder' | 'readCertificates'>;
  clock: Clock;
  log: Log;
}

export interface PendingOrders {
  /** The stored order and its key, if it is for these names and the CA can still finish it. */
  resume(attempt: Attempt): Promise<{ order: Order; stored: StoredOrder } | undefined>;
  /** Drops the stored order if this failure shows that it can never be finished: every later attempt would resume it. */
  dropIfHopeless(names: readonly Domain[], error: unknown): Promise<void>;
}

/** A stored order that has been unintelligible or unfinished for so long is given up. */
const FORLORN_MS = 24 * 3_600_000;
/** No order is resumed after this, whatever the CA says of its expiry. */
const OLDEST_ORDER_MS = 7 * 24 * 3_600_000;
/** Refusals that say nothing about the order that was asked for. */
const PASSING_REFUSALS = new Set(['badNonce', 'rateLimited', 'serverInternal', 'userActionRequired']);

export function createPendingOrders(options: PendingOrdersOptions): PendingOrders {
  const { post, accountUrl, store, clock, log } = options;

  async function isOurs(stored: PlacedOrder, names: readonly Domain[]): Promise<boolean> {
    if (stored.account !== accountUrl || !sameSet(stored.names, names)) return false;
    // If its certificate is on disk, the process was killed between storing that and dropping the order.
    const kept = (await store.readCertificates()).find((each) => each.names[0] === names[0]);
    return kept?.key !== stored.key;
  }

  async function fetchStored(stored: PlacedOrder, signal: AbortSignal): Promise<Order | undefined> {
    try {
      return (await fetchOrder(post, stored.url, signal)).value;
    } catch (error) {
      if (!isForgotten(error) && !(isAnswer(error) && isOlderThan(stored, FORLORN_MS))) throw error;
      log.warn({ domain: stored.names[0], order: stored.url, err: error }, 'stored order given up');
      return undefined;
    }
  }

  function isOver(order: Order, stored: StoredOrder): boolean {
    if (order.status === 'invalid' || isOlderThan(stored, OLDEST_ORDER_MS)) return true;
    // Its certificate can be downloaded; if that has failed for so long, it always will.
    if (order.status === 'valid') return isOlderThan(stored, FORLORN_MS);
    return typeof order.expires === 'string' && Date.parse(order.expires) <= clock.now().getTime();
  }

  /** A date far in the future counts as old as well: the clock was wrong when it was written. */
  function isOlderThan({ createdAt }: StoredOrder, ms: number): boolean {
    return Math.abs(clock.now().getTime() - Date.parse(createdAt)) > ms;
  }

  return {
    async resume({ names, signal }) {
      const stored = await store.readOrder(names[0]!);
      // An intent of which nothing came is for the next intent to replace.
      if (stored === undefined || !isPlaced(stored)) return undefined;
      const order = (await isOurs(stored, names)) ? await fetchStored(stored, signal) : undefined;
      if (order === undefined || isOver(order, stored)) {
        await store.dropOrder(names[0]!, stored);
        return undefined;
      }
      log.info({ domain: names[0], order: order.url, status: order.status }, 'order resumed');
      return { order, stored };
    },
    async dropIfHopeless(names, error) {
      const stored = await store.readOrder(names[0]!).catch(() => undefined);
      if (stored === undefined || !isPlaced(stored)) return;
      if (!isFinal(error) && !(isAnswer(error) && isOlderThan(stored, FORLORN_MS))) return;
      log.warn({ domain: names[0], order: stored.url }, 'order given up, the next attempt places another');
      await store.dropOrder(names[0]!, stored).catch(() => {});
    },
  };
}

type PlacedOrder = StoredOrder & { readonly url: string };

function isPlaced(stored: StoredOrder): stored is PlacedOrder {
  return stored.url !== undefined;
}

/** RFC 8555 §7.1.6: an authorization or an order that has failed stays failed. */
export function isFinal(error: unknown): boolean {
  return error instanceof IssuerError && ['authorization-failed', 'order-failed'].includes(error.code);
}

/** The CA knows no such order, or not for this account. */
function isForgotten(error: unknown): boolean {
  if (!(error instanceof AcmeProblem)) return false;
  return error.status < 500 && ![408, 429].includes(error.status) && !PASSING_REFUSALS.has(error.type);
}

/** Whether the CA was reached and said something: a failure on the way to it, or in DNS, says nothing about the order. */
function isAnswer(error: unknown): boolean {
  return (
    error instanceof AcmeProblem ||
    error instanceof IssuerError ||
    (error instanceof AcmeTransportError && error.code === 'ca-unintelligible')
  );
}
