// The guest agent of the confidential machine: who we are, quotes, and keys derived for this app.

import { once } from 'node:events';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect, type Socket } from 'node:net';
import { basename } from 'node:path';
import * as z from 'zod';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { logFindings, parseEventLog, withDigests } from './event-log.ts';
import { parseQuote } from './quote.ts';

/** The machine and app that we run in, as the agent describes them. Lower-case hex unless noted. */
export interface AgentInfo {
  /** 20 bytes. TXT records and gateways identify the app by it. */
  readonly appId: string;
  /** 20 bytes, or empty if the app runs without one. */
  readonly instanceId: string;
  readonly appName: string;
  readonly composeHash?: string;
  readonly deviceId?: string;
  readonly osImageHash?: string;
  /** Where the app's keys come from; `kms` means that they outlive this machine. */
  readonly keyProvider?: { readonly name: string; readonly id: string };
}

/** The agent's answer with the agent's field names, as verifiers read it from quote.json. */
export interface QuoteAnswer {
  /** Hex. */
  readonly quote: string;
  /** JSON text; the digests that newer agents leave out are filled in. */
  readonly event_log: string;
  /** Hex, 64 bytes. Checked: the quote contains them, and they are what was asked for. */
  readonly report_data: string;
  /** JSON text; old agents (tappd) do not give it. */
  readonly vm_config?: string;
  readonly [other: string]: unknown;
}

/** Secret. `signatureChain` vouches for the key's public half. */
export interface DerivedKey {
  readonly key: Uint8Array;
  readonly signatureChain: readonly Uint8Array[];
}

/** All calls reject with AgentError. They run one at a time, because the agent makes one quote at a time. */
export interface Agent {
  /** Asked until it succeeds once, and then remembered: every Info costs the agent a quote. */
  info(): Promise<AgentInfo>;
  /** `reportData` of up to 64 bytes is padded with zeros on the right. Throws RangeError if it is longer. */
  quote(reportData: Uint8Array): Promise<QuoteAnswer>;
  /** 32 bytes, the same for the same path in every machine of this app (under a KMS). `purpose` enters only the signature. */
  deriveKey(path: string, purpose: string): Promise<DerivedKey>;
}

export type AgentErrorCode =
  | 'unreachable'
  | 'refused'
  | 'unintelligible'
  | 'timeout'
  | 'report-data-mismatch';

/** The agent failed or refused. The message names the endpoint and quotes the agent's own words, never a key. */
export class AgentError extends CodedError<AgentErrorCode> {
  override readonly name = 'AgentError';
}

export interface AgentOptions {
  /** The path of a socket or an http(s) URL, instead of looking for the sockets. */
  endpoint?: string;
  /** Tried in this order at every call, so that an agent that appears late or moves is found. */
  socketPaths?: readonly string[];
  /** For one call, connecting included. An agent under load needs up to half a minute for a quote. */
  timeoutMs?: number;
  log?: Log;
  clock?: Clock;
}

/** The places where dstack puts its sockets; those of the present agent before those of the old one. */
export const defaultSocketPaths: readonly string[] = [
  '/var/run/dstack.sock',
  '/run/dstack.sock',
  '/var/run/dstack/dstack.sock',
  '/run/dstack/dstack.sock',
  '/var/run/tappd.sock',
  '/run/tappd.sock',
  '/var/run/dstack/tappd.sock',
  '/run/dstack/tappd.sock',
];

const REPORT_DATA_BYTES = 64;
const DEFAULT_TIMEOUT_MS = 60_000;
/** The agent itself accepts no more than this; a quote with its log is about 20 KB. */
const LONGEST_ANSWER_BYTES = 10 * 1024 * 1024;
const QUOTED_CHARACTERS = 300;

/** Which of the two interfaces the agent offers at an endpoint. */
type Dialect = 'dstack' | 'tappd';

interface Method {
  readonly paths: Readonly<Record<Dialect, string>>;
  /** Whether its answer may be quoted in an error. */
  readonly secret: boolean;
}

