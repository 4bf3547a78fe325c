// A folder opened once: what is done in it is done in that one, wherever its path leads afterwards, and no link is followed.

import { existsSync } from 'node:fs';
import {
  constants,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  rmdir,
  symlink,
  unlink,
} from 'node:fs/promises';
import { join } from 'node:path';
import { readGuardedFile } from './guarded-file.ts';

/** Names are those of entries, not paths. Calls reject with the system's error. */
export interface AnchoredFolder {
  names(): Promise<string[]>;
  /** Opens a folder in it; rejects (ENOTDIR or ELOOP) if it is a link or no folder. */
  folder(name: string): Promise<AnchoredFolder>;
  /** Opens the folder, made anew if there is none or something else in its place, which is removed. */
  ensureFolder(name: string, mode: number): Promise<AnchoredFolder>;
  makeFolder(name: string, mode: number): Promise<AnchoredFolder>;
  /** Rejects unless it is a regular file that has no other name. */
  read(name: string): Promise<Buffer>;
  /** A new file, on the disk when this resolves; rejects (EEXIST) if there is anything of that name. */
  write(name: string, data: string | Uint8Array, mode: number): Promise<void>;
  isFile(name: string): Promise<boolean>;
  link(target: string, name: string): Promise<void>;
  /** Where a link leads; undefined if there is none, or something that is not a link. */
  linkTarget(name: string): Promise<string | undefined>;
  rename(from: string, to: string): Promise<void>;
  /** Files and links; a link's target stays. */
  remove(name: string): Promise<void>;
  removeFolder(name: string): Promise<void>;
  chmod(mode: number): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

const OPEN_FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** The last part of the path must not be a link. The parts above it were chosen by the operator. */
export async function openFolder(path: string): Promise<AnchoredFolder> {
  const handle = await open(path, OPEN_FOLDER);
  return anchor(handle, path);
}

function anchor(handle: FileHandle, path: string): AnchoredFolder {
  // Node has no openat(2): a name below this one is looked up in the folder that is open. Without /proc (no container
  // is) the path has to do, and each step is still kept from following a link.
  const here = existsSync(`/proc/self/fd/${handle.fd}`) ? `/proc/self/fd/${handle.fd}` : path;
  const at = (name: string) => {
    if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0'))
      throw new Error(`${JSON.stringify(name)} is not the name of a file`);
    return join(here, name);
  };

  async function folder(name: string): Promise<AnchoredFolder> {
    return anchor(await open(at(name), OPEN_FOLDER), join(path, name));
  }

  async function makeFolder(name: string, mode: number): Promise<AnchoredFolder> {
    await mkdir(at(name));
    const made = await open(at(name), OPEN_FOLDER);
    // The umask may have taken away bits that its readers need.
    await made.chmod(mode);
    return anchor(made, join(path, name));
  }

  return {
    names: () => readdir(here),
    folder,
    makeFolder,
    async ensureFolder(name, mode) {
      const there = await lstat(at(name)).catch(absent);
      if (there?.isDirectory()) return folder(name);
      if (there !== undefined) await unlink(at(name));
      return makeFolder(name, mode);
    },
    read: (name) => readGuardedFile(at(name), { onlyName: true }),
    async write(name, data, mode) {
      // 'wx' is O_EXCL: it follows no link either (open(2)).
      const file = await open(at(name), 'wx', mode);
      try {
        await file.writeFile(data);
        await file.chmod(mode);
        await file.sync();
      } finally {
        await file.close();
      }
    },
    isFile: async (name) => (await lstat(at(name)).catch(absent))?.isFile() ?? false,
    link: (target, name) => symlink(target, at(name)),
    async linkTarget(name) {
      try {
        return await readlink(at(name));
      } catch (error) {
        if (['ENOENT', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
        throw error;
      }
    },
    rename: (from, to) => rename(at(from), at(to)),
    remove: (name) => unlink(at(name)),
    removeFolder: (name) => rmdir(at(name)),
    chmod: (mode) => handle.chmod(mode),
    sync: () => handle.sync(),
    close: () => handle.close(),
  };
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
