// What every record was at last, in one sealed record: so that one that was put back is noticed by whoever never saw the newer.

import { createHash } from 'node:crypto';
import * as z from 'zod';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { createTurns } from '../../src/lib/turns.ts';
import { StorageError } from '../storage.ts';

/** A state of a record: how often it has changed, and the SHA-256 of what was sealed, hex. */
export interface Bound {
  readonly counter: number;
  readonly digest: string;
}

export const MANIFEST = 'manifest/records.json';

export interface ManifestOptions {
  /** The record as it is now, or undefined; rejects where it cannot be trusted. */
  read(): Promise<{ readonly bytes: Buffer; readonly version: string } | undefined>;
  /** Resolves to false if it is not of this version any more; without a version, if there is one. */
  write(bytes: Buffer, version: string | undefined): Promise<boolean>;
  readonly clock?: Clock;
}

/**
 * A lower bound, and no more: a record may be ahead of it, by what was written while its writer was killed. It is written
 * after the record, and several changes together, so nobody waits for it.
 */
export interface Manifest {
  /** Resolves once what it holds is known. Rejects where it cannot be read or trusted. */
  known(): Promise<void>;
  bound(name: string): Bound | undefined;
  /** Whether there is one. */
  exists(): boolean;
  /** Reads it again. */
  recheck(): Promise<void>;
  /** Makes it, if there is none: before the first record, so that one without a manifest is a sign that it was taken away. */
  begin(): Promise<void>;
  note(name: string, bound: Bound): void;
  /** Resolves once what was noted is in it, or could not be. */
  flush(): Promise<void>;
  /** Replaces all of it. */
  reset(bounds: ReadonlyMap<string, Bound>): Promise<void>;
}

const Schema = z.record(z.string(), z.tuple([z.int().positive(), z.string().regex(/^[0-9a-f]{64}$/)]));

/** Changes come in twos and threes. */
const REST_MS = 100;
/** After a failure; what is noted is kept. */
const AGAIN_MS = 5_000;
const MOST_TRIES = 20;

export function digestOf(sealed: Uint8Array): string {
  return createHash('sha256').update(sealed).digest('hex');
}

export function createManifest(options: ManifestOptions): Manifest {
  return new SealedManifest(options);
}

class SealedManifest implements Manifest {
  readonly #options: ManifestOptions;
  readonly #clock: Clock;
  readonly #inTurn = createTurns();
  readonly #bounds = new Map<string, Bound>();
  readonly #noted = new Map<string, Bound>();
  #there = false;
  #loading: Promise<unknown> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: ManifestOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  async known(): Promise<void> {
    this.#loading ??= this.#load();
    try {
      await this.#loading;
    } catch (error) {
      this.#loading = undefined;
      throw error;
    }
  }

  bound(name: string): Bound | undefined {
    return this.#bounds.get(name);
  }

  exists(): boolean {
    return this.#there;
  }

  async recheck(): Promise<void> {
    await this.#load();
  }

  begin(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#there) return;
      const version = await this.#load();
      if (!this.#there) await this.#store(version);
    });
  }

  note(name: string, bound: Bound): void {
    raise(this.#bounds, name, bound);
    this.#noted.set(name, bound);
    this.#flushLater(REST_MS);
  }

  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    // That the store is away, or cannot be trusted, has been said by whoever asked it.
    await this.#inTurn(() => this.#settle()).catch(() => this.#flushLater(AGAIN_MS));
  }

  reset(all: ReadonlyMap<string, Bound>): Promise<void> {
    return this.#inTurn(async () => {
      const stored = await this.#options.read();
      this.#bounds.clear();
      for (const [name, bound] of all) this.#bounds.set(name, bound);
      if (!(await this.#store(stored?.version)))
        throw new StorageError('overtaken', `${MANIFEST} has changed meanwhile: is a replica still running?`);
    });
  }

  /** Resolves to the version of what was read. */
  async #load(): Promise<string | undefined> {
    const stored = await this.#options.read();
    this.#there ||= stored !== undefined;
    const listed = stored === undefined ? {} : Schema.parse(JSON.parse(stored.bytes.toString('utf8')));
    for (const [name, [counter, digest]] of Object.entries(listed))
      raise(this.#bounds, name, { counter, digest });
    return stored?.version;
  }

  async #store(over: string | undefined): Promise<boolean> {
    const content = Object.fromEntries(
      [...this.#bounds].map(([name, { counter, digest }]) => [name, [counter, digest]]),
    );
    const written = await this.#options.write(Buffer.from(JSON.stringify(content)), over);
    this.#there ||= written;
    return written;
  }

  /** Another replica may be faster each time: it has written what it knows, and we add what we know. */
  async #settle(): Promise<void> {
    for (let tries = 1; this.#noted.size > 0; tries += 1) {
      const version = await this.#load();
      const taken = new Map(this.#noted);
      if (await this.#store(version)) {
        for (const [name, bound] of taken) if (this.#noted.get(name) === bound) this.#noted.delete(name);
      } else if (tries === MOST_TRIES) {
        throw new StorageError('overtaken', `${MANIFEST} is changed by others without end`);
      } else await this.#clock.sleep(Math.random() * REST_MS * tries);
    }
  }

  #flushLater(ms: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.flush();
    }, ms).unref();
  }
}

function raise(bounds: Map<string, Bound>, name: string, bound: Bound): void {
  if ((bounds.get(name)?.counter ?? 0) < bound.counter) bounds.set(name, bound);
}