const INFO: Method = { paths: { dstack: '/Info', tappd: '/prpc/Tappd.Info' }, secret: false };
const QUOTE: Method = { paths: { dstack: '/GetQuote', tappd: '/prpc/Tappd.RawQuote' }, secret: false };
const KEY: Method = { paths: { dstack: '/GetKey', tappd: '/prpc/Tappd.DeriveK256Key' }, secret: true };

/** Opens nothing until the first call. */
export function createAgent(options: AgentOptions = {}): Agent {
  const log = options.log ?? silentLog;
  const ask = createCaller(options);
  const inTurn = createQueue();
  const readLog = createLogReader(log);
  let saidOld = false;
  let known: Promise<AgentInfo> | undefined;

  const info = async (): Promise<AgentInfo> => readInfo(await ask(INFO, {}));

  const quote = async (asked: string): Promise<QuoteAnswer> => {
    const reply = await ask(QUOTE, { report_data: asked });
    const answer = readQuoteAnswer(reply, asked);
    if (answer.vm_config === undefined && !saidOld) {
      saidOld = true;
      log.warn({ endpoint: reply.endpoint }, 'the agent is an old one: its quote comes without vm_config');
    }
    return { ...answer, event_log: readLog(answer.event_log) };
  };

  return {
    info() {
      known ??= inTurn(info).catch((error) => {
        known = undefined;
        throw error;
      });
      return known;
    },
    async quote(reportData) {
      const asked = padded(reportData);
      return inTurn(() => quote(asked));
    },
    deriveKey: (path, purpose) =>
      inTurn(async () => readKey(await ask(KEY, { path, purpose, algorithm: '' }))),
  };
}

/** Says once of each log what will make a verifier doubt it; what we cannot read we pass on as it is. */
function createLogReader(log: Log) {
  let doubted: string | undefined;
  return (text: string): string => {
    const doubt = (details: object) => {
      if (text !== doubted) log.warn(details, 'the event log of the machine will not convince everybody');
      doubted = text;
    };
    try {
      const findings = logFindings(parseEventLog(text));
      if (findings.length > 0) doubt({ findings });
      return withDigests(text);
    } catch (err) {
      doubt({ err });
      return text;
    }
  };
}

function padded(reportData: Uint8Array): string {
  if (reportData.length > REPORT_DATA_BYTES) {
    throw new RangeError(`report data has ${reportData.length} bytes; a quote holds ${REPORT_DATA_BYTES}`);
  }
  const bytes = Buffer.alloc(REPORT_DATA_BYTES);
  bytes.set(reportData);
  return bytes.toString('hex');
}

/** Runs jobs one after the other; a failed one does not stop the next. */
function createQueue() {
  let last: Promise<unknown> = Promise.resolve();
  return <T>(job: () => Promise<T>): Promise<T> => {
    const result = last.then(job);
    last = result.catch(() => undefined);
    return result;
  };
}

// Answers: the shape that they must have, and what is read from them.

interface Reply {
  readonly endpoint: string;
  readonly method: Method;
  readonly answer: unknown;
}

const hex = z.string().regex(/^([0-9a-f]{2})*$/i, 'must be hexadecimal');

const infoSchema = z.object({
  app_id: hex.min(1),
  instance_id: hex.default(''),
  app_name: z.string().default(''),
  compose_hash: hex.optional(),
  device_id: hex.optional(),
  os_image_hash: hex.optional(),
  key_provider_info: z.string().optional(),
});

const quoteSchema = z.looseObject({
  quote: hex,
  event_log: z.string(),
  report_data: hex.optional(),
  vm_config: z.string().optional(),
});

const keySchema = z.union([
  z.object({ key: hex.length(64), signature_chain: z.array(hex) }),
  z
    .object({ k256_key: hex.length(64), k256_signature_chain: z.array(hex) })
    .transform((old) => ({ key: old.k256_key, signature_chain: old.k256_signature_chain })),
]);

