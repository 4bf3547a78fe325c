// Signed requests to the CA (RFC 8555 §6): acme-client signs them; nonces and Retry-After are dealt with here.

import { createHash } from 'node:crypto';
import { Client } from 'acme-client';
import { type Clock, monotonicMs, systemClock } from '../src/lib/clock.ts';
import { AcmeProblem, isBadNonce, isBusy, unintelligible } from './answer.ts';
import {
  type AcmeResponse,
  type CaHttp,
  type CaHttpOptions,
  createCaHttp,
  orProblem,
  retried,
} from './ca-http.ts';
import { type Directory, readDirectory } from './directory.ts';
import { createNoncePool, isNonce, type NoncePool, noncePauseMs } from './nonces.ts';

export interface ExternalAccount {
  readonly kid: string;
  /** base64url, secret. */
  readonly hmacKey: string;
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
  /** `null` is POST-as-GET (RFC 8555 §6.3), the only kind that is repeated. Rejects with AcmeProblem or AcmeTransportError. */
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

export function createTransport(options: CaHttpOptions): Transport {
  const { directoryUrl, clock = systemClock } = options;
  const http = createCaHttp(options);
  const nonces = createNoncePool();
  const respectful = createRespect(clock);
  let known: { directory: Directory; at: number } | undefined;

  const get = (url: string, signal: AbortSignal) => http.ask('GET', url, signal);

  async function directory(signal: AbortSignal): Promise<Directory> {
    const now = monotonicMs(clock);
    if (known !== undefined && now - known.at < DAY_MS) return known.directory;
    const { data } = await respectful(directoryUrl, () => get(directoryUrl, signal));
    known = { directory: readDirectory(data, directoryUrl), at: now };
    return known.directory;
  }

  async function nonce(signal: AbortSignal): Promise<string> {
    const pooled = nonces.take();
    if (pooled !== undefined) return pooled;
    const { newNonce } = await directory(signal);
    // RFC 8555 §7.2
    const answer = await respectful(newNonce, () => http.ask('HEAD', newNonce, signal));
    const fresh = answer.headers['replay-nonce'];
    if (!isNonce(fresh)) throw unintelligible(newNonce, 'it gave no nonce');
    return fresh;
  }

  function session(key: string): Session {
    const signer = createSigner(directoryUrl, key);
    const jwk = signer.getJwk();
    return {
      jwk,
      // RFC 7638 §3: acme-client gives the members in lexicographic order.
      thumbprint: createHash('sha256').update(JSON.stringify(jwk)).digest('base64url'),
      sign: (url, payload) => signer.createSignedBody(url, payload),
      post(url, payload, settings) {
        const once = () => postSigned({ http, nonces, nonce, clock }, signer, url, payload, settings);
        if (payload === null) return retried(once, clock, settings.signal);
        return url === known?.directory.newAccount ? respectful(url, once) : once();
      },
    };
  }

  return { directoryUrl, directory, get, session, clockSkewMs: http.clockSkewMs, close: http.close };
}

/**
 * Keeps to the Retry-After of the URLs that everything depends on (directory, nonces, accounts). Several callers ask them:
 * certificates, the CAA watch and the records, each with a back-off of its own that knows nothing of the others.
 */
function createRespect(clock: Clock) {
  /** URLs that the CA wants to be left alone, until when on the monotonic clock, and what it said. */
  const resting = new Map<string, { until: number; problem: AcmeProblem }>();
  return async <T>(url: string, action: () => Promise<T>): Promise<T> => {
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
  };
}

interface Signing {
  http: CaHttp;
  nonces: NoncePool;
  nonce(signal: AbortSignal): Promise<string>;
  clock: Clock;
}

async function postSigned(
  { http, nonces, nonce, clock }: Signing,
  signer: Signer,
  url: string,
  payload: object | null,
  { kid, externalAccount, signal }: PostOptions,
): Promise<AcmeResponse> {
  // Each call has its own view of acme-client's signer, so that its signal and its refused nonces are its own.
  const call: Signer = Object.create(signer);
  let refused = 0;
  call.maxBadNonceRetries = Number.POSITIVE_INFINITY;
  call.externalAccountBinding = externalAccount ?? {};
  call.getNonce = () => nonce(signal);
  call.request = async (target, _method, { data }) => {
    const answer = await http.send('POST', target, JSON.stringify(data), signal);
    const fresh = answer.headers['replay-nonce'];
    const bad = isBadNonce(answer);
    // RFC 8555 §6.5: acme-client signs again with the nonce of this refusal, so it must not enter the pool.
    if (bad && refused < nonces.mostRefused()) {
      refused += 1;
      const pauseMs = noncePauseMs(refused, answer.retryAfterMs);
      if (pauseMs > 0) await clock.sleep(pauseMs, signal);
      return isNonce(fresh) ? answer : { ...answer, headers: {} };
    }
    nonces.noteEnd(bad);
    nonces.put(fresh);
    return orProblem('POST', target, answer);
  };
  return call.signedRequest(url, payload, {
    kid: kid ?? null,
    includeExternalAccountBinding: externalAccount !== undefined,
  });
}

/** The part of acme-client's HttpClient that is used here; its types leave it out. */
interface Signer {
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

function createSigner(directoryUrl: string, accountKey: string): Signer {
  return (new Client({ directoryUrl, accountKey }) as unknown as { http: Signer }).http;
}
