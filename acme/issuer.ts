// Obtains one certificate from an ACME CA (RFC 8555 §7.4); defines what an issuer and a challenge solver are.

import { generateKeyPairSync } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { crypto as csrs } from 'acme-client';
import { z } from 'zod';
import { type Certificate, CertificateError, readCertificate } from '../src/lib/certificate.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import { baseOf, type Domain, parseDomain } from '../src/lib/domain.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import type { Account } from './account.ts';
import type { Store, StoredOrder } from './store.ts';
import { AcmeProblem, type AcmeResponse, problemFrom, readObject, type Transport } from './transport.ts';

export type ChallengeType = 'dns-01' | 'tls-alpn-01' | 'http-01' | 'dns-persist-01';

/** One challenge of one authorization, ready to be answered. */
export interface Challenge {
  /** The name without "*." (RFC 8555 §7.1.4). */
  readonly domain: Domain;
  readonly wildcard: boolean;
  readonly type: ChallengeType;
  /** RFC 8555 §8.1. dns-01 publishes, and tls-alpn-01 certifies, its SHA-256. Empty for dns-persist-01, which has no token. */
  readonly keyAuthorization: string;
}

/** Answers challenges of one type. cleanUp is called once for every present that was begun, also after a failure. */
export interface Solver {
  readonly type: ChallengeType;
  present(challenge: Challenge): Promise<void>;
  /** Resolves once the CA can see what was presented. */
  wait(challenge: Challenge, signal: AbortSignal): Promise<void>;
  cleanUp(challenge: Challenge): Promise<void>;
  /** Takes away what a killed process left presented. */
  recover?(): Promise<void>;
}

export interface Issuer {
  /**
   * One certificate for all these names, the first gives its file name. A stored order of the same names is finished
   * rather than another made; it stays stored until Store.keepCertificate. Rejects with AcmeProblem, AcmeTransportError,
   * IssuerError, or the solver's error.
   */
  obtain(names: readonly Domain[], signal: AbortSignal, options?: ObtainOptions): Promise<Certificate>;
}

export interface ObtainOptions {
  /** The ARI identifier of the certificate that this one follows (RFC 9773 §5). */
  replaces?: string | undefined;
}

export type IssuerErrorCode =
  | 'no-challenge'
  | 'authorization-failed'
  | 'order-failed'
  | 'deadline-passed'
  | 'certificate-unfit';

/** Why the CA's answers did not lead to a certificate; the cause is the CA's problem where it gave one. */
export class IssuerError extends CodedError<IssuerErrorCode> {
  override readonly name = 'IssuerError';
}

export interface IssuerOptions {
  transport: Transport;
  account: Account;
  solver: Solver;
  store: Store;
  /** Asked for when the directory offers it. */
  profile?: string | undefined;
  /** For the whole of one certificate, propagation included. */
  deadlineMs?: number;
  clock?: Clock;
  log?: Log;
}

const AUTHORIZATION_STATUS = ['pending', 'valid', 'invalid', 'deactivated', 'expired', 'revoked'] as const;
const OrderSchema = z.object({
  status: z.enum(['pending', 'ready', 'processing', 'valid', 'invalid']),
  expires: z.string().optional(),
  authorizations: z.array(z.string()),
  finalize: z.string(),
  certificate: z.string().optional(),
  error: z.unknown().optional(),
});
const ChallengeSchema = z.object({
  type: z.string(),
  url: z.string(),
  status: z.string(),
  token: z.string().optional(),
  error: z.unknown().optional(),
});
const AuthorizationSchema = z.object({
  status: z.enum(AUTHORIZATION_STATUS),
  identifier: z.object({ type: z.string(), value: z.string() }),
  wildcard: z.boolean().optional(),
  challenges: z.array(ChallengeSchema),
});

interface Order extends z.infer<typeof OrderSchema> {
  readonly url: string;
}
interface Authorization extends z.infer<typeof AuthorizationSchema> {
  readonly url: string;
}
interface Task {
  readonly authorization: Authorization;
  readonly challenge: Challenge;
  readonly url: string;
  readonly status: string;
}

const FIRST_POLL_MS = 500;
const LONGEST_POLL_MS = 15_000;
const FORLORN_MS = 24 * 3_600_000;
/** RFC 8555 §8.1 and §8.3: base64url, at least 128 bits. */
const TOKEN = /^[A-Za-z0-9_-]{22,}$/;

