// A worker process: listens, and serves what the supervisor sends it; it reads no file and no environment.

import { createEvidenceEndpoint } from '../evidence/endpoint.ts';
import { createAccessLog, createListener, defaultLimits, type Listener } from '../proxy/listener.ts';
import { createPlainHttp, type PlainHttp } from '../proxy/plain-http.ts';
import { collectWhenIdle } from './idle-collection.ts';
import { createLog, type Log } from './lib/log.ts';
import type {
  ChallengeCertificate,
  FromWorker,
  Order,
  Serving,
  ToWorker,
  WorkerSettings,
} from './worker-messages.ts';

/** How long an orphan lets its open requests finish after the supervisor is gone. */
const ORPHAN_DRAIN_MS = 10_000;

/**
 * glibc returns the top of its heap to the system once 128 KiB of it are free. An upload, whose memory comes back all at
 * once, takes it again page by page: ten faults a MiB, a twentieth of what it costs. After the release of a block that
 * was mapped on its own, twice that block's size may stay (mallopt(3), M_MMAP_THRESHOLD); none of this one is touched.
 */
const MAPPED_BLOCK = 16 * 1024 * 1024;
Buffer.allocUnsafeSlow(MAPPED_BLOCK).buffer.transfer(0);

collectWhenIdle();

type Evidence = ReturnType<typeof createEvidenceEndpoint>;

let listener: Listener | undefined;
let plainHttp: PlainHttp | undefined;
const evidence: Evidence = createEvidenceEndpoint();

process.on('message', (message: ToWorker) => {
  obey(message).then(
    (address) => reply({ id: message.id, done: true, ...(address && { address }) }),
    (error: NodeJS.ErrnoException) =>
      reply({
        id: message.id,
        done: false,
        message: error.message,
        ...(error.code !== undefined && { code: error.code }),
      }),
  );
});

process.on('disconnect', () => {
  // Nobody can send it certificates any more: it must not go on taking visitors.
  void drain(ORPHAN_DRAIN_MS).finally(() => process.exit(0));
});

// A terminal's Ctrl-C and a container's stop reach the whole group: the supervisor decides when workers go.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});

async function obey(order: Order): Promise<{ address: string; port: number } | undefined> {
  switch (order.type) {
    case 'start':
      return start(order.settings, order.serving);
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
  const question = Promise.withResolvers<ChallengeCertificate | undefined>();
  asked.set(domain, question);
  reply({ findChallenge: domain });
  return question.promise;
}

async function start(settings: WorkerSettings, serving: Serving) {
  const accessLog = settings.accessLog
    ? createAccessLog((lines) => void process.stdout.write(lines))
    : undefined;
  if (accessLog !== undefined) process.on('exit', accessLog.flush);
  const log = createLog({ level: settings.logLevel, readable: settings.readableLog });
  listener = createListener({
    ...(settings.host !== undefined && { host: settings.host }),
    port: settings.port,
    reusePort: true,
    alpn: settings.alpn,
    limits: settings.limits,
    localHandlers: settings.evidence ? [evidence] : [],
    proxyProtocol: settings.proxyProtocol,
    trustedProxies: settings.trustedProxies,
    ticketKeys: Buffer.from(serving.ticketKeys),
    ...(settings.upstreamCa !== undefined && { upstreamCa: settings.upstreamCa }),
    ...(settings.sharedChallenges && { findChallenge }),
    accessLog,
    log,
  });
  listener.setRoutes(serving.routes);
  listener.setCertificates(serving.certificates);
  for (const [domain, certificate] of serving.challenges) listener.setChallenge(domain, certificate);
  evidence.setBundle(serving.evidence);
  const address = await listener.listen();
  plainHttp = await startPlainHttp(settings, serving, log);
  return address;
}

async function startPlainHttp(
  { plainHttp: wanted, host, limits }: WorkerSettings,
  serving: Serving,
  log: Log,
) {
  if (wanted === undefined) return undefined;
  const server = createPlainHttp({
    ...wanted,
    ...(host !== undefined && { host }),
    reusePort: true,
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

function reply(message: FromWorker): void {
  if (process.connected) process.send?.(message);
}
