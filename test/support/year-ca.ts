// An ACME CA over a real socket that lives in simulated time, holds its clients to Let's Encrypt's limits, and fails at will.

import 'reflect-metadata';

import { createHash, randomBytes, webcrypto } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { AcmeRefusal } from '../../src/demo/acme-refusal.ts';
import { type AccountKey, readSignedRequest } from '../../src/demo/signed-request.ts';

const HOUR_MS = 3_600_000;
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/** What a request meets instead of an answer. */
export type Fault = 'reset' | 'unavailable' | 'broken' | 'limited' | 'nonsense' | undefined;

export interface YearCaOptions {
  now(): number;
  lifeMs: number;
  /** The TXT values at a name, or a failure of the DNS. */
  lookUpTxt(name: string): readonly string[];
  /** Asked before each request is looked at. */
  fault(path: string): Fault;
  /** Whether an order that was finalized is to end as invalid. */
  spoil(): boolean;
  /** The start and end of the window in which this certificate is to be renewed. */
  window(notBefore: number, notAfter: number): readonly [number, number];
}

export interface YearCa {
  readonly directoryUrl: string;
  readonly caPem: string;
  readonly issued: number;
  readonly accounts: number;
  /** Each limit that a request would have exceeded. */
  readonly exceeded: readonly string[];
  /** The most that was asked for of each limit, in its own time span. */
  readonly peaks: Readonly<Record<string, number>>;
  stop(): Promise<void>;
}

/** letsencrypt.org/docs/rate-limits: how many, in what time. */
const limits = {
  'registrations of an address': [10, 3 * HOUR_MS],
  'orders of an account': [300, 3 * HOUR_MS],
  'certificates of a registered domain': [50, 7 * 24 * HOUR_MS],
  'certificates of the same names': [5, 7 * 24 * HOUR_MS],
  'failed authorizations of a name': [5, HOUR_MS],
} as const;

interface Authorization {
  readonly name: string;
  readonly token: string;
  status: 'pending' | 'valid' | 'invalid';
}

interface Order {
  readonly id: string;
  readonly names: readonly string[];
  readonly authorizations: readonly string[];
  readonly expires: string;
  certificate?: string;
  spoilt?: true;
}

