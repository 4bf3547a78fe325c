// A store in memory whose operator keeps every state that it ever had, and shows each replica whatever he likes.

import { type Engine, StorageError, type Stored } from '../../acme/storage.ts';

export type State = ReadonlyMap<string, Stored>;

export interface LyingStore {
  /** Everything as it is now. */
  state(): Map<string, Stored>;
  /** Every content that this record ever had, the oldest first. */
  past(name: string): readonly Stored[];
  /** Puts something in the place of what is there. */
  put(name: string, stored: Stored | undefined): void;
  /** All of it. */
  restore(state: State): void;
  /** Another store that begins as this one is now: what is written there is not seen here. */
  fork(): LyingStore;
  /** What it says of the next writes: that they are done; it keeps nothing of them. */
  swallow(writes: number): void;
  engine(): Engine;
}

export function createLyingStore(begin: State = new Map()): LyingStore {
  const records = new Map(begin);
  const past = new Map<string, Stored[]>([...begin].map(([name, stored]) => [name, [stored]]));
  let versions = 0;
  let swallowed = 0;

  function write(name: string, bytes: Uint8Array): string {
    versions += 1;
    const stored = { bytes: Buffer.from(bytes), version: `v${versions}-${Math.random()}` };
    if (swallowed > 0) swallowed -= 1;
    else {
      records.set(name, stored);
      past.set(name, [...(past.get(name) ?? []), stored]);
    }
    return stored.version;
  }

  const engine: Engine = {
    place: (name) => `lying ${name}`,
    read: async (name) => records.get(name),
    create: async (name, bytes) => (records.has(name) ? undefined : write(name, bytes)),
    replace: async (name, bytes, version) =>
      records.get(name)?.version === version ? write(name, bytes) : undefined,
    remove: async (name, version) => records.get(name)?.version === version && records.delete(name),
    list: async (folder) =>
      [...records.keys()]
        .filter((name) => name.startsWith(`${folder}/`))
        .map((name) => name.slice(folder.length + 1)),
    lease: (name, signal, work) => work({ name, token: '', signal, isHeld: () => true }),
    watch: () => () => {},
    setAside: async (name, why) => {
      throw new StorageError('unreadable', `${name}: ${why.message}`);
    },
    prove: async () => [],
    close: async () => {},
  };
  return {
    state: () => new Map(records),
    past: (name) => past.get(name) ?? [],
    put(name, stored) {
      if (stored === undefined) records.delete(name);
      else records.set(name, stored);
    },
    restore(state) {
      records.clear();
      for (const [name, stored] of state) records.set(name, stored);
    },
    fork: () => createLyingStore(records),
    swallow(writes) {
      swallowed = writes;
    },
    engine: () => engine,
  };
}
