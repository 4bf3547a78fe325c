// Starts a worker process: it gets a pipe to its supervisor and the standard output, and nothing of our environment.

import { type ChildProcess, spawn } from 'node:child_process';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { type Fence, judgeFence, WORKER_ID } from './fence.ts';

/**
 * What a request allocates, some 2.4 KiB, lives as long as the request: with thousands of them open a young generation
 * of 1 MiB copied all of it into the old one, a tenth of what a request cost. With a floor under the old one's limit a
 * heap of some 10 MiB is not marked for the memory that an upload comes in: it may grow to the 36 first. gc() is for
 * proxy/socket/reads.ts, which keeps that memory from growing.
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

/** Judged when the first worker is started, and not lowered afterwards: a worker could bring that about. */
let fence: Fence | undefined;

/** `sockets` are descriptors that listen; the worker finds them from FIRST_SOCKET_FD on. */
export function forkWorker(sockets: readonly number[] = []): ChildProcess {
  const first = fence === undefined;
  fence ??= judgeFence([process.execPath, workerProgram()]);
  try {
    return track(start(sockets, fence.raised));
  } catch (error) {
    if (!first || !fence.raised) throw error;
    // Where the namespace has no such user, or a filter of system calls is in the way.
    fence = { raised: false, why: (error as Error).message };
    return track(start(sockets, false));
  }
}

/** Undefined before the first worker. */
export function fenceOfWorkers(): Fence | undefined {
  return fence;
}

function start(sockets: readonly number[], fenced: boolean): ChildProcess {
  const program = workerProgram();
  return spawn(process.execPath, [...process.execArgv, ...WORKER_FLAGS, ...permissions(program), program], {
    // The environment holds tokens: none of it reaches a worker.
    env: {},
    // libuv drops the supplementary groups with these.
    ...(fenced && { uid: WORKER_ID, gid: WORKER_ID }),
    cwd: '/',
    // The pipe is CHANNEL_FD in the worker.
    stdio: ['ignore', 'inherit', 'inherit', 'pipe', ...sockets],
  });
}

function track(child: ChildProcess): ChildProcess {
  living.add(child);
  child.once('exit', () => living.delete(child));
  return child;
}

/**
 * Node's permission model: a worker opens no file but its program's, writes none and starts no process. It keeps out code
 * that was tricked, not code that has the process (Node says so itself): the user of their own is the fence.
 */
function permissions(program: string): string[] {
  // From source, packages may lie anywhere.
  const readable = isSource ? '*' : dirname(program);
  // Older ones have no such flag, and leave the network open.
  const network = process.allowedNodeEnvironmentFlags.has('--allow-net') ? ['--allow-net'] : [];
  // Of each flag that is experimental it is said once a worker, on stderr.
  return ['--permission', `--allow-fs-read=${readable}`, ...network, '--disable-warning=ExperimentalWarning'];
}

/** Undefined if the process could not be started at all. */
export function channelOf(child: ChildProcess): Duplex | undefined {
  return (child.stdio?.[3] ?? undefined) as Duplex | undefined;
}

const isSource = import.meta.url.endsWith('.ts');

/** The worker's own program: from source beside this file, or beside the bundle in the image. */
function workerProgram(): string {
  return fileURLToPath(new URL(isSource ? './worker.ts' : './worker.mjs', import.meta.url));
}
