// A simulated guest agent: answers as dstack's does, over a unix socket or a port, with quotes of a simulated processor.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Collateral } from '../../evidence/verify/collateral.ts';
import { createMachine, type EventLogForm, type Machine, type MachineOptions } from './simulated-machine.ts';
import { createSimulatedProcessor, type SimulatedProcessor } from './simulated-quote.ts';

export type AgentVersion = '0.5.5' | '0.5.6' | '0.6.0';

export interface SimulatedAgentOptions extends MachineOptions {
  /** Where to listen: a socket (`tappd` in its name makes no difference here), or else a port of loopback (0: any). */
  socketPath?: string;
  port?: number;
  /** Shared between agents that are to be verified under one root. */
  processor?: SimulatedProcessor;
  /** Which of the two interfaces it has: that of the present agent, of the old one, or both at one place. */
  style?: 'dstack' | 'tappd' | 'both';
  /** Of dstack: what its agent can be asked, and how much of the log it tells. Default: 0.6.0. */
  version?: AgentVersion;
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

export async function startSimulatedAgent(options: SimulatedAgentOptions = {}): Promise<SimulatedAgent> {
  const { version = '0.6.0', processor = await createSimulatedProcessor() } = options;
  const machine = createMachine({ eventLog: eventLogOf(version), ...options }, processor);
  const methods = methodsOf(machine, options);
  const calls: string[] = [];
  const server = createServer((request, response) => {
    void answer(request, response, methods, calls, options.intercept);
  });
  const endpoint = await listen(server, options);
  const { appId, instanceId, composeHash } = machine;
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

function methodsOf(
  machine: Machine,
  { style = 'dstack', version = '0.6.0' }: SimulatedAgentOptions,
): Methods {
  return new Map([
    ...(style === 'tappd' ? [] : Object.entries(dstackMethods(machine, version))),
    ...(style === 'dstack' ? [] : Object.entries(tappdMethods(machine))),
  ]);
}

/** Agents from 0.5.6 on leave out of the log what can be computed; 0.6 names the tables of ACPI in it. */
function eventLogOf(version: AgentVersion): EventLogForm {
  if (version === '0.5.5') return 'full';
  return version === '0.5.6' ? 'stripped' : 'stripped-with-markers';
}

function dstackMethods(machine: Machine, version: AgentVersion): Record<string, Method> {
  return {
    Info: () => machine.info(),
    GetQuote: (params) => {
      const reportData = hexParam(params, 'report_data');
      if (reportData.length > 64) throw new Refusal('Report data is too long');
      return machine.quote(Buffer.concat([reportData, Buffer.alloc(64 - reportData.length)]));
    },
    GetKey: (params) => {
      const { key, chain } = machine.key(textParam(params, 'path'), textParam(params, 'purpose'));
      return { key, signature_chain: chain };
    },
    // Apps could measure events of their own until 0.6, and ask for the version from 0.5.7 on.
    ...(version === '0.6.0'
      ? { Version: () => ({ version, rev: 'SIMULATED' }) }
      : {
          EmitEvent: (params) => {
            machine.measure(textParam(params, 'event'), hexParam(params, 'payload'));
            return {};
          },
        }),
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
