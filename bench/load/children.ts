// Starts the benchmark's own Node programs: upstreams that report their port, and generators that count.

import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { LOAD_CORE, nodeCommand, type Running, start } from '../processes.ts';
import type { FromChild, FromParent, Tally } from './parent.ts';

/** Work that is going on against the proxy. */
export interface Load {
  /** Units done so far. Do not ask while it is paused. */
  units(): Promise<number>;
  /** Stops its process: the proxy gets no request until the load goes on. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Ends it, paused or not. Rejects if anything went wrong at any time. */
  end(): Promise<void>;
}

/** Requests under way at the end may take until their own deadline. */
const ANSWER_TIMEOUT_MS = 30_000;

/** A Node program that proxies pass requests on to. */
export interface Upstream {
  readonly running: Running;
  /** On 127.0.0.1. */
  readonly port: number;
  /** Requests answered so far. */
  served(): Promise<number>;
}

/** Starts an upstream of this folder. */
export async function startUpstream(file: string, log: string): Promise<Upstream> {
  const running = startProgram(file, [], log);
  const message = await nextMessage(running, file);
  if (!('port' in message)) throw new Error(`${file} did not tell its port`);
  return {
    running,
    port: message.port,
    served: async () => (await ask(running, file, 'tally')).units,
  };
}

/** Starts a generator of this folder; its settings are told as one JSON text. */
export function startGenerator(file: string, settings: object, log: string): Load {
  const running = startProgram(file, [JSON.stringify(settings)], log);
  return {
    units: async () => (await ask(running, file, 'tally')).units,
    async pause() {
      process.kill(running.pid, 'SIGSTOP');
    },
    async resume() {
      process.kill(running.pid, 'SIGCONT');
    },
    async end() {
      process.kill(running.pid, 'SIGCONT');
      const tally = await ask(running, file, 'end');
      await running.stop();
      if (tally.failed > 0) throw new Error(`${tally.failed} failed, the first: ${tally.firstFailure}`);
    },
  };
}

async function ask(running: Running, file: string, question: FromParent): Promise<Tally> {
  const answered = nextMessage(running, file);
  running.child.send(question);
  const answer = await answered;
  if ('tally' in answer) return answer.tally;
  if ('ended' in answer) return answer.ended;
  throw new Error(`${file} gave no tally`);
}

function startProgram(file: string, args: readonly string[], log: string): Running {
  const path = fileURLToPath(new URL(file, import.meta.url));
  return start(nodeCommand(path, args), LOAD_CORE, { output: log, messages: true });
}

async function nextMessage(running: Running, file: string): Promise<FromChild> {
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]);
  const message = once(running.child, 'message', { signal });
  const exit = once(running.child, 'exit', { signal });
  try {
    const first = await Promise.race([message, exit.then(() => undefined)]);
    if (first === undefined) throw new Error(`${file} ended before it answered`);
    return first[0] as FromChild;
  } catch (cause) {
    if (!signal.aborted) throw cause;
    throw new Error(`${file} did not answer within ${ANSWER_TIMEOUT_MS / 1_000} s`, { cause });
  } finally {
    stop.abort();
    await Promise.allSettled([message, exit]);
  }
}
