// Starts a worker process: it gets a pipe to its supervisor and the standard output, and of our environment what is switched off of Node's insides.

import { type ChildProcess, spawn } from 'node:child_process';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { insidesEnvironment } from '../../proxy/socket/insides/switch.ts';
import { V8_FLAGS } from '../../proxy/socket/insides/v8-flags.ts';
import { type Fence, judgeFence, WORKER_ID } from './fence.ts';

/** A worker that is still loading does not notice that its channel closes. It must not outlive this process. */
const living = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL');
});

/** Judged when the first worker is started. Never lowered afterwards: a hostile worker could bring that about. */
let fence: Fence | undefined;

/** `sockets` are descriptors that listen; the worker finds them from FIRST_SOCKET_FD on. */
export function forkWorker(sockets: readonly number[] = [], program = programOf('worker')): ChildProcess {
  const first = fence === undefined;
  fence ??= judgeFence([process.execPath, program, programOf('password-checker')]);
  try {
    return track(start(program, sockets, fence.raised));
  } catch (error) {
    if (!first || !fence.raised) throw error;
    // The namespace has no such user, or a filter of system calls forbids the change.
    fence = { raised: false, why: (error as Error).message };
    return track(start(program, sockets, false));
  }
}

/** Behind the same fence as the workers. */
export function forkPasswordChecker(): ChildProcess {
  return track(start(programOf('password-checker'), [], fence?.raised ?? false));
}

/** Undefined before the first worker. */
export function fenceOfWorkers(): Fence | undefined {
  return fence;
}

function start(program: string, sockets: readonly number[], fenced: boolean): ChildProcess {
  return spawn(process.execPath, [...process.execArgv, ...V8_FLAGS, ...permissions(program), program], {
    // The environment holds tokens: none of it reaches a worker.
    env: insidesEnvironment(),
    // libuv drops the supplementary groups with these.
    ...(fenced && { uid: WORKER_ID, gid: WORKER_ID }),
    cwd: '/',
    // The pipes are CHANNEL_FD and LINES_FD in the worker.
    stdio: ['ignore', 'inherit', 'inherit', 'pipe', 'pipe', ...sockets],
  });
}

function track(child: ChildProcess): ChildProcess {
  living.add(child);
  child.once('exit', () => living.delete(child));
  return child;
}

/** What rules serve files from; of processes that are started from now on. */
export function allowReading(folders: readonly string[]): void {
  readableFolders = folders;
}

let readableFolders: readonly string[] = [];

/**
 * Node's permission model: a worker opens no file but its program's, writes none and starts no process. It holds back code
 * that was tricked, but not code that controls the process (Node says so itself). Against that stands the user of their
 * own.
 */
function permissions(program: string): string[] {
  // From source, packages may lie anywhere.
  const readable = program.endsWith('.ts') ? '*' : dirname(program);
  // Older Nodes have no such flag, and leave the network open.
  const network = process.allowedNodeEnvironmentFlags.has('--allow-net') ? ['--allow-net'] : [];
  // Otherwise every worker warns on stderr that these flags are experimental.
  const folders = [readable, ...readableFolders].map((folder) => `--allow-fs-read=${folder}`);
  return ['--permission', ...folders, ...network, '--disable-warning=ExperimentalWarning'];
}

/** Undefined if the process could not be started at all. */
export function channelOf(child: ChildProcess): Duplex | undefined {
  return (child.stdio?.[3] ?? undefined) as Duplex | undefined;
}

/** The same of its lines for a file. */
export function linesOf(child: ChildProcess): Duplex | undefined {
  return (child.stdio?.[4] ?? undefined) as Duplex | undefined;
}

const isSource = import.meta.url.endsWith('.ts');

type Program = 'worker' | 'password-checker';

/** From source beside this file, or beside the bundle in the image. */
function programOf(name: Program): string {
  return fileURLToPath(new URL(`./${name}.${isSource ? 'ts' : 'mjs'}`, import.meta.url));
}
