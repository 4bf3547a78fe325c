// Forks a worker process: it gets an IPC channel and the standard output, and nothing of our environment.

import { type ChildProcess, fork } from 'node:child_process';

/**
 * Of an upload Node copies every TLS record into memory of its own outside the heap, and V8 marks the whole heap once
 * 64 MiB of it have come, or fewer: a sixth of what an upload costs. They are found dead before that if the young
 * generation is small: 1 MiB fills with some 30 MiB of upload. With a floor under the old one's limit a heap of some
 * 10 MiB is not marked for their sake: it may grow to the 36 first.
 */
const HEAP = ['--max-semi-space-size=1', '--initial-old-space-size=36'];

/** Freed by the thread that took it, memory is taken again at once; freed by a collector's, it costs another fifth. */
const BUFFERS = '--no-concurrent-array-buffer-sweeping';

export function forkWorker(): ChildProcess {
  return fork(workerProgram(), {
    execArgv: [...process.execArgv, ...HEAP, BUFFERS],
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
