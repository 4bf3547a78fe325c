// A simulated guest agent: answers as dstack's does, over a unix socket or a port, with quotes of a simulated processor.

import { createHash, hkdfSync } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { keccak_256 } from '@noble/hashes/sha3.js';
import { RUNTIME_EVENT, replay, runtimeDigest } from '../../evidence/event-log.ts';
import type { Collateral } from '../../evidence/verify/collateral.ts';
import { createSimulatedProcessor, type Measurements, type SimulatedProcessor } from './simulated-quote.ts';

export interface SimulatedAgentOptions {
  /** Where to listen: a socket (`tappd` in its name makes no difference here), or else a port of loopback (0: any). */
  socketPath?: string;
  port?: number;
  /** Which of the two interfaces it has: that of the present agent, of the old one, or both at one place. */
  style?: 'dstack' | 'tappd' | 'both';
  /** The app's description; its SHA-256 is the compose hash, whose first 20 bytes are the app id unless one is given. */
  appCompose?: string;
  /** Hex, 20 bytes. */
  appId?: string;
  /** Hex, 20 bytes. */
  instanceId?: string;
  /** 32 bytes, the root key of the key service: agents with the same seed and app id derive the same keys. */
  kmsSeed?: Uint8Array;
  /** Shared between agents that are to be verified under one root. */
  processor?: SimulatedProcessor;
  /** Agents from 0.5.6 on leave out what can be computed (`stripped`); before, the log was whole. */
  eventLog?: 'stripped' | 'full';
  /** Stands between the agent and its caller; what it returns is sent instead. */
  intercept?: (method: string, reply: AgentReply) => Interception | Promise<Interception>;
}

export interface AgentReply {
  readonly status: number;
  readonly body: string;
}

/** `hang`: says nothing until closed. `close`: breaks the connection; with a body, in the middle of it. */
export type Interception = AgentReply | 'hang' | 'close' | 'close-midway';

export interface SimulatedAgent {
  /** What a client takes for its endpoint: the socket's path, or an http URL. */
  readonly endpoint: string;
  readonly appId: string;
  readonly instanceId: string;
  readonly composeHash: string;
  /** The root under which its quotes verify, and what else their verification needs. */
  readonly rootDer: Buffer;
  readonly collateral: Collateral;
  /** Methods in the order in which they were called, as in `GetQuote` or `Tappd.RawQuote`. */
  readonly calls: readonly string[];
  close(): Promise<void>;
}

const DEFAULT_COMPOSE = JSON.stringify({
  manifest_version: 2,
  name: 'SIMULATED app',
  runner: 'docker-compose',
});

