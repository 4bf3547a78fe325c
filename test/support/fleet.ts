// A fleet of real replicas behind a gateway double: each with an address, a disk, an agent and a link to the store of its own.

import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { createSealing, sealingKey } from '../../acme/sealing.ts';
import { type SimulatedAgent, startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { type FaultRelay, startFaultRelay } from './fault-relay.ts';
import { type FleetEngine, fleetEngines, type Written } from './fleet-engines.ts';
import { type GatewayDouble, startGatewayDouble } from './gateway-double.ts';
import type { IngressProcess } from './ingress-process.ts';
import { createWorld, startApp, type World } from './world.ts';

export const APP_ID = 'ab'.repeat(20);
export const ANSWER = 'from one app';

export interface FleetReplica {
  readonly host: string;
  readonly link: FaultRelay;
  readonly stateDir: string;
  /** The latest process, if it runs. */
  process: IngressProcess | undefined;
  /** All that were started, the latest last. */
  readonly processes: IngressProcess[];
  /** When it can be held to what it promises: [from, to) in which it may fail whoever comes to it, and why. */
  readonly excuses: { readonly why: string; readonly from: number; to: number }[];
  start(more?: Readonly<Record<string, string>>): IngressProcess;
  /** The program, and its workers as well. */
  signal(signal: NodeJS.Signals, workers: boolean): void;
  /** Undefined if it serves none, or is not there. */
  serial(domain?: string): Promise<string | undefined>;
}

export interface Fleet {
  readonly world: World;
  readonly engine: FleetEngine;
  readonly gateway: GatewayDouble;
  readonly replicas: readonly FleetReplica[];
  readonly domain: string;
  /** Each record that was written, opened. */
  history(): Promise<{ name: string; counter: number; text: string | undefined }[]>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface FleetOptions {
  readonly engine: string;
  readonly replicas: number;
  readonly settings?: Readonly<Record<string, string>>;
  readonly random?: () => number;
  /** Each disk is a small one of its own that can be filled, where this machine allows it. */
  readonly disks?: boolean;
}

export async function createFleet(options: FleetOptions): Promise<Fleet> {
  const { random = Math.random, disks = false } = options;
  const domain = 'app.example.com';
  const world = await createWorld({ nonceRejectPercent: 5 });
  const app = await startApp(ANSWER);
  const engine = await fleetEngines[options.engine]!(join(world.folder, 'store'));
  const secret = randomBytes(32);
  const hosts = Array.from(
    { length: options.replicas },
    (_, i) => `127.77.${Math.floor(i / 250)}.${(i % 250) + 1}`,
  );
  const gateway = await startGatewayDouble(world.port, hosts, random);
  const agents: SimulatedAgent[] = [];
  const mounted: string[] = [];

  async function replica(host: string, i: number): Promise<FleetReplica> {
    const agent = await startSimulatedAgent({
      socketPath: join(world.folder, `${host}.sock`),
      appId: APP_ID,
      instanceId: (i + 1).toString(16).padStart(40, '0'),
    });
    agents.push(agent);
    const link = await startFaultRelay(engine.port);
    const stateDir = join(world.folder, `state-${host}`);
    await mkdir(stateDir, { recursive: true });
    if (disks && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', stateDir]).status === 0)
      mounted.push(stateDir);
    const env = {
      DOMAIN: domain,
      TARGET_ENDPOINT: app.url,
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'print',
      WORKERS: '1',
      LISTEN_ADDRESS: host,
      PORT: String(world.port),
      DSTACK_SIMULATOR_ENDPOINT: agent.endpoint,
      STATE_DIR: stateDir,
      EVIDENCE_DIR: join(world.folder, `evidences-${host}`),
      STORE_KEY: secret.toString('base64'),
      ...(await engine.settings(link.port)),
      ...options.settings,
    };
    const self: FleetReplica = {
      host,
      link,
      stateDir,
      process: undefined,
      processes: [],
      excuses: [],
      start(more = {}) {
        const fresh = world.start({ ...env, ...more });
        self.process = fresh;
        self.processes.push(fresh);
        const starting = { why: 'is not ready yet', from: performance.now(), to: Number.POSITIVE_INFINITY };
        self.excuses.push(starting);
        fresh.waitFor('ready', undefined, 600_000).then(
          () => {
            starting.to = performance.now() + 200;
          },
          () => {},
        );
        return fresh;
      },
      signal(signal, workers) {
        const { pid } = self.process!;
        for (const each of workers ? [pid, ...childrenOf(pid)] : [pid]) {
          try {
            process.kill(each, signal);
          } catch {}
        }
      },
      serial: (name = domain) => serialAt(host, world.port, name),
    };
    return self;
  }
  const replicas = await Promise.all(hosts.map(replica));
  const sealing = createSealing([sealingKey(secret)], APP_ID);
  return {
    world,
    engine,
    gateway,
    replicas,
    domain,
    async history() {
      const sealed = (await engine.history()).filter(isSealed);
      return sealed.map(({ name, bytes }) => {
        const { counter, bytes: text } = sealing.open(name, bytes);
        return { name, counter, text: text?.toString() };
      });
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      for (const each of replicas) if (each.process !== undefined) each.signal('SIGCONT', true);
      await Promise.all(replicas.map(async ({ process }) => process?.stop()));
      for (const { link } of replicas) await link.stop();
      await Promise.all(agents.map((agent) => agent.close()));
      await engine.stop();
      await app[Symbol.asyncDispose]();
      for (const folder of mounted) execFileSync('umount', ['-l', folder]);
      await world[Symbol.asyncDispose]();
    },
  };
}

function isSealed({ namespace, bytes }: Written): boolean {
  return namespace === APP_ID && bytes.subarray(0, 4).toString() === 'DIS1';
}

export function childrenOf(pid: number): number[] {
  const isChild = (entry: string) => {
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'latin1');
      return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid;
    } catch {
      return false;
    }
  };
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && isChild(entry))
    .map(Number);
}

