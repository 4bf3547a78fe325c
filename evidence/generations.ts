// Which generation of the evidence a connection is shown: always the same, and one that is about its certificate.

import type { LocalConnection } from '../src/lib/local-handler.ts';

export interface Generation {
  /** Two with the same id are the same, to the byte. */
  readonly id: string;
  /** Fingerprints of the certificates that it is about. */
  readonly leaves: ReadonlySet<string>;
}

export interface Generations<T extends Generation> {
  /** `next` is for those alone who were served a certificate that only it is about. */
  set(current: T | undefined, next?: T): void;
  /** Undefined: there is none. */
  of(connection: LocalConnection): T | undefined;
  /** Those before, newest first, for as long as a reader may still be busy with one. */
  before(): readonly T[];
}

/** A reader who began before the change has ended by then. */
const READING_MS = 60_000;
/** A statement may follow right after a change. */
const MOST_BEFORE = 2;

/**
 * A reader takes one file after the other. On one connection all of them are of one generation: of the one that he began
 * with, and that is one about the certificate of his connection. A reader who connects for every file cannot be known
 * again: behind a gateway all have one address, and the names of the files are given. When a certificate is renewed that
 * costs him nothing, since what he compares the files with has changed too, and he has to begin again. When another one of
 * several is, he finds that checksums and files do not fit; names that only the checksums before had are still answered.
 */
export function createGenerations<T extends Generation>(
  now: () => number = () => performance.now(),
): Generations<T> {
  let current: T | undefined;
  let next: T | undefined;
  let before: readonly T[] = [];
  let changedAt = Number.NEGATIVE_INFINITY;
  const seen = new WeakMap<LocalConnection, { readonly leaf: string; readonly id: string }>();

  const isReading = () => now() - changedAt < READING_MS;

  function chosen(leaf: string, began: string | undefined): T | undefined {
    const same = isReading() ? before.find(({ id }) => id === began) : undefined;
    return same ?? [current, next, ...before].find((each) => each?.leaves.has(leaf)) ?? current;
  }

  return {
    set(newest, following) {
      next = following;
      if (newest?.id !== current?.id) {
        // Where there is none, there is none of before either: it was about what is served no more.
        before = newest && current ? [current, ...before].slice(0, MOST_BEFORE) : [];
        changedAt = now();
      }
      current = newest;
    },
    of(connection) {
      if (current === undefined) return undefined;
      const known = seen.get(connection);
      const leaf = known?.leaf ?? connection.certificate?.fingerprint ?? '';
      const found = chosen(leaf, known?.id);
      if (found !== undefined) seen.set(connection, { leaf, id: found.id });
      return found;
    },
    before: () => (isReading() ? before : []),
  };
}
