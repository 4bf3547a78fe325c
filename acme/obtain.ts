// Obtains one certificate from an ACME CA (RFC 8555 §7.4): places an order or resumes one, and finishes it.

import { generateKeyPairSync } from 'node:crypto';
import { crypto as csrs } from 'acme-client';
import * as z from 'zod';
import { type Certificate, CertificateError, readCertificate } from '../src/lib/certificate.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import type { Domain } from '../src/lib/domain.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import type { Account } from './account.ts';
import { AcmeProblem, readObject } from './answer.ts';
import { type Attempt, createAttempt, FIRST_POLL_MS, LONGEST_POLL_MS, outOfTime } from './attempt.ts';
import { authorize } from './authorize.ts';
import { type Issuer, IssuerError, type ObtainOptions, type Solver } from './issuer.ts';
import { fetchOrder, type Order, orderFailed, type Post, readOrder } from './order.ts';
import { createPendingOrders, isFinal, type PendingOrders } from './pending-order.ts';
import { sameSet } from './selection.ts';
import { StorageError } from './storage.ts';
import type { Store } from './store.ts';
import type { StoredOrder } from './stored.ts';
import type { Transport } from './transport.ts';

export interface IssuerOptions {
  transport: Transport;
  account: Account;
  solver: Solver;
  store: Store;
  /** Asked for when the directory offers it. */
  profile?: string | undefined;
  /** PEM, PKCS#8: derived keys, which other replicas have too. Otherwise each certificate has a fresh one. */
  certificateKey?: ((names: readonly Domain[]) => Promise<string>) | undefined;
  /** For the whole of one certificate, propagation included. */
  deadlineMs?: number;
  clock?: Clock;
  log?: Log;
}

/** How often an order may be found ready, and be finalized, before it is left for the next attempt. */
const MOST_ROUNDS = 10;
/** RFC 9773 §5 names `alreadyReplaced`; Let's Encrypt says `unauthorized` of another account's certificate, others `malformed`. */
const HINT_REFUSALS = new Set(['alreadyReplaced', 'unauthorized', 'malformed']);

interface Parts extends IssuerOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly post: Post;
  readonly pending: PendingOrders;
}

export function createIssuer(options: IssuerOptions): Issuer {
  const { account, store, deadlineMs = 30 * 60_000, clock = systemClock, log = silentLog } = options;
  const post: Post = (url, payload, signal) =>
    account.session.post(url, payload, { kid: account.url, signal });
  const pending = createPendingOrders({ post, accountUrl: account.url, store, clock, log });
  const parts: Parts = { ...options, clock, log, post, pending };

  return {
    async obtain(names, outer, extras = {}) {
      const deadline = AbortSignal.timeout(deadlineMs);
      const attempt = createAttempt(names, AbortSignal.any([outer, deadline]), deadlineMs, clock);
      try {
        return (await finishStored(parts, attempt)) ?? (await orderAnew(parts, attempt, extras));
      } catch (cause) {
        if (outer.aborted) throw cause;
        const failure = deadline.aborted ? outOfTime(names, deadlineMs, undefined, cause) : cause;
        await pending.dropIfHopeless(names, failure);
        throw failure;
      }
    },
  };
}

/** Finishes what an earlier attempt began. Undefined if there is nothing, or if the order turns out to have failed. */
async function finishStored(parts: Parts, attempt: Attempt): Promise<Certificate | undefined> {
  const resumed = await parts.pending.resume(attempt);
  if (resumed === undefined) return undefined;
  try {
    return await finish(parts, resumed.order, resumed.stored.key, attempt);
  } catch (err) {
    if (!isFinal(err)) throw err;
    parts.log.warn({ domain: attempt.names[0], order: resumed.order.url, err }, 'resumed order failed');
    await parts.store.dropOrder(attempt.names[0]!, resumed.stored);
    return undefined;
  }
}

async function orderAnew(parts: Parts, attempt: Attempt, extras: ObtainOptions): Promise<Certificate> {
  const { order, key } = await place(parts, attempt, extras);
  return finish(parts, order, key, attempt);
}

async function place(parts: Parts, { names, signal }: Attempt, { replaces, follows }: ObtainOptions) {
  const { transport, account, store, clock, log } = parts;
  const { newOrder, renewalInfo, meta } = await transport.directory(signal);
  const identifiers = names.map((value) => ({ type: 'dns', value }));
  const payload = { identifiers, ...offeredProfile(parts, meta.profiles, names) };
  const successor = renewalInfo === undefined ? undefined : replaces;
  const key = (await parts.certificateKey?.(names)) ?? generateCertificateKey();
  const intent = { names: [...names], key, account: account.url, createdAt: clock.now().toISOString() };
  if (store.shared) await intend(store, names, intent, follows);
  signal.throwIfAborted();
  const answer = await postOrder(parts, newOrder, payload, successor, signal);
  const url = readObject(z.url(), answer.headers.location, 'the URL of the new order');
  // On disk before it is finalized, so that a killed process finishes this order instead of placing another; and before it
  // is read, so that an order that we do not understand is asked about again instead of being placed again.
  const createdAt = clock.now().toISOString();
  const stored = { names: [...names], url, key, account: account.url, createdAt };
  // A full disk must not cost the certificate: without the file, a crash now costs one more order.
  await store.writeOrder(names[0]!, stored).catch((err: unknown) => {
    // Another replica orders in our place, or will: it cannot know of this order, and both would come to a certificate.
    if (store.shared) throw err;
    log.error({ domain: names[0], order: url, err }, 'order could not be stored');
  });
  log.info({ domain: names[0], order: url }, 'order placed');
  return { order: readOrder(url, answer.data), key };
}

