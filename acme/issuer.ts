// Obtains one certificate from an ACME CA (RFC 8555 §7.4); defines what an issuer and a challenge solver are.

import { generateKeyPairSync } from 'node:crypto';
import { crypto as csrs } from 'acme-client';
import { z } from 'zod';
import { type Certificate, CertificateError, readCertificate } from '../src/lib/certificate.ts';
import { type Clock, monotonicMs, systemClock } from '../src/lib/clock.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import { baseOf, type Domain, parseDomain } from '../src/lib/domain.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import type { Account } from './account.ts';
import type { Store, StoredOrder } from './store.ts';
import {
  AcmeProblem,
  type AcmeResponse,
  AcmeTransportError,
  absentIfNull,
  problemFrom,
  readObject,
  type Transport,
} from './transport.ts';

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
  | 'order-unfinished'
  | 'deadline-passed'
  | 'certificate-unfit';

/** Why the CA's answers did not lead to a certificate; the cause is the CA's problem where it gave one. */
export class IssuerError extends CodedError<IssuerErrorCode> {
  override readonly name = 'IssuerError';
  /** What the CA asked for in the end, where it wants to be left alone for longer than an attempt may last. */
  readonly retryAfterMs: number | undefined;
  constructor(
    code: IssuerErrorCode,
    message: string,
    options: ErrorOptions & { retryAfterMs?: number | undefined } = {},
  ) {
    super(code, message, options);
    this.retryAfterMs = options.retryAfterMs;
  }
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
/**
 * Of what the CA sends only the state is read at once. Everything else is read where that state needs it (RFC 8555 §7.1.3,
 * §7.1.4): CAs leave out what is of no use any more, or send null.
 */
const OrderSchema = z.object({
  status: z.enum(['pending', 'ready', 'processing', 'valid', 'invalid']),
  expires: z.unknown().optional(),
  authorizations: z.unknown().optional(),
  finalize: z.unknown().optional(),
  certificate: z.unknown().optional(),
  error: z.unknown().optional(),
});
const AuthorizationSchema = z.object({
  status: z.enum(AUTHORIZATION_STATUS),
  identifier: z.unknown().optional(),
  wildcard: absentIfNull(z.boolean()),
  challenges: absentIfNull(z.array(z.unknown())),
});
const IdentifierSchema = z.object({ value: z.string().refine(isDomain) });
const ChallengeSchema = z.object({
  url: z.string(),
  /** RFC 8555 §8 requires it; one that says nothing has not been answered yet. */
  status: absentIfNull(z.string()),
  token: absentIfNull(z.string()),
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
/** One call of obtain. */
interface Attempt {
  readonly names: readonly Domain[];
  readonly signal: AbortSignal;
  /** On the monotonic clock. */
  readonly endsAt: number;
}

const FIRST_POLL_MS = 500;
const LONGEST_POLL_MS = 15_000;
/** How often an order may be found ready, and be finalized, before it is left for the next attempt. */
const MOST_ROUNDS = 10;
/** A stored order that cannot be understood or finished for so long is given up for a new one. */
const FORLORN_MS = 24 * 3_600_000;
/** No order is under way for longer, whatever the CA says of its end. */
const OLDEST_ORDER_MS = 7 * 24 * 3_600_000;
/** Refusals that say nothing of the order they are an answer to. */
const PASSING_REFUSALS = new Set(['badNonce', 'rateLimited', 'serverInternal', 'userActionRequired']);
/** RFC 9773 §5 names `alreadyReplaced`; Let's Encrypt says `unauthorized` of another account's certificate, others `malformed`. */
const HINT_REFUSALS = new Set(['alreadyReplaced', 'unauthorized', 'malformed']);
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
    const attempt: Attempt = { names, signal, endsAt: monotonicMs(clock) + deadlineMs };
    try {
      const finished = await finishStored(attempt);
      if (finished !== undefined) return finished;
      const { order, key } = await place(attempt, extras);
      return await finish(order, key, attempt);
    } catch (cause) {
      if (outer.aborted) throw cause;
      if (!deadline.aborted) {
        await dropIfHopeless(names, cause);
        throw cause;
      }
      await dropIfHopeless(names, new IssuerError('deadline-passed', 'out of time'));
      throw new IssuerError('deadline-passed', `${subjectOf(names)} was not obtained in ${deadlineMs} ms`, {
        cause,
      });
    }
  }

  /** What an earlier attempt began. If that was lost when it was interrupted, in its validation say, this one begins anew. */
  async function finishStored(attempt: Attempt): Promise<Certificate | undefined> {
    const resumed = await resume(attempt);
    if (resumed === undefined) return undefined;
    try {
      return await finish(resumed.order, resumed.key, attempt);
    } catch (err) {
      if (!isFinal(err)) throw err;
      log.warn({ domain: attempt.names[0], order: resumed.order.url, err }, 'resumed order failed');
      await store.dropOrder(attempt.names[0]!);
      return undefined;
    }
  }

  /** The stored order, if it is for these names and the CA can still finish it. */
  async function resume({ names, signal }: Attempt) {
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
      if (!isForgotten(error) && !(isAnswer(error) && isOlderThan(stored, FORLORN_MS))) throw error;
      log.warn({ domain: stored.names[0], order: stored.url, err: error }, 'stored order given up');
      return undefined;
    }
  }

