// Finds private keys in the state folder that other users can read, and logs them. Changes nothing.

import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../src/lib/log.ts';

const READABLE_BY_OTHERS = 0o044;
/** Keys are far smaller, and state folders hold far fewer files. */
const LARGEST_KEY_BYTES = 64 * 1024;
const MOST_ENTRIES = 10_000;
const MOST_LINES = 20;
/** PEM, or the private member of a JWK (RFC 7517 §9.3), as certbot writes its account's. */
const SECRET = /-----BEGIN [A-Z ]*PRIVATE KEY-----|"d"\s*:\s*"/;

/** Logs a line for each: path, mode and what to do. Never rejects. */
export async function tellExposedKeys(stateDir: string, log: Log): Promise<void> {
  let told = 0;
  let seen = 0;
  const folders = [stateDir];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
      seen += 1;
      if (seen > MOST_ENTRIES || told >= MOST_LINES) return;
      const path = join(folder, entry.name);
      // Links are not followed: a target inside the folder is found there.
      if (entry.isDirectory()) folders.push(path);
      if (!entry.isFile()) continue;
      const mode = await exposedMode(path).catch(() => undefined);
      if (mode === undefined) continue;
      told += 1;
      const octal = `0${mode.toString(8)}`;
      log.warn(
        { path, mode: octal, cure: `chmod 600 ${path}` },
        'private key is readable by others than its owner',
      );
    }
  }
}

/** The file's mode if it holds a private key and others may read it. */
async function exposedMode(path: string): Promise<number | undefined> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const { mode, size } = await file.stat();
    if ((mode & READABLE_BY_OTHERS) === 0 || size > LARGEST_KEY_BYTES) return undefined;
    return SECRET.test(await file.readFile('utf8')) ? mode & 0o777 : undefined;
  } finally {
    await file.close();
  }
}
