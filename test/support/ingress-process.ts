// The program as the image ships it, in a process of its own, with its log at hand; tests drive it from outside only.

import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { startOfImage } from './bundle.ts';

export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export interface IngressProcess {
  readonly pid: number;
  readonly log: LogLine[];
  readonly stderr: () => string;
  /** The first line, past or future, with this message (and for which `matches` holds). Rejects when the process ends. */
  waitFor(msg: string, matches?: (line: LogLine) => boolean, timeoutMs?: number): Promise<LogLine>;
  kill(signal: NodeJS.Signals): void;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** SIGTERM, and SIGKILL if that does not help. */
  stop(): Promise<void>;
}

/** Nothing of this process's environment but PATH reaches the program: tests say all of its configuration. */
export function startIngressProcess(
  env: Readonly<Record<string, string>>,
  args: readonly string[] = ['serve'],
): IngressProcess {
  const child = spawnImage(args, env);
  const log: LogLine[] = [];
  const watchers = new Set<() => void>();
  let stderr = '';
  createInterface({ input: child.stdout }).on('line', (line) => {
    log.push(parseLine(line));
    for (const look of watchers) look();
  });
  child.stderr.setEncoding('utf8').on('data', (part: string) => {
    stderr += part;
  });
  const exited = once(child, 'exit').then(([code, signal]) => ({ code, signal }));

  return {
    pid: child.pid!,
    log,
    stderr: () => stderr,
    exited,
    kill: (signal) => void child.kill(signal),
    waitFor(msg, matches = () => true, timeoutMs = 60_000) {
      return new Promise((resolve, reject) => {
        let seen = 0;
        const end = (outcome: () => void) => {
          watchers.delete(look);
          clearTimeout(timer);
          outcome();
        };
        const fail = (why: string) =>
          end(() => reject(new Error(`no log line "${msg}": ${why}\n${tail(log)}\n${stderr}`)));
        const look = () => {
          for (; seen < log.length; seen++) {
            const line = log[seen]!;
            if (line.msg === msg && matches(line)) return end(() => resolve(line));
          }
        };
        const timer = setTimeout(() => fail(`waited ${timeoutMs} ms`), timeoutMs);
        watchers.add(look);
        void exited.then(({ code, signal }) =>
          setImmediate(() => fail(`the program ended (${code ?? signal})`)),
        );
        look();
      });
    },
    async stop() {
      await stopChild(child);
    },
  };
}

function spawnImage(args: readonly string[], env: Readonly<Record<string, string>>, writes = false) {
  const { BUNDLE: folder, ...settings } = env;
  const start = startOfImage(args, folder);
  return spawn(start.program, start.args, {
    cwd: start.cwd,
    // Nor what nginx of this machine's own may be configured to do.
    env: { PATH: process.env.PATH ?? '', NGINX_CONF_DIR: 'none', ...start.env, ...settings },
    stdio: [writes ? 'pipe' : 'ignore', 'pipe', 'pipe'],
  }) as ChildProcessByStdio<Writable | null, Readable, Readable>;
}

/** A command that ends by itself, run to its end. */
export async function runProgram(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  input?: string,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawnImage(args, env, input !== undefined);
  child.stdin?.end(input);
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ]);
  return { code, stdout, stderr };
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const killer = setTimeout(() => child.kill('SIGKILL'), 20_000);
  await gone;
  clearTimeout(killer);
}

function parseLine(text: string): LogLine {
  try {
    return JSON.parse(text) as LogLine;
  } catch {
    return { level: 'none', msg: text };
  }
}

function tail(log: readonly LogLine[]): string {
  return log
    .slice(-40)
    .map((line) => JSON.stringify(line))
    .join('\n');
}
