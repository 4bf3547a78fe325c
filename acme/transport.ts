// What carries acme-client's signed requests to the CA: deadlines, nonces, problems (RFC 8555 §6).

import { createHash } from 'node:crypto';
import { createSecureContext, getCACertificates } from 'node:tls';
import { Client } from 'acme-client';
import { Agent, request } from 'undici';
import { z } from 'zod';
import { type Clock, monotonicMs, systemClock } from '../src/lib/clock.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import { type Log, silentLog } from '../src/lib/log.ts';

export const letsEncrypt = {
  production: 'https://acme-v02.api.letsencrypt.org/directory',
  staging: 'https://acme-staging-v02.api.letsencrypt.org/directory',
} as const;

export interface Subproblem {
  readonly type: string;
  readonly detail: string;
  readonly identifier?: string;
}

/** The CA's refusal, in its own words (RFC 8555 §6.7, RFC 9457). */
export class AcmeProblem extends Error {
  override readonly name = 'AcmeProblem';
  readonly code = 'acme-problem';
  /** Without "urn:ietf:params:acme:error:"; "about:blank" if the CA gave none. */
  readonly type: string;
  readonly status: number;
  readonly detail: string;
  readonly subproblems: readonly Subproblem[];
  /** As the CA asked, between 0 and one day. */
  readonly retryAfterMs: number | undefined;
  readonly #subject: string;
  constructor(subject: string, problem: ProblemFields) {
    const parts = problem.subproblems.map((sub) => `${sub.identifier ?? sub.type}: ${sub.detail}`);
    const why = [problem.detail, ...parts].join('; ');
    super(`${subject} was refused by the CA: ${why} (${problem.type}, status ${problem.status})`);
    this.type = problem.type;
    this.status = problem.status;
    this.detail = problem.detail;
    this.subproblems = problem.subproblems;
    this.retryAfterMs = problem.retryAfterMs;
    this.#subject = subject;
  }
  /** The same for who asks before the CA wants to be asked again, with what is left of the delay. */
  later(retryAfterMs: number): AcmeProblem {
    const { type, status, detail, subproblems } = this;
    return new AcmeProblem(this.#subject, { type, status, detail, subproblems, retryAfterMs });
  }
}

/** RFC 8555 §6.6, RFC 9110 §15.6.4: it is not us or what we ask for, it is the moment. */
export function isBusy({ type, status }: Pick<AcmeProblem, 'type' | 'status'>): boolean {
  return type === 'rateLimited' || status === 429 || status === 503;
}

export interface ProblemFields {
  type: string;
  status: number;
  detail: string;
  subproblems: readonly Subproblem[];
  retryAfterMs: number | undefined;
}

export type AcmeTransportErrorCode = 'ca-unreachable' | 'ca-timeout' | 'ca-unintelligible';

/** The CA gave no answer, or none that could be understood. */
export class AcmeTransportError extends CodedError<AcmeTransportErrorCode> {
  override readonly name = 'AcmeTransportError';
}

export interface AcmeResponse {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  /** Parsed JSON, the text of a PEM chain, or undefined for an empty body. */
  readonly data: unknown;
  readonly retryAfterMs: number | undefined;
}

/** What is optional may be null in an answer as well: several CAs print every field that they know. */
export function absentIfNull<T extends z.ZodType>(schema: T) {
  return schema
    .nullish()
    .transform((value) => value ?? undefined)
    .optional();
}

/** What we can do without is absent, too, where it makes no sense: it must not cost the certificate. */
const extra = <T extends z.ZodType>(schema: T) => absentIfNull(schema).catch(undefined).optional();

const MetaSchema = z.object({
  termsOfService: extra(z.string()),
  externalAccountRequired: extra(z.boolean()),
  caaIdentities: extra(z.array(z.string())),
  profiles: extra(z.record(z.string(), z.unknown())),
  issuerDomainNames: extra(z.array(z.string())),
  accountHashPrefix: extra(z.string()),
});
const DirectorySchema = z.object({
  newNonce: z.string(),
  newAccount: z.string(),
  newOrder: z.string(),
  keyChange: extra(z.string()),
  revokeCert: extra(z.string()),
  renewalInfo: extra(z.string()),
  meta: extra(MetaSchema),
});
/** RFC 8555 §7.1.1, with renewalInfo of RFC 9773 §3, meta.profiles, and what draft-ietf-acme-dns-persist §3.2 and §4.1 add. */
export type Directory = Omit<z.infer<typeof DirectorySchema>, 'meta'> & { meta: z.infer<typeof MetaSchema> };

export interface ExternalAccount {
  readonly kid: string;
  /** base64url, secret. */
  readonly hmacKey: string;
}

export interface TransportOptions {
  directoryUrl: string;
  /** PEM, trusted beside the public roots. */
  caPem?: string | undefined;
  /** For one request and its answer. */
  timeoutMs?: number;
  userAgent?: string;
  clock?: Clock;
  log?: Log;
}

export interface PostOptions {
  /** The account's URL; without it the request carries the public key itself (RFC 8555 §6.2). */
  kid?: string;
  externalAccount?: ExternalAccount | undefined;
  signal: AbortSignal;
}

/** Signs with one account key. */
export interface Session {
  /** The public key. */
  readonly jwk: Readonly<Record<string, string>>;
  /** RFC 7638, base64url. */
  readonly thumbprint: string;
  /** `null` is POST-as-GET (RFC 8555 §6.3), which alone is tried again. Rejects with AcmeProblem or AcmeTransportError. */
  post(url: string, payload: object | null, options: PostOptions): Promise<AcmeResponse>;
  /** A JWS over `payload` by this key, without a nonce: the inner body of a key change (RFC 8555 §7.3.5). */
  sign(url: string, payload: object): object;
}

export interface Transport {
  readonly directoryUrl: string;
  /** Fetched once and kept for a day. */
  directory(signal: AbortSignal): Promise<Directory>;
  get(url: string, signal: AbortSignal): Promise<AcmeResponse>;
  /** `key` is PEM, PKCS#8. */
  session(key: string): Session;
  /** How far the CA's clock is ahead of ours, from its last answer. */
  clockSkewMs(): number | undefined;
  close(): Promise<void>;
}

const DAY_MS = 86_400_000;
const PROBLEM_PREFIX = 'urn:ietf:params:acme:error:';
/** Far more than any ACME object or chain. */
const LARGEST_BODY = 1 << 20;
const LARGEST_POOL = 32;
const MOST_NONCES_REFUSED = 100;
/** Once a CA has refused so many in a row that we gave up, the next request tries no more than this. */
const MOST_NONCES_REFUSED_AGAIN = 5;
/** RFC 8555 §6.5 wants the first attempts at once; a CA that refuses on is given time. */
const NONCES_REFUSED_AT_ONCE = 3;
const NONCE_PAUSE_MS = 20;
const LONGEST_NONCE_PAUSE_MS = 200;
const ATTEMPTS = 3;
const LONGEST_RETRY_MS = 30_000;
const NOTABLE_SKEW_MS = 5 * 60_000;

/** The requests of acme-client go through undici alone: no proxy of the environment, no redirect, no hidden retry. */
export function createTransport(options: TransportOptions): Transport {
  const { directoryUrl, timeoutMs = 30_000, clock = systemClock, log = silentLog } = options;
  const userAgent = options.userAgent ?? 'dstack-ingress';
  const agent = new Agent({
    allowH2: false,
    connect: { timeout: timeoutMs, ...trusting(options.caPem) },
  });
  const nonces = createNoncePool();
  let known: { directory: Directory; at: number } | undefined;
  let skewMs: number | undefined;
  let noncesExhausted = false;
  /** Where the CA asked not to be asked again for a while: until when, on the monotonic clock, and what it said. */
  const resting = new Map<string, { until: number; problem: AcmeProblem }>();

  async function send(method: Method, url: string, body: string | undefined, signal: AbortSignal) {
    refuseUnlessHttps(url);
    const deadline = AbortSignal.timeout(timeoutMs);
    try {
      const answer = await request(url, {
        method,
        dispatcher: agent,
        signal: AbortSignal.any([signal, deadline]),
        headers: {
          'user-agent': userAgent,
          accept: 'application/json, application/problem+json, application/pem-certificate-chain',
          ...(body === undefined ? {} : { 'content-type': 'application/jose+json' }),
        },
        ...(body === undefined ? {} : { body }),
      });
      const headers = singleHeaders(answer.headers);
      const text = await readBounded(answer.body, url);
      noteSkew(headers.date);
      return readAnswer(method, url, answer.statusCode, headers, text, clock.now());
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      if (cause instanceof AcmeTransportError) throw cause;
      const host = new URL(url).host;
      if (deadline.aborted) {
        throw new AcmeTransportError('ca-timeout', `the CA at ${host} gave no answer in ${timeoutMs} ms`, {
          cause,
        });
      }
      throw new AcmeTransportError('ca-unreachable', `the CA at ${host} cannot be reached`, { cause });
    }
  }

  function noteSkew(date: string | undefined): void {
    const theirs = date === undefined ? Number.NaN : Date.parse(date);
    if (Number.isNaN(theirs)) return;
    const before = skewMs;
    skewMs = theirs - clock.now().getTime();
    if (before === undefined && Math.abs(skewMs) > NOTABLE_SKEW_MS) {
      log.warn({ skewMs, directory: directoryUrl }, 'clock differs from that of the ca');
    }
  }

  async function retried(action: () => Promise<AcmeResponse>, signal: AbortSignal): Promise<AcmeResponse> {
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

  /**
   * Keeps to the Retry-After of what everything else depends on (directory, nonces, accounts), whoever asks: several
   * certificates, the CAA watch and the records all do, each with a back-off of its own that knows nothing of the others.
   */
  async function respectful<T>(url: string, action: () => Promise<T>): Promise<T> {
    const rest = resting.get(url);
    const leftMs = rest === undefined ? 0 : rest.until - monotonicMs(clock);
    if (rest !== undefined && leftMs > 0) throw rest.problem.later(leftMs);
    resting.delete(url);
    try {
      return await action();
    } catch (error) {
      if (error instanceof AcmeProblem && isBusy(error) && error.retryAfterMs !== undefined)
        resting.set(url, { until: monotonicMs(clock) + error.retryAfterMs, problem: error });
      throw error;
    }
  }

  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= agent.close();
    return closing;
  };

  const get = (url: string, signal: AbortSignal): Promise<AcmeResponse> =>
    retried(async () => orProblem('GET', url, await send('GET', url, undefined, signal)), signal);

  async function directory(signal: AbortSignal): Promise<Directory> {
    const now = monotonicMs(clock);
    if (known !== undefined && now - known.at < DAY_MS) return known.directory;
    const { data } = await respectful(directoryUrl, () => get(directoryUrl, signal));
    const read = readObject(DirectorySchema, data, `the ACME directory at ${directoryUrl}`);
    known = { directory: { ...read, meta: read.meta ?? {} }, at: now };
    return known.directory;
  }

  async function nonce(signal: AbortSignal): Promise<string> {
    const pooled = nonces.take();
    if (pooled !== undefined) return pooled;
    const { newNonce } = await directory(signal);
    // RFC 8555 §7.2
    const answer = await respectful(newNonce, () =>
      retried(
        async () => orProblem('HEAD', newNonce, await send('HEAD', newNonce, undefined, signal)),
        signal,
      ),
    );
    const fresh = answer.headers['replay-nonce'];
    if (!isNonce(fresh)) throw unintelligible(newNonce, 'it gave no nonce');
    return fresh;
  }

  function session(key: string): Session {
    const { http } = new Client({ directoryUrl, accountKey: key }) as unknown as { http: SigningHttp };
    const jwk = http.getJwk();

    async function postOnce(
      url: string,
      payload: object | null,
      { kid, externalAccount, signal }: PostOptions,
    ) {
      // One call's own view of acme-client's signer, so that its signal and its refused nonces are its own.
      const call: SigningHttp = Object.create(http);
      let refused = 0;
      call.maxBadNonceRetries = Number.POSITIVE_INFINITY;
      call.externalAccountBinding = externalAccount ?? {};
      call.getNonce = () => nonce(signal);
      call.request = async (target, _method, { data }) => {
        const answer = await send('POST', target, JSON.stringify(data), signal);
        const fresh = answer.headers['replay-nonce'];
        const bad = isBadNonce(answer);
        // RFC 8555 §6.5: acme-client signs again with the nonce of this refusal, so it must not enter the pool.
        if (bad && refused < (noncesExhausted ? MOST_NONCES_REFUSED_AGAIN : MOST_NONCES_REFUSED)) {
          refused += 1;
          const pauseMs = noncePauseMs(refused, answer.retryAfterMs);
          if (pauseMs > 0) await clock.sleep(pauseMs, signal);
          return isNonce(fresh) ? answer : { ...answer, headers: {} };
        }
        noncesExhausted = bad;
        nonces.put(fresh);
        return orProblem('POST', target, answer);
      };
      return call.signedRequest(url, payload, {
        kid: kid ?? null,
        includeExternalAccountBinding: externalAccount !== undefined,
      });
    }

    return {
      jwk,
      // RFC 7638 §3: acme-client gives the members in lexicographic order.
      thumbprint: createHash('sha256').update(JSON.stringify(jwk)).digest('base64url'),
      sign: (url, payload) => http.createSignedBody(url, payload),
      post(url, payload, settings) {
        const once = () => postOnce(url, payload, settings);
        if (payload === null) return retried(once, settings.signal);
        return url === known?.directory.newAccount ? respectful(url, once) : once();
      },
    };
  }

  return { directoryUrl, directory, get, session, clockSkewMs: () => skewMs, close };
}

/** Made once: to read more than a hundred roots anew for each connection takes longer than its handshake. */
function trusting(caPem: string | undefined) {
  if (caPem === undefined) return {};
  return { secureContext: createSecureContext({ ca: [...getCACertificates('default'), caPem] }) };
}

/** Parses what the CA sent. Throws AcmeTransportError naming the subject and the first field that is wrong. */
export function readObject<T>(schema: z.ZodType<T>, data: unknown, subject: string): T {
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? '' : `${issue.path.join('.')}: `;
  throw new AcmeTransportError(
    'ca-unintelligible',
    `${subject} is not understood: ${where}${issue?.message}`,
  );
}

/** Seconds or an HTTP date (RFC 9110 §10.2.3) as a delay between 0 and one day; undefined if it is neither. */
export function parseRetryAfter(value: string | undefined, now: Date): number | undefined {
  if (value === undefined) return undefined;
  const ms = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - now.getTime();
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), DAY_MS);
}

