// The sealed copy on this machine's disk: what was seen last of each record, to start with and to notice what is older.

import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ensurePrivateFolder, readFileIfPresent, writeFileAtomic } from '../../src/lib/atomic-file.ts';
import type { Log } from '../../src/lib/log.ts';
import { createTurns } from '../../src/lib/turns.ts';
import type { Opened, Sealing } from '../sealing.ts';

export interface LocalCopy {
  /** The latest of this record that was seen, here or in an earlier run. */
  seen(name: string): { readonly counter: number; readonly sealed: Buffer } | undefined;
  read(name: string): Opened | undefined;
  list(folder: string): string[];
  keep(name: string, content: Opened, sealed: Buffer): void;
  /** Resolves once all of it is on disk, or the disk has refused it. */
  flush(): Promise<void>;
}

interface Kept extends Opened {
  readonly sealed: Buffer;
}

/** A name does not fit into a file name, and the seal is of the name: so both stand in the file. */
const SEPARATOR = '\n';

/** The disk shows nothing that is sealed. A copy that cannot be opened counts as none: it may be of another key or app. */
export async function openLocalCopy(
  folder: string,
  sealing: Sealing,
  { log, readOnly = false }: { log: Log; readOnly?: boolean },
): Promise<LocalCopy> {
  const known = new Map<string, Kept>();
  for (const file of await readdir(folder).catch(() => [])) {
    const found = await readKept(join(folder, file), sealing);
    if (found !== undefined) known.set(...found);
  }
  const inTurn = createTurns();
  let last: Promise<void> = Promise.resolve();

  async function write(name: string): Promise<void> {
    const path = join(folder, `${createHash('sha256').update(name).digest('hex').slice(0, 40)}.sealed`);
    try {
      await ensurePrivateFolder(folder);
      await writeFileAtomic(path, Buffer.concat([Buffer.from(name + SEPARATOR), known.get(name)!.sealed]));
    } catch (err) {
      log.warn({ path, err }, 'copy of the store could not be written to disk');
    }
  }

  return {
    seen: (name) => known.get(name),
    read: (name) => known.get(name),
    list: (of) =>
      [...known]
        .filter(([name, { bytes }]) => bytes !== undefined && name.startsWith(`${of}/`))
        .map(([name]) => name.slice(of.length + 1))
        .filter((name) => !name.includes('/')),
    keep(name, content, sealed) {
      if ((known.get(name)?.counter ?? 0) >= content.counter) return;
      known.set(name, { ...content, sealed });
      if (!readOnly) last = inTurn(() => write(name));
    },
    flush: () => last,
  };
}

async function readKept(path: string, sealing: Sealing): Promise<[string, Kept] | undefined> {
  try {
    const all = (await readFileIfPresent(path)) ?? Buffer.alloc(0);
    const end = all.indexOf(SEPARATOR);
    const name = all.subarray(0, end).toString();
    const sealed = all.subarray(end + SEPARATOR.length);
    return [name, { ...sealing.open(name, sealed), sealed }];
  } catch {
    return undefined;
  }
}
