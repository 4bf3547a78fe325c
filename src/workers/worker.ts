// A worker process: listens, and serves what the supervisor sends it; it reads no file and no environment.

import { Socket } from 'node:net';
import { createEvidenceEndpoint } from '../../evidence/endpoint.ts';
import {
  createAccessLog,
  createListener,
  defaultLimits,
  type Listener,
  type UpstreamChange,
} from '../../proxy/listener/listener.ts';
import { createPlainHttp, type PlainHttp } from '../../proxy/listener/plain-http.ts';
import { keepFreedMemory } from '../../proxy/socket/insides/allocator.ts';
import { createLog, type Log } from '../lib/log.ts';
import { CHANNEL_FD, FIRST_SOCKET_FD, MOST_QUESTIONS, readOrders, writeMessage } from './channel.ts';
import { collectWhenIdle } from './idle-collection.ts';
import type { ChallengeCertificate, FromWorker, Order, Serving, WorkerSettings } from './messages.ts';

/** How long an orphan lets its open requests finish after the supervisor is gone. */
const ORPHAN_DRAIN_MS = 10_000;
const ORPHAN_GRACE_MS = 1_000;
/** Of an error, or of what is said of an upstream; see FromWorkerSchema. */
const LONGEST_TEXT = 2_000;
/** RFC 1035 §2.3.4, as text. */
const LONGEST_NAME = 253;

keepFreedMemory();
collectWhenIdle();

type Evidence = ReturnType<typeof createEvidenceEndpoint>;

let listener: Listener | undefined;
let plainHttp: PlainHttp | undefined;
const evidence: Evidence = createEvidenceEndpoint();

const supervisor = new Socket({ fd: CHANNEL_FD, readable: true, writable: true });

readOrders(supervisor, (message) => {
  obey(message).then(
    (address) => reply({ id: message.id, done: true, ...(address && { address }) }),
    (error: NodeJS.ErrnoException) =>
      reply({
        id: message.id,
        done: false,
        message: error.message.slice(0, LONGEST_TEXT),
        ...(error.code !== undefined && { code: error.code }),
      }),
  );
});

// Nobody can send it certificates any more: it must not go on taking visitors.
supervisor.once('end', endAsOrphan);
supervisor.once('close', endAsOrphan);
supervisor.on('error', () => {});

function endAsOrphan(): void {
  // Whatever hangs in the drain must not keep the port.
  setTimeout(() => process.exit(0), ORPHAN_DRAIN_MS + ORPHAN_GRACE_MS);
  void drain(ORPHAN_DRAIN_MS).finally(() => process.exit(0));
}

// A terminal's Ctrl-C and a container's stop reach the whole group: the supervisor decides when workers go.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});

async function obey(order: Order): Promise<{ address: string; port: number } | undefined> {
  switch (order.type) {
    case 'start':
      return start(order.settings, order.serving, order.bound === true);
    case 'certificates':
      started().setCertificates(order.certificates);
      return;
    case 'routes':
      started().setRoutes(order.routes);
      plainHttp?.setRoutes(order.routes);
      return;
    case 'challenge':
      started().setChallenge(order.domain, order.certificate);
      return;
    case 'found-challenge':
      asked.get(order.domain)?.resolve(order.certificate);
      asked.delete(order.domain);
      return;
    case 'http-challenge':
      plainHttp?.setChallenge(order.token, order.keyAuthorization);
      return;
    case 'ticket-keys':
      started().setTicketKeys(Buffer.from(order.keys));
      return;
    case 'evidence':
      evidence.setBundle(order.bundle);
      return;
    case 'drain':
      await drain(order.timeoutMs);
      return;
  }
}

/** Questions to the supervisor that are not answered yet: handshakes for one domain share one. */
const asked = new Map<string, PromiseWithResolvers<ChallengeCertificate | undefined>>();

function findChallenge(domain: string): Promise<ChallengeCertificate | undefined> {
  const known = asked.get(domain);
  if (known !== undefined) return known.promise;
  // Strangers choose the name, and how many there are: what the supervisor would not answer is not asked.
  if (domain === '' || domain.length > LONGEST_NAME || asked.size >= MOST_QUESTIONS) {
    return Promise.resolve(undefined);
  }
  const question = Promise.withResolvers<ChallengeCertificate | undefined>();
  asked.set(domain, question);
  reply({ findChallenge: domain });
  return question.promise;
}

async function start(settings: WorkerSettings, serving: Serving, bound: boolean) {
  const accessLog = settings.accessLog
    ? createAccessLog((lines) => void process.stdout.write(lines))
    : undefined;
  if (accessLog !== undefined) process.on('exit', accessLog.flush);
  const log = createLog({ level: settings.logLevel, readable: settings.readableLog });
  listener = createListener({
    ...(settings.host !== undefined && { host: settings.host }),
    port: settings.port,
    reusePort: true,
    ...(bound && { fd: FIRST_SOCKET_FD }),
    alpn: settings.alpn,
    limits: settings.limits,
    localHandlers: settings.evidence ? [evidence] : [],
    proxyProtocol: settings.proxyProtocol,
    trustedProxies: settings.trustedProxies,
    trustedForwarders: settings.trustedForwarders,
    ticketKeys: Buffer.from(serving.ticketKeys),
    ...(settings.upstreamCa !== undefined && { upstreamCa: settings.upstreamCa }),
    ...(settings.sharedChallenges && { findChallenge }),
    onUpstreamChange: (change) => reply({ upstream: withinMessage(change) }),
    accessLog,
    log,
  });
  listener.setRoutes(serving.routes);
  listener.setCertificates(serving.certificates);
  for (const [domain, certificate] of serving.challenges) listener.setChallenge(domain, certificate);
  evidence.setBundle(serving.evidence);
  const address = await listener.listen();
  plainHttp = await startPlainHttp(settings, serving, bound, log);
  return address;
}

async function startPlainHttp(
  { plainHttp: wanted, host, limits }: WorkerSettings,
  serving: Serving,
  bound: boolean,
  log: Log,
) {
  if (wanted === undefined) return undefined;
  const server = createPlainHttp({
    ...wanted,
    ...(host !== undefined && { host }),
    reusePort: true,
    ...(bound && { fd: FIRST_SOCKET_FD + 1 }),
    maxConnections: limits.maxConnections ?? defaultLimits.maxConnections,
    log,
  });
  server.setRoutes(serving.routes);
  for (const [token, text] of serving.httpChallenges) server.setChallenge(token, text);
  await server.listen();
  return server;
}

async function drain(timeoutMs: number): Promise<void> {
  await Promise.all([listener?.drain(timeoutMs), plainHttp?.drain(timeoutMs)]);
}

function started(): Listener {
  if (listener === undefined) throw new Error('the worker has not been started');
  return listener;
}

/** Names of many addresses, and what a system says of them, may be longer than a message. */
function withinMessage(change: UpstreamChange): UpstreamChange {
  const { upstream, reason } = change;
  return { ...change, upstream: upstream.slice(0, LONGEST_TEXT), reason: reason?.slice(0, LONGEST_TEXT) };
}

function reply(message: FromWorker): void {
  if (supervisor.writable) writeMessage(supervisor, message);
}
