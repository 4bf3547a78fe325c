// Starts a worker process: it gets a pipe to its supervisor and the standard output, and nothing of our environment.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';

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

/** However this process ends, a worker must not stay behind with the port: one that loads yet heeds no channel. */
const living = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL');
});

export function forkWorker(): ChildProcess {
  const child = spawn(process.execPath, [...process.execArgv, ...WORKER_FLAGS, workerProgram()], {
    // The environment holds tokens: none of it reaches a worker.
    env: {},
    // The pipe is CHANNEL_FD in the worker.
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
  });
  living.add(child);
  child.once('exit', () => living.delete(child));
  return child;
}

/** Undefined if the process could not be started at all. */
export function channelOf(child: ChildProcess): Duplex | undefined {
  return (child.stdio?.[3] ?? undefined) as Duplex | undefined;
}

/** The worker's own program: from source beside this file, or beside the bundle in the image. */
function workerProgram(): string {
  const name = import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.mjs';
  return fileURLToPath(new URL(name, import.meta.url));
}
