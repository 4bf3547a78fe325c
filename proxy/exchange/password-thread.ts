// The thread that looks at passwords, one after another: its event loop has nothing else to do.

import { parentPort } from 'node:worker_threads';
import { belongs } from './password-hashes.ts';

export interface PasswordQuestion {
  readonly id: number;
  readonly password: string;
  readonly hash: string;
}

parentPort?.on('message', ({ id, password, hash }: PasswordQuestion) => {
  let right = false;
  try {
    right = belongs(password, hash);
  } catch {
    // A hash that cannot be read belongs to no password.
  }
  parentPort?.postMessage({ id, right });
});
