// The composition root: starts the workers, serves what is on disk, then keeps certificates, records, routes and evidence.

import type { ChildProcess } from 'node:child_process';
import { createSecureContext } from 'node:tls';
import { adoptEarlierState } from '../acme/adopt.ts';
import { servable } from '../acme/selection.ts';
import { createStore, type Store } from '../acme/store.ts';
import { createAgent } from '../evidence/agent.ts';
import { buildBundle } from '../evidence/bundle.ts';
import { publishBundle } from '../evidence/publish.ts';
import { type Config, planFromFile } from './config.ts';
import { createPublisher } from './evidence-publisher.ts';
import type { Issuance } from './issuance.ts';
import type { Certificate } from './lib/certificate.ts';
import { descriptorLimit } from './lib/descriptors.ts';
import type { Log } from './lib/log.ts';
import { watchRoutesFile } from './routes-file.ts';
import type { RoutingPlan } from './routing.ts';
import type { WorkerSettings } from './worker-messages.ts';
import { createWorkers } from './workers.ts';

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
  /** See WorkersOptions. */
  readonly forkedAhead?: ChildProcess;
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
  sayIfTooFewDescriptors(config, log);
  const workers = createWorkers({
    count: config.workers,
    settings: workerSettings(config),
    findChallenge,
    log,
    ...(options.forkedAhead !== undefined && { forkedAhead: options.forkedAhead }),
  });
  await workers.setRoutes(config.routes);
  const starting = workers.start();
  // Awaited below; until then its failure must not count as unhandled.
  starting.catch(() => {});

  const { agentEndpoint, dir } = config.evidence;
  const agent = createAgent({ ...(agentEndpoint !== undefined && { endpoint: agentEndpoint }), log });
  const publisher = createPublisher({
    build: (account, certificates) =>
      buildBundle({ account, certificates, quote: (data) => agent.quote(data) }),
    write: (bundle) => publishBundle(dir, bundle),
    serve: (bundle) => workers.setEvidence(bundle),
    log,
  });
  const covered = Promise.withResolvers<void>();
  let plan: RoutingPlan = config;

  /** A challenge of another instance that shares our state folder: the CA may have come to us instead. */
  async function findChallenge(asked: string) {
    const domain = plan.domains.find((own) => own === asked);
    const keyAuthorization = domain && (await (await stored).store.sharedChallenge(domain));
    if (domain === undefined || keyAuthorization === undefined) return undefined;
    const { challengeCertificate } = await import('../acme/tls-alpn01.ts');
    return challengeCertificate(domain, keyAuthorization, new Date());
  }

  async function deploy(certificates: readonly Certificate[]): Promise<void> {
    await publisher.deploy(certificates, () => workers.setCertificates(certificates));
    if (certificates.length === plan.certificates.length) covered.resolve();
  }

  async function serveStored() {
    const { stateDir, acme } = config;
    const store = await createStore({ stateDir, directoryUrl: acme.directoryUrl, log });
    const refuseToRegister = await adopt(config, store, log);
    const usable = servable(await store.readCertificates(), plan.certificates);
    await deploy(usable.filter((certificate) => loads(certificate, log)));
    return { store, refuseToRegister };
  }

  let running = new AbortController();
  let renewNow = () => {};
  async function keepCertificates({ keep }: Issuance): Promise<void> {
    running.abort();
    running = new AbortController();
    const until = AbortSignal.any([stopping.signal, running.signal]);
    const manager = await keep(plan, { deploy, onAccount: publisher.setAccount }, until);
    renewNow = () => manager.renewNow();
  }

  const stored = serveStored();
  const started = await Promise.all([stored, starting]).catch(async (error: unknown) => {
    await workers.drain(0);
    throw error;
  });
  const [{ store, refuseToRegister }, address] = started;
  const { httpPort } = config.listen;
  log.info({ ...address, httpPort, workers: config.workers, domains: config.domains }, 'serving');
  void publisher.run(stopping.signal);
  const { createIssuance } = await import('./issuance.ts');
  const { setChallenge, setHttpChallenge } = workers;
  const issuance = createIssuance({
    config,
    store,
    refuseToRegister,
    agent,
    setChallenge,
    setHttpChallenge,
    log,
  });
  await keepCertificates(issuance);

  async function follow(next: RoutingPlan): Promise<void> {
    const sameNames = JSON.stringify(next.certificates) === JSON.stringify(plan.certificates);
    plan = next;
    await workers.setRoutes(next.routes);
    log.info({ hosts: next.routes.length }, 'routes replaced');
    if (sameNames) return;
    // A name that is no longer routed is no longer served either.
    await deploy(servable(await store.readCertificates(), next.certificates));
    await keepCertificates(issuance);
  }

  const watch = config.routesFile && watchRoutes(config, log, follow);
  const ready = Promise.all([covered.promise, publisher.complete]).then(() =>
    log.info({ domains: plan.domains }, 'ready'),
  );
  return {
    address,
    ready,
    renewNow: () => renewNow(),
    reloadRoutes: async () => watch?.reload(),
    async stop() {
      watch?.close();
      stopping.abort();
      await workers.drain(options.drainMs ?? DRAIN_MS);
      await issuance.close();
    },
  };
}

function workerSettings(config: Config): WorkerSettings {
  const { host, port, httpPort, alpn, proxyProtocol, trustedProxies, limits } = config.listen;
  return {
    host,
    port,
    // Visitors have to be told a port that leads to us from outside.
    plainHttp: httpPort === undefined ? undefined : { port: httpPort, httpsPort: config.dns.publicPort },
    alpn,
    proxyProtocol,
    trustedProxies,
    limits: {
      ...limits,
      maxConnections: Math.ceil(limits.maxConnections / config.workers),
      maxDescriptors: descriptorLimit(),
      maxBodyBytes: limits.maxBodyBytes ?? 0,
    },
    upstreamCa: config.upstreamCa,
    evidence: config.evidence.serve,
    sharedChallenges: config.acme.challenge === 'tls-alpn-01',
    accessLog: config.accessLog,
    logLevel: config.logLevel,
    readableLog: process.stdout.isTTY === true,
  };
}

/** Each exchange under way takes two: near the limit idle connections are ended, and without any newcomers are refused. */
function sayIfTooFewDescriptors({ listen, workers }: Config, log: Log): void {
  const limit = descriptorLimit();
  const needed = 2 * Math.ceil(listen.limits.maxConnections / workers);
  if (limit === 0 || limit >= needed) return;
  log.warn(
    { limit, needed, maxConnections: listen.limits.maxConnections },
    'fewer file descriptors than MAXCONN needs: raise the limit (ulimits: nofile in compose) or lower MAXCONN',
  );
}

/** Why no account may be made, if so. What of an earlier image cannot be read must not keep ours from serving. */
async function adopt(config: Config, store: Store, log: Log): Promise<string | undefined> {
  const { stateDir, acme, certificates: wanted } = config;
  try {
    return await adoptEarlierState({
      stateDir,
      directoryUrl: acme.directoryUrl,
      wanted,
      store,
      derivedKey: acme.accountKey === 'kms',
      log,
    });
  } catch (err) {
    log.error({ err }, 'state of an earlier image cannot be adopted');
    return `whether ${stateDir} holds an account of an earlier image cannot be told: ${(err as Error).message}`;
  }
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
