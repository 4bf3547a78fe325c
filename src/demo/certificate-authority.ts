// The demo's ACME CA on loopback: RFC 8555 with tls-alpn-01, everything checked, nothing kept after it stops.

import 'reflect-metadata';
import { KeyObject, randomBytes, type webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Pkcs10CertificateRequest, type PublicKey, SubjectAlternativeNameExtension } from '@peculiar/x509';
import * as z from 'zod';
import { DomainError, isWildcard, parseDomain } from '../lib/domain.ts';
import { AcmeRefusal, type ProblemDocument, problemDocument } from './acme-refusal.ts';
import { createDemoPki, type DemoPki, generateLeafKeys } from './demo-pki.ts';
import { type AccountKey, readSignedRequest, type SignedRequest } from './signed-request.ts';
import { validateTlsAlpn } from './tls-alpn-validation.ts';

export interface CertificateAuthorityOptions {
  /** Where tls-alpn-01 is validated, on 127.0.0.1 whatever the name: the demo's CA never leaves this machine. */
  readonly tlsAlpnPort: number;
  /** An existing folder for the root's certificate. */
  readonly folder: string;
}

export interface CertificateAuthority {
  readonly directoryUrl: string;
  /** PEM of the root, which stands above the ACME server's own certificate and those it issues. */
  readonly caFile: string;
  stop(): Promise<void>;
}

interface Account {
  readonly url: string;
  readonly key: AccountKey;
  readonly contact: readonly string[];
}

interface Authorization {
  readonly id: string;
  readonly account: Account;
  readonly domain: string;
  readonly token: string;
  readonly expires: Date;
  status: 'pending' | 'valid' | 'invalid';
  /** Set while and after the one look that is taken at the challenge. */
  challenge: 'pending' | 'processing' | 'valid' | 'invalid';
  error?: ProblemDocument;
}

interface Order {
  readonly id: string;
  readonly account: Account;
  readonly authorizations: readonly Authorization[];
  readonly expires: Date;
  /** PEM chain, once issued. */
  certificate?: string;
}

interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** A string is sent as a PEM chain, an object as JSON. */
  readonly body?: string | object;
}

const ORDER_LIFE_MS = 3_600_000;
const MAX_BODY_BYTES = 65_536;
const MAX_UNUSED_NONCES = 10_000;

const NewAccount = z.object({
  contact: z.array(z.string()).default([]),
  onlyReturnExisting: z.boolean().default(false),
});
const NewOrder = z.object({
  identifiers: z
    .array(z.object({ type: z.string(), value: z.string() }))
    .min(1)
    .max(100),
});
const Finalize = z.object({ csr: z.string() });