  function isOver(order: Order, stored: StoredOrder): boolean {
    if (order.status === 'invalid' || isOlderThan(stored, OLDEST_ORDER_MS)) return true;
    // Its certificate is there to be had; if it could not be had for so long, it never will.
    if (order.status === 'valid') return isOlderThan(stored, FORLORN_MS);
    return typeof order.expires === 'string' && Date.parse(order.expires) <= clock.now().getTime();
  }

  /** A moment that far ahead is no more to be believed than one that far back: the clock was wrong when it was noted. */
  function isOlderThan({ createdAt }: StoredOrder, ms: number): boolean {
    return Math.abs(clock.now().getTime() - Date.parse(createdAt)) > ms;
  }

  /** What stays stored is resumed by every later attempt: an order that can never be finished must not be. */
  async function dropIfHopeless(names: readonly Domain[], error: unknown): Promise<void> {
    const stored = await store.readOrder(names[0]!).catch(() => undefined);
    if (stored === undefined) return;
    if (!isFinal(error) && !(isAnswer(error) && isOlderThan(stored, FORLORN_MS))) return;
    log.warn({ domain: names[0], order: stored.url }, 'order given up, the next attempt places another');
    await store.dropOrder(names[0]!).catch(() => {});
  }

  async function place({ names, signal }: Attempt, { replaces }: ObtainOptions) {
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
    // On disk before finalize, so that a killed process finishes this order instead of placing another; and before it is
    // read, so that one that is not understood is asked about again instead of being made again.
    const createdAt = clock.now().toISOString();
    const stored = { names: [...names], url, key, account: account.url, createdAt };
    // A disk that is full must not cost the certificate: unstored, a crash now would only cost another order.
    await store.writeOrder(names[0]!, stored).catch((err: unknown) => {
      log.error({ domain: names[0], order: url, err }, 'order could not be stored');
    });
    log.info({ domain: names[0], order: url }, 'order placed');
    return { order: readOrder(url, answer.data), key };
  }

  async function postOrder(url: string, payload: object, replaces: string | undefined, signal: AbortSignal) {
    if (replaces === undefined) return post(url, payload, signal);
    try {
      return await post(url, { ...payload, replaces }, signal);
    } catch (error) {
      // RFC 9773 §5: `replaces` is a hint. A CA that will not have it must not keep us from a certificate.
      const hintRefused =
        error instanceof AcmeProblem && (HINT_REFUSALS.has(error.type) || [404, 409].includes(error.status));
      if (!hintRefused) throw error;
      log.warn({ replaces, err: error }, 'order without replaces, which the ca refused');
      return post(url, payload, signal);
    }
  }

  /** RFC 8555 §7.4 and §7.1.6: what is to be done follows from the order's state, as often as that is found to be so. */
  async function finish(placed: Order, key: string, attempt: Attempt): Promise<Certificate> {
    let order = placed;
    for (let round = 0; round < MOST_ROUNDS; round += 1) {
      if (round > 0) {
        await pause(Math.min(FIRST_POLL_MS * 2 ** round, LONGEST_POLL_MS), undefined, attempt);
        order = await fetchOrder(order.url, attempt.signal);
      }
      if (order.status === 'pending') {
        await authorize(order, attempt);
        order = await leaves('pending', order, attempt);
      }
      if (order.status === 'ready') {
        const retryAfterMs = await finalize(order, key, attempt);
        order = await leaves('processing', order, attempt, retryAfterMs);
      }
      if (order.status === 'processing') order = await leaves('processing', order, attempt);
      if (order.status === 'invalid') throw orderFailed(order);
      if (order.status === 'valid') return download(order, key, attempt);
    }
    throw new IssuerError(
      'order-unfinished',
      `order ${order.url} is still ${order.status} after ${MOST_ROUNDS} attempts to finalize it`,
    );
  }

