// A worker process: listens, and serves what the supervisor sends it; it reads no file and no environment.

import { createEvidenceEndpoint } from '../evidence/endpoint.ts';
import { createAccessLog, createListener, type Listener } from '../proxy/listener.ts';
import { createLog } from './lib/log.ts';
import type { FromWorker, Order, Serving, ToWorker, WorkerSettings } from './worker-messages.ts';

/** How long an orphan lets its open requests finish after the supervisor is gone. */
const ORPHAN_DRAIN_MS = 10_000;

type Evidence = ReturnType<typeof createEvidenceEndpoint>;

let listener: Listener | undefined;
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
  void (listener?.drain(ORPHAN_DRAIN_MS) ?? Promise.resolve()).finally(() => process.exit(0));
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
      return;
    case 'challenge':
      started().setChallenge(order.domain, order.certificate);
      return;
    case 'ticket-keys':
      started().setTicketKeys(Buffer.from(order.keys));
      return;
    case 'evidence':
      evidence.setBundle(order.bundle);
      return;
    case 'drain':
      await started().drain(order.timeoutMs);
      return;
  }
}

async function start(settings: WorkerSettings, serving: Serving) {
  const accessLog = settings.accessLog
    ? createAccessLog((lines) => void process.stdout.write(lines))
    : undefined;
  if (accessLog !== undefined) process.on('exit', accessLog.flush);
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
    accessLog,
    log: createLog({ level: settings.logLevel, readable: settings.readableLog }),
  });
  listener.setRoutes(serving.routes);
  listener.setCertificates(serving.certificates);
  for (const [domain, certificate] of serving.challenges) listener.setChallenge(domain, certificate);
  evidence.setBundle(serving.evidence);
  return listener.listen();
}

function started(): Listener {
  if (listener === undefined) throw new Error('the worker has not been started');
  return listener;
}

function reply(message: FromWorker): void {
  if (process.connected) process.send?.(message);
}
