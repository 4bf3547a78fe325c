// The composition root: builds the parts, joins them, drains them; every arrow between folders is drawn here.

import { createSecureContext } from 'node:tls';
import type { AccountDocument } from '../acme/account.ts';
import { type Acme, createAcme } from '../acme/connect.ts';
import { createDns01Solver } from '../acme/dns01.ts';
import type { Solver } from '../acme/issuer.ts';
import { createManager, type Manager } from '../acme/manager.ts';
import { createStore, type Store } from '../acme/store.ts';
import { createTlsAlpn01Solver } from '../acme/tls-alpn01.ts';
import type { DnsProvider } from '../dns/provider.ts';
import { createResolver, type Resolver, waitForRecords } from '../dns/resolver.ts';
import { type Agent, createAgent } from '../evidence/agent.ts';
import { buildBundle } from '../evidence/bundle.ts';
import { publishBundle } from '../evidence/publish.ts';
import { type Config, planFromFile } from './config.ts';
import { createPublisher } from './evidence-publisher.ts';
import type { Certificate } from './lib/certificate.ts';
import { systemClock } from './lib/clock.ts';
import type { Log } from './lib/log.ts';
import { createRecordsKeeper } from './records-keeper.ts';
import { createRecordsSetup } from './records-setup.ts';
import { watchRoutesFile } from './routes-file.ts';
import type { RoutingPlan } from './routing.ts';
import type { WorkerSettings } from './worker-messages.ts';
import { createWorkers, type Workers } from './workers.ts';

export interface Ingress {
  readonly address: { readonly address: string; readonly port: number };
  /** Every domain has a certificate that serves, and the evidence is complete. */
  readonly ready: Promise<void>;
  /** Renews every certificate, due or not. */
  renewNow(): void;
  /** Reads the routes file now; without one there is nothing to do. */
  reloadRoutes(): Promise<void>;
  /** Lets open requests finish within the drain time, then ends everything that was started. */
  stop(): Promise<void>;
}

export interface IngressOptions {
  readonly log: Log;
  readonly drainMs?: number;
}

/** A container that is asked to stop is killed ten seconds later. */
const DRAIN_MS = 8_000;

/**
 * Resolves as soon as it listens and serves what is on disk: nothing that can be unreachable is waited for. Rejects with
 * WorkersError if the port is not to be had, with StoreError if the state folder is not.
 */
export async function startIngress(config: Config, options: IngressOptions): Promise<Ingress> {
  const { log } = options;
  const stopping = new AbortController();
  const workers = createWorkers({ count: config.workers, settings: workerSettings(config), log });
  await workers.setRoutes(config.routes);
  const starting = workers.start();
  // Awaited below; until then its failure must not count as unhandled.
  starting.catch(() => {});
  const agent = createAgent({
    ...(config.evidence.agentEndpoint !== undefined && { endpoint: config.evidence.agentEndpoint }),
    log,
  });
  const publisher = createPublisher({
    build: (account, certificates) =>
      buildBundle({ account, certificates, quote: (data) => agent.quote(data) }),
    write: (bundle) => publishBundle(config.evidence.dir, bundle),
    serve: (bundle) => workers.setEvidence(bundle),
    log,
  });
  const parts = await createParts(config, { agent, workers, log });
  const covered = Promise.withResolvers<void>();

  /** The part that is made anew when the routes file names other domains. */
  async function keepCertificates(plan: RoutingPlan, signal: AbortSignal): Promise<Manager> {
    const manager = createManager({
      wanted: plan.certificates,
      store: parts.store,
      connect: (abort) => parts.acme.connect(abort),
      renewalInfo: (certificate, abort) => parts.acme.renewalInfo(certificate, abort),
      recover: () => parts.acme.recover(),
      prepare: (account, abort) => parts.records.ensure(plan.domains, account.url, abort),
      async deploy(certificates) {
        await publisher.deploy(certificates, () => workers.setCertificates(certificates));
        if (certificates.length === plan.certificates.length) covered.resolve();
      },
      onAccount: (document: AccountDocument) => publisher.setAccount(document),
      intervalMs: config.acme.renewIntervalMs,
      renewal: {
        ...(config.acme.renewDaysBefore !== undefined && { daysBefore: config.acme.renewDaysBefore }),
      },
      log,
    });
    const stored = (await manager.load()).filter((certificate) => loads(certificate, log));
    await publisher.deploy(stored, () => workers.setCertificates(stored));
    if (stored.length === plan.certificates.length) covered.resolve();
    // Only now: a CA that validates tls-alpn-01 comes to the listener.
    const running = starting.then(() => {
      void manager.run(signal);
      void parts.records.keep(plan.domains, signal);
    });
    running.catch(() => {});
    return manager;
  }

  let running = new AbortController();
  let plan: RoutingPlan = config;
  let manager: Manager;
  let address: { address: string; port: number };
  try {
    manager = await keepCertificates(plan, AbortSignal.any([stopping.signal, running.signal]));
    address = await starting;
  } catch (error) {
    stopping.abort();
    await workers.drain(0);
    throw error;
  }
  void publisher.run(stopping.signal);

  async function follow(next: RoutingPlan): Promise<void> {
    const sameNames = JSON.stringify(next.certificates) === JSON.stringify(plan.certificates);
    plan = next;
    await workers.setRoutes(next.routes);
    log.info({ hosts: next.routes.length }, 'routes replaced');
    if (sameNames) return;
    running.abort();
    running = new AbortController();
    manager = await keepCertificates(next, AbortSignal.any([stopping.signal, running.signal]));
  }

  const watch = config.routesFile && watchRoutes(config, log, follow);
  log.info({ ...address, workers: config.workers, domains: config.domains }, 'serving');
  const ready = Promise.all([covered.promise, publisher.complete]).then(() =>
    log.info({ domains: plan.domains }, 'ready'),
  );
  return {
    address,
    ready,
    renewNow: () => manager.renewNow(),
    reloadRoutes: async () => watch?.reload(),
    async stop() {
      watch?.close();
      stopping.abort();
      await workers.drain(options.drainMs ?? DRAIN_MS);
      await parts.acme.close();
    },
  };
}

