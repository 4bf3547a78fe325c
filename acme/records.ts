// Records as JSON over a storage: what fits no schema is set aside, and a change never undoes that of another.

import type * as z from 'zod';
import { type Lease, type ReadOptions, type Storage, StorageError } from './storage.ts';

export const NOT_WRITTEN = 'it is not the JSON that was written';

export interface Records {
  /** Undefined if there is no such record, or none that fits the schema: that one is set aside. */
  read<T>(name: string, schema: z.ZodType<T>, options?: ReadOptions): Promise<T | undefined>;
  /**
   * Where others write too: what `over` says of what is there takes its place, and nothing is written when it says
   * undefined. Where nobody else writes `value` is written without looking.
   */
  write<T>(
    name: string,
    value: T,
    schema: z.ZodType<T>,
    over: (before: T | undefined) => T | undefined,
  ): Promise<void>;
  /** `change` is called again when another process was faster. Nothing is written when it returns undefined. */
  change<T>(
    name: string,
    schema: z.ZodType<T>,
    change: (before: T | undefined) => T | undefined,
  ): Promise<void>;
  /** `unless`: where others write too, what is not to be removed. */
  remove<T>(name: string, schema: z.ZodType<T>, unless?: (there: T) => boolean): Promise<void>;
}

/** Others change a record once in a while: whoever is overtaken so often is in a fight. */
const MOST_TRIES = 20;

/** `held` is the lease under which is written now, if there is one. */
export function createRecords(storage: Storage, held: () => Lease | undefined): Records {
  async function fetch<T>(name: string, schema: z.ZodType<T>, options?: ReadOptions) {
    const stored = await storage.read(name, options);
    if (stored === undefined) return undefined;
    try {
      return { value: schema.parse(JSON.parse(stored.bytes.toString('utf8'))), version: stored.version };
    } catch {
      // The parser's message may quote the record, which may hold a key.
      await storage.setAside(name, new Error(NOT_WRITTEN));
      return undefined;
    }
  }

  async function inTheEnd(name: string, attempt: () => Promise<boolean>): Promise<void> {
    for (let tries = 0; tries < MOST_TRIES; tries += 1) if (await attempt()) return;
    throw new StorageError('overtaken', `${storage.place(name)} is changed by others without end`);
  }

  const change: Records['change'] = (name, schema, changed) =>
    inTheEnd(name, async () => {
      const before = await fetch(name, schema);
      const after = changed(before?.value);
      if (after === undefined) return true;
      const options = { lease: held() };
      const written =
        before === undefined
          ? await storage.create(name, bytesOf(after), options)
          : await storage.replace(name, bytesOf(after), before.version, options);
      return written !== undefined;
    });

  return {
    read: async (name, schema, options) => (await fetch(name, schema, options))?.value,
    change,
    write: (name, value, schema, over) =>
      storage.alone === undefined
        ? change(name, schema, over)
        : storage.alone.overwrite(name, bytesOf(value)),
    remove: (name, schema, unless = () => false) =>
      storage.alone === undefined
        ? inTheEnd(name, async () => {
            const there = await fetch(name, schema);
            if (there === undefined || unless(there.value)) return true;
            return storage.remove(name, there.version, { lease: held() });
          })
        : storage.alone.erase(name),
  };
}

function bytesOf(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value, null, 2)}\n`);
}
