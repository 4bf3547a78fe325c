// One outgoing HTTP request with a deadline, a bound on the reply's size, no redirects, and errors that say which of these it was.

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

export type HttpErrorCode = 'unreachable' | 'timeout' | 'aborted' | 'too-large';

/** No reply, or none that may be read. Names the host only: paths, queries and headers can carry secrets. */
export class HttpError extends CodedError<HttpErrorCode> {
  override readonly name = 'HttpError';
}

const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_MAX_BYTES = 4 * 1024 * 1024;

/** Any status is a reply, a redirect too; rejects with HttpError when there is none. */
export async function httpRequest(options: HttpRequest): Promise<HttpReply> {
  const deadline = AbortSignal.timeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
  const host = hostOf(options.url);
  try {
    // Loaded by the first request: a start that needs none serves sooner.
    const undici = await import('./undici.ts');
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
    throw new HttpError('unreachable', 'the address to ask is not a URL');
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
  const code = (error as { code?: unknown }).code;
  const why = typeof code === 'string' ? code : error instanceof Error ? error.message : String(error);
  return new HttpError('unreachable', `${host} cannot be reached: ${why}`, { cause: error });
}

const agents = new Map<string, Agent>();

function agentTrusting(undici: typeof import('./undici.ts'), ca: string): Agent {
  const known = agents.get(ca);
  if (known !== undefined) return known;
  const agent = new undici.Agent({ connect: { ca } });
  agents.set(ca, agent);
  return agent;
}