export function createIssuer(options: IssuerOptions): Issuer {
  const { transport, account, solver, store, clock = systemClock, log = silentLog } = options;
  const { deadlineMs = 30 * 60_000 } = options;

  const post = (url: string, payload: object | null, signal: AbortSignal): Promise<AcmeResponse> =>
    account.session.post(url, payload, { kid: account.url, signal });

  async function obtain(names: readonly Domain[], outer: AbortSignal, extras: ObtainOptions = {}) {
    const deadline = AbortSignal.timeout(deadlineMs);
    const signal = AbortSignal.any([outer, deadline]);
    try {
      const resumed = await resume(names, signal);
      const { order, key } = resumed ?? (await place(names, extras, signal));
      return await finish(names, order, key, signal);
    } catch (cause) {
      if (outer.aborted || !deadline.aborted) throw cause;
      const subject = `the certificate for ${names.join(', ')}`;
      throw new IssuerError('deadline-passed', `${subject} was not obtained in ${deadlineMs} ms`, { cause });
    }
  }

  /** The stored order, if it is for these names and the CA can still finish it. */
  async function resume(names: readonly Domain[], signal: AbortSignal) {
    const stored = await store.readOrder(names[0]!);
    if (stored === undefined) return undefined;
    const order = (await stillOurs(stored, names)) ? await fetchStored(stored, signal) : undefined;
    if (order === undefined || isOver(order, stored)) {
      await store.dropOrder(names[0]!);
      return undefined;
    }
    log.info({ domain: names[0], order: order.url, status: order.status }, 'order resumed');
    return { order, key: stored.key };
  }

  async function stillOurs(stored: StoredOrder, names: readonly Domain[]): Promise<boolean> {
    if (stored.account !== account.url || !sameSet(stored.names, names)) return false;
    // The process was killed after the certificate had been kept: the order is done.
    const kept = (await store.readCertificates()).find((each) => each.names[0] === names[0]);
    return kept?.key !== stored.key;
  }

  async function fetchStored(stored: StoredOrder, signal: AbortSignal): Promise<Order | undefined> {
    try {
      return await fetchOrder(stored.url, signal);
    } catch (error) {
      // A client error means that this order is not to be had any more; all else may pass.
      const forgotten = error instanceof AcmeProblem && error.status < 500 && error.status !== 429;
      if (!forgotten) throw error;
      log.warn(
        { domain: stored.names[0], order: stored.url, err: error },
        'stored order is unknown to the ca',
      );
      return undefined;
    }
  }

  function isOver(order: Order, { createdAt }: StoredOrder): boolean {
    if (order.status === 'invalid') return true;
    // Its certificate is there to be had; if it could not be had for so long, it never will.
    if (order.status === 'valid') return clock.now().getTime() - Date.parse(createdAt) > FORLORN_MS;
    if (order.expires === undefined) return false;
    return Date.parse(order.expires) <= clock.now().getTime();
  }

  async function place(names: readonly Domain[], { replaces }: ObtainOptions, signal: AbortSignal) {
    const { newOrder, renewalInfo, meta } = await transport.directory(signal);
    const identifiers = names.map((value) => ({ type: 'dns', value }));
    const { profile } = options;
    const offered =
      profile !== undefined && meta.profiles !== undefined && Object.hasOwn(meta.profiles, profile);
    if (profile !== undefined && !offered) {
      log.warn(
        { domain: names[0], profile, offered: Object.keys(meta.profiles ?? {}) },
        'profile is not offered by the ca',
      );
    }
    const payload = { identifiers, ...(offered ? { profile } : {}) };
    const successor = renewalInfo === undefined ? undefined : replaces;
    const key = generateCertificateKey();
    const answer = await postOrder(newOrder, payload, successor, signal);
    const url = readObject(z.url(), answer.headers.location, 'the URL of the new order');
    const order = readOrder(url, answer.data);
    // On disk before finalize, so that a killed process finishes this order instead of placing another.
    const createdAt = clock.now().toISOString();
    const stored = { names: [...names], url, key, account: account.url, createdAt };
    // A disk that is full must not cost the certificate: unstored, a crash now would only cost another order.
    await store.writeOrder(names[0]!, stored).catch((err: unknown) => {
      log.error({ domain: names[0], order: url, err }, 'order could not be stored');
    });
    log.info({ domain: names[0], order: url }, 'order placed');
    return { order, key };
  }

  async function postOrder(url: string, payload: object, replaces: string | undefined, signal: AbortSignal) {
    if (replaces === undefined) return post(url, payload, signal);
    try {
      return await post(url, { ...payload, replaces }, signal);
    } catch (error) {
      // RFC 9773 §5: `replaces` is a hint. A CA that will not have it must not keep us from a certificate.
      const hintRefused =
        error instanceof AcmeProblem &&
        (error.type === 'alreadyReplaced' || error.status === 409 || error.type === 'malformed');
      if (!hintRefused) throw error;
      log.warn({ replaces, err: error }, 'order without replaces, which the ca refused');
      return post(url, payload, signal);
    }
  }

  async function finish(names: readonly Domain[], placed: Order, key: string, signal: AbortSignal) {
    let order = placed;
    if (order.status === 'pending') {
      await authorize(order, signal);
      order = await settled(order, ['ready', 'processing', 'valid'], signal);
    }
    if (order.status === 'ready') {
      await finalize(order, names, key, signal);
      order = await settled(order, ['valid'], signal);
    }
    if (order.status === 'processing') order = await settled(order, ['valid'], signal);
    return download(order, names, key, signal);
  }

  async function authorize(order: Order, signal: AbortSignal): Promise<void> {
    const tasks: Task[] = [];
    for (const url of order.authorizations) {
      const authorization = await fetchAuthorization(url, signal);
      // RFC 8555 §7.5.1: one proven earlier needs no challenge.
      if (authorization.status === 'valid') continue;
      tasks.push(taskOf(authorization));
    }
    const begun: Challenge[] = [];
    // The first that fails ends the waiting for the others.
    const scope = new AbortController();
    const scoped = AbortSignal.any([signal, scope.signal]);
    try {
      for (const { challenge } of tasks) {
        begun.push(challenge);
        await solver.present(challenge);
      }
      // All are presented before any is answered: an apex and its wildcard share one name.
      await Promise.all(tasks.map(({ challenge }) => solver.wait(challenge, scoped)));
      await Promise.all(tasks.map((task) => prove(task, scoped)));
    } finally {
      scope.abort();
      for (const challenge of begun) {
        await solver.cleanUp(challenge).catch((err: unknown) => {
          log.warn({ domain: challenge.domain, err }, 'challenge not cleaned up');
        });
      }
    }
  }

  function taskOf(authorization: Authorization): Task {
    const { identifier, challenges } = authorization;
    if (authorization.status !== 'pending') throw failed(authorization);
    const found = challenges.find((each) => each.type === solver.type);
    if (found === undefined) {
      const offered = challenges.map((each) => each.type).join(', ') || 'none';
      throw new IssuerError(
        'no-challenge',
        `the CA offers no ${solver.type} for ${identifier.value}, but ${offered}`,
      );
    }
    const challenge: Challenge = {
      domain: baseOf(parseDomain(identifier.value)),
      wildcard: authorization.wildcard === true,
      type: solver.type,
      keyAuthorization:
        solver.type === 'dns-persist-01' ? '' : keyAuthorizationOf(found.token, identifier.value),
    };
    return { authorization, challenge, url: found.url, status: found.status };
  }

  function keyAuthorizationOf(token: string | undefined, name: string): string {
    const sound = readObject(z.string().regex(TOKEN), token, `the token for ${name}`);
    return `${sound}.${account.session.thumbprint}`;
  }

  async function prove({ authorization, url, status }: Task, signal: AbortSignal): Promise<void> {
    // After a crash the CA may already be at it (`processing`): then asking is all that is left.
    if (status === 'pending') await post(url, {}, signal);
    const done = await poll(
      () => fetchAuthorizationAnswer(authorization.url, signal),
      (each) => each.status !== 'pending',
      signal,
    );
    if (done.status !== 'valid') throw failed(done);
  }

  async function finalize(
    order: Order,
    names: readonly Domain[],
    key: string,
    signal: AbortSignal,
  ): Promise<void> {
    const [, request] = await csrs.createCsr({ altNames: [...names] }, key);
    const csr = derOf(request.toString()).toString('base64url');
    try {
      await post(order.finalize, { csr }, signal);
    } catch (error) {
      // RFC 8555 §7.4: our earlier finalize may have arrived although we were killed before its answer did.
      if (!(error instanceof AcmeProblem && error.type === 'orderNotReady')) throw error;
    }
  }

  async function settled(
    order: Order,
    wanted: readonly Order['status'][],
    signal: AbortSignal,
  ): Promise<Order> {
    const done = await poll(
      async () => {
        const answer = await post(order.url, null, signal);
        return { value: readOrder(order.url, answer.data), retryAfterMs: answer.retryAfterMs };
      },
      (each) => each.status === 'invalid' || wanted.includes(each.status),
      signal,
    );
    if (done.status !== 'invalid') return done;
    const cause = done.error === undefined ? undefined : problemFrom(`order ${order.url}`, done.error);
    throw new IssuerError('order-failed', `order ${order.url} became invalid`, { cause });
  }

  async function download(order: Order, names: readonly Domain[], key: string, signal: AbortSignal) {
    const url = readObject(z.url(), order.certificate, `the certificate's URL in order ${order.url}`);
    const { data } = await post(url, null, signal);
    const chain = readObject(z.string(), data, `the certificate at ${url}`);
    return fitCertificate(chain, key, names, clock.now());
  }

  async function fetchOrder(url: string, signal: AbortSignal): Promise<Order> {
    return readOrder(url, (await post(url, null, signal)).data);
  }

  async function fetchAuthorizationAnswer(url: string, signal: AbortSignal): Promise<Polled<Authorization>> {
    const { data, retryAfterMs } = await post(url, null, signal);
    return { value: { ...readObject(AuthorizationSchema, data, `authorization ${url}`), url }, retryAfterMs };
  }

  const fetchAuthorization = async (url: string, signal: AbortSignal) =>
    (await fetchAuthorizationAnswer(url, signal)).value;

  /** RFC 8555 §7.5.1: waits as the CA's Retry-After asks, and no longer than is sensible. */
  async function poll<T>(look: () => Promise<Polled<T>>, isDone: (value: T) => boolean, signal: AbortSignal) {
    for (let delayMs = FIRST_POLL_MS; ; delayMs = Math.min(delayMs * 2, LONGEST_POLL_MS)) {
      const { value, retryAfterMs } = await look();
      if (isDone(value)) return value;
      await clock.sleep(Math.min(Math.max(retryAfterMs ?? delayMs, 100), LONGEST_POLL_MS), signal);
    }
  }

  return { obtain };
}

