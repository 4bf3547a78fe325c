// How the storage that replicas share does: every call to it counted and timed, and whether it answers now.

import { type Engine, StorageError } from '../acme/storage.ts';
import { HISTOGRAM_PLACES, observe } from './workers/counters.ts';

export const storeResults = ['ok', 'refused', 'failed'] as const;
export type StoreResult = (typeof storeResults)[number];
const OPERATIONS = ['read', 'create', 'replace', 'remove', 'list', 'prove'] as const;
export type StoreOperation = (typeof OPERATIONS)[number];

export interface StoreState {
  /** `postgres`, `redis` or `s3`. */
  readonly engine: string;
  /** Whether the last call was answered; undefined: there was none yet. */
  readonly answers: boolean | undefined;
  /** Since when that is so, ISO 8601. */
  readonly since: string | undefined;
  /** Why the last one failed; it names no password. */
  readonly why: string | undefined;
}

export interface StoreFigures {
  /** The same engine, counted. */
  watch(engine: Engine): Engine;
  state(): StoreState;
  counts(): readonly {
    readonly operation: StoreOperation;
    readonly result: StoreResult;
    readonly calls: number;
  }[];
  /** By operation, as counters.ts has histograms. */
  durations(): readonly { readonly operation: StoreOperation; readonly numbers: Float64Array }[];
}

export function createStoreFigures(
  engine: string,
  now: () => number = () => performance.now(),
  wallNow: () => Date = () => new Date(),
): StoreFigures {
  const calls = new Map<string, number>(
    OPERATIONS.flatMap((operation) => storeResults.map((result) => [`${operation} ${result}`, 0] as const)),
  );
  const durations = new Map(OPERATIONS.map((operation) => [operation, new Float64Array(HISTOGRAM_PLACES)]));
  let state: StoreState = { engine, answers: undefined, since: undefined, why: undefined };

  function ended(operation: StoreOperation, startedAt: number, result: StoreResult, why?: string): void {
    const kind = `${operation} ${result}`;
    calls.set(kind, calls.get(kind)! + 1);
    observe(durations.get(operation)!, 0, now() - startedAt);
    const answers = result !== 'failed';
    const since = answers === state.answers ? state.since : wallNow().toISOString();
    state = { engine, answers, since, why };
  }

  function counted<A extends unknown[], T>(
    operation: StoreOperation,
    call: (...args: A) => Promise<T>,
    isRefused: (outcome: T) => boolean = () => false,
  ): (...args: A) => Promise<T> {
    return async (...args) => {
      const startedAt = now();
      try {
        const outcome = await call(...args);
        ended(operation, startedAt, isRefused(outcome) ? 'refused' : 'ok');
        return outcome;
      } catch (error) {
        // What was given up by the caller says nothing of the store.
        if (error instanceof StorageError) {
          if (error.code === 'unavailable' || error.code === 'unfit')
            ended(operation, startedAt, 'failed', error.message);
          else ended(operation, startedAt, 'refused');
        }
        throw error;
      }
    };
  }

  return {
    watch: (watched) => ({
      ...watched,
      read: counted('read', watched.read),
      create: counted('create', watched.create, (version) => version === undefined),
      replace: counted('replace', watched.replace, (version) => version === undefined),
      remove: counted('remove', watched.remove, (done) => !done),
      list: counted('list', watched.list),
      prove: counted('prove', watched.prove),
    }),
    state: () => state,
    counts: () =>
      OPERATIONS.flatMap((operation) =>
        storeResults.map((result) => ({ operation, result, calls: calls.get(`${operation} ${result}`)! })),
      ),
    durations: () => [...durations].map(([operation, numbers]) => ({ operation, numbers })),
  };
}
