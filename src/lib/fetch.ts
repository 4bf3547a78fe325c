// One outgoing HTTP request, with a deadline, a bound on the reply's size, and errors that say what went wrong.

import type { Agent, Dispatcher } from 'undici';
import { CodedError } from './coded-error.ts';

export interface HttpRequest {
  /** GET by default. */
  readonly method?: string;
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  /** From the first byte sent to the last one received. Default 30 s. */
  readonly timeoutMs?: number;
  /** Default 4 MiB. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
  /** PEM: trusted beside nothing else, for servers under a private CA. */
  readonly ca?: string;
}

export interface HttpReply {
  readonly status: number;
  /** Lower-case names; repeated headers joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export type HttpErrorCode =
  /** The address is no URL, or a header cannot be sent: repeating does not help. */
  | 'bad-request'
  /** The host's name has no address, or no resolver answered. */
  | 'unresolved'
  /** No connection: the port is closed, or no way leads there. */
  | 'refused'
  | 'tls'
  /** The connection ended before the reply did. */
  | 'broken'
  | 'timeout'
  | 'too-large'
  /** What came is not HTTP. */
  | 'malformed'
  | 'aborted';

/** No reply, or none that may be read. Names the host only: paths, queries and headers can carry secrets. */
export class HttpError extends CodedError<HttpErrorCode> {
  override readonly name = 'HttpError';
  /** What an operator can do about it. */
  readonly cure: string | undefined;
  constructor(code: HttpErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
    this.cure = cures[code];
  }
}

const cures: Readonly<Partial<Record<HttpErrorCode, string>>> = {
  unresolved: "check the host's name, and that this machine reaches a DNS resolver",
  refused: 'check that the server runs, and that a firewall lets this machine connect to it',
  tls: "check this machine's clock and the server's certificate, and that nothing between the two opens TLS",
  timeout: 'check that a firewall lets this machine connect to it',
};

const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_MAX_BYTES = 4 * 1024 * 1024;

/** Any status is a reply, a redirect too; rejects with HttpError when there is none. */
export async function httpRequest(options: HttpRequest): Promise<HttpReply> {
  const host = hostOf(options.url);
  // Loaded by the first request, and not at its expense: a start that needs none serves sooner.
  const undici = await import('./undici.ts');
  const deadline = AbortSignal.timeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
  try {
    const reply = await undici.request(options.url, {
      method: (options.method ?? 'GET') as Dispatcher.HttpMethod,
      headers: { ...options.headers },
      body: options.body ?? null,
      signal,
      ...(options.ca === undefined ? {} : { dispatcher: agentTrusting(undici, options.ca) }),
    });
    const body = await readBounded(reply.body, options.maxBytes ?? DEFAULT_MAX_BYTES, host);
    return { status: reply.statusCode, headers: flatten(reply.headers), body };
  } catch (error) {
    throw asHttpError(error, { host, deadline, signal: options.signal });
  }
}

function hostOf(url: string): string {
  try {
    return new URL(url).host;
  } catch {
    throw new HttpError('bad-request', 'the address to ask is not a URL');
  }
}

async function readBounded(
  body: AsyncIterable<Buffer> & { destroy(): void },
  maxBytes: number,
  host: string,
) {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) {
      body.destroy();
      throw new HttpError('too-large', `${host} sent more than ${maxBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function flatten(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value;
  }
  return flat;
}

function asHttpError(
  error: unknown,
  context: { host: string; deadline: AbortSignal; signal: AbortSignal | undefined },
): HttpError {
  const { host, deadline, signal } = context;
  if (error instanceof HttpError) return error;
  if (signal?.aborted)
    return new HttpError('aborted', `the request to ${host} was given up`, { cause: signal.reason });
  if (deadline.aborted) return new HttpError('timeout', `${host} did not answer in time`);
  const reason = (error as { code?: unknown }).code;
  const why = typeof reason === 'string' ? reason : error instanceof Error ? error.message : String(error);
  // undici's parser errors need not have a code.
  const code = error instanceof Error && error.name === 'HTTPParserError' ? 'malformed' : codeOf(why);
  return new HttpError(code, `${messages[code](host)} (${why})`, { cause: error });
}

const messages = {
  'bad-request': (host: string) => `the request to ${host} cannot be sent`,
  unresolved: (host: string) => `the name of ${host} cannot be resolved`,
  refused: (host: string) => `no connection to ${host}`,
  tls: (host: string) => `no TLS connection to ${host}`,
  broken: (host: string) => `the connection to ${host} broke before its reply was complete`,
  timeout: (host: string) => `${host} did not answer in time`,
  malformed: (host: string) => `${host} did not answer with HTTP`,
} as const;

/** Reads the codes of Node, OpenSSL, undici and its parser; a connection that ended for any other reason is broken. */
function codeOf(reason: string): keyof typeof messages {
  if (/^(ENOTFOUND|EAI_)/.test(reason)) return 'unresolved';
  if (/^(ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|EADDRNOTAVAIL|EACCES|EPERM)$/.test(reason)) return 'refused';
  if (/^(ETIMEDOUT|UND_ERR_(CONNECT|HEADERS|BODY)_TIMEOUT)$/.test(reason)) return 'timeout';
  if (/^(ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|.*SELF_SIGNED|HOSTNAME_MISMATCH|INVALID_CA|EPROTO)/.test(reason))
    return 'tls';
  if (/^(HPE_|UND_ERR_(HEADERS_OVERFLOW|RES_CONTENT_LENGTH_MISMATCH))/.test(reason)) return 'malformed';
  return reason === 'UND_ERR_INVALID_ARG' ? 'bad-request' : 'broken';
}

const agents = new Map<string, Agent>();

function agentTrusting(undici: typeof import('./undici.ts'), ca: string): Agent {
  const known = agents.get(ca);
  if (known !== undefined) return known;
  const agent = new undici.Agent({ connect: { ca } });
  agents.set(ca, agent);
  return agent;
}