export async function startSimulatedAgent(options: SimulatedAgentOptions = {}): Promise<SimulatedAgent> {
  const machine = createMachine(options, options.processor ?? (await createSimulatedProcessor()));
  const methods = methodsOf(machine, options.style ?? 'dstack');
  const calls: string[] = [];
  const server = createServer((request, response) => {
    void answer(request, response, methods, calls, options.intercept);
  });
  const endpoint = await listen(server, options);
  const { appId, instanceId, composeHash, processor } = machine;
  const { rootDer, collateral } = processor;
  return {
    endpoint,
    appId,
    instanceId,
    composeHash,
    rootDer,
    collateral,
    calls,
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function listen(server: Server, { socketPath, port = 0 }: SimulatedAgentOptions): Promise<string> {
  if (socketPath === undefined) {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
  // A socket left by a run that was killed cannot be listened on again.
  await rm(socketPath, { force: true });
  server.listen(socketPath);
  await once(server, 'listening');
  return socketPath;
}

// The transport: JSON in and out, in the body of a POST or the query of a GET; refusals are 400 with {"error"}.

type Params = Readonly<Record<string, unknown>>;
type Method = (params: Params) => object;
type Methods = ReadonlyMap<string, Method>;

class Refusal extends Error {}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  methods: Methods,
  calls: string[],
  intercept: SimulatedAgentOptions['intercept'],
): Promise<void> {
  try {
    const url = new URL(request.url ?? '/', 'http://agent');
    const method = url.pathname.replace(/^\/(prpc\/)?/, '');
    calls.push(method);
    const reply = await respond(request, url, methods.get(method));
    send(response, (await intercept?.(method, reply)) ?? reply);
  } catch {
    // The caller has gone away in the middle of its request.
    response.destroy();
  }
}

async function respond(request: IncomingMessage, url: URL, method: Method | undefined): Promise<AgentReply> {
  try {
    const params = await readParams(request, url);
    if (method === undefined) throw new Refusal(`no such method: ${url.pathname}`);
    return { status: 200, body: JSON.stringify(method(params)) };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { status: 400, body: JSON.stringify({ error: error.message }) };
  }
}

async function readParams(request: IncomingMessage, url: URL): Promise<Params> {
  if (request.method === 'GET') return Object.fromEntries(url.searchParams);
  const isJson = request.headers['content-type']?.includes('json') || url.searchParams.has('json');
  if (!isJson) throw new Refusal('the simulated agent reads JSON, not protobuf: say so in the content type');
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  try {
    return text === '' ? {} : (JSON.parse(text) as Params);
  } catch {
    throw new Refusal('the request is not JSON');
  }
}

function send(response: ServerResponse, reply: Interception): void {
  if (reply === 'hang') return;
  if (reply === 'close') return void response.destroy();
  if (reply === 'close-midway') {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': 1000 });
    return void response.write('{"quote":"04', () => response.destroy());
  }
  const body = Buffer.from(reply.body);
  response.writeHead(reply.status, { 'content-type': 'application/json', 'content-length': body.length });
  response.end(body);
}

// The methods, under the names and in the shapes of the two interfaces.

function methodsOf(machine: Machine, style: 'dstack' | 'tappd' | 'both'): Methods {
  return new Map([
    ...(style === 'tappd' ? [] : Object.entries(dstackMethods(machine))),
    ...(style === 'dstack' ? [] : Object.entries(tappdMethods(machine))),
  ]);
}

function dstackMethods(machine: Machine): Record<string, Method> {
  return {
    Info: () => machine.info(),
    Version: () => ({ version: '0.6.0', rev: 'SIMULATED' }),
    GetQuote: (params) => {
      const reportData = hexParam(params, 'report_data');
      if (reportData.length > 64) throw new Refusal('Report data is too long');
      return machine.quote(Buffer.concat([reportData, Buffer.alloc(64 - reportData.length)]));
    },
    GetKey: (params) => {
      const { key, chain } = machine.key(textParam(params, 'path'), textParam(params, 'purpose'));
      return { key, signature_chain: chain };
    },
  };
}

function tappdMethods(machine: Machine): Record<string, Method> {
  const quote = (reportData: Buffer, hash_algorithm: string, prefix: string) => {
    const { quote, event_log } = machine.quote(reportData);
    return { quote, event_log, hash_algorithm, prefix };
  };
  return {
    'Tappd.Info': () => machine.info(),
    'Tappd.RawQuote': (params) => quote(exactly64(hexParam(params, 'report_data')), 'raw', ''),
    'Tappd.TdxQuote': (params) => {
      const data = hexParam(params, 'report_data');
      const algorithm = textParam(params, 'hash_algorithm') || 'sha512';
      if (algorithm === 'raw') return quote(exactly64(data), algorithm, '');
      const prefix = textParam(params, 'prefix') || 'app-data:';
      return quote(hashed(algorithm, Buffer.concat([Buffer.from(prefix), data])), algorithm, prefix);
    },
    'Tappd.DeriveK256Key': (params) => {
      const { key, chain } = machine.key(textParam(params, 'path'), textParam(params, 'purpose'));
      return { k256_key: key, k256_signature_chain: chain };
    },
  };
}

function exactly64(reportData: Buffer): Buffer {
  if (reportData.length !== 64) throw new Refusal('report_data must be exactly 64 bytes');
  return reportData;
}

function hashed(algorithm: string, data: Buffer): Buffer {
  if (!['sha256', 'sha384', 'sha512', 'sha3-256', 'sha3-384', 'sha3-512'].includes(algorithm)) {
    throw new Refusal(`unsupported hash algorithm: ${algorithm}`);
  }
  const digest = createHash(algorithm).update(data).digest();
  return Buffer.concat([digest, Buffer.alloc(64 - digest.length)]);
}

function hexParam(params: Params, name: string): Buffer {
  const text = textParam(params, name).replace(/^0x/, '');
  if (!/^([0-9a-f]{2})*$/i.test(text)) throw new Refusal(`${name} is not hexadecimal`);
  return Buffer.from(text, 'hex');
}

function textParam(params: Params, name: string): string {
  const value = params[name] ?? '';
  if (typeof value !== 'string') throw new Refusal(`${name} is not a string`);
  return value;
}

// The machine behind it: its identity, what it measured at boot, and its keys.

interface Machine {
  readonly processor: SimulatedProcessor;
  readonly appId: string;
  readonly instanceId: string;
  readonly composeHash: string;
  info(): object;
  quote(reportData: Buffer): { quote: string; event_log: string; report_data: string; vm_config: string };
  key(path: string, purpose: string): { key: string; chain: string[] };
}

function createMachine(options: SimulatedAgentOptions, processor: SimulatedProcessor): Machine {
  const appCompose = options.appCompose ?? DEFAULT_COMPOSE;
  const composeHash = sha256(appCompose);
  const appId = options.appId ?? composeHash.slice(0, 40);
  const instanceId = options.instanceId ?? sha256(`SIMULATED instance of ${appId}`).slice(0, 40);
  const seed = options.kmsSeed ?? Buffer.from(sha256('SIMULATED key service'), 'hex');
  const keys = createKeyService(seed, appId);
  const keyProvider = JSON.stringify({ name: 'simulated-kms', id: keys.rootPublicKey });
  const identity = { appId, composeHash, instanceId, osImageHash: sha256('SIMULATED image'), keyProvider };
  const log = bootLog(identity);
  const measurements: Measurements = {
    mrTd: sha384('SIMULATED firmware'),
    // Binds the app's description: version 1, then its hash.
    mrConfigId: `01${composeHash}${'00'.repeat(15)}`,
    rtmrs: replay(log),
  };
  const events = log.map(published(options.eventLog ?? 'stripped'));
  const tcb = describeTcb(identity, measurements);
  const vm_config = JSON.stringify({
    os_image_hash: identity.osImageHash,
    cpu_count: 1,
    memory_size: 0,
    simulated: true,
  });
  return {
    processor,
    appId,
    instanceId,
    composeHash,
    info: () => describeApp(identity, { ...tcb, event_log: events, app_compose: appCompose }, vm_config),
    quote: (reportData) => ({
      quote: processor.quote(measurements, reportData).toString('hex'),
      event_log: JSON.stringify(events),
      report_data: reportData.toString('hex'),
      vm_config,
    }),
    key: keys.derive,
  };
}

interface TcbInfo {
  readonly mr_aggregated: string;
  readonly device_id: string;
  readonly [other: string]: unknown;
}

function describeTcb(
  { osImageHash, composeHash }: Identity,
  { mrTd, mrConfigId, rtmrs }: Measurements,
): TcbInfo {
  const [rtmr0, rtmr1, rtmr2, rtmr3] = rtmrs;
  // MRTD, the registers, MRCONFIGID, then MROWNER and MROWNERCONFIG, which are zero here.
  const all = Buffer.from(mrTd + rtmrs.join('') + mrConfigId + '00'.repeat(96), 'hex');
  return {
    mrtd: mrTd,
    rtmr0,
    rtmr1,
    rtmr2,
    rtmr3,
    mr_aggregated: sha256(all),
    os_image_hash: osImageHash,
    compose_hash: composeHash,
    device_id: sha256('SIMULATED processor'),
  };
}

function describeApp(identity: Identity, tcb: TcbInfo, vm_config: string) {
  return {
    app_id: identity.appId,
    instance_id: identity.instanceId,
    app_cert: '',
    tcb_info: JSON.stringify(tcb),
    app_name: 'SIMULATED app',
    device_id: tcb.device_id,
    mr_aggregated: tcb.mr_aggregated,
    os_image_hash: identity.osImageHash,
    key_provider_info: identity.keyProvider,
    compose_hash: identity.composeHash,
    vm_config,
    cloud_vendor: 'SIMULATED',
    cloud_product: 'SIMULATED',
  };
}

interface MeasuredEvent {
  readonly imr: number;
  readonly type: number;
  readonly name: string;
  readonly payload: string;
  readonly digest: string;
}

interface Identity {
  readonly appId: string;
  readonly composeHash: string;
  readonly instanceId: string;
  readonly osImageHash: string;
  readonly keyProvider: string;
}

/** Firmware and system into RTMR0 to RTMR2, then what dstack measures into RTMR3, in its order. */
function bootLog(identity: Identity): MeasuredEvent[] {
  const early = ['SIMULATED firmware volume', 'SIMULATED kernel', 'SIMULATED initrd'].map((what, imr) => ({
    imr,
    type: 0x80000008,
    name: what,
    payload: '',
    digest: sha384(what),
  }));
  const system: [string, string][] = [
    ['system-preparing', ''],
    ['app-id', identity.appId],
    ['compose-hash', identity.composeHash],
    ['instance-id', identity.instanceId],
    ['boot-mr-done', ''],
    ['os-image-hash', identity.osImageHash],
    ['key-provider', Buffer.from(identity.keyProvider).toString('hex')],
    ['storage-fs', Buffer.from('SIMULATED').toString('hex')],
    ['system-ready', ''],
  ];
  const runtime = system.map(([name, payload]) => ({
    imr: 3,
    type: RUNTIME_EVENT,
    name,
    payload,
    digest: runtimeDigest(name, Buffer.from(payload, 'hex')),
  }));
  return [...early, ...runtime];
}

function published(form: 'stripped' | 'full') {
  return ({ imr, type, name, payload, digest }: MeasuredEvent) => ({
    imr,
    event_type: type,
    digest: form === 'stripped' && imr === 3 ? '' : digest,
    event: name,
    event_payload: payload,
  });
}

/** Derives as dstack's key service does, so that what is built on its keys behaves the same. */
function createKeyService(seed: Uint8Array, appId: string) {
  const appKey = derived(seed, Buffer.concat([Buffer.from(appId, 'hex'), Buffer.from('app-key')]));
  const issued = Buffer.concat([
    Buffer.from('dstack-kms-issued:'),
    Buffer.from(appId, 'hex'),
    secp256k1.getPublicKey(appKey, true),
  ]);
  return {
    rootPublicKey: Buffer.from(secp256k1.getPublicKey(seed, true)).toString('hex'),
    derive(path: string, purpose: string) {
      const key = derived(appKey, Buffer.from(path));
      const publicKey = Buffer.from(secp256k1.getPublicKey(key, true)).toString('hex');
      const chain = [signed(Buffer.from(`${purpose}:${publicKey}`), appKey), signed(issued, seed)];
      return { key: key.toString('hex'), chain };
    },
  };
}

function derived(key: Uint8Array, info: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', key, 'RATLS', info, 32));
}

/** r, s and the recovery bit over keccak-256. */
function signed(message: Uint8Array, key: Uint8Array): string {
  const signature = secp256k1.sign(keccak_256(message), key);
  return signature.toCompactHex() + signature.recovery.toString(16).padStart(2, '0');
}

function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

function sha384(data: string): string {
  return createHash('sha384').update(data).digest('hex');
}
