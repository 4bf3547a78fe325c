// Forks a worker process: it gets an IPC channel and the standard output, and nothing of our environment.

import { type ChildProcess, fork } from 'node:child_process';

/**
 * What a request allocates, some 2.4 KiB, lives as long as the request: with thousands of them open a young generation
 * of 1 MiB copied all of it into the old one, a tenth of what a request cost. With a floor under the old one's limit a
 * heap of some 10 MiB is not marked for the memory that an upload comes in: it may grow to the 36 first. gc() is for
 * proxy/reads.ts, which keeps that memory from growing.
 */
const HEAP = ['--max-semi-space-size=16', '--initial-old-space-size=36', '--expose-gc'];

/** Freed by the thread that took it, memory is taken again at once; freed by a collector's, it costs another fifth. */
const BUFFERS = '--no-concurrent-array-buffer-sweeping';

/** What V8 is told in a worker. */
export const WORKER_FLAGS: readonly string[] = [...HEAP, BUFFERS];

export function forkWorker(): ChildProcess {
  return fork(workerProgram(), {
    execArgv: [...process.execArgv, ...WORKER_FLAGS],
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
