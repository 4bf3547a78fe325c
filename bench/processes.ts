// Starts programs pinned to a core, each in a process group of its own, and ends every one of them whatever happens.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Readable } from 'node:stream';

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  /** Added to PATH and HOME. No other variable of the caller's environment is passed on. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface Running {
  readonly pid: number;
  readonly child: ChildProcess;
  /** Resolves when it and its group are gone. */
  stop(): Promise<void>;
}

export interface StartOptions {
  /** Where both its streams go: a file (appended), or pipes that the caller reads. */
  readonly output: string | 'pipe';
  /** With a channel for messages (Node programs). */
  readonly messages?: boolean;
}

/** The proxy under test has this core to itself. */
export const PROXY_CORE = 0;
/** The load generators and the upstreams share this one, and the benchmark itself. */
export const LOAD_CORE = 1;

const STOP_GRACE_MS = 3_000;
const running = new Set<Running>();

/** Throws on a machine where the measurements would mean nothing. */
export function requireTwoCores(): void {
  if (process.platform !== 'linux') throw new Error('the benchmark reads /proc: it needs Linux');
  if (availableParallelism() < 2) {
    throw new Error('the benchmark needs two cores: one for the proxy, one for the load');
  }
}

/** This process and what it does itself must not disturb the proxy's core. */
export function pinToCore(core: number): void {
  spawnSync('taskset', ['-a', '-p', '-c', String(core), String(process.pid)]);
}

/** taskset becomes the program by exec, so the pid is the program's. */
export function start(command: Command, core: number, options: StartOptions): Running {
  const output = options.output === 'pipe' ? undefined : openSync(options.output, 'a');
  const child = spawn('taskset', ['-c', String(core), command.program, ...command.args], {
    // A group of its own: nginx's workers must die with their master, also when that is killed.
    detached: true,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...command.env },
    stdio: ['ignore', output ?? 'pipe', output ?? 'pipe', ...(options.messages ? ['ipc' as const] : [])],
  });
  if (output !== undefined) closeSync(output);
  child.on('error', () => {});
  if (child.pid === undefined) throw new Error('taskset did not start: is util-linux installed?');
  const started: Running = { pid: child.pid, child, stop: () => stopGroup(started) };
  running.add(started);
  return started;
}

/** A Node program of this folder, run by this same Node. */
export function nodeCommand(path: string, args: readonly string[] = []): Command {
  return { program: process.execPath, args: [path, ...args] };
}

/** Runs a program to its end and resolves to its stdout. If it fails, rejects with its output. */
export async function runToEnd(command: Command, core: number): Promise<string> {
  const started = start(command, core, { output: 'pipe' });
  const stdout = collect(started.child.stdout!);
  const stderr = collect(started.child.stderr!);
  const [code] = (await once(started.child, 'close')) as [number | null];
  running.delete(started);
  if (code !== 0) {
    throw new Error(`${command.program} ended with ${code}: ${(stderr() || stdout()).trim().slice(-500)}`);
  }
  return stdout();
}

/** Gathers a stream; the function returned gives what has come so far. */
export function collect(stream: Readable): () => string {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString();
}

export async function stopEverything(): Promise<void> {
  await Promise.all([...running].map((started) => started.stop()));
}

/** Ends what is left when this process ends: no way out of the benchmark leaves a proxy behind. */
export function endWithThisProcess(): void {
  process.on('exit', () => {
    for (const started of running) signalGroup(started.pid, 'SIGKILL');
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => process.exit(130));
  }
}

async function stopGroup(started: Running): Promise<void> {
  running.delete(started);
  if (hasEnded(started.child)) return void signalGroup(started.pid, 'SIGKILL');
  const ended = once(started.child, 'exit');
  signalGroup(started.pid, 'SIGTERM');
  const timer = setTimeout(() => signalGroup(started.pid, 'SIGKILL'), STOP_GRACE_MS);
  await ended;
  clearTimeout(timer);
  signalGroup(started.pid, 'SIGKILL');
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
