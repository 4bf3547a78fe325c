// For a while a storage is only read, and what is written stays in memory: so that work can go on while it is away.

import { createHash } from 'node:crypto';
import { isStoreAway, type Lease, type Storage, type Stored } from '../storage.ts';

export interface Overlay {
  readonly storage: Storage;
  /** While `work` runs, writes go no further than this process's memory; they are forgotten after it. */
  apart<T>(work: () => Promise<T>): Promise<T>;
}

/** `needed`: what must not count as absent only because it cannot be read. */
export function createOverlay(below: Storage, needed: (name: string) => boolean): Overlay {
  if (below.alone !== undefined) return { storage: below, apart: (work) => work() };
  /** Undefined in it: removed. */
  let above: Map<string, Stored | undefined> | undefined;

  async function readBelow(name: string): Promise<Stored | undefined> {
    try {
      return await below.read(name);
    } catch (error) {
      if (!isStoreAway(error) || needed(name)) throw error;
      return undefined;
    }
  }

  const read = (over: Map<string, Stored | undefined>, name: string) =>
    over.has(name) ? Promise.resolve(over.get(name)) : readBelow(name);

  async function put(over: Map<string, Stored | undefined>, name: string, bytes: Uint8Array) {
    const version = createHash('sha256').update(bytes).digest('hex');
    over.set(name, { bytes: Buffer.from(bytes), version });
    return version;
  }

  const storage: Storage = {
    ...below,
    read: (name, options) => (above === undefined ? below.read(name, options) : read(above, name)),
    async create(name, bytes, options) {
      const over = above;
      if (over === undefined) return below.create(name, bytes, options);
      return (await read(over, name)) === undefined ? put(over, name, bytes) : undefined;
    },
    async replace(name, bytes, version, options) {
      const over = above;
      if (over === undefined) return below.replace(name, bytes, version, options);
      return (await read(over, name))?.version === version ? put(over, name, bytes) : undefined;
    },
    async remove(name, version, options) {
      const over = above;
      if (over === undefined) return below.remove(name, version, options);
      if ((await read(over, name))?.version !== version) return false;
      over.set(name, undefined);
      return true;
    },
    async list(folder, options) {
      const over = above;
      if (over === undefined) return below.list(folder, options);
      const listed = await below.list(folder).catch(() => []);
      const ours = [...over.keys()].filter((name) => name.startsWith(`${folder}/`));
      return [...new Set([...listed, ...ours.map((name) => name.slice(folder.length + 1))])];
    },
    lease: (name, signal, work) =>
      above === undefined ? below.lease(name, signal, work) : work(ownLease(name, signal)),
  };
  return {
    storage,
    async apart(work) {
      above = new Map();
      try {
        return await work();
      } finally {
        above = undefined;
      }
    },
  };
}

function ownLease(name: string, signal: AbortSignal): Lease {
  return { name, token: '', signal, isHeld: () => true };
}
