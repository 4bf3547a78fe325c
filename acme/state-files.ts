// JSON files of the state folder: written whole or not at all, and set aside when they cannot be read back.

import { randomBytes } from 'node:crypto';
import { readdir, rename } from 'node:fs/promises';
import type { z } from 'zod';
import { readFileIfPresent, writeFileAtomic } from '../src/lib/atomic-file.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Log } from '../src/lib/log.ts';

export const NOT_WRITTEN = 'it is not the JSON that was written';

export interface StateFilesOptions {
  clock: Clock;
  log: Log;
  /** Told of a damaged file, which then stays in its place; otherwise it is renamed. */
  onDamaged?: ((path: string, why: string) => void) | undefined;
}

export interface StateFiles {
  /** Undefined if there is no such file, or none that fits the schema: that one is set aside. */
  read<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined>;
  write(path: string, value: unknown): Promise<void>;
  setAside(path: string, cause: Error): Promise<void>;
}

export function createStateFiles({ clock, log, onDamaged }: StateFilesOptions): StateFiles {
  async function setAside(path: string, cause: Error): Promise<void> {
    if (onDamaged !== undefined) return onDamaged(path, cause.message);
    const stamp = clock.now().toISOString().replaceAll(':', '');
    // Two in one millisecond must not be one file.
    const aside = `${path}.${stamp}.${randomBytes(3).toString('hex')}.damaged`;
    try {
      await rename(path, aside);
      log.error({ path, aside, why: cause.message, err: cause }, 'damaged state file set aside');
    } catch (err) {
      // Another process was first, or the disk refuses changes. Either way the damaged file counts as absent.
      if ((err as NodeJS.ErrnoException).code === 'ENOENT') return;
      log.error({ path, why: cause.message, err }, 'damaged state file cannot be set aside');
    }
  }

  return {
    async read(path, schema) {
      const bytes = await readFileIfPresent(path);
      if (bytes === undefined) return undefined;
      try {
        return schema.parse(JSON.parse(bytes.toString('utf8')));
      } catch {
        // The parser's message may quote the file, which may hold a key.
        await setAside(path, new Error(NOT_WRITTEN));
        return undefined;
      }
    },
    write: (path, value) => writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`),
    setAside,
  };
}

/** Empty if the folder does not exist. */
export async function filesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
