// Starts a real ACME CA (Pebble) with the DNS server that it asks, on loopback and free ports, trusted by a CA made here.

import 'reflect-metadata';

import { type ChildProcess, spawn } from 'node:child_process';
import { webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  BasicConstraintsExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { Agent, request } from 'undici';
import { freePort } from './ports.ts';

export interface PebbleOptions {
  /** How many of a hundred nonces are refused. */
  nonceRejectPercent?: number;
  /** How many of a hundred valid authorizations are used again. */
  authzReusePercent?: number;
  certificateSeconds?: number;
  /** Where tls-alpn-01 is validated. */
  tlsPort?: number;
  /** Where http-01 is validated. */
  httpPort?: number;
  /** Pebble's pauses of some seconds before it validates. */
  sleep?: boolean;
  externalAccounts?: Readonly<Record<string, string>>;
  /** "host:port" of the DNS server that the CA asks in place of pebble-challtestsrv. */
  dnsServer?: string;
}

export interface PebbleDns {
  /** "127.0.0.1:port", UDP and TCP; answers 127.0.0.1 for every A that is not set. */
  readonly address: string;
  /** URL of pebble-challtestsrv's own API, for the doubles of DNS providers. */
  readonly management: string;
  /** All TXT values of this name, in place of those before. */
  setTxt(name: string, values: readonly string[]): Promise<void>;
  addTxt(name: string, value: string): Promise<void>;
  removeTxt(name: string, value: string): Promise<void>;
  clearTxt(name: string): Promise<void>;
  txt(name: string): readonly string[];
  setCname(name: string, target: string): Promise<void>;
  clearCname(name: string): Promise<void>;
  addCaa(name: string, policies: readonly { tag: string; value: string }[]): Promise<void>;
  clearCaa(name: string): Promise<void>;
  addA(name: string, addresses: readonly string[]): Promise<void>;
  clearA(name: string): Promise<void>;
  setServfail(name: string): Promise<void>;
  clearServfail(name: string): Promise<void>;
}

export interface Pebble {
  readonly directoryUrl: string;
  /** "127.0.0.1:port" of the ACME API. */
  readonly address: string;
  /** The CA of Pebble's own HTTPS, not of what it issues. */
  readonly caFile: string;
  readonly caPem: string;
  /** A server certificate of that CA for localhost and 127.0.0.1. */
  readonly server: { readonly cert: string; readonly key: string };
  /** PEM of the root under which certificates are issued; another one after each start. */
  issuerRoots(): Promise<string>;
  readonly dns: PebbleDns;
  /** What Pebble has printed so far. */
  log(): string;
  /** Requests that reached Pebble, retries of refused nonces included. */
  count(what: 'newOrder' | 'newAccount'): number;
  /** Orders and accounts that Pebble has made. */
  made(what: 'order' | 'account'): number;
  kill(): Promise<void>;
  /** On the same ports, with everything forgotten. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

const PATHS = { newOrder: '/order-plz', newAccount: '/sign-me-up' };
const MADE = { order: /Added order "/g, account: /There are now \d+ accounts/g };
const START_ATTEMPTS = 8;

/** Rejects with what is missing or what the processes said. Stop it, or they live on. */
export async function startPebble(options: PebbleOptions = {}): Promise<Pebble> {
  const folder = await mkdtemp(join(tmpdir(), 'pebble-'));
  try {
    const tls = await makeServerCertificate();
    await writeFile(join(folder, 'ca.pem'), tls.ca);
    await writeFile(join(folder, 'server.pem'), tls.cert);
    await writeFile(join(folder, 'server.key'), tls.key, { mode: 0o600 });
    const dns = await startDns();
    try {
      return await startCa(options, folder, tls, dns);
    } catch (error) {
      await dns.stop();
      throw error;
    }
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

async function startCa(
  options: PebbleOptions,
  folder: string,
  tls: { ca: string; cert: string; key: string },
  dns: Dns,
): Promise<Pebble> {
  const agent = new Agent({ connect: { ca: tls.ca }, allowH2: false });
  let process: Daemon | undefined;
  let earlier = '';
  let ports = [await freePort(), await freePort()];

  async function launch(): Promise<void> {
    const [api, management] = ports as [number, number];
    const file = join(folder, 'pebble.json');
    const config = {
      listenAddress: `127.0.0.1:${api}`,
      managementListenAddress: `127.0.0.1:${management}`,
      certificate: join(folder, 'server.pem'),
      privateKey: join(folder, 'server.key'),
      httpPort: options.httpPort ?? 1,
      tlsPort: options.tlsPort ?? 1,
      externalAccountBindingRequired: options.externalAccounts !== undefined,
      externalAccountMACKeys: options.externalAccounts ?? {},
      ...(options.certificateSeconds === undefined
        ? {}
        : { certificateValidityPeriod: options.certificateSeconds }),
    };
    await writeFile(file, JSON.stringify({ pebble: config }));
    process = startDaemon('pebble', ['-config', file, '-dnsserver', options.dnsServer ?? dns.api.address], {
      PEBBLE_VA_NOSLEEP: options.sleep === true ? '0' : '1',
      PEBBLE_WFE_NONCEREJECT: String(options.nonceRejectPercent ?? 30),
      PEBBLE_AUTHZREUSE: String(options.authzReusePercent ?? 0),
    });
    await untilReady(process, async () => {
      const answer = await request(`https://127.0.0.1:${api}/dir`, { dispatcher: agent });
      await answer.body.dump();
      const roots = await request(`https://127.0.0.1:${management}/roots/0`, { dispatcher: agent });
      await roots.body.dump();
    });
  }

  for (let attempt = 1; ; attempt += 1) {
    try {
      await launch();
      break;
    } catch (error) {
      await process?.stop();
      if (attempt >= START_ATTEMPTS || !isPortTaken(error)) throw error;
      ports = [await freePort(), await freePort()];
    }
  }

  const log = () => earlier + (process?.output() ?? '');
  async function kill(): Promise<void> {
    await process?.stop();
    earlier = log();
    process = undefined;
  }
  return {
    directoryUrl: `https://127.0.0.1:${ports[0]}/dir`,
    address: `127.0.0.1:${ports[0]}`,
    caFile: join(folder, 'ca.pem'),
    caPem: tls.ca,
    server: { cert: tls.cert, key: tls.key },
    async issuerRoots() {
      const answer = await request(`https://127.0.0.1:${ports[1]}/roots/0`, { dispatcher: agent });
      return answer.body.text();
    },
    dns: dns.api,
    log,
    count: (what) => log().split(`POST ${PATHS[what]} `).length - 1,
    made: (what) => log().match(MADE[what])?.length ?? 0,
    kill,
    async restart() {
      await kill();
      await launch();
    },
    async stop() {
      await kill();
      await dns.stop();
      await agent.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

interface Dns {
  readonly api: PebbleDns;
  stop(): Promise<void>;
}

async function startDns(): Promise<Dns> {
  for (let attempt = 1; ; attempt += 1) {
    const [dnsPort, managementPort] = [await freePort(), await freePort()];
    const daemon = startDaemon('pebble-challtestsrv', [
      ...['-defaultIPv4', '127.0.0.1', '-defaultIPv6', '', '-http01', '', '-https01', '', '-tlsalpn01', ''],
      ...['-dns01', `127.0.0.1:${dnsPort}`, '-management', `127.0.0.1:${managementPort}`],
    ]);
    const manage = `http://127.0.0.1:${managementPort}`;
    try {
      await untilReady(daemon, () => postJson(`${manage}/clear-txt`, { host: 'ready.invalid.' }));
      return { api: dnsApi(`127.0.0.1:${dnsPort}`, manage), stop: daemon.stop };
    } catch (error) {
      await daemon.stop();
      if (attempt >= START_ATTEMPTS || !isPortTaken(error)) throw error;
    }
  }
}

function dnsApi(address: string, manage: string): PebbleDns {
  const texts = new Map<string, string[]>();
  // The server can only add a value or drop all of a name: changes wait for one another.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(change: () => Promise<T>): Promise<T> => {
    const turn = last.then(change);
    last = turn.catch(() => {});
    return turn;
  };
  const host = (name: string) => `${name.toLowerCase().replace(/\.$/, '')}.`;
  const call = (what: string, body: object) => postJson(`${manage}/${what}`, body);
  const replace = async (name: string, values: readonly string[]) => {
    await call('clear-txt', { host: host(name) });
    for (const value of values) await call('set-txt', { host: host(name), value });
    texts.set(host(name), [...values]);
  };
  const txt = (name: string) => texts.get(host(name)) ?? [];
  return {
    address,
    management: manage,
    txt,
    setTxt: (name, values) => inTurn(() => replace(name, values)),
    addTxt: (name, value) =>
      inTurn(async () => {
        await call('set-txt', { host: host(name), value });
        texts.set(host(name), [...txt(name), value]);
      }),
    removeTxt: (name, value) =>
      inTurn(() =>
        replace(
          name,
          txt(name).filter((each) => each !== value),
        ),
      ),
    clearTxt: (name) => inTurn(() => replace(name, [])),
    setCname: (name, target) => call('set-cname', { host: host(name), target: host(target) }),
    clearCname: (name) => call('clear-cname', { host: host(name) }),
    addCaa: (name, policies) => call('add-caa', { host: host(name), policies }),
    clearCaa: (name) => call('clear-caa', { host: host(name) }),
    addA: (name, addresses) => call('add-a', { host: host(name), addresses }),
    clearA: (name) => call('clear-a', { host: host(name) }),
    setServfail: (name) => call('set-servfail', { host: host(name) }),
    clearServfail: (name) => call('clear-servfail', { host: host(name) }),
  };
}

async function postJson(url: string, body: object): Promise<void> {
  const answer = await fetch(url, { method: 'POST', body: JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`pebble-challtestsrv: ${url}: ${answer.status} ${text}`);
}

interface Daemon {
  readonly name: string;
  output(): string;
  /** What went wrong, once it has ended by itself. */
  ended(): string | undefined;
  stop(): Promise<void>;
}

function startDaemon(name: string, args: readonly string[], env: Record<string, string> = {}): Daemon {
  let output = '';
  let ended: string | undefined;
  const child: ChildProcess = spawn(name, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout?.on('data', (chunk) => {
    output += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    output += chunk;
  });
  child.on('error', (error: NodeJS.ErrnoException) => {
    ended = error.code === 'ENOENT' ? `${name} is not installed: apt-get install pebble` : error.message;
  });
  child.on('exit', (code, signal) => {
    ended ??= `${name} ended with ${signal ?? code}:\n${output}`;
  });
  // The test process must not leave it behind, however it ends.
  const onExit = () => child.kill('SIGKILL');
  process.once('exit', onExit);
  return {
    name,
    output: () => output,
    ended: () => ended,
    async stop() {
      process.off('exit', onExit);
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGKILL');
      await once(child, 'close');
    },
  };
}

async function untilReady(daemon: Daemon, look: () => Promise<void>): Promise<void> {
  const deadline = performance.now() + 30_000;
  for (;;) {
    try {
      await look();
      // What answered may be another process on a port that ours could not take.
      if (daemon.ended() === undefined) return;
    } catch (error) {
      if (performance.now() > deadline) throw new Error(`${daemon.name} is not ready`, { cause: error });
    }
    const why = daemon.ended();
    if (why !== undefined) throw new Error(why);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

function isPortTaken(error: unknown): boolean {
  return error instanceof Error && /address already in use/.test(error.message);
}

export async function makeServerCertificate() {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const newKeys = () => webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const [caKeys, keys] = await Promise.all([newKeys(), newKeys()]);
  const notBefore = new Date(Date.now() - 86_400_000);
  const notAfter = new Date(Date.now() + 30 * 86_400_000);
  const ca = await X509CertificateGenerator.createSelfSigned(
    {
      name: 'CN=Test CA of the ACME server',
      notBefore,
      notAfter,
      keys: caKeys,
      signingAlgorithm: algorithm,
      extensions: [new BasicConstraintsExtension(true, undefined, true)],
    },
    webcrypto,
  );
  const names = [
    { type: 'dns' as const, value: 'localhost' },
    { type: 'ip' as const, value: '127.0.0.1' },
  ];
  const server = await X509CertificateGenerator.create(
    {
      subject: 'CN=localhost',
      issuer: ca.subject,
      notBefore,
      notAfter,
      publicKey: keys.publicKey,
      signingKey: caKeys.privateKey,
      signingAlgorithm: algorithm,
      extensions: [new SubjectAlternativeNameExtension(names)],
    },
    webcrypto,
  );
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const key = `-----BEGIN PRIVATE KEY-----\n${der.replace(/.{64}/g, '$&\n')}\n-----END PRIVATE KEY-----\n`;
  return { ca: ca.toString('pem'), cert: server.toString('pem'), key };
}
