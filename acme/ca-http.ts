// One HTTP request to the CA, with a deadline and a bound on the answer, repeated while the trouble is likely to pass.

import { createSecureContext, getCACertificates } from 'node:tls';
import { Agent, type Dispatcher, request } from 'undici';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { parseRetryAfter } from '../src/lib/retry-after.ts';
import { AcmeProblem, AcmeTransportError, printable, problemOf, unintelligible } from './answer.ts';

export type Method = 'GET' | 'HEAD' | 'POST';

export interface AcmeResponse {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  /** Parsed JSON, the text of a PEM chain, or undefined for an empty body. */
  readonly data: unknown;
  readonly retryAfterMs: number | undefined;
}

export interface CaHttpOptions {
  directoryUrl: string;
  /** PEM, trusted beside the public roots. */
  caPem?: string | undefined;
  /** For one request and its answer. */
  timeoutMs?: number;
  userAgent?: string;
  clock?: Clock;
  log?: Log;
}

/** The requests go through undici alone: no proxy of the environment, no redirect, no hidden retry. */
export interface CaHttp {
  /** Resolves to an error status as well. Rejects with AcmeTransportError or the signal's reason. */
  send(method: Method, url: string, body: string | undefined, signal: AbortSignal): Promise<AcmeResponse>;
  /** For requests that change nothing. Repeats what is likely to pass, and rejects with AcmeProblem for an error status. */
  ask(method: 'GET' | 'HEAD', url: string, signal: AbortSignal): Promise<AcmeResponse>;
  /** How far the CA's clock is ahead of ours, from its last answer. */
  clockSkewMs(): number | undefined;
  close(): Promise<void>;
}

/** Far more than any ACME object or chain. */
const LARGEST_BODY = 1 << 20;
const ATTEMPTS = 3;
const LONGEST_RETRY_MS = 30_000;
const NOTABLE_SKEW_MS = 5 * 60_000;

export function createCaHttp(options: CaHttpOptions): CaHttp {
  const { timeoutMs = 30_000, clock = systemClock } = options;
  const headers = {
    'user-agent': options.userAgent ?? 'dstack-ingress',
    accept: 'application/json, application/problem+json, application/pem-certificate-chain',
  };
  const dispatcher = agentFor(options.caPem, timeoutMs);
  const skew = createSkewWatch(options);
  let closing: Promise<void> | undefined;

  async function send(method: Method, url: string, body: string | undefined, signal: AbortSignal) {
    refuseUnlessHttps(url);
    const deadline = AbortSignal.timeout(timeoutMs);
    try {
      const answer = await request(url, {
        method,
        dispatcher,
        signal: AbortSignal.any([signal, deadline]),
        headers: body === undefined ? headers : { ...headers, 'content-type': 'application/jose+json' },
        ...(body === undefined ? {} : { body }),
      });
      const single = singleHeaders(answer.headers);
      const text = await readBounded(answer.body, url);
      skew.note(single.date);
      return readAnswer(method, url, answer.statusCode, single, text, clock.now());
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      if (cause instanceof AcmeTransportError) throw cause;
      const host = new URL(url).host;
      if (!deadline.aborted)
        throw new AcmeTransportError('ca-unreachable', `the CA at ${host} cannot be reached`, { cause });
      const message = `the CA at ${host} gave no answer in ${timeoutMs} ms`;
      throw new AcmeTransportError('ca-timeout', message, { cause });
    }
  }

  return {
    send,
    ask: (method, url, signal) =>
      retried(async () => orProblem(method, url, await send(method, url, undefined, signal)), clock, signal),
    clockSkewMs: skew.ms,
    close() {
      closing ??= dispatcher.close();
      return closing;
    },
  };
}

function agentFor(caPem: string | undefined, timeoutMs: number): Dispatcher {
  return new Agent({ allowH2: false, connect: { timeout: timeoutMs, ...trusting(caPem) } });
}

/** One context for all connections: to read more than a hundred roots anew takes longer than a handshake. */
function trusting(caPem: string | undefined) {
  if (caPem === undefined) return {};
  return { secureContext: createSecureContext({ ca: [...getCACertificates('default'), caPem] }) };
}

function createSkewWatch({ directoryUrl, clock = systemClock, log = silentLog }: CaHttpOptions) {
  let skewMs: number | undefined;
  return {
    ms: () => skewMs,
    note(date: string | undefined): void {
      const theirs = date === undefined ? Number.NaN : Date.parse(date);
      if (Number.isNaN(theirs)) return;
      const before = skewMs;
      skewMs = theirs - clock.now().getTime();
      if (before === undefined && Math.abs(skewMs) > NOTABLE_SKEW_MS) {
        log.warn({ skewMs, directory: directoryUrl }, 'clock differs from that of the ca');
      }
    },
  };
}

/** Only for requests that may arrive twice. */
export async function retried(
  action: () => Promise<AcmeResponse>,
  clock: Clock,
  signal: AbortSignal,
): Promise<AcmeResponse> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await action();
    } catch (error) {
      const waitMs = transientDelay(error, attempt);
      if (waitMs === undefined || attempt >= ATTEMPTS) throw error;
      await clock.sleep(waitMs, signal);
    }
  }
}

function transientDelay(error: unknown, attempt: number): number | undefined {
  const backoffMs = 1000 * 2 ** (attempt - 1);
  if (error instanceof AcmeProblem) {
    if (error.status < 500 && !(error.status === 429 && error.retryAfterMs !== undefined)) return undefined;
    const waitMs = error.retryAfterMs ?? backoffMs;
    return waitMs <= LONGEST_RETRY_MS ? waitMs : undefined;
  }
  const passing = error instanceof AcmeTransportError && error.code !== 'ca-unintelligible';
  return passing ? backoffMs : undefined;
}

function readAnswer(
  method: Method,
  url: string,
  status: number,
  headers: Record<string, string>,
  text: string,
  now: Date,
): AcmeResponse {
  if (status >= 300 && status < 400) throw unintelligible(url, `it is a redirect (status ${status})`);
  const answer = { status, headers, retryAfterMs: parseRetryAfter(headers['retry-after'], now) };
  if (method === 'HEAD' || text === '') return { ...answer, data: undefined };
  const type = (headers['content-type'] ?? '').split(';')[0]!.trim().toLowerCase();
  if (type === 'application/pem-certificate-chain') return { ...answer, data: text };
  if (type === 'application/json' || type.endsWith('+json')) {
    try {
      return { ...answer, data: JSON.parse(text) };
    } catch (cause) {
      if (status < 400) throw unintelligible(url, 'its JSON is broken', cause);
    }
  }
  if (status < 400) throw unintelligible(url, `its type is ${JSON.stringify(type)}`);
  return { ...answer, data: undefined };
}

/** RFC 8555 §6.1 */
function refuseUnlessHttps(url: string): void {
  if (!URL.canParse(url))
    throw new AcmeTransportError(
      'ca-unintelligible',
      `the CA gave ${printable(JSON.stringify(url))} as a URL`,
    );
  if (new URL(url).protocol !== 'https:') throw unintelligible(url, 'ACME is spoken over https only');
}

function singleHeaders(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const single: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) single[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value;
  }
  return single;
}

async function readBounded(body: AsyncIterable<Buffer>, url: string): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body) {
    length += chunk.length;
    if (length > LARGEST_BODY) throw unintelligible(url, `it is longer than ${LARGEST_BODY} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

export function orProblem(method: Method, url: string, answer: AcmeResponse): AcmeResponse {
  if (answer.status < 400) return answer;
  throw problemOf(`${method} ${url}`, answer);
}
