// The process that compares passwords for all workers: started by the first question, ended when there are none for a while.

import type { ChildProcess } from 'node:child_process';
import * as z from 'zod';
import type { Log } from '../lib/log.ts';
import { readMessages, writeJson } from './channel.ts';
import { channelOf, forkPasswordChecker } from './process.ts';

/*
 * Why a process. bcrypt and its kin compute in JavaScript for a tenth of a second and more, so not where requests are
 * served. A thread of a worker would need `--allow-worker`, and Node says itself that this undoes the permission model:
 * the thread may be started without it. So it is one process behind the workers' fence, and a flood of passwords costs one
 * core at most, however many workers there are.
 */

export interface PasswordProcess {
  /** Undefined: nobody could compare it. Never rejects. */
  readonly compare: (hash: string, password: string) => Promise<boolean | undefined>;
  close(): void;
}

export interface PasswordProcessOptions {
  readonly log: Log;
  readonly fork?: () => ChildProcess;
  readonly idleMs?: number;
  readonly patienceMs?: number;
}

const IDLE_MS = 300_000;
/** The dearest hash that is taken, asked by many workers at once. */
const PATIENCE_MS = 120_000;

const AnswerSchema = z.strictObject({ question: z.int().positive(), right: z.boolean() });

type Resolve = (right: boolean | undefined) => void;

export function createPasswordProcess(options: PasswordProcessOptions): PasswordProcess {
  const { log, fork = forkPasswordChecker, idleMs = IDLE_MS, patienceMs = PATIENCE_MS } = options;
  const waiting = new Map<number, Resolve>();
  let child: ChildProcess | undefined;
  let timer: NodeJS.Timeout | undefined;
  let last = 0;
  let closed = false;

  function startedChild(): ChildProcess {
    const started = fork();
    const channel = channelOf(started);
    const gone = (why: string) => {
      if (child === started) failed(why);
    };
    started.on('error', (error) => gone(error.message));
    started.on('exit', (code, signal) => gone(`it ended (${signal ?? `exit code ${code}`})`));
    channel?.on('error', () => {});
    if (channel !== undefined) readMessages(channel, hear, (why) => gone(`it sent ${why}`));
    return started;
  }

  function hear(json: unknown): void {
    const { data } = AnswerSchema.safeParse(json);
    const resolve = data && waiting.get(data.question);
    if (data === undefined || resolve === undefined) {
      failed('it sent what is no answer');
      return;
    }
    waiting.delete(data.question);
    watch();
    resolve(data.right);
  }

  /** From each answer on: the next one in time, or the end of one that has nothing to do. */
  function watch(): void {
    clearTimeout(timer);
    timer = (
      waiting.size === 0 ? setTimeout(end, idleMs) : setTimeout(failed, patienceMs, 'it did not answer')
    ).unref();
  }

  function failed(why: string): void {
    log.error({ pid: child?.pid, why }, 'the process that compares passwords has failed');
    end();
  }

  function end(): void {
    clearTimeout(timer);
    child?.kill('SIGKILL');
    child = undefined;
    for (const resolve of waiting.values()) resolve(undefined);
    waiting.clear();
  }

  return {
    compare: (hash, password) =>
      new Promise((resolve) => {
        if (closed) return resolve(undefined);
        const question = ++last;
        waiting.set(question, resolve);
        try {
          child ??= startedChild();
          writeJson(channelOf(child)!, { question, hash, password });
        } catch (error) {
          return failed((error as Error).message);
        }
        if (waiting.size === 1) watch();
      }),
    close() {
      closed = true;
      end();
    },
  };
}
