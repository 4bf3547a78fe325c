// What an attack takes place on: one worker of the real program in a process of its own, and upstreams in others.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { defaultLimits } from '../../proxy/limits.ts';
import type { Route, UpstreamProtocol } from '../../proxy/rules/routes.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { readMessages, writeOrder } from '../../src/workers/channel.ts';
import { FromWorkerSchema, type ToWorker, type WorkerSettings } from '../../src/workers/messages.ts';
import { channelOf, forkWorker } from '../../src/workers/process.ts';
import { nothingServed } from '../../src/workers/serving.ts';
import { bundle } from '../support/bundle.ts';
import { bundledScript } from '../support/bundled-script.ts';
import { makeCertificate } from '../support/certificates.ts';
import { type NginxServer, startNginx } from '../support/nginx.ts';
import { freePort } from '../support/ports.ts';
import { hosts } from './hosts.ts';

export interface Stage {
  readonly port: number;
  /** PEM. */
  readonly ca: string;
  /** Of the worker, as the system sees it. */
  figures(): Figures;
  close(): Promise<void>;
}

export interface Figures {
  readonly cpuMs: number;
  readonly memoryKiB: number;
}

const upstreams = await bundledScript(join(import.meta.dirname, 'upstreams.ts'));

const MIB = 1024 * 1024;

const SETTINGS: WorkerSettings = {
  host: '127.0.0.1',
  port: 0,
  plainHttp: undefined,
  alpn: ['h2', 'http/1.1'],
  proxyProtocol: false,
  trustedProxies: [],
  trustedForwarders: [],
  limits: defaultLimits,
  upstreamCa: undefined,
  evidence: false,
  sharedChallenges: false,
  accessLog: undefined,
  requestIds: false,
  logLevel: 'error',
  readableLog: false,
};

export async function openStage(changes: Partial<WorkerSettings> = {}): Promise<Stage> {
  const certificate = await makeCertificate(hosts.http1, hosts.h2c, hosts.nginx);
  const http1 = await startUpstream('http1');
  const h2c = await startUpstream('h2c');
  const nginx = await startH2cNginx();
  const routes = [
    routeTo(hosts.http1, 'http', http1.port),
    routeTo(hosts.h2c, 'h2c', h2c.port),
    routeTo(hosts.nginx, 'h2c', nginx.port),
  ];
  const worker = forkWorker([], join(bundle(), 'worker.mjs'));
  const exited = once(worker, 'exit');
  const { port } = await started(worker, {
    type: 'start',
    id: 1,
    settings: { ...SETTINGS, ...changes },
    serving: {
      certificates: [certificate],
      routes: { list: routes },
      challenges: new Map(),
      httpChallenges: new Map(),
      evidence: { current: undefined },
      ticketKeys: Buffer.alloc(48, 7),
    },
    generations: nothingServed,
  });
  return {
    port,
    ca: certificate.chain,
    figures: () => readFigures(worker),
    async close() {
      worker.kill('SIGKILL');
      for (const { child } of [http1, h2c]) child.kill('SIGKILL');
      await Promise.all([exited, nginx.server.stop()]);
    },
  };
}

/** Where it listens. Rejects with what it says instead. */
async function started(worker: ChildProcess, order: ToWorker): Promise<{ port: number }> {
  const channel = channelOf(worker)!;
  const { promise, resolve, reject } = Promise.withResolvers<{ port: number }>();
  const hear = (json: unknown) => {
    const message = FromWorkerSchema.parse(json);
    // What else it says is telemetry.
    if (!('id' in message)) return;
    if (message.done && message.address !== undefined) resolve(message.address);
    else reject(new Error('the worker does not start', { cause: message }));
  };
  readMessages(channel, hear, (why) => reject(new Error(why)));
  worker.once('exit', () => reject(new Error('the worker is gone')));
  writeOrder(channel, order, (error) => {
    if (error) reject(error);
  });
  return promise;
}

function routeTo(host: string, protocol: UpstreamProtocol, port: number): Route {
  const upstream = {
    protocol,
    addresses: [{ host: '127.0.0.1', port }],
    connectTimeoutMs: 5_000,
    readTimeoutMs: 60_000,
    sendTimeoutMs: 60_000,
  };
  return { host: parseDomain(host), paths: [{ prefix: '/', upstream }] };
}

/** Each has a process of its own: what wears out one must not make the visitors of the other wait. */
async function startUpstream(kind: 'http1' | 'h2c'): Promise<{ child: ChildProcess; port: number }> {
  const child = fork(upstreams, [kind], { stdio: 'inherit' });
  const [port] = (await once(child, 'message')) as [number];
  return { child, port };
}

async function startH2cNginx(): Promise<{ server: NginxServer; port: number }> {
  const port = await freePort();
  const server = await startNginx({
    port: await freePort(),
    server: `listen 127.0.0.1:${port} http2; location /slow { limit_rate 16k; }`,
    files: {
      'index.html': 'ok',
      slow: Buffer.alloc(64 * 1024),
      large: Buffer.alloc(64 * MIB),
      honest: Buffer.alloc(16 * MIB),
    },
  });
  return { server, port };
}

/** USER_HZ of proc(5), the same on every machine that Node runs on. */
const TICKS_PER_S = 100;

function readFigures({ pid, exitCode, signalCode }: ChildProcess): Figures {
  if (exitCode !== null || signalCode !== null) throw new Error('the worker is gone');
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return {
    cpuMs: ((Number(fields[11]) + Number(fields[12])) * 1_000) / TICKS_PER_S,
    memoryKiB: Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]),
  };
}
