// Records as files of a folder: written whole or not at all, and set aside when they make no sense.

import { createHash, randomBytes } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  createFileAtomic,
  ensurePrivateFolder,
  readFileIfPresent,
  syncFolder,
  writeFileAtomic,
} from '../../src/lib/atomic-file.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { type Log, silentLog } from '../../src/lib/log.ts';
import { createTurns } from '../../src/lib/turns.ts';
import type { Storage } from '../storage.ts';
import { createStateLock, type StateLock } from './state-lock.ts';

export interface FilesOptions {
  readonly root: string;
  readonly clock?: Clock;
  readonly log?: Log;
  /** See StateLockOptions. */
  readonly lockPollMs?: number | undefined;
  readonly lockStaleMs?: number | undefined;
  /** Told of a damaged file, which then stays in its place; otherwise it is renamed. */
  readonly onDamaged?: ((path: string, why: string) => void) | undefined;
}

export interface Files extends Storage {
  readonly alone: NonNullable<Storage['alone']>;
  /** Makes these folders, which only their owner may enter. */
  prepare(folders: readonly string[]): Promise<void>;
}

/**
 * A file is compared and then replaced: two steps, between which only the callers of this process take turns. Between
 * processes it is the lease that keeps them apart.
 */
export function createFiles(options: FilesOptions): Files {
  const { root, clock = systemClock, log = silentLog, onDamaged } = options;
  const at = (name: string) => join(root, name);
  const inTurn = createTurns();
  const locks = new Map<string, StateLock>();

  async function read(name: string) {
    const bytes = await readFileIfPresent(at(name));
    return bytes && { bytes, version: versionOf(bytes) };
  }

  function lockOf(name: string): StateLock {
    const { lockPollMs: pollMs, lockStaleMs: staleMs } = options;
    const known = locks.get(name);
    if (known !== undefined) return known;
    const times = { ...(pollMs !== undefined && { pollMs }), ...(staleMs !== undefined && { staleMs }) };
    const made = createStateLock({ path: at(name), clock, log, ...times });
    locks.set(name, made);
    return made;
  }

  return {
    place: at,
    read,
    create: (name, bytes) =>
      inTurn(async () => {
        await ensurePrivateFolder(dirname(at(name)));
        return (await createFileAtomic(at(name), bytes)) ? versionOf(bytes) : undefined;
      }),
    replace: (name, bytes, version) =>
      inTurn(async () => {
        if ((await read(name))?.version !== version) return undefined;
        await writeFileAtomic(at(name), bytes);
        return versionOf(bytes);
      }),
    remove: (name, version) =>
      inTurn(async () => {
        if ((await read(name))?.version !== version) return false;
        await rm(at(name), { force: true });
        return true;
      }),
    list: (folder) => filesIn(at(folder)),
    lease: (name, signal, work) =>
      lockOf(name).hold(signal, (held, token) =>
        work({ name, token, signal: held, isHeld: () => !held.aborted }),
      ),
    // Nobody tells of a change in a folder that another machine has mounted too: whoever waits looks again.
    watch: () => () => {},
    setAside: (name, why) => setAside(at(name), why, { clock, log, onDamaged }),
    alone: {
      overwrite: (name, bytes) => writeFileAtomic(at(name), bytes),
      erase: (name) => rm(at(name), { force: true }),
      async sweep(folders) {
        for (const each of folders) await sweepFolder(at(each));
      },
    },
    async prepare(folders) {
      for (const each of folders) await ensurePrivateFolder(at(each));
    },
  };
}

function versionOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function setAside(
  path: string,
  cause: Error,
  { clock, log, onDamaged }: { clock: Clock; log: Log; onDamaged: FilesOptions['onDamaged'] },
): Promise<void> {
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

/** Empty if the folder does not exist. */
async function filesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

async function sweepFolder(folder: string): Promise<void> {
  const left = (await readdir(folder)).filter((file) => file.endsWith('.tmp'));
  for (const file of left) await rm(join(folder, file), { force: true });
  if (left.length > 0) await syncFolder(folder);
}