function readInfo(reply: Reply): AgentInfo {
  const info = understood(infoSchema, reply);
  const keyProvider = readKeyProvider(info.key_provider_info);
  return {
    appId: info.app_id,
    instanceId: info.instance_id,
    appName: info.app_name,
    ...(info.compose_hash && { composeHash: info.compose_hash }),
    ...(info.device_id && { deviceId: info.device_id }),
    ...(info.os_image_hash && { osImageHash: info.os_image_hash }),
    ...(keyProvider && { keyProvider }),
  };
}

function readKeyProvider(text: string | undefined): { name: string; id: string } | undefined {
  try {
    return z.object({ name: z.string(), id: z.string() }).parse(JSON.parse(text ?? ''));
  } catch {
    // Old agents leave it out, and nothing depends on it.
    return undefined;
  }
}

function readQuoteAnswer(reply: Reply, asked: string): QuoteAnswer {
  const { quote, event_log, report_data, vm_config, ...others } = understood(quoteSchema, reply);
  if (quote === '') {
    throw new AgentError(
      'unintelligible',
      `${subject(reply)}: the answer holds no TDX quote (other platform?)`,
    );
  }
  const quoted = reportDataOf(quote, reply);
  for (const seen of [quoted, report_data ?? quoted]) {
    if (seen.toLowerCase() === asked) continue;
    throw new AgentError(
      'report-data-mismatch',
      `${subject(reply)}: the quote is for report data ${seen}, asked was ${asked}`,
    );
  }
  return { quote, event_log, report_data: quoted, ...(vm_config !== undefined && { vm_config }), ...others };
}

function reportDataOf(quote: string, reply: Reply): string {
  try {
    return parseQuote(quote).reportData;
  } catch (cause) {
    throw new AgentError('unintelligible', `${subject(reply)}: ${(cause as Error).message}`, { cause });
  }
}

function readKey(reply: Reply): DerivedKey {
  const { key, signature_chain } = understood(keySchema, reply);
  return {
    key: Buffer.from(key, 'hex'),
    signatureChain: signature_chain.map((signature) => Buffer.from(signature, 'hex')),
  };
}

function understood<T extends z.ZodType>(schema: T, reply: Reply): z.output<T> {
  const result = schema.safeParse(reply.answer);
  if (result.success) return result.data;
  const wrong = result.error.issues
    .map((issue) => `${issue.path.join('.') || 'answer'}: ${issue.message}`)
    .join('; ');
  const said = reply.method.secret ? '' : `; it said ${abridged(JSON.stringify(reply.answer))}`;
  throw new AgentError('unintelligible', `${subject(reply)}: the answer is not understood (${wrong})${said}`);
}

function subject(reply: { readonly endpoint: string; readonly method: Method }): string {
  return `guest agent at ${reply.endpoint}, ${reply.method.paths.dstack.slice(1)}`;
}

function abridged(text: string): string {
  const line = text.trim().replace(/\s+/g, ' ');
  return line.length > QUOTED_CHARACTERS ? `${line.slice(0, QUOTED_CHARACTERS)}…` : line;
}

// The wire: each call opens a connection. Quotes are rare, the agent drops idle connections after ten seconds, and a new
// connection finds a socket that the agent has created again.

type Caller = (method: Method, params: Record<string, string>) => Promise<Reply>;

interface Connection {
  readonly endpoint: string;
  readonly dialect: Dialect;
  readonly open: (path: string, signal: AbortSignal) => ClientRequest;
}

function createCaller(options: AgentOptions): Caller {
  const clock = options.clock ?? systemClock;
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  return async (method, params) => {
    const deadline = new AbortController();
    const done = new AbortController();
    clock.sleep(timeoutMs, done.signal).then(
      () => deadline.abort(),
      () => undefined,
    );
    try {
      const connection = await chooseConnection(options, deadline.signal);
      return await exchange(connection, method, params, deadline.signal);
    } catch (error) {
      if (!deadline.signal.aborted) throw error;
      const name = method.paths.dstack.slice(1);
      throw new AgentError('timeout', `guest agent, ${name}: no answer within ${timeoutMs} ms`, {
        cause: error,
      });
    } finally {
      done.abort();
    }
  };
}

