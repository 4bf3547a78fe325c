// A host with evidence of a simulated platform over a real TLS socket, with DNS and certificate logs around it: honest, or lying where it is told to.

import 'reflect-metadata';
import { createHash, createPrivateKey, type KeyObject, webcrypto, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import {
  BasicConstraintsExtension,
  Extension,
  type X509Certificate as PeculiarCertificate,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { createResolver } from '../../dns/resolver.ts';
import { createPlainExchange } from '../../dns/wire/exchange.ts';
import {
  attestLeaf,
  attestNode,
  attestReportData,
  EXPORTER_BYTES,
  EXPORTER_LABEL,
  foldPath,
  type PathStep,
  signKeyProof,
} from '../../evidence/attest-claims.ts';
import { RUNTIME_EVENT, replay, runtimeDigest } from '../../evidence/event-log.ts';
import { historyLine } from '../../evidence/history.ts';
import { type Statement, statementDigest, statementReportData } from '../../evidence/statement.ts';
import { createCtSource } from '../../evidence/verify/ask-ct.ts';
import type { Expected, VerifyOptions } from '../../evidence/verify/index.ts';
import { createSimulatedProcessor, type SimulatedProcessor } from '../../src/demo/simulated-quote.ts';
import { type DnsDouble, startDnsDouble } from './dns-double.ts';

export const HOST = 'localhost';
export const ACCOUNT = 'https://ca.example/acct/1';
const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY_MS = 86_400_000;

// Certificates: a CA of its own, and leaves that are three days old.

export interface Served {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
  readonly leaf: X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
}

interface Wanted {
  readonly from?: Date;
  readonly until?: Date;
  /** Another certificate for the key of this one, in force as long. */
  readonly like?: Served;
  /** Signed with the key of this one, which is no authority, and sent with it. */
  readonly by?: Served;
  /** Makes the list of timestamps that goes into it out of the certificate without, and that of its issuer; both DER. */
  readonly timestamps?: (certificate: Buffer, issuer: Buffer) => Buffer;
}

export interface TestCa {
  readonly pem: string;
  issue(names: readonly string[], wanted?: Wanted): Promise<Served>;
}

let serial = 0x0a00;

export async function createTestCa(): Promise<TestCa> {
  const keys = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);
  const root = await X509CertificateGenerator.createSelfSigned({
    name: 'CN=Test Root',
    keys,
    notBefore: new Date(Date.now() - 30 * DAY_MS),
    notAfter: new Date(Date.now() + 365 * DAY_MS),
    signingAlgorithm: EC,
    extensions: [new BasicConstraintsExtension(true, undefined, true)],
  });
  return {
    pem: root.toString('pem'),
    issue: (names, wanted = {}) => issue(root, keys.privateKey, names, wanted),
  };
}

async function issue(
  root: PeculiarCertificate,
  signingKey: webcrypto.CryptoKey,
  names: readonly string[],
  { like, from, until, by, timestamps }: Wanted,
): Promise<Served> {
  const keys = like?.keys ?? (await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']));
  const serialNumber = (++serial).toString(16).padStart(4, '0');
  const described = {
    serialNumber,
    subject: 'CN=test',
    issuer: by === undefined ? root.subject : by.leaf.subject,
    publicKey: keys.publicKey,
    signingKey: by?.keys.privateKey ?? signingKey,
    notBefore: from ?? like?.leaf.validFromDate ?? new Date(Date.now() - 3 * DAY_MS),
    notAfter: until ?? like?.leaf.validToDate ?? new Date(Date.now() + 60 * DAY_MS),
    signingAlgorithm: EC,
  };
  const extensions = [
    new SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns' as const, value }))),
  ];
  const plain = await X509CertificateGenerator.create({ ...described, extensions });
  const list = timestamps?.(Buffer.from(plain.rawData), Buffer.from(root.rawData));
  const certificate =
    list === undefined
      ? plain
      : await X509CertificateGenerator.create({
          ...described,
          extensions: [...extensions, new Extension('1.3.6.1.4.1.11129.2.4.2', false, list)],
        });
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const own = certificate.toString('pem');
  const above = by?.cert ?? (list === undefined ? '' : root.toString('pem'));
  const cert = above === '' ? own : `${own}\n${above}`;
  return {
    cert,
    key: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`,
    leaf: new X509Certificate(cert),
    keys,
  };
}

// The machine: what it has measured, and quotes that say so.

export interface MachineOptions {
  readonly appId?: string;
  readonly composeHash?: string;
  readonly instanceId?: string;
  readonly keyProvider?: string;
  readonly mrConfigId?: string;
  readonly mrTd?: string;
  /** Measured by the system, before it is ready. */
  readonly more?: readonly (readonly [name: string, payload: string])[];
}

export const machine = {
  appId: 'a1'.repeat(20),
  composeHash: 'c0'.repeat(32),
  instanceId: '1d'.repeat(20),
  keyProvider: JSON.stringify({ name: 'kms', id: 'beef' }),
  mrTd: sha384('SIMULATED firmware'),
  image: 'ee'.repeat(32),
} as const;

export interface QuoteFields {
  readonly quote: string;
  readonly event_log: string;
  readonly report_data: string;
  readonly vm_config: string;
}

export function quoteOf(
  processor: SimulatedProcessor,
  options: MachineOptions,
  reportData: Uint8Array,
): QuoteFields {
  const { appId, composeHash, instanceId, keyProvider, mrTd } = { ...machine, ...options };
  const early = ['firmware', 'kernel', 'initrd'].map((name, imr) => ({
    imr,
    type: 0x80000008,
    name,
    payload: '',
    digest: sha384(name),
  }));
  const measured: (readonly [string, string])[] = [
    ['system-preparing', ''],
    ['app-id', appId],
    ['compose-hash', composeHash],
    ['instance-id', instanceId],
    ...(options.more ?? []),
    ['os-image-hash', machine.image],
    ['key-provider', Buffer.from(keyProvider).toString('hex')],
    ['system-ready', ''],
  ];
  const events = [
    ...early,
    ...measured.map(([name, payload]) => ({
      imr: 3,
      type: RUNTIME_EVENT,
      name,
      payload,
      digest: runtimeDigest(name, Buffer.from(payload, 'hex')),
    })),
  ];
  const mrConfigId = options.mrConfigId ?? `01${composeHash}${'00'.repeat(15)}`;
  const quote = processor.quote({ mrTd, mrConfigId, rtmrs: replay(events) }, reportData);
  const log = events.map(({ imr, type, name, payload, digest }) => ({
    imr,
    event_type: type,
    digest: imr === 3 ? '' : digest,
    event: name,
    event_payload: payload,
  }));
  return {
    quote: quote.toString('hex'),
    event_log: JSON.stringify(log),
    report_data: Buffer.from(reportData).toString('hex'),
    vm_config: '{}',
  };
}

/** The registers of an honest machine, for who wants to compare them. */
export function registersOf(processor: SimulatedProcessor): string[] {
  const { quote } = quoteOf(processor, {}, Buffer.alloc(64));
  return [0, 1, 2].map((index) => quote.slice((376 + 48 * index) * 2, (376 + 48 * (index + 1)) * 2));
}

// What is published, honest but for what a lie changes.

/** What is sent instead of a file. `hang`: nothing. `cut`: half of it. `drip`: a byte now and then. */
export interface OddReply {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
  readonly how?: 'hang' | 'cut' | 'drip';
}

export type Reply = string | Buffer | OddReply;

export interface AttestLie {
  /** Before the claims are hashed and signed. */
  readonly claims?: (claims: { nonce: string; spki: string; exporter: string }) => {
    nonce: string;
    spki: string;
    exporter: string;
  };
  /** Of the answer; a text is sent as it is. */
  readonly answer?: (answer: Record<string, unknown>) => unknown;
  readonly machine?: MachineOptions;
  readonly processor?: SimulatedProcessor;
  readonly key?: KeyObject;
  readonly reply?: Reply;
}

/** What a host lies about; all else is as it should be. */
export interface Lie {
  readonly processor?: SimulatedProcessor;
  /** Of the bundle's quote. */
  readonly machine?: MachineOptions;
  /** Of the quote of the statement. */
  readonly stated?: MachineOptions;
  readonly statedBy?: SimulatedProcessor;
  /** What the connections show, one after the other; the last one stays. The evidence is made for the first of the honest. */
  readonly served?: readonly Served[];
  /** The certificate in the evidence. */
  readonly published?: Served;
  /** By name; what is undefined is not there. After the sums and quotes were made. */
  readonly files?: Readonly<Record<string, ((honest: string) => Reply) | undefined>>;
  /** Before the quote over them is made. */
  readonly sums?: (honest: string) => string;
  readonly account?: string;
  /** Before the quote over it is made. */
  readonly statement?: (honest: Statement) => Statement;
  readonly attest?: AttestLie;
  readonly tls?: { readonly maxVersion?: 'TLSv1.2'; readonly ALPNProtocols?: string[] };
  /** What answers beside the evidence. */
  readonly app?: Handle;
  readonly dns?: {
    readonly first?: Readonly<Record<string, readonly string[]>>;
    readonly second?: Readonly<Record<string, readonly string[]>>;
    readonly authority?: Readonly<Record<string, readonly string[]>>;
    readonly silent?: 'second' | 'authority';
  };
  readonly ct?: {
    readonly certSpotter?: Reply | ((honest: object[]) => unknown);
    readonly crtsh?: Reply | ((honest: object[]) => unknown);
  };
}

/** All quotes are of this machine. */
export function everywhere(changed: MachineOptions): Lie {
  return { machine: changed, stated: changed, attest: { machine: changed } };
}

export interface World {
  readonly ca: TestCa;
  readonly processor: SimulatedProcessor;
  readonly served: Served;
}

export async function createEvidenceWorld(): Promise<World> {
  const ca = await createTestCa();
  return { ca, processor: await createSimulatedProcessor(), served: await ca.issue([HOST]) };
}

export interface EvidenceHost {
  readonly port: number;
  readonly url: string;
  /** To the host and what is around it, with everything expected that an honest one is. */
  readonly options: VerifyOptions & { readonly expected: Expected };
  readonly resolvers: readonly [DnsDouble, DnsDouble];
  readonly ct: { readonly certSpotter: string; readonly crtsh: string };
  /** Of the requests that came, in order. */
  readonly asked: readonly string[];
  readonly server: Server;
  /** From the next connection on. */
  show(served: Served): void;
  close(): Promise<void>;
}

export async function startEvidenceHost(world: World, lie: Lie = {}): Promise<EvidenceHost> {
  const processor = lie.processor ?? world.processor;
  const published = lie.published ?? world.served;
  const chain = [...(lie.served ?? [world.served])];
  const files = publish(processor, published, lie);
  const asked: string[] = [];
  const server = serve(chain, lie, (request, response) => {
    asked.push(request.url ?? '');
    if (lie.app !== undefined && !request.url?.startsWith('/evidences/')) return lie.app(request, response);
    return void answer(request, response, { files, processor, lie, served: published });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const dns = await startDns(lie.dns ?? {});
  const logs = await startLogs(published, lie.ct ?? {});
  const [rtmr0, rtmr1, rtmr2] = registersOf(world.processor);
  return {
    port,
    url: `https://${HOST}:${port}`,
    asked,
    server,
    show(next) {
      chain.splice(0, chain.length, next);
      server.setSecureContext({ cert: next.cert, key: next.key });
    },
    resolvers: [dns.first, dns.second],
    ct: logs.urls,
    options: {
      url: `https://${HOST}:${port}`,
      dns: dns.sources,
      ct: [createCtSource(logs.urls.certSpotter), createCtSource(`crtsh+${logs.urls.crtsh}`)],
      collateral: async () => processor.collateral,
      expected: {
        ca: world.ca.pem,
        quoteRoot: processor.rootDer,
        appId: machine.appId,
        composeHash: machine.composeHash,
        keyProviders: [{ name: 'kms', id: 'beef' }],
        systems: [{ mrtd: machine.mrTd, rtmrs: { 0: rtmr0!, 1: rtmr1!, 2: rtmr2! }, image: machine.image }],
      },
    },
    async close() {
      server.closeAllConnections();
      server.close();
      await Promise.all([dns.stop(), logs.stop()]);
    },
  };
}

function publish(processor: SimulatedProcessor, published: Served, lie: Lie): Map<string, Reply> {
  const account = `${JSON.stringify({ body: {}, uri: lie.account ?? ACCOUNT })}\n`;
  const covered: [string, string][] = [
    ['acme-account.json', account],
    [`cert-${HOST}.pem`, published.cert],
  ];
  const honestSums = covered.map(([name, text]) => `${sha256(text)}  ${name}\n`).join('');
  const sums = lie.sums?.(honestSums) ?? honestSums;
  const reportData = Buffer.concat([createHash('sha256').update(sums).digest(), Buffer.alloc(32)]);
  const { first, statement } = statementsOf(published, lie);
  const attestation = {
    statement,
    ...quoteOf(lie.statedBy ?? processor, lie.stated ?? {}, statementReportData(statement)),
  };
  const honest = new Map<string, string>([
    ...covered,
    ['sha256sum.txt', sums],
    ['quote.json', JSON.stringify(quoteOf(processor, lie.machine ?? {}, reportData))],
    ['attestation.json', JSON.stringify(attestation)],
    ['history.jsonl', historyLine(first) + historyLine(statement)],
  ]);
  const files = new Map<string, Reply>(honest);
  for (const [name, change] of Object.entries(lie.files ?? {})) {
    if (change === undefined) files.delete(name);
    else files.set(name, change(honest.get(name) ?? ''));
  }
  return files;
}

function statementsOf({ leaf }: Served, lie: Lie): { first: Statement; statement: Statement } {
  const first: Statement = {
    type: 'dstack-ingress/statement/v1',
    time: '2026-03-01T12:00:00.000Z',
    domains: [HOST],
    certificates: [
      {
        names: [HOST],
        serial: leaf.serialNumber.toLowerCase(),
        issuer: leaf.issuer.replaceAll('\n', ', '),
        spki: spkiOf(leaf),
        sha256: sha256(leaf.raw),
        notBefore: leaf.validFromDate.toISOString(),
        notAfter: leaf.validToDate.toISOString(),
      },
    ],
    account: { uri: lie.account ?? ACCOUNT, thumbprint: 'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs' },
    caa: { [HOST]: [PIN] },
    appId: machine.appId,
    instanceId: machine.instanceId,
    composeHash: machine.composeHash,
    bootId: '6d0c7a3e-0b0f-4d52-9a0c-3f5e4a1d2c3b',
    revision: 'a test',
    previous: null,
  };
  const next = { ...first, time: '2026-03-02T12:00:00.000Z', previous: statementDigest(first) };
  return { first, statement: lie.statement?.(next) ?? next };
}

// The host: each connection may show another certificate.

type Handle = (request: IncomingMessage, response: ServerResponse) => void;

function serve(chain: readonly Served[], lie: Lie, handle: Handle): Server {
  const first = chain[0]!;
  const options = { cert: first.cert, key: first.key, ...lie.tls };
  const server = createServer(options, handle);
  let connections = 0;
  server.on('secureConnection', () => {
    const next = chain[Math.min(++connections, chain.length - 1)]!;
    server.setSecureContext({ cert: next.cert, key: next.key, ...lie.tls });
  });
  server.on('tlsClientError', () => {});
  server.keepAliveTimeout = 60_000;
  return server;
}

interface Answering {
  readonly files: ReadonlyMap<string, Reply>;
  readonly processor: SimulatedProcessor;
  readonly lie: Lie;
  readonly served: Served;
}

async function answer(request: IncomingMessage, response: ServerResponse, how: Answering): Promise<void> {
  const url = new URL(request.url ?? '/', 'https://host');
  const name = decodeURIComponent(url.pathname.replace(/^\/evidences\//, ''));
  const reply =
    name === 'attest'
      ? await attest(request.socket as TLSSocket, url.searchParams.get('nonce') ?? '', how)
      : how.files.get(name);
  send(response, reply ?? { status: 404, body: 'there is no such file\n' });
}

export function send(response: ServerResponse, reply: Reply): void {
  const odd: OddReply = typeof reply === 'string' || Buffer.isBuffer(reply) ? { body: reply } : reply;
  const body = Buffer.from(odd.body ?? '');
  if (odd.how === 'hang') return;
  if (odd.how === undefined) {
    response.writeHead(odd.status ?? 200, odd.headers).end(body);
    return;
  }
  response.writeHead(200, { 'content-length': body.length });
  if (odd.how === 'cut') {
    response.write(body.subarray(0, body.length / 2), () => response.destroy());
    return;
  }
  let at = 0;
  const drip = setInterval(() => response.write(body.subarray(at, ++at)), 500);
  response.once('close', () => clearInterval(drip));
}

async function attest(
  socket: TLSSocket,
  nonce: string,
  { processor, lie, served }: Answering,
): Promise<Reply> {
  const { claims: changed, answer: edit, machine: options = {}, key, reply } = lie.attest ?? {};
  if (reply !== undefined) return reply;
  const exporter = socket
    .exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0))
    .toString('hex');
  const true_ = { nonce, spki: spkiOf(served.leaf), exporter };
  const claims = changed?.(true_) ?? true_;
  const leaf = attestLeaf(claims);
  // Somebody else has asked at the same time.
  const path: PathStep[] = [{ side: 'left', hash: sha256('somebody else') }];
  const root = foldPath(leaf, path);
  assertNode(root, path, leaf);
  const signature = await signKeyProof(leaf, key ?? createPrivateKey(served.key));
  const honest = {
    version: 1,
    ...claims,
    path,
    root: root.toString('hex'),
    signature: Buffer.from(signature).toString('hex'),
    ...quoteOf(lie.attest?.processor ?? processor, options, attestReportData(root)),
  };
  const answer = edit?.(honest) ?? honest;
  return typeof answer === 'string' ? answer : JSON.stringify(answer);
}

/** What the double makes is what the tree says, and not what the verifier's own folding says. */
function assertNode(root: Buffer, [step]: readonly PathStep[], leaf: Buffer): void {
  if (!root.equals(attestNode(Buffer.from(step!.hash, 'hex'), leaf))) throw new Error('the path is wrong');
}

// DNS: two resolvers, and the server of the zone.

export const PIN = `0 issue "ca.example; accounturi=${ACCOUNT}; validationmethods=tls-alpn-01"`;

async function startDns(lie: NonNullable<Lie['dns']>) {
  const honest = {
    [`CAA ${HOST}`]: [PIN],
    [`NS ${HOST}`]: ['ns.localhost'],
    'A ns.localhost': ['127.0.0.1'],
  };
  const [first, second, zone] = await Promise.all([
    startDnsDouble({ ...honest, ...lie.first }),
    startDnsDouble({ ...honest, ...lie.second }),
    startDnsDouble({ ...honest, ...lie.authority }),
  ]);
  if (lie.silent !== undefined)
    (lie.silent === 'second' ? second : zone).misanswer(() => [Buffer.from('no')]);
  const { views = [], authority } = createResolver({
    doh: [first.doh, second.doh],
    authoritative: {
      exchangeWith: () => createPlainExchange(zone.server, { timeoutMs: 1_000, recursion: false }),
    },
    timeoutMs: 2_000,
  });
  return {
    first,
    second,
    sources: { views, authority },
    stop: () => Promise.all([first.stop(), second.stop(), zone.stop()]),
  };
}

// The certificate logs, by two who index them.

async function startLogs({ leaf }: Served, lie: NonNullable<Lie['ct']>) {
  const spotted = [
    {
      id: '1',
      dns_names: [HOST],
      pubkey_sha256: spkiOf(leaf),
      not_before: leaf.validFromDate.toISOString(),
      not_after: leaf.validToDate.toISOString(),
    },
  ];
  const listed = [
    {
      id: 11,
      issuer_name: leaf.issuer.replaceAll('\n', ', '),
      name_value: HOST,
      common_name: HOST,
      serial_number: leaf.serialNumber.toLowerCase(),
      not_before: undated(leaf.validFromDate),
      not_after: undated(leaf.validToDate),
    },
  ];
  const server = createHttpServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://logs');
    const isCrtsh = url.pathname === '/crtsh';
    const change = isCrtsh ? lie.crtsh : lie.certSpotter;
    if (change !== undefined && typeof change !== 'function') return send(response, change);
    if (!isCrtsh && url.searchParams.has('after')) return send(response, '[]');
    const honest = isCrtsh ? listed : spotted;
    return send(response, JSON.stringify(change?.(honest) ?? honest));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    urls: { certSpotter: `${base}/v1/issuances`, crtsh: `${base}/crtsh` },
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** As crt.sh writes dates. */
function undated(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, '');
}

export function spkiOf(leaf: X509Certificate): string {
  return sha256(leaf.publicKey.export({ type: 'spki', format: 'der' }));
}

export function sha256(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

function sha384(data: string): string {
  return createHash('sha384').update(data).digest('hex');
}