/** A problem document found inside another object, such as a challenge's `error`. */
export function problemFrom(subject: string, data: unknown, status = 0): AcmeProblem {
  return new AcmeProblem(subject, readProblem(data, status, undefined));
}

type Method = 'GET' | 'HEAD' | 'POST';

/** What we use of acme-client's HttpClient, which its types leave out. */
interface SigningHttp {
  maxBadNonceRetries: number;
  externalAccountBinding: Partial<ExternalAccount>;
  getJwk(): Record<string, string>;
  getNonce(): Promise<string>;
  request(url: string, method: string, options: { data?: unknown }): Promise<AcmeResponse>;
  createSignedBody(url: string, payload: object): object;
  signedRequest(
    url: string,
    payload: object | null,
    options: { kid: string | null; includeExternalAccountBinding: boolean },
  ): Promise<AcmeResponse>;
}

function createNoncePool() {
  const pool: string[] = [];
  return {
    /** The newest first: old ones are the likeliest to be forgotten by the CA. */
    take: (): string | undefined => pool.pop(),
    put(nonce: string | undefined): void {
      if (!isNonce(nonce)) return;
      pool.push(nonce);
      if (pool.length > LARGEST_POOL) pool.shift();
    },
  };
}

// RFC 8555 §6.5.1: other values must be ignored.
function isNonce(value: string | undefined): value is string {
  return value !== undefined && /^[A-Za-z0-9_-]+$/.test(value);
}

