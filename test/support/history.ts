// What several clients did to records and were told, and whether one order of it explains all: linearizability.

import { randomBytes } from 'node:crypto';
import type { Storage, Stored } from '../../acme/storage.ts';

/**
 * One call. A record's content stands for its state: every write brings another one. Undefined: no record.
 * `to` of a read is what it found, of a write what it brings.
 */
export interface Operation {
  readonly client: string;
  readonly record: string;
  readonly kind: 'read' | 'write';
  /** What a write takes the place of. */
  readonly from: string | undefined;
  readonly to: string | undefined;
  /** Moments of the one clock that all clients share; the end is infinite where no answer came. */
  readonly began: number;
  readonly ended: number;
  /** Unknown: no answer came, and it may have happened, at any time after it began. */
  readonly outcome: 'done' | 'refused' | 'unknown';
}

export interface Flaw {
  readonly record: string;
  /** The longest that could be explained, and what could not be after it. */
  readonly explained: readonly Operation[];
  readonly stuck: readonly Operation[];
}

/**
 * Looks for an order in which each call takes effect between its beginning and its end (Herlihy and Wing), by trying, from
 * each state that was reached, every call that may come next (Wing and Gong), and never the same set of calls twice with
 * the same state (Lowe). Records do not depend on one another, so each is looked at alone.
 */
export function firstFlaw(operations: readonly Operation[]): Flaw | undefined {
  const byRecord = Map.groupBy(operations, ({ record }) => record);
  for (const [record, of] of byRecord) {
    const flaw = flawIn(record, of);
    if (flaw !== undefined) return flaw;
  }
  return undefined;
}

function flawIn(record: string, all: readonly Operation[]): Flaw | undefined {
  // A read without an answer says nothing.
  const of = all
    .filter(({ kind, outcome }) => kind === 'write' || outcome === 'done')
    .toSorted((a, b) => a.began - b.began);
  const tried = new Set<string>();
  const taken = of.map(() => false);
  let left = of.filter(({ outcome }) => outcome !== 'unknown').length;
  let longest: readonly Operation[] = [];
  /** The calls that were put in order, each with the state before it and the next candidate to try instead. */
  const path: { at: number; before: string | undefined; candidates: number[] }[] = [];

  function candidatesFor(state: string | undefined): number[] {
    let firstEnd = Number.POSITIVE_INFINITY;
    for (const [i, { ended }] of of.entries()) if (!taken[i]) firstEnd = Math.min(firstEnd, ended);
    const found: number[] = [];
    for (const [i, each] of of.entries()) {
      if (each.began > firstEnd) break;
      if (!taken[i] && fits(each, state)) found.push(i);
    }
    return found;
  }

  let state: string | undefined;
  let candidates = candidatesFor(state);
  while (left > 0) {
    const at = candidates.shift();
    if (at === undefined) {
      const last = path.pop();
      if (last === undefined)
        return {
          record,
          explained: longest,
          stuck: of.filter((each) => !longest.includes(each)).slice(0, 8),
        };
      taken[last.at] = false;
      if (of[last.at]!.outcome !== 'unknown') left += 1;
      ({ before: state, candidates } = last);
      continue;
    }
    taken[at] = true;
    const next = stateAfter(of[at]!, state);
    const id = `${next} ${taken.map((each, i) => (each ? i : '')).join()}`;
    if (tried.has(id)) {
      taken[at] = false;
      continue;
    }
    tried.add(id);
    if (of[at]!.outcome !== 'unknown') left -= 1;
    path.push({ at, before: state, candidates });
    if (path.length > longest.length) longest = path.map((each) => of[each.at]!);
    state = next;
    candidates = candidatesFor(state);
  }
  return undefined;
}

function fits({ kind, from, to, outcome }: Operation, state: string | undefined): boolean {
  if (kind === 'read') return state === to;
  // What had no effect need not be put in order.
  return outcome === 'refused' ? state !== from : state === from;
}

function stateAfter({ kind, to, outcome }: Operation, state: string | undefined): string | undefined {
  return kind === 'write' && outcome !== 'refused' ? to : state;
}

/** A storage whose calls are noted in `operations`. What is written must be another text each time. */
export function recorded(storage: Storage, client: string, operations: Operation[]): Storage {
  const contents = new Map<string, string>();
  const textOf = (bytes: Uint8Array) => Buffer.from(bytes).toString();
  const know = (version: string | undefined, text: string) => {
    if (version !== undefined) contents.set(version, text);
  };
  async function noted<T>(
    call: Pick<Operation, 'record' | 'kind' | 'from'>,
    act: () => Promise<T>,
    outcomeOf: (answer: T) => { to: string | undefined; done: boolean },
    meant?: string,
  ): Promise<T> {
    const began = performance.now();
    try {
      const answer = await act();
      const { to, done } = outcomeOf(answer);
      const outcome = done ? 'done' : 'refused';
      operations.push({ ...call, client, to, began, ended: performance.now(), outcome });
      return answer;
    } catch (error) {
      const certain = (error as { code?: unknown }).code === 'lease-lost';
      // A write that the lease has kept from happening happened at no time at all.
      if (!certain)
        operations.push({
          ...call,
          client,
          to: meant,
          began,
          ended: Number.POSITIVE_INFINITY,
          outcome: 'unknown',
        });
      throw error;
    }
  }
  return {
    ...storage,
    read: (record, options) =>
      noted(
        { record, kind: 'read', from: undefined },
        () => storage.read(record, options),
        (found: Stored | undefined) => {
          if (found !== undefined) know(found.version, textOf(found.bytes));
          return { to: found && textOf(found.bytes), done: true };
        },
      ),
    create(record, bytes, options) {
      const text = textOf(bytes);
      return noted(
        { record, kind: 'write', from: undefined },
        () => storage.create(record, bytes, options),
        (version) => {
          know(version, text);
          return { to: text, done: version !== undefined };
        },
        text,
      );
    },
    replace(record, bytes, version, options) {
      const text = textOf(bytes);
      return noted(
        { record, kind: 'write', from: contents.get(version) },
        () => storage.replace(record, bytes, version, options),
        (next) => {
          know(next, text);
          return { to: text, done: next !== undefined };
        },
        text,
      );
    },
    remove: (record, version, options) =>
      noted(
        { record, kind: 'write', from: contents.get(version) },
        () => storage.remove(record, version, options),
        (done) => ({ to: undefined, done }),
      ),
  };
}

export interface CounterClient {
  readonly name: string;
  readonly storage: Storage;
}

/**
 * Counts in this record until aborted, as replicas write: under the lease, reading, and writing over what was read. Resolves
 * to how often it was told that it had counted.
 */
export async function countOn(
  { name, storage }: CounterClient,
  record: string,
  signal: AbortSignal,
  random: () => number = Math.random,
): Promise<number> {
  let counted = 0;
  while (!signal.aborted) {
    const once = async (lease?: Parameters<Parameters<Storage['lease']>[2]>[0]) => {
      const there = await storage.read(record);
      if (random() < 0.2) await new Promise((resolve) => setTimeout(resolve, random() * 30));
      const next = Number(there?.bytes.toString().split(' ')[0] ?? 0) + 1;
      const bytes = Buffer.from(`${next} ${name} ${randomBytes(6).toString('hex')}`);
      const options = { lease };
      const written =
        there === undefined
          ? await storage.create(record, bytes, options)
          : await storage.replace(record, bytes, there.version, options);
      if (written !== undefined) counted += 1;
    };
    try {
      // Half of them without the lease: what decides is the version.
      if (random() < 0.5) await once();
      else await storage.lease('count/lease', signal, once);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  return counted;
}