  async function authorize(order: Order, attempt: Attempt): Promise<void> {
    const { names, signal } = attempt;
    const tasks: Task[] = [];
    for (const url of authorizationsOf(order, names)) {
      const authorization = await fetchAuthorization(url, signal);
      // RFC 8555 §7.5.1: one proven earlier needs no challenge.
      if (authorization.status === 'valid') continue;
      tasks.push(taskOf(authorization));
    }
    const begun: Challenge[] = [];
    // The first that fails ends the waiting for the others.
    const scope = new AbortController();
    const scoped = { ...attempt, signal: AbortSignal.any([signal, scope.signal]) };
    try {
      for (const { challenge } of tasks) {
        begun.push(challenge);
        await solver.present(challenge);
      }
      // All are presented before any is answered: an apex and its wildcard share one name.
      await Promise.all(tasks.map(({ challenge }) => solver.wait(challenge, scoped.signal)));
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
    const { url, status } = authorization;
    if (status !== 'pending') throw failed(authorization);
    const { value } = readObject(
      IdentifierSchema,
      authorization.identifier,
      `the identifier of authorization ${url}`,
    );
    const challenges = challengesOf(authorization);
    // Of those that we do not answer nothing is needed.
    const found = challenges.find((each) => each.type === solver.type);
    if (found === undefined) {
      const offered = challenges.map((each) => String(each.type)).join(', ') || 'none';
      throw new IssuerError(
        'no-challenge',
        `the CA offers no ${solver.type} for ${value}, but ${offered.slice(0, 200)}`,
      );
    }
    const sound = readObject(ChallengeSchema, found, `the ${solver.type} challenge for ${value}`);
    if (sound.status === 'invalid') throw failed(authorization, solver.type);
    const challenge: Challenge = {
      domain: baseOf(parseDomain(value)),
      wildcard: authorization.wildcard === true,
      type: solver.type,
      keyAuthorization: solver.type === 'dns-persist-01' ? '' : keyAuthorizationOf(sound.token, value),
    };
    return { authorization, challenge, url: sound.url, status: sound.status ?? 'pending' };
  }

  function keyAuthorizationOf(token: string | undefined, name: string): string {
    const sound = readObject(z.string().regex(TOKEN), token, `the token for ${name}`);
    return `${sound}.${account.session.thumbprint}`;
  }

  async function prove({ authorization, url, status }: Task, attempt: Attempt): Promise<void> {
    const { signal } = attempt;
    // After a crash the CA may already be at it (`processing`): then asking is all that is left.
    const answer = status === 'pending' ? await post(url, {}, signal) : undefined;
    const hasFailed = (each: Authorization) =>
      challengesOf(each).some((challenge) => challenge.url === url && challenge.status === 'invalid');
    const done = await poll(
      () => fetchAuthorizationAnswer(authorization.url, signal),
      // RFC 8555 §7.1.6 makes the authorization invalid with its challenge; not every CA does.
      (each) => each.status !== 'pending' || hasFailed(each),
      attempt,
      answer?.retryAfterMs,
    );
    if (done.status !== 'valid') throw failed(done, solver.type);
  }

  /** The delay that the CA asks for before it is asked how the order stands. */
  async function finalize(
    order: Order,
    key: string,
    { names, signal }: Attempt,
  ): Promise<number | undefined> {
    const url = readObject(z.string(), order.finalize, `the finalize URL of order ${order.url}`);
    const [, request] = await csrs.createCsr({ altNames: [...names] }, key);
    const csr = derOf(request.toString()).toString('base64url');
    try {
      return (await post(url, { csr }, signal)).retryAfterMs;
    } catch (error) {
      // RFC 8555 §7.4: our earlier finalize may have arrived although we were killed before its answer did, or the CA is
      // not as far as it said. How the order stands now says what is to be done.
      if (!(error instanceof AcmeProblem && error.type === 'orderNotReady')) throw error;
      return error.retryAfterMs;
    }
  }

  function leaves(
    status: Order['status'],
    order: Order,
    attempt: Attempt,
    retryAfterMs?: number,
  ): Promise<Order> {
    return poll(
      async () => {
        const answer = await post(order.url, null, attempt.signal);
        return { value: readOrder(order.url, answer.data), retryAfterMs: answer.retryAfterMs };
      },
      (each) => each.status !== status,
      attempt,
      retryAfterMs,
    );
  }

  async function download(order: Order, key: string, { names, signal }: Attempt): Promise<Certificate> {
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

  /** RFC 8555 §7.5.1: no sooner than the CA's Retry-After asks, and less and less often where it asks for nothing. */
  async function poll<T>(
    look: () => Promise<Polled<T>>,
    isDone: (value: T) => boolean,
    attempt: Attempt,
    firstMs = 0,
  ): Promise<T> {
    if (firstMs > 0) await pause(0, firstMs, attempt);
    for (let delayMs = FIRST_POLL_MS; ; delayMs = Math.min(delayMs * 2, LONGEST_POLL_MS)) {
      const { value, retryAfterMs } = await look();
      if (isDone(value)) return value;
      await pause(delayMs, retryAfterMs, attempt);
    }
  }

  /** A wait that the attempt has no time for ends it at once: others wait for the lock that it holds. */
  async function pause(ownMs: number, askedMs: number | undefined, attempt: Attempt): Promise<void> {
    const waitMs = Math.max(ownMs, askedMs ?? 0);
    if (monotonicMs(clock) + waitMs > attempt.endsAt) {
      const asked = askedMs === undefined ? '' : `, the CA asks to wait ${Math.ceil(askedMs / 1000)} s more`;
      throw new IssuerError(
        'deadline-passed',
        `${subjectOf(attempt.names)} was not obtained in ${deadlineMs} ms${asked}`,
        { retryAfterMs: askedMs },
      );
    }
    await clock.sleep(waitMs, attempt.signal);
  }

  return { obtain };
}

interface Polled<T> {
  readonly value: T;
  readonly retryAfterMs: number | undefined;
}

/** RFC 8555 §7.1.6: neither an authorization nor an order leaves these states again. */
function isFinal(error: unknown): boolean {
  return error instanceof IssuerError && ['authorization-failed', 'order-failed'].includes(error.code);
}

/** The CA knows no such order, or not for us. */
function isForgotten(error: unknown): boolean {
  if (!(error instanceof AcmeProblem)) return false;
  return error.status < 500 && ![408, 429].includes(error.status) && !PASSING_REFUSALS.has(error.type);
}

/** Whether the CA was there and said something: what does not depend on the way to it, nor on DNS. */
function isAnswer(error: unknown): boolean {
  return (
    error instanceof AcmeProblem ||
    error instanceof IssuerError ||
    (error instanceof AcmeTransportError && error.code === 'ca-unintelligible')
  );
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
  } catch (cause) {
    if (cause instanceof CertificateError) throw unfit(cause.message, cause);
    throw unfit('it cannot be read', cause);
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

/** RFC 8555 §7.1.3: one for each name; a CA that wants very many more wants us busy. */
function authorizationsOf({ url, authorizations }: Order, names: readonly Domain[]): string[] {
  const most = 10 + 2 * names.length;
  return readObject(z.array(z.string()).max(most), authorizations, `the authorizations of order ${url}`);
}

/** Those that are objects; nothing else is known of them yet. */
function challengesOf({ challenges }: Authorization): Record<string, unknown>[] {
  return (challenges ?? []).filter(
    (each): each is Record<string, unknown> => typeof each === 'object' && each !== null,
  );
}

/** `type` is the challenge whose reason counts before that of any other. */
function failed(authorization: Authorization, type?: ChallengeType): IssuerError {
  const { url, status } = authorization;
  const identifier = IdentifierSchema.safeParse(authorization.identifier);
  const name = identifier.success ? identifier.data.value : url;
  const reasons = challengesOf(authorization).filter(({ error }) => error !== undefined && error !== null);
  const { error } = reasons.find((each) => each.type === type) ?? reasons[0] ?? {};
  const cause = error === undefined ? undefined : problemFrom(`the challenge for ${name}`, error);
  return new IssuerError('authorization-failed', `the authorization for ${name} is ${status}`, { cause });
}

function isDomain(text: string): boolean {
  try {
    parseDomain(text);
    return true;
  } catch {
    return false;
  }
}

function orderFailed({ url, error }: Order): IssuerError {
  const cause = error === undefined || error === null ? undefined : problemFrom(`order ${url}`, error);
  return new IssuerError('order-failed', `order ${url} became invalid`, { cause });
}

function subjectOf(names: readonly Domain[]): string {
  return `the certificate for ${names.join(', ')}`;
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[A-Z ]+-----/g, ''), 'base64');
}

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && new Set([...a, ...b]).size === a.length;
}