// RFC 8555 §6.1
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

function unintelligible(url: string, why: string, cause?: unknown): AcmeTransportError {
  return new AcmeTransportError('ca-unintelligible', `the CA's answer at ${url} is not understood: ${why}`, {
    cause,
  });
}

function orProblem(method: Method, url: string, answer: AcmeResponse): AcmeResponse {
  if (answer.status < 400) return answer;
  throw new AcmeProblem(`${method} ${url}`, readProblem(answer.data, answer.status, answer.retryAfterMs));
}

function noncePauseMs(refused: number, askedMs: number | undefined): number {
  if (refused <= NONCES_REFUSED_AT_ONCE) return 0;
  const ownMs = Math.min(NONCE_PAUSE_MS * (refused - NONCES_REFUSED_AT_ONCE), LONGEST_NONCE_PAUSE_MS);
  return Math.max(ownMs, Math.min(askedMs ?? 0, 10 * LONGEST_NONCE_PAUSE_MS));
}

function isBadNonce(answer: AcmeResponse): boolean {
  const type = (answer.data as { type?: unknown } | undefined)?.type;
  return answer.status === 400 && type === `${PROBLEM_PREFIX}badNonce`;
}

const ProblemSchema = z.object({
  type: z.string().catch('about:blank'),
  detail: z.string().optional().catch(undefined),
  title: z.string().optional().catch(undefined),
  status: z.number().optional().catch(undefined),
  subproblems: z
    .array(
      z.object({
        type: z.string().catch('about:blank'),
        detail: z.string().catch(''),
        identifier: z.object({ value: z.string() }).optional().catch(undefined),
      }),
    )
    .catch([]),
});

function readProblem(data: unknown, status: number, retryAfterMs: number | undefined): ProblemFields {
  const problem = ProblemSchema.safeParse(data ?? {});
  const found = problem.success ? problem.data : undefined;
  return {
    type: shortType(found?.type ?? 'about:blank'),
    status: status || (found?.status ?? 0),
    detail: printable(found?.detail ?? found?.title ?? 'it gave no reason'),
    retryAfterMs,
    subproblems: (found?.subproblems ?? []).map(({ type, detail, identifier }) => ({
      type: shortType(type),
      detail: printable(detail),
      ...(identifier === undefined ? {} : { identifier: printable(identifier.value) }),
    })),
  };
}

function shortType(type: string): string {
  return printable(type.startsWith(PROBLEM_PREFIX) ? type.slice(PROBLEM_PREFIX.length) : type);
}

/** The CA's words end up in logs and on terminals. */
function printable(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]+/g, ' ').slice(0, 1000);
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