async function chooseConnection(options: AgentOptions, signal: AbortSignal): Promise<Connection> {
  const { endpoint } = options;
  if (endpoint !== undefined && /^https?:\/\//i.test(endpoint)) return urlConnection(endpoint);
  const paths = endpoint === undefined ? (options.socketPaths ?? defaultSocketPaths) : [endpoint];
  const failures: string[] = [];
  for (const path of paths) {
    try {
      return socketConnection(path, await openSocket(path, signal));
    } catch (error) {
      signal.throwIfAborted();
      failures.push(`${path} (${(error as NodeJS.ErrnoException).code ?? (error as Error).message})`);
    }
  }
  throw new AgentError(
    'unreachable',
    `no guest agent found; tried ${failures.join(', ')}; is its socket mounted into the container?`,
  );
}

async function openSocket(path: string, signal: AbortSignal): Promise<Socket> {
  const socket = connect({ path });
  try {
    await once(socket, 'connect', { signal });
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function socketConnection(path: string, socket: Socket): Connection {
  return {
    endpoint: path,
    dialect: basename(path).includes('tappd') ? 'tappd' : 'dstack',
    open: (target, signal) =>
      httpRequest({
        path: target,
        method: 'POST',
        host: 'localhost',
        createConnection: () => socket,
        signal,
      }),
  };
}

function urlConnection(endpoint: string): Connection {
  const request = endpoint.toLowerCase().startsWith('https:') ? httpsRequest : httpRequest;
  return {
    endpoint,
    dialect: 'dstack',
    open: (target, signal) => request(new URL(target, endpoint), { method: 'POST', agent: false, signal }),
  };
}

async function exchange(
  connection: Connection,
  method: Method,
  params: Record<string, string>,
  signal: AbortSignal,
): Promise<Reply> {
  const about = { endpoint: connection.endpoint, method };
  let status: number;
  let body: string;
  try {
    const request = connection.open(method.paths[connection.dialect], signal);
    // An abort may be reported again after the last listener has been removed.
    request.on('error', () => undefined);
    // Without a JSON content type the agent expects protobuf and answers in protobuf.
    request.setHeader('content-type', 'application/json');
    request.end(JSON.stringify(params));
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    status = response.statusCode ?? 0;
    body = await readBody(response);
  } catch (cause) {
    if (cause instanceof AgentError) throw cause;
    // A name with several addresses fails with an error that has a code and no text.
    const why = (cause as Error).message || (cause as NodeJS.ErrnoException).code;
    throw new AgentError('unreachable', `${subject(about)}: the connection broke before the answer: ${why}`, {
      cause,
    });
  }
  return { ...about, answer: readAnswer(about, status, body) };
}

async function readBody(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > LONGEST_ANSWER_BYTES) {
      throw new AgentError(
        'unintelligible',
        `the guest agent's answer is longer than ${LONGEST_ANSWER_BYTES} bytes`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** Most agents refuse with status 400 and `{"error"}`, some with status 200 and the same body. */
function readAnswer(about: Pick<Reply, 'endpoint' | 'method'>, status: number, body: string): unknown {
  const answer = parsed(body);
  const error = errorOf(answer);
  if (status !== 200 || error !== undefined) {
    // An error's body holds no key, so it may be quoted whatever the method.
    throw new AgentError(
      'refused',
      `${subject(about)}: refused with status ${status}: ${abridged(error ?? body)}`,
    );
  }
  if (answer === undefined) {
    const said = about.method.secret ? '' : `: ${abridged(body)}`;
    throw new AgentError('unintelligible', `${subject(about)}: the answer is not JSON${said}`);
  }
  return answer;
}

function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

function errorOf(answer: unknown): string | undefined {
  if (typeof answer !== 'object' || answer === null || !('error' in answer)) return undefined;
  return typeof answer.error === 'string' ? answer.error : JSON.stringify(answer.error);
}