/** Whoever has ordered before us has stored the certificate before the order went, and whoever orders after us finds ours. */
async function intend(
  store: Store,
  names: readonly Domain[],
  intent: StoredOrder,
  follows: Certificate | undefined,
): Promise<void> {
  const [name] = names as [Domain];
  const over = await store.readOrder(name);
  // What could not be resumed had no URL, or is gone by now.
  if (over?.url !== undefined)
    throw new StorageError('overtaken', `another replica has placed an order for ${name}`);
  await store.intendOrder(name, intent, over);
  if (!(await store.hasNewer(name, follows))) return;
  await store.dropOrder(name, intent);
  throw new IssuerError('obtained-elsewhere', `another replica has obtained a certificate for ${name}`);
}

function offeredProfile(
  { profile, log }: Parts,
  profiles: Readonly<Record<string, unknown>> = {},
  names: readonly Domain[],
): { profile?: string } {
  if (profile === undefined) return {};
  if (Object.hasOwn(profiles, profile)) return { profile };
  log.warn({ domain: names[0], profile, offered: Object.keys(profiles) }, 'profile is not offered by the ca');
  return {};
}

async function postOrder(
  { post, log, store, certificateKey }: Parts,
  url: string,
  payload: object,
  replaces: string | undefined,
  signal: AbortSignal,
) {
  if (replaces === undefined) return post(url, payload, signal);
  try {
    return await post(url, { ...payload, replaces }, signal);
  } catch (error) {
    // RFC 9773 §5: `replaces` is a hint. A CA that refuses the hint must not keep us from a certificate.
    const hintRefused =
      error instanceof AcmeProblem && (HINT_REFUSALS.has(error.type) || [404, 409].includes(error.status));
    if (!hintRefused) throw error;
    // Of replicas that cannot see each other the CA lets one through: the others come upon its certificate.
    if ((store.shared || certificateKey !== undefined) && error.type === 'alreadyReplaced') {
      throw new IssuerError('replaced-elsewhere', 'another replica has ordered this renewal', {
        cause: error,
      });
    }
    log.warn({ replaces, err: error }, 'order without replaces, which the ca refused');
    return post(url, payload, signal);
  }
}

/** RFC 8555 §7.4 and §7.1.6: the order's status says what to do next, as often as it says so. */
async function finish(parts: Parts, placed: Order, key: string, attempt: Attempt): Promise<Certificate> {
  const { post, account, solver, log } = parts;
  let order = placed;
  for (let round = 0; round < MOST_ROUNDS; round += 1) {
    if (round > 0) {
      await attempt.pause(Math.min(FIRST_POLL_MS * 2 ** round, LONGEST_POLL_MS));
      order = (await fetchOrder(post, order.url, attempt.signal)).value;
    }
    if (order.status === 'pending') {
      await authorize({ post, thumbprint: account.session.thumbprint, solver, log }, order, attempt);
      order = await leaves(post, 'pending', order, attempt);
    }
    if (order.status === 'ready') {
      const retryAfterMs = await finalize(post, order, key, attempt);
      order = await leaves(post, 'processing', order, attempt, retryAfterMs);
    }
    if (order.status === 'processing') order = await leaves(post, 'processing', order, attempt);
    if (order.status === 'invalid') throw orderFailed(order);
    if (order.status === 'valid') return download(parts, order, key, attempt);
  }
  throw new IssuerError(
    'order-unfinished',
    `order ${order.url} is still ${order.status} after ${MOST_ROUNDS} attempts to finalize it`,
  );
}

/** Resolves to the order once it has left this status. */
function leaves(
  post: Post,
  status: Order['status'],
  { url }: Order,
  attempt: Attempt,
  firstMs?: number,
): Promise<Order> {
  return attempt.poll(
    () => fetchOrder(post, url, attempt.signal),
    (each) => each.status !== status,
    firstMs,
  );
}

/** Resolves to the delay that the CA wants before it is asked about the order. */
async function finalize(
  post: Post,
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
    // RFC 8555 §7.4: the CA may have received an earlier finalize whose answer we did not live to see, or it is not as far
    // as it said. The order's status says which.
    if (!(error instanceof AcmeProblem && error.type === 'orderNotReady')) throw error;
    return error.retryAfterMs;
  }
}

async function download(
  { post, clock }: Parts,
  order: Order,
  key: string,
  { names, signal }: Attempt,
): Promise<Certificate> {
  const url = readObject(z.url(), order.certificate, `the certificate's URL in order ${order.url}`);
  const { data } = await post(url, null, signal);
  const chain = readObject(z.string(), data, `the certificate at ${url}`);
  return fitCertificate(chain, key, names, clock.now());
}

/** Throws unless the chain belongs to the key, is for exactly these names, is in force, and loads into a TLS server. */
function fitCertificate(chain: string, key: string, names: readonly Domain[], now: Date): Certificate {
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
  // The CA may list the names in any order; the first of ours gives the file name.
  return { ...certificate, names: [...names] };
}

function generateCertificateKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[A-Z ]+-----/g, ''), 'base64');
}
