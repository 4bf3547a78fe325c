// One proxy set up, started on its core and ended, for one measurement.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { askHttp1, certificateOf, expectAnswer } from './ask.ts';
import { SMALL } from './files-upstream.ts';
import type { NginxFile, Site, Target } from './peers/peer.ts';
import { freePort } from './ports.ts';
import { type Command, PROXY_CORE, type Running, start } from './processes.ts';
import type { Subject } from './rows/row.ts';
import type { Stage } from './stage.ts';
import { until } from './until.ts';

export interface SiteWish {
  readonly target: Target;
  readonly accessLog?: boolean;
  readonly nginxFile?: NginxFile | undefined;
  prepare(site: Site): Promise<Command>;
}

const START_TIMEOUT_MS = 20_000;

/** A proxy that has given its first reply. */
export interface RunningProxy {
  readonly subject: Subject;
  /** The error, with what the proxy said last. */
  explain(error: unknown): Promise<Error>;
  /** Ends it and removes its files. */
  stop(): Promise<void>;
}

/** Starts a fresh proxy, lets `work` have it, ends it. Rejects as `work` does. */
export async function withProxy<T>(
  stage: Stage,
  wish: SiteWish,
  work: (subject: Subject) => Promise<T>,
): Promise<T> {
  const proxy = await startProxy(stage, wish);
  try {
    return await work(proxy.subject);
  } catch (error) {
    throw await proxy.explain(error);
  } finally {
    await proxy.stop();
  }
}

/** Starts a fresh proxy and waits for its first reply. */
export async function startProxy(stage: Stage, wish: SiteWish): Promise<RunningProxy> {
  const folder = await mkdtemp(join(stage.folder, 'site-'));
  const { certificate } = stage;
  const { target, accessLog = false, nginxFile } = wish;
  const filesRoot = stage.files.root;
  const port = await freePort();
  const log = join(folder, 'output.log');
  let running: Running | undefined;
  const explain = async (error: unknown) =>
    new Error(`${(error as Error).message}${await lastWords(log)}`, { cause: error });
  const stop = async () => {
    await running?.stop();
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const command = await wish.prepare({
      folder,
      port,
      certificate,
      target,
      accessLog,
      filesRoot,
      nginxFile,
    });
    const startedAt = performance.now();
    running = start(command, PROXY_CORE, { output: log });
    await firstReply(stage, running, port, target);
    const firstByteMs = performance.now() - startedAt;
    return { subject: { port, pid: running.pid, firstByteMs, log }, explain, stop };
  } catch (error) {
    const explained = await explain(error);
    await stop();
    throw explained;
  }
}

/** Any answer ends the waiting, but only the right one is good. */
async function firstReply(stage: Stage, running: Running, port: number, target: Target): Promise<void> {
  const attempt = async () => {
    // A program that has ended will not answer any more.
    if (running.child.exitCode !== null) return 'ended';
    if (target.protocol === 'grpc') return connectOnce(stage, port);
    return askHttp1(stage, port, { path: SMALL.path });
  };
  const answer = await until(attempt, START_TIMEOUT_MS, 1);
  if (answer === 'ended') throw new Error(`it ended with ${running.child.exitCode} before it served`);
  if (answer !== undefined) expectAnswer(answer, SMALL.bytes);
}

function connectOnce(stage: Stage, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, servername: 'localhost', ca: certificateOf(stage) };
    const socket = connect({ ...options, ALPNProtocols: ['h2'] }, () => {
      socket.destroy();
      resolve();
    });
    socket.on('error', reject);
  });
}

async function lastWords(log: string): Promise<string> {
  const text = await readFile(log, 'utf8').catch(() => '');
  return text.trim() === '' ? '' : `; its last words: ${text.trim().slice(-1_000)}`;
}
