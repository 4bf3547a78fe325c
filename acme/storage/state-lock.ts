// A lock file that lets one process at a time work on a folder, and that is taken over when its owner is dead.

import { randomBytes } from 'node:crypto';
import { link, lstat, open, readFile, readlink, rename, rm, utimes } from 'node:fs/promises';
import { dirname } from 'node:path';
import * as z from 'zod';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { GuardedFileError, readGuardedFile } from '../../src/lib/guarded-file.ts';
import { type Log, silentLog } from '../../src/lib/log.ts';
import { createTurns } from '../../src/lib/turns.ts';

export interface StateLockOptions {
  /** Of the lock file; what is logged names its folder. */
  path: string;
  clock?: Clock;
  log?: Log;
  /** How often a waiting process looks again. */
  pollMs?: number;
  /** An owner in another container cannot be looked up: its lock is stale when unchanged for so long. */
  staleMs?: number;
}

export interface StateLock {
  /**
   * Waits for the lock as long as `signal` allows, and runs `work` while holding it. The signal given to `work` also aborts
   * when the lock is lost, which happens only to a process that was suspended for longer than `staleMs`.
   */
  hold<T>(signal: AbortSignal, work: Work<T>): Promise<T>;
}

/** The token is in the lock file, and no other owner's. */
type Work<T> = (signal: AbortSignal, token: string) => Promise<T>;

const OwnerSchema = z.object({
  token: z.string(),
  pid: z.number().int(),
  /** Start time in clock ticks, because process ids are reused. */
  started: z.string(),
  /** Boot id and pid namespace: a pid has a meaning only within both. */
  realm: z.string(),
});
type Owner = z.infer<typeof OwnerSchema>;

const TAKEN = Symbol('taken');

/** Excludes as well as a shared file system allows: see `hold`. */
export function createStateLock(options: StateLockOptions): StateLock {
  const { path, clock = systemClock, log = silentLog, pollMs = 1000, staleMs = 30_000 } = options;
  const folder = dirname(path);
  /** The file excludes other processes; within this one, callers take turns. */
  const inTurn = createTurns();

  async function acquire(signal: AbortSignal): Promise<Owner> {
    const self = await describeSelf();
    let told = false;
    let watched: { token: string; touched: number; since: number } | undefined;
    for (;;) {
      signal.throwIfAborted();
      if ((await tryCreate(path, self)) !== TAKEN) return self;
      const holder = await readOwner(path);
      if (holder === undefined) continue;
      const now = performance.now();
      if (watched?.token !== holder.owner.token || watched.touched !== holder.touched) {
        watched = { token: holder.owner.token, touched: holder.touched, since: now };
      }
      if (await isStale(holder.owner, now - watched.since, staleMs)) {
        log.warn({ folder, pid: holder.owner.pid }, 'lock of a dead process removed');
        await removeStale(path, holder.owner);
        continue;
      }
      if (!told)
        log.warn({ folder, pid: holder.owner.pid }, 'another process works on the state folder, waiting');
      told = true;
      await clock.sleep(pollMs, signal);
    }
  }

  async function holding<T>(signal: AbortSignal, work: Work<T>): Promise<T> {
    const self = await acquire(signal);
    const lost = new AbortController();
    const heartbeat = setInterval(() => {
      void beat(path, self).catch((cause) => {
        log.error({ folder, err: cause }, 'lock on the state folder lost');
        lost.abort(new Error(`the lock on ${folder} was lost`, { cause }));
        clearInterval(heartbeat);
      });
    }, staleMs / 6);
    heartbeat.unref();
    try {
      return await work(AbortSignal.any([signal, lost.signal]), self.token);
    } finally {
      clearInterval(heartbeat);
      if ((await readOwner(path))?.owner.token === self.token) await rm(path, { force: true });
    }
  }

  return {
    hold: (signal, work) => inTurn(() => holding(signal, work)),
  };
}

async function describeSelf(): Promise<Owner> {
  return {
    token: randomBytes(12).toString('hex'),
    pid: process.pid,
    started: (await startOf(process.pid)) ?? '',
    realm: await realm(),
  };
}

async function realm(): Promise<string> {
  try {
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    return `${boot.trim()} ${await readlink('/proc/self/ns/pid')}`;
  } catch {
    // Without /proc no pid can be looked up, so the realm is this process alone.
    return randomBytes(12).toString('hex');
  }
}

/** Field 22 of /proc/<pid>/stat; undefined if there is no such process. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8');
    const [state, ...fields] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' || state === 'X' ? undefined : fields[18];
  } catch {
    return undefined;
  }
}

/** A hard link appears with its whole content, and never replaces a file. */
async function tryCreate(path: string, self: Owner): Promise<typeof TAKEN | undefined> {
  const staged = `${path}.${self.token}.tmp`;
  const file = await open(staged, 'wx', 0o600);
  try {
    await file.writeFile(JSON.stringify(self));
  } finally {
    await file.close();
  }
  try {
    await link(staged, path);
    return undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return TAKEN;
    throw error;
  } finally {
    await rm(staged, { force: true });
  }
}

async function readOwner(path: string): Promise<{ owner: Owner; touched: number } | undefined> {
  try {
    const { mtimeMs } = await lstat(path);
    const text = (await readGuardedFile(path).catch(unreadable)).toString('utf8');
    const parsed = OwnerSchema.safeParse(parseJson(text));
    // A file that cannot be understood is judged by its age alone.
    const owner = parsed.success ? parsed.data : { token: text, pid: 0, started: '', realm: '' };
    return { owner, touched: mtimeMs };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** A link or a pipe in the lock's place names no owner. */
function unreadable(error: NodeJS.ErrnoException): string {
  if (error.code === 'ELOOP' || error instanceof GuardedFileError) return '';
  throw error;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function isStale(owner: Owner, unchangedMs: number, staleMs: number): Promise<boolean> {
  if (owner.realm === (await realm())) return (await startOf(owner.pid)) !== owner.started;
  return unchangedMs >= staleMs;
}

/** Removes the lock that was judged stale. Puts it back if another process has locked in between. */
async function removeStale(path: string, judged: Owner): Promise<void> {
  const aside = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await rename(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  const taken = await readOwner(aside);
  if (taken !== undefined && taken.owner.token !== judged.token) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

async function beat(path: string, self: Owner): Promise<void> {
  const holder = await readOwner(path);
  if (holder?.owner.token !== self.token)
    throw new Error('the lock file is gone or belongs to another process');
  const now = new Date();
  await utimes(path, now, now);
}
