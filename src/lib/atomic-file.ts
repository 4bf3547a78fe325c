// Files that are either wholly the old or wholly the new, whatever is killed in between.

import { randomBytes } from 'node:crypto';
import { access, constants, link, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { readGuardedFile } from './guarded-file.ts';

/** Writes beside the target, syncs, renames, syncs the folder. `mode` defaults to 0600. The folder must exist. */
export async function writeFileAtomic(path: string, data: string | Uint8Array, mode = 0o600): Promise<void> {
  const staged = stagedFor(path);
  try {
    await stage(staged, data, mode);
    await rename(staged, path);
  } catch (error) {
    await rm(staged, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
}

/** The same for a file that must not be there yet: resolves to false if one is, which then stays. */
export async function createFileAtomic(path: string, data: Uint8Array, mode = 0o600): Promise<boolean> {
  const staged = stagedFor(path);
  try {
    await stage(staged, data, mode);
    // A hard link appears with its whole content, and never replaces a file.
    await link(staged, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(staged, { force: true });
  }
  await syncFolder(dirname(path));
  return true;
}

function stagedFor(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
}

async function stage(staged: string, data: string | Uint8Array, mode: number): Promise<void> {
  const file = await open(staged, 'wx', mode);
  try {
    await file.writeFile(data);
    // The umask may have taken bits away that a reader of a public file needs.
    await file.chmod(mode);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** The file's bytes, or undefined if there is none. A link, a pipe or a device in its place is not read. */
export async function readFileIfPresent(path: string): Promise<Buffer | undefined> {
  try {
    return await readGuardedFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** A folder that only its owner may enter, made with its parents if need be. Rejects if nothing can be written there. */
export async function ensurePrivateFolder(path: string): Promise<void> {
  await makeFolder(path, 0o700);
  await access(path, constants.W_OK | constants.X_OK);
}

/** mkdir's own `recursive` says ENOENT where the file system is read-only. Resolves to whether it was not there. */
export async function makeFolder(path: string, mode: number): Promise<boolean> {
  try {
    return await makeLastFolder(path, mode);
  } catch (error) {
    const parent = dirname(path);
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || parent === path) throw error;
    await makeFolder(parent, mode);
    return makeLastFolder(path, mode);
  }
}

/** Whether one is there is asked whatever the error: a read-only file system answers EROFS for those that are. */
async function makeLastFolder(path: string, mode: number): Promise<boolean> {
  try {
    await mkdir(path, mode);
    return true;
  } catch (error) {
    if ((await stat(path).catch(() => undefined))?.isDirectory()) return false;
    throw error;
  }
}

/** In words, where the code alone would mislead. */
export function whyUnwritable(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'EROFS':
      return 'the file system is read-only';
    case 'EACCES':
    case 'EPERM':
      return 'this user may not write there';
    case 'EEXIST':
    case 'ENOTDIR':
      return 'there is something that is not a folder in its path';
    case 'ENOSPC':
    case 'EDQUOT':
      return 'the disk is full';
    default:
      return message;
  }
}

export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