interface Polled<T> {
  readonly value: T;
  readonly retryAfterMs: number | undefined;
}

/** Proves that the chain belongs to the key, is for exactly these names, is in force, and loads into a TLS server. */
export function fitCertificate(chain: string, key: string, names: readonly Domain[], now: Date): Certificate {
  const unfit = (why: string, cause?: unknown) =>
    new IssuerError('certificate-unfit', `the CA's certificate for ${names.join(', ')} is not fit: ${why}`, {
      cause,
    });
  let certificate: Certificate;
  try {
    certificate = readCertificate(chain, key);
    createSecureContext({ cert: chain, key });
  } catch (cause) {
    if (cause instanceof CertificateError) throw unfit(cause.message, cause);
    throw unfit('it does not load', cause);
  }
  if (!sameSet(certificate.names, names)) throw unfit(`it is for ${certificate.names.join(', ')}`);
  if (certificate.notAfter <= now) throw unfit(`it ended ${certificate.notAfter.toISOString()}`);
  // The CA may list the names in any order; ours says which gives the file name.
  return { ...certificate, names: [...names] };
}

function generateCertificateKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function readOrder(url: string, data: unknown): Order {
  return { ...readObject(OrderSchema, data, `order ${url}`), url };
}

function failed({ identifier, status, challenges }: Authorization): IssuerError {
  const error = challenges.find((each) => each.error !== undefined)?.error;
  const cause = error === undefined ? undefined : problemFrom(`the challenge for ${identifier.value}`, error);
  const subject = `the authorization for ${identifier.value}`;
  return new IssuerError('authorization-failed', `${subject} is ${status}`, { cause });
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[A-Z ]+-----/g, ''), 'base64');
}

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && new Set([...a, ...b]).size === a.length;
}
