// Whether there is something at a path, below a folder that nothing leads out of.

import { constants } from 'node:fs';
import { access, realpath, stat } from 'node:fs/promises';
import { sep } from 'node:path';
import type { Look } from '../rules/step.ts';

/** Paths are bytes, one character each. What cannot be looked at is not there. Never rejects. */
export async function isOnDisk(kind: Look['kind'], path: string, root: string | undefined): Promise<boolean> {
  if (path.includes('\0')) return false;
  const place = Buffer.from(path, 'latin1');
  try {
    const found = await stat(place);
    if (root !== undefined && (await placeBelow(path, root)) === undefined) return false;
    switch (kind) {
      case 'file':
        return found.isFile();
      case 'directory':
        return found.isDirectory();
      case 'executable':
        await access(place, constants.X_OK);
        return true;
      default:
        return true;
    }
  } catch {
    return false;
  }
}

/** Where a path really leads, symbolic links followed; undefined: out of the root. Rejects if it leads nowhere. */
export async function placeBelow(path: string, root: string): Promise<string | undefined> {
  const [real, base] = await Promise.all([
    realpath(Buffer.from(path, 'latin1'), 'latin1'),
    realpath(Buffer.from(root === '' ? sep : root, 'latin1'), 'latin1'),
  ]);
  if (real === base || base === sep) return real;
  return real.startsWith(`${base}${sep}`) ? real : undefined;
}
