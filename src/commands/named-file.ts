// Files that a flag names: read whole, or a sentence that says which flag, which file and why not.

import { readFileSync } from 'node:fs';
import { describeMistake, unreadable } from '../config/mistake.ts';
import { readGuardedFileSync } from '../lib/guarded-file.ts';

export function readNamedFile(flag: string, path: string): string {
  try {
    return readGuardedFileSync(path);
  } catch (cause) {
    throw new Error(describeMistake({ place: { variable: flag, file: path }, ...unreadable(cause) }), {
      cause,
    });
  }
}

/** Its bytes: what is hashed must not be read as text first. */
export function readNamedBytes(flag: string, path: string): Buffer {
  readNamedFile(flag, path);
  return readFileSync(path);
}