function workerSettings(config: Config): WorkerSettings {
  const { host, port, alpn, proxyProtocol, trustedProxies, limits } = config.listen;
  return {
    host,
    port,
    alpn,
    proxyProtocol,
    trustedProxies,
    limits: {
      ...limits,
      maxConnections: Math.ceil(limits.maxConnections / config.workers),
      maxBodyBytes: limits.maxBodyBytes ?? 0,
    },
    upstreamCa: config.upstreamCa,
    evidence: config.evidence.serve,
    accessLog: config.accessLog,
    logLevel: config.logLevel,
    readableLog: process.stdout.isTTY === true,
  };
}

interface Parts {
  readonly store: Store;
  readonly acme: Acme;
  readonly records: ReturnType<typeof createRecordsKeeper>;
}

async function createParts(
  config: Config,
  { agent, workers, log }: { agent: Agent; workers: Workers; log: Log },
): Promise<Parts> {
  const store = await createStore({ stateDir: config.stateDir, directoryUrl: config.acme.directoryUrl, log });
  const resolver = createResolver({
    ...(config.dns.resolvers.length > 0 && { servers: config.dns.resolvers }),
    ...(config.dns.dohResolvers.length > 0 && { doh: config.dns.dohResolvers }),
  });
  const provider = config.dns.provider?.kind.create(config.dns.provider.credentials);
  const acme = createAcme({
    directoryUrl: config.acme.directoryUrl,
    caPem: config.acme.ca,
    email: config.acme.email,
    externalAccount: config.acme.eab,
    profile: config.acme.profile,
    store,
    solver: createSolver(config, { store, resolver, provider, workers, log }),
    log,
  });
  const setup = createRecordsSetup({
    mode: config.dns.setup,
    ...(provider !== undefined && { provider }),
    resolver,
    timeoutMs: config.dns.propagationTimeoutMs,
    intervalMs: config.dns.propagationIntervalMs,
    log,
  });
  const records = createRecordsKeeper({
    dns: config.dns,
    challenge: config.acme.challenge,
    identity: () => agent.info(),
    accountUri: async () => (await store.readAccount())?.url,
    caaIdentities: async (signal) => {
      const { meta } = await acme.transport.directory(signal);
      return meta.caaIdentities ?? [new URL(config.acme.directoryUrl).hostname];
    },
    setup,
    log,
  });
  return { store, acme, records };
}

function createSolver(
  config: Config,
  parts: {
    store: Store;
    resolver: Resolver;
    provider: DnsProvider | undefined;
    workers: Workers;
    log: Log;
  },
): Solver {
  const { store, resolver, provider, workers, log } = parts;
  if (config.acme.challenge === 'tls-alpn-01') {
    return createTlsAlpn01Solver({
      serve: (domain, certificate) => workers.setChallenge(domain, certificate),
    });
  }
  if (provider === undefined) throw new Error('dns-01 needs a DNS provider');
  const { propagationTimeoutMs: timeoutMs, propagationIntervalMs: intervalMs } = config.dns;
  return createDns01Solver({
    provider,
    store,
    wait: (records, signal) =>
      waitForRecords(records, { resolver, timeoutMs, intervalMs, clock: systemClock, log, signal }),
    log,
  });
}

/** One that cannot be served (a key that is too weak for this OpenSSL, say) must not take the others down. */
function loads({ chain, key, names }: Certificate, log: Log): boolean {
  try {
    createSecureContext({ cert: chain, key });
    return true;
  } catch (err) {
    log.error({ err, domain: names[0] }, 'certificate on disk cannot be served');
    return false;
  }
}

function watchRoutes(config: Config, log: Log, follow: (plan: RoutingPlan) => Promise<void>) {
  const { path, text: current } = config.routesFile!;
  return watchRoutesFile({
    path,
    current,
    parse: (text) => planFromFile(config.fixedRouting, { path, text }),
    onRoutes: (plan) => {
      follow(plan).catch((err: unknown) => log.error({ err }, 'new routes cannot be followed'));
    },
    onProblem: (err) => log.error({ err, file: path }, 'routes file refused, the old routes go on'),
  });
}
