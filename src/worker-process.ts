// Forks a worker process: it gets an IPC channel and the standard output, and nothing of our environment.

import { type ChildProcess, fork } from 'node:child_process';

export function forkWorker(): ChildProcess {
  return fork(workerProgram(), {
    // The environment holds tokens: none of it reaches a worker.
    env: {},
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
}

/** The worker's own program: from source beside this file, or beside the bundle in the image. */
function workerProgram(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.mjs', import.meta.url);
}