export async function startCertificateAuthority(
  options: CertificateAuthorityOptions,
): Promise<CertificateAuthority> {
  const pki = await createDemoPki();
  const caFile = join(options.folder, 'ca.pem');
  await writeFile(caFile, pki.root);
  const keys = await generateLeafKeys();
  const server = createServer({
    cert: await pki.issue({ publicKey: keys.publicKey, names: ['localhost'], addresses: ['127.0.0.1'] }),
    key: privateKeyPem(keys.privateKey),
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  server.on('request', createAcmeHandler(origin, pki, options.tlsAlpnPort));
  return {
    directoryUrl: `${origin}/directory`,
    caFile,
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

function createAcmeHandler(origin: string, pki: DemoPki, tlsAlpnPort: number) {
  const nonces = createNonces();
  const resources = new Resources(origin, pki, tlsAlpnPort);

  async function answer(request: IncomingMessage): Promise<Reply> {
    const path = request.url ?? '/';
    if (path === '/directory') return { status: 200, body: directory(origin) };
    // RFC 8555 §7.2: HEAD is 200, GET 204.
    if (path === '/new-nonce') return { status: request.method === 'HEAD' ? 200 : 204 };
    if (request.method !== 'POST') {
      throw new AcmeRefusal('malformed', 'resources are read by POST-as-GET (RFC 8555 §6.3)', 405);
    }
    // §6.2
    if (request.headers['content-type'] !== 'application/jose+json') {
      throw new AcmeRefusal('malformed', 'the content type must be application/jose+json', 415);
    }
    const signed = readSignedRequest(await bodyOf(request), {
      url: `${origin}${path}`,
      spendNonce: nonces.spend,
      accountKey: (url) => resources.accountKey(url),
    });
    return resources.post(path, signed);
  }

  return async (request: IncomingMessage, response: ServerResponse) => {
    let reply: Reply;
    try {
      reply = await answer(request);
    } catch (error) {
      reply = refusalReply(error);
    }
    // §6.5.1 wants a nonce on every reply to a POST; all others may have one.
    send(response, reply, { 'replay-nonce': nonces.issue(), link: `<${origin}/directory>;rel="index"` });
  };
}

/** What POST finds under each path, and the accounts, orders and authorizations behind it. */
class Resources {
  private readonly origin: string;
  private readonly pki: DemoPki;
  private readonly tlsAlpnPort: number;
  /** By the thumbprint of the key. */
  private readonly accounts = new Map<string, Account>();
  private readonly orders = new Map<string, Order>();
  private readonly authorizations = new Map<string, Authorization>();

  constructor(origin: string, pki: DemoPki, tlsAlpnPort: number) {
    this.origin = origin;
    this.pki = pki;
    this.tlsAlpnPort = tlsAlpnPort;
  }

  accountKey(url: string) {
    return this.accountBy(url)?.key;
  }

  async post(path: string, signed: SignedRequest): Promise<Reply> {
    if (path === '/new-account') return this.newAccount(signed);
    const account = signed.accountUrl === undefined ? undefined : this.accountBy(signed.accountUrl);
    if (account === undefined) throw new AcmeRefusal('malformed', 'this request wants kid, not jwk');
    if (path === '/new-order') return this.newOrder(account, signed.payload);
    const [, kind, id = '', ...actions] = path.split('/');
    const order = () => owned(this.orders.get(id), account);
    const authorization = () => owned(this.authorizations.get(id), account);
    switch ([kind, ...actions].join('/')) {
      case 'account':
        if (`${this.origin}${path}` === account.url) return accountReply(account, 200);
        break;
      case 'authorization':
        return authorizationReply(this.origin, authorization());
      case 'challenge':
        return this.challenge(authorization(), signed.payload);
      case 'order/finalize':
        return this.finalize(order(), signed.payload);
      case 'order':
        return orderReply(this.origin, order(), 200);
      case 'certificate':
        return certificateReply(order());
    }
    throw new AcmeRefusal('malformed', `nothing is at ${path}`, 404);
  }

  private accountBy(url: string): Account | undefined {
    return [...this.accounts.values()].find((account) => account.url === url);
  }

  private newAccount(signed: SignedRequest): Reply {
    if (signed.accountUrl !== undefined) throw new AcmeRefusal('malformed', 'newAccount wants jwk, not kid');
    const wanted = parsePayload(NewAccount, signed.payload);
    const { thumbprint } = signed.signer;
    const known = this.accounts.get(thumbprint);
    // §7.3.1: the same key is the same account, with or without onlyReturnExisting.
    if (known !== undefined) return accountReply(known, 200);
    if (wanted.onlyReturnExisting) {
      throw new AcmeRefusal('accountDoesNotExist', 'no account has this key');
    }
    if (wanted.contact.some((contact) => !contact.startsWith('mailto:'))) {
      throw new AcmeRefusal('invalidContact', 'contacts are mailto: URLs');
    }
    const account = { url: `${this.origin}/account/${newId()}`, key: signed.signer, contact: wanted.contact };
    this.accounts.set(thumbprint, account);
    return accountReply(account, 201);
  }

  private newOrder(account: Account, payload: unknown): Reply {
    const names = parsePayload(NewOrder, payload).identifiers.map(readIdentifier);
    const expires = new Date(Date.now() + ORDER_LIFE_MS);
    const order: Order = {
      id: newId(),
      account,
      expires,
      authorizations: [...new Set(names)].map((domain) => this.newAuthorization(account, domain, expires)),
    };
    this.orders.set(order.id, order);
    return orderReply(this.origin, order, 201);
  }

  private newAuthorization(account: Account, domain: string, expires: Date): Authorization {
    const token = randomBytes(32).toString('base64url');
    const made: Authorization = {
      id: newId(),
      account,
      domain,
      token,
      expires,
      status: 'pending',
      challenge: 'pending',
    };
    this.authorizations.set(made.id, made);
    return made;
  }

  /** §7.5.1: a JSON object says "look now"; POST-as-GET only asks how it stands. */
  private challenge(authorization: Authorization, payload: unknown): Reply {
    if (
      payload !== undefined &&
      authorization.challenge === 'pending' &&
      statusOf(authorization) === 'pending'
    ) {
      authorization.challenge = 'processing';
      void validate(authorization, this.tlsAlpnPort);
    }
    return {
      status: 200,
      headers: {
        link: `<${this.origin}/authorization/${authorization.id}>;rel="up"`,
        ...retrySoon(authorization),
      },
      body: challengeBody(this.origin, authorization),
    };
  }

  private async finalize(order: Order, payload: unknown): Promise<Reply> {
    const status = orderStatus(order);
    if (status !== 'ready') throw new AcmeRefusal('orderNotReady', `the order is ${status}`, 403);
    const publicKey = await readCsr(parsePayload(Finalize, payload).csr, order);
    order.certificate = await this.pki.issue({ publicKey, names: namesOf(order) });
    return orderReply(this.origin, order, 200);
  }
}

/** Somebody else's resource is as absent as one that never was. */
function owned<T extends { readonly account: Account }>(resource: T | undefined, account: Account): T {
  if (resource?.account !== account)
    throw new AcmeRefusal('malformed', 'this account has no such resource', 404);
  return resource;
}

async function validate(authorization: Authorization, port: number): Promise<void> {
  const { domain, token, account } = authorization;
  try {
    // RFC 8555 §8.1
    await validateTlsAlpn({ domain, port, keyAuthorization: `${token}.${account.key.thumbprint}` });
    authorization.challenge = 'valid';
  } catch (error) {
    authorization.challenge = 'invalid';
    authorization.error = problemDocument(asRefusal(error));
  }
  authorization.status = authorization.challenge;
}

/** Returns the key to certify. The names asked must be those of the order, all of them (§7.4). */
async function readCsr(csr: string, order: Order): Promise<PublicKey> {
  const request = parseCsr(csr);
  if (!(await request.verify())) throw new AcmeRefusal('badCSR', 'the request is not signed by its own key');
  const alternative = alternativeNames(request);
  if (alternative.some(({ type }) => type !== 'dns')) {
    throw new AcmeRefusal('badCSR', 'only DNS names can be certified');
  }
  const asked = new Set(
    [...alternative.map(({ value }) => value), ...request.subjectName.getField('CN')].map((name) =>
      name.toLowerCase(),
    ),
  );
  const ordered = namesOf(order);
  if (asked.size !== ordered.length || !ordered.every((name) => asked.has(name))) {
    throw new AcmeRefusal(
      'badCSR',
      `the request names ${[...asked].join(', ') || 'nothing'}, the order ${ordered.join(', ')}`,
    );
  }
  return request.publicKey;
}

function alternativeNames(request: Pkcs10CertificateRequest) {
  const extension = request.extensions.find((one) => one instanceof SubjectAlternativeNameExtension);
  return extension?.names.toJSON() ?? [];
}

function parseCsr(csr: string): Pkcs10CertificateRequest {
  try {
    return new Pkcs10CertificateRequest(new Uint8Array(Buffer.from(csr, 'base64url')));
  } catch {
    throw new AcmeRefusal('badCSR', 'the certificate request cannot be parsed');
  }
}

function readIdentifier(identifier: { type: string; value: string }): string {
  if (identifier.type !== 'dns') {
    throw new AcmeRefusal('rejectedIdentifier', `identifiers of type ${identifier.type} are not certified`);
  }
  try {
    const domain = parseDomain(identifier.value);
    if (!isWildcard(domain)) return domain;
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    throw new AcmeRefusal('rejectedIdentifier', error.message);
  }
  // RFC 8737 §3: no tls-alpn-01 for wildcards, and this CA has nothing else.
  throw new AcmeRefusal(
    'rejectedIdentifier',
    `${identifier.value}: wildcards cannot be validated by tls-alpn-01`,
  );
}

function namesOf(order: Order): string[] {
  return order.authorizations.map(({ domain }) => domain);
}

function statusOf(authorization: Authorization): Authorization['status'] {
  const lapsed = authorization.status === 'pending' && authorization.expires.getTime() < Date.now();
  return lapsed ? 'invalid' : authorization.status;
}

/** §7.1.6: an order's state follows from its authorizations and from what was issued. */
function orderStatus(order: Order): 'pending' | 'ready' | 'valid' | 'invalid' {
  if (order.certificate !== undefined) return 'valid';
  if (order.expires.getTime() < Date.now()) return 'invalid';
  const states = order.authorizations.map(statusOf);
  if (states.includes('invalid')) return 'invalid';
  return states.includes('pending') ? 'pending' : 'ready';
}

function directory(origin: string) {
  return {
    newNonce: `${origin}/new-nonce`,
    newAccount: `${origin}/new-account`,
    newOrder: `${origin}/new-order`,
  };
}

function accountReply(account: Account, status: number): Reply {
  return { status, headers: { location: account.url }, body: { status: 'valid', contact: account.contact } };
}

function orderReply(origin: string, order: Order, status: number): Reply {
  const url = `${origin}/order/${order.id}`;
  const failed = order.authorizations.find(({ error }) => error !== undefined);
  return {
    status,
    headers: { location: url },
    body: {
      status: orderStatus(order),
      expires: order.expires.toISOString(),
      identifiers: namesOf(order).map((value) => ({ type: 'dns', value })),
      authorizations: order.authorizations.map(({ id }) => `${origin}/authorization/${id}`),
      finalize: `${url}/finalize`,
      ...(failed === undefined ? {} : { error: failed.error }),
      ...(order.certificate === undefined ? {} : { certificate: `${origin}/certificate/${order.id}` }),
    },
  };
}

function authorizationReply(origin: string, authorization: Authorization): Reply {
  return {
    status: 200,
    headers: retrySoon(authorization),
    body: {
      identifier: { type: 'dns', value: authorization.domain },
      status: statusOf(authorization),
      expires: authorization.expires.toISOString(),
      challenges: [challengeBody(origin, authorization)],
    },
  };
}

function challengeBody(origin: string, authorization: Authorization) {
  return {
    type: 'tls-alpn-01',
    url: `${origin}/challenge/${authorization.id}`,
    status: authorization.challenge,
    token: authorization.token,
    ...(authorization.error === undefined ? {} : { error: authorization.error }),
  };
}

/** §7.5.1: a client that polls is told when to come again. */
function retrySoon(authorization: Authorization): Record<string, string> {
  return authorization.challenge === 'processing' ? { 'retry-after': '1' } : {};
}

function certificateReply(order: Order): Reply {
  if (order.certificate === undefined) {
    throw new AcmeRefusal('malformed', 'this account has no such certificate', 404);
  }
  return { status: 200, body: order.certificate };
}

function refusalReply(error: unknown): Reply {
  const refusal = asRefusal(error);
  return { status: refusal.status, body: problemDocument(refusal) };
}

function asRefusal(error: unknown): AcmeRefusal {
  if (error instanceof AcmeRefusal) return error;
  return new AcmeRefusal('serverInternal', `the demo CA failed: ${String(error)}`, 500);
}

function send(response: ServerResponse, reply: Reply, headers: Readonly<Record<string, string>>): void {
  const { link, ...rest } = reply.headers ?? {};
  response.writeHead(reply.status, {
    ...headers,
    ...rest,
    ...(link === undefined ? {} : { link: [headers.link!, link] }),
    'cache-control': 'no-store',
    ...(reply.body === undefined ? {} : { 'content-type': contentType(reply) }),
  });
  response.end(typeof reply.body === 'object' ? JSON.stringify(reply.body) : reply.body);
}

function contentType(reply: Reply): string {
  if (typeof reply.body === 'string') return 'application/pem-certificate-chain';
  return reply.status >= 400 ? 'application/problem+json' : 'application/json';
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > MAX_BODY_BYTES) throw new AcmeRefusal('malformed', 'the request is too large', 413);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

/** Each is good for one request (§6.5); the oldest unused ones are forgotten first. */
function createNonces() {
  const unused = new Set<string>();
  return {
    issue(): string {
      const nonce = randomBytes(16).toString('base64url');
      unused.add(nonce);
      if (unused.size > MAX_UNUSED_NONCES) unused.delete(unused.values().next().value!);
      return nonce;
    },
    spend: (nonce: string) => unused.delete(nonce),
  };
}

function parsePayload<T extends z.ZodType>(schema: T, payload: unknown): z.infer<T> {
  const parsed = schema.safeParse(payload);
  if (!parsed.success) throw new AcmeRefusal('malformed', z.prettifyError(parsed.error));
  return parsed.data;
}

function privateKeyPem(key: webcrypto.CryptoKey): string {
  return KeyObject.from(key).export({ type: 'pkcs8', format: 'pem' }).toString();
}

function newId(): string {
  return randomBytes(9).toString('base64url');
}