function serialAt(host: string, port: number, servername: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, servername, rejectUnauthorized: false, timeout: 5_000 });
    const end = (serial: string | undefined) => {
      socket.destroy();
      resolve(serial);
    };
    socket.on('secureConnect', () => end(socket.getPeerCertificate().serialNumber));
    socket
      .on('error', () => end(undefined))
      .on('timeout', () => end(undefined))
      .on('close', () => resolve(undefined));
  });
}

/** Makes every write to this disk fail until the result is called. */
export async function fillDisk(folder: string): Promise<() => Promise<void>> {
  const filler = join(folder, 'filler');
  const full = async (size: number) => writeFile(filler, Buffer.alloc(size)).catch(() => {});
  await full(2 << 20);
  return () => rm(filler, { force: true });
}

/** What starts with it has its date off by so much: see skewed-date.ts. */
export function skewedBy(ms: number): Record<string, string> {
  const preload = fileURLToPath(new URL('skewed-date.ts', import.meta.url));
  return ms === 0 ? {} : { SKEW_MS: String(ms), NODE_OPTIONS: `--import=${preload}` };
}

export interface Visits {
  readonly done: number;
  /** Failures for which there is an excuse, by its reason. */
  readonly excused: Readonly<Record<string, number>>;
  readonly unexcused: readonly string[];
  stop(): Promise<void>;
}

const PATIENCE_MS = 10_000;

/** Visitors who come by way of the gateway, one after the other in each lane, each on a connection of his own. */
export function startVisits(fleet: Fleet, ca: string, { lanes = 2, pauseMs = 50 } = {}): Visits {
  const excused: Record<string, number> = {};
  const unexcused: string[] = [];
  let done = 0;
  let stopping = false;
  // Where this process itself gets no time, the others had none either, and nobody's patience means anything.
  const stalls: { from: number; to: number }[] = [];
  let beat = performance.now();
  const heart = setInterval(() => {
    const now = performance.now();
    if (now - beat > 1_000) stalls.push({ from: beat, to: now });
    beat = now;
  }, 200);

  async function visit(): Promise<void> {
    const began = performance.now();
    let host: string | undefined;
    try {
      const accepted = await fleet.gateway.race();
      host = accepted.host;
      await ask(accepted.socket, fleet.domain, ca);
      done += 1;
    } catch (error) {
      const ended = performance.now();
      const met = fleet.replicas.filter((each) => host === undefined || each.host === host);
      const reasons = met.map(
        ({ excuses }) =>
          // A stop is felt for a while after it, as all that was waiting is dealt with then.
          excuses.find(({ from, to }) => from <= ended && to + 1_000 >= began)?.why,
      );
      await new Promise((resolve) => setTimeout(resolve, 300));
      const stalled = stalls.some(({ from, to }) => from <= ended && to >= began);
      const why = reasons.includes(undefined)
        ? stalled
          ? 'the machine stood still'
          : undefined
        : reasons[0]!;
      const at = host ?? 'nobody accepts';
      if (why === undefined)
        unexcused.push(`${Math.round(began)}-${Math.round(ended)} ${at}: ${(error as Error).message}`);
      else excused[why] = (excused[why] ?? 0) + 1;
    }
  }
  const running = Array.from({ length: lanes }, async () => {
    while (!stopping) {
      await visit();
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  });
  return {
    get done() {
      return done;
    },
    excused,
    unexcused,
    async stop() {
      stopping = true;
      await Promise.all(running);
      clearInterval(heart);
    },
  };
}

async function ask(raw: Socket, servername: string, ca: string): Promise<void> {
  const socket = connect({ socket: raw, servername, ca, ALPNProtocols: ['http/1.1'] });
  raw.on('close', () => socket.destroy());
  const late = setTimeout(() => socket.destroy(new Error(`no answer in ${PATIENCE_MS} ms`)), PATIENCE_MS);
  try {
    const text = await new Promise<string>((resolve, reject) => {
      let all = '';
      socket.setEncoding('latin1');
      socket.on('data', (part: string) => {
        all += part;
      });
      socket.on('error', reject).on('close', () => resolve(all));
      socket.write(`GET / HTTP/1.1\r\nHost: ${servername}\r\nConnection: close\r\n\r\n`);
    });
    if (!text.startsWith('HTTP/1.1 200') || !text.endsWith(ANSWER))
      throw new Error(`answered ${JSON.stringify(text.slice(0, 60))}`);
  } finally {
    clearTimeout(late);
    socket.destroy();
  }
}