export async function startYearCa(options: YearCaOptions): Promise<YearCa> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const root = await makeRoot(keys);
  const tls = await makeServerCertificate(root, keys);
  const server = createServer(tls);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const ledger = createLedger(options.now);
  const accounts = new Map<string, { url: string; key: AccountKey }>();
  const orders = new Map<string, Order>();
  const authorizations = new Map<string, Authorization>();
  const nonces = new Set<string>();
  const lives = new Map<string, readonly [number, number]>();
  let issued = 0;

  const refuse = (type: string, detail: string, status = 400) =>
    new AcmeRefusal(type as 'malformed', detail, status);

  function limited(limit: keyof typeof limits, subject: string): void {
    if (ledger.takes(limit, subject)) return;
    throw refuse('rateLimited', `too many ${limit} (${subject})`, 429);
  }

  function newAccount(key: AccountKey, payload: { onlyReturnExisting?: boolean }) {
    const known = accounts.get(key.thumbprint);
    if (known !== undefined) return reply(200, { status: 'valid' }, { location: known.url });
    if (payload.onlyReturnExisting === true) throw refuse('accountDoesNotExist', 'no account has this key');
    limited('registrations of an address', 'loopback');
    const account = { url: `${origin}/account/${accounts.size + 1}`, key };
    accounts.set(key.thumbprint, account);
    return reply(201, { status: 'valid' }, { location: account.url });
  }

  function newOrder(account: string, payload: { identifiers: { value: string }[] }) {
    const names = payload.identifiers.map(({ value }) => value);
    limited('orders of an account', account);
    const expires = new Date(options.now() + 7 * 24 * HOUR_MS).toISOString();
    const made = names.map((name) => {
      const id = randomBytes(8).toString('hex');
      authorizations.set(id, { name, token: randomBytes(32).toString('base64url'), status: 'pending' });
      return id;
    });
    const order: Order = { id: randomBytes(8).toString('hex'), names, authorizations: made, expires };
    orders.set(order.id, order);
    return reply(201, orderBody(order), { location: `${origin}/order/${order.id}` });
  }

  function orderBody({ id, authorizations: ids, expires, certificate, spoilt }: Order) {
    const states = ids.map((each) => authorizations.get(each)!.status);
    const ready = states.every((state) => state === 'valid');
    const failed = spoilt === true || states.includes('invalid');
    const status = failed ? 'invalid' : certificate !== undefined ? 'valid' : ready ? 'ready' : 'pending';
    return {
      status,
      expires,
      identifiers: [],
      authorizations: ids.map((each) => `${origin}/authz/${each}`),
      finalize: `${origin}/finalize/${id}`,
      ...(certificate !== undefined && { certificate: `${origin}/cert/${id}` }),
    };
  }

  function authzBody(id: string) {
    const { name, token, status } = authorizations.get(id)!;
    const type = 'dns-01';
    const error = { type: 'urn:ietf:params:acme:error:dns', detail: 'the TXT record was not found' };
    return {
      status,
      identifier: { type: 'dns', value: name.replace('*.', '') },
      ...(name.startsWith('*.') && { wildcard: true }),
      challenges: [
        { type, url: `${origin}/chall/${id}`, status, token, ...(status === 'invalid' && { error }) },
      ],
    };
  }

  function validate(id: string, thumbprint: string) {
    const authorization = authorizations.get(id)!;
    if (authorization.status === 'pending') {
      const { name, token } = authorization;
      const digest = createHash('sha256').update(`${token}.${thumbprint}`).digest('base64url');
      const host = `_acme-challenge.${name.replace('*.', '')}`;
      authorization.status = options.lookUpTxt(host).includes(digest) ? 'valid' : 'invalid';
      if (authorization.status === 'invalid') limited('failed authorizations of a name', name);
    }
    return reply(200, authzBody(id).challenges[0]!);
  }

  async function finalize(order: Order, { csr }: { csr: string }) {
    if (orderBody(order).status !== 'ready') throw refuse('orderNotReady', 'it is not ready', 403);
    if (options.spoil()) {
      order.spoilt = true;
      return reply(200, orderBody(order));
    }
    const base = order.names[0]!.replace('*.', '');
    limited('certificates of a registered domain', base.split('.').slice(-2).join('.'));
    limited('certificates of the same names', [...order.names].sort().join());
    const request = new Pkcs10CertificateRequest(Buffer.from(csr, 'base64url'));
    const [notBefore, notAfter] = [options.now() - HOUR_MS, options.now() + options.lifeMs - HOUR_MS];
    const serialNumber = `5a${randomBytes(8).toString('hex')}`;
    const leaf = await X509CertificateGenerator.create(
      {
        serialNumber,
        subject: '',
        issuer: root.subject,
        notBefore: new Date(notBefore),
        notAfter: new Date(notAfter),
        publicKey: request.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: algorithm,
        extensions: [
          new SubjectAlternativeNameExtension(
            order.names.map((value) => ({ type: 'dns' as const, value })),
            true,
          ),
          await AuthorityKeyIdentifierExtension.create(keys.publicKey),
        ],
      },
      webcrypto,
    );
    order.certificate = `${leaf.toString('pem')}\n`;
    lives.set(Buffer.from(serialNumber, 'hex').toString('base64url'), [notBefore, notAfter]);
    issued += 1;
    return reply(200, orderBody(order));
  }

  function renewalInfo(id: string) {
    const life = lives.get(id.split('.')[1] ?? '');
    if (life === undefined) throw refuse('malformed', 'no such certificate', 404);
    const [start, end] = options.window(...life).map((ms) => new Date(ms).toISOString());
    return reply(200, { suggestedWindow: { start, end } }, { 'retry-after': '86400' });
  }

  async function answer(request: IncomingMessage): Promise<Reply> {
    const path = request.url ?? '';
    const [, kind = '', id = ''] = path.split('/');
    if (kind === 'dir') return reply(200, directory(origin));
    if (kind === 'nonce') return reply(200, '');
    if (kind === 'ari') return renewalInfo(id);
    let body = '';
    for await (const chunk of request) body += chunk;
    const { signer, accountUrl, payload } = readSignedRequest(body, {
      url: `${origin}${path}`,
      spendNonce: (nonce) => nonces.delete(nonce),
      accountKey: (url) => [...accounts.values()].find((account) => account.url === url)?.key,
    });
    if (kind === 'new-account') return newAccount(signer, payload as object);
    if (kind === 'new-order') return newOrder(accountUrl!, payload as { identifiers: { value: string }[] });
    if (kind === 'authz') return reply(200, authzBody(id));
    if (kind === 'chall') return validate(id, signer.thumbprint);
    const order = orders.get(id);
    if (order === undefined) throw refuse('malformed', 'no such order', 404);
    if (kind === 'order') return reply(200, orderBody(order));
    if (kind === 'finalize') return finalize(order, payload as { csr: string });
    return reply(200, order.certificate!, { 'content-type': 'application/pem-certificate-chain' });
  }

  async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const fault = options.fault(request.url ?? '');
    if (fault === 'reset') return void request.destroy();
    const made = fault === undefined ? await answer(request).catch(asProblem) : faulty[fault];
    request.resume();
    const nonce = randomBytes(12).toString('base64url');
    nonces.add(nonce);
    const { status, headers, body } = made;
    const date = new Date(options.now()).toUTCString();
    response.writeHead(status, { ...headers, 'replay-nonce': nonce, date });
    response.end(body);
  }

  server.on('request', (request, response) => {
    respond(request, response).catch(() => response.destroy());
  });
  return {
    directoryUrl: `${origin}/dir`,
    caPem: root.toString('pem'),
    get issued() {
      return issued;
    },
    get accounts() {
      return accounts.size;
    },
    exceeded: ledger.exceeded,
    peaks: ledger.peaks,
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

function reply(status: number, body: object | string, headers: Readonly<Record<string, string>> = {}): Reply {
  if (typeof body === 'string') return { status, headers, body };
  const type = status < 400 ? 'application/json' : 'application/problem+json';
  return { status, headers: { 'content-type': type, ...headers }, body: JSON.stringify(body) };
}

function problem(
  status: number,
  type: string,
  detail: string,
  headers: Readonly<Record<string, string>> = {},
): Reply {
  return reply(status, { type: `urn:ietf:params:acme:error:${type}`, detail, status }, headers);
}

function asProblem(error: unknown): Reply {
  if (!(error instanceof AcmeRefusal)) throw error;
  return problem(error.status, error.code, error.message);
}

const faulty: Readonly<Record<Exclude<Fault, 'reset' | undefined>, Reply>> = {
  unavailable: problem(503, 'serverInternal', 'the service is down for maintenance', {
    'retry-after': '600',
  }),
  broken: problem(500, 'serverInternal', 'something went wrong'),
  limited: problem(429, 'rateLimited', 'the service is busy', { 'retry-after': '3600' }),
  nonsense: reply(200, '<!doctype html><title>Welcome</title>', { 'content-type': 'text/html' }),
};

function directory(origin: string) {
  return {
    newNonce: `${origin}/nonce`,
    newAccount: `${origin}/new-account`,
    newOrder: `${origin}/new-order`,
    renewalInfo: `${origin}/ari`,
    meta: {},
  };
}

/** What was asked for, by limit and subject, as far back as the limit looks. */
function createLedger(now: () => number) {
  const events = new Map<string, number[]>();
  const exceeded: string[] = [];
  const peaks: Record<string, number> = {};
  return {
    exceeded,
    peaks,
    takes(limit: keyof typeof limits, subject: string): boolean {
      const [most, spanMs] = limits[limit];
      const key = `${limit} ${subject}`;
      const recent = [...(events.get(key) ?? []).filter((at) => at > now() - spanMs), now()];
      events.set(key, recent);
      peaks[limit] = Math.max(peaks[limit] ?? 0, recent.length);
      if (recent.length <= most) return true;
      exceeded.push(`${new Date(now()).toISOString()} ${key}`);
      return false;
    },
  };
}

function makeRoot(keys: webcrypto.CryptoKeyPair): Promise<X509Certificate> {
  return X509CertificateGenerator.createSelfSigned(
    {
      name: 'CN=CA of the simulated year',
      notBefore: new Date('2020-01-01'),
      notAfter: new Date('2049-01-01'),
      keys,
      signingAlgorithm: algorithm,
      extensions: [new BasicConstraintsExtension(true, undefined, true)],
    },
    webcrypto,
  );
}

async function makeServerCertificate(root: X509Certificate, signer: webcrypto.CryptoKeyPair) {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const made = await X509CertificateGenerator.create(
    {
      subject: 'CN=localhost',
      issuer: root.subject,
      notBefore: root.notBefore,
      notAfter: root.notAfter,
      publicKey: keys.publicKey,
      signingKey: signer.privateKey,
      signingAlgorithm: algorithm,
      extensions: [new SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }])],
    },
    webcrypto,
  );
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  return {
    cert: made.toString('pem'),
    key: `-----BEGIN PRIVATE KEY-----\n${der}\n-----END PRIVATE KEY-----\n`,
  };
}
