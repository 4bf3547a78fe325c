// The composition root: starts the workers, serves what is on disk, then keeps certificates, records, routes and evidence.

import type { ChildProcess } from 'node:child_process';
import { adoptEarlierState } from '../acme/adopt.ts';
import type { Manager } from '../acme/manager.ts';
import { createStore, type Store } from '../acme/store.ts';
import { createAgent } from '../evidence/agent.ts';
import { buildBundle } from '../evidence/bundle.ts';
import { publishBundle } from '../evidence/publish.ts';
import { NO_LIMIT } from '../proxy/limits.ts';
import { type Config, planFromFile } from './config/config.ts';
import { createDeployment } from './deployment.ts';
import { createPublisher } from './evidence-publisher.ts';
import type { Issuance } from './issuance.ts';
import { systemClock } from './lib/clock.ts';
import { descriptorLimit } from './lib/descriptors.ts';
import type { Log } from './lib/log.ts';
import { newestWins } from './lib/newest-wins.ts';
import { watchRoutesFile } from './routes/file.ts';
import { describeRoutes, type RoutingPlan } from './routes/plan.ts';
import type { WorkerSettings } from './workers/messages.ts';
import { createWorkers } from './workers/workers.ts';

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
/** Between attempts to follow routes that could not be followed. */
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 60_000;

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
  const { agentEndpoint, dir } = config.evidence;
  const agent = createAgent({ ...(agentEndpoint !== undefined && { endpoint: agentEndpoint }), log });
  const publisher = createPublisher({
    build: (account, certificates) =>
      buildBundle({ account, certificates, quote: (data) => agent.quote(data) }),
    write: (bundle) => publishBundle(dir, bundle),
    serve: (bundle) => workers.setEvidence(bundle),
    log,
  });
  const { setRoutes, setCertificates } = workers;
  const deployment = createDeployment(config, { setRoutes, setCertificates, publisher, log });
  await deployment.follow(config, []);
  const starting = workers.start();
  // Awaited below; until then its failure must not count as unhandled.
  starting.catch(() => {});

  /** A challenge of another instance that shares our state folder: the CA may have come to us instead. */
  async function findChallenge(asked: string) {
    const domain = deployment.plan().domains.find((own) => own === asked);
    const keyAuthorization = domain && (await (await stored).store.sharedChallenge(domain));
    if (domain === undefined || keyAuthorization === undefined) return undefined;
    const { challengeCertificate } = await import('../acme/tls-alpn01.ts');
    return challengeCertificate(domain, keyAuthorization, new Date());
  }

  async function serveStored() {
    const { stateDir, acme } = config;
    const store = await createStore({ stateDir, directoryUrl: acme.directoryUrl, log });
    const refuseToRegister = await adopt(config, store, log);
    await deployment.follow(config, await store.readCertificates());
    return { store, refuseToRegister };
  }

  let kept:
    | { plan: RoutingPlan; until: AbortController; manager: Pick<Manager, 'renewNow' | 'asked'> }
    | undefined;
  let timesAsked = 0;
  async function keepCertificates({ keep }: Issuance, plan: RoutingPlan): Promise<void> {
    const askedBefore = timesAsked;
    const until = new AbortController();
    const hooks = { deploy: deployment.offer, onAccount: publisher.setAccount };
    // The one before goes on until this one has read the disk: if it cannot, somebody still renews.
    const manager = await keep(plan, hooks, AbortSignal.any([stopping.signal, until.signal]));
    const before = kept;
    kept = { plan, until, manager };
    before?.until.abort();
    // What an operator asked for while this one was made is for its names as well.
    const asked = timesAsked === askedBefore ? (before?.manager.asked() ?? []) : undefined;
    if (asked?.length !== 0) manager.renewNow(asked);
  }

  const stored = serveStored();
  const giveUp = async (error: unknown): Promise<never> => {
    stopping.abort();
    await workers.drain(0);
    throw error;
  };
  const started = await Promise.all([stored, starting]).catch(giveUp);
  const [{ store, refuseToRegister }, address] = started;
  const { httpPort } = config.listen;
  log.info({ ...address, httpPort, workers: config.workers, domains: config.domains }, 'serving');
  log.info({ routes: describeRoutes(config.routes) }, 'where requests go');
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
  await keepCertificates(issuance, config).catch(giveUp);

  let newest: RoutingPlan = config;
  const catchUp = newestWins(async () => {
    const next = newest;
    const sameNames = JSON.stringify(next.certificates) === JSON.stringify(kept?.plan.certificates);
    // Routes do not wait for a disk that cannot be read: where names have changed that fails below, and is tried again.
    const stored = await store.readCertificates().catch(() => []);
    await deployment.follow(next, stored);
    log.info({ hosts: next.routes.length, routes: describeRoutes(next.routes) }, 'routes replaced');
    if (!sameNames) await keepCertificates(issuance, next);
  });

  /** Until it has worked, or there are newer ones. */
  async function follow(next: RoutingPlan): Promise<void> {
    newest = next;
    for (let retryMs = FIRST_RETRY_MS; newest === next && !stopping.signal.aborted; ) {
      try {
        return await catchUp();
      } catch (err) {
        log.error({ err, retryMs }, 'new routes cannot be followed');
      }
      await systemClock.sleep(retryMs, stopping.signal).catch(() => {});
      retryMs = Math.min(retryMs * 2, LAST_RETRY_MS);
    }
  }

  const watch = config.routesFile && watchRoutes(config, log, follow);
  const ready = Promise.all([deployment.covered, publisher.complete]).then(() =>
    log.info({ domains: deployment.plan().domains }, 'ready'),
  );
  return {
    address,
    ready,
    renewNow() {
      timesAsked += 1;
      kept?.manager.renewNow();
    },
    reloadRoutes: async () => watch?.reload(),
    async stop() {
      watch?.close();
      stopping.abort();
      await workers.drain(options.drainMs ?? DRAIN_MS);
      log.info({ ...workers.state().totals }, 'workers have ended');
      await issuance.close();
    },
  };
}

function workerSettings(config: Config): WorkerSettings {
  const { host, port, httpPort, alpn, proxyProtocol, trustedProxies, trustedForwarders, limits } =
    config.listen;
  return {
    host,
    port,
    // Visitors have to be told a port that leads to us from outside.
    plainHttp: httpPort === undefined ? undefined : { port: httpPort, httpsPort: config.dns.publicPort },
    alpn,
    proxyProtocol,
    trustedProxies,
    trustedForwarders,
    limits: {
      ...limits,
      maxConnections: Math.ceil(limits.maxConnections / config.workers),
      // What is not known limits nobody.
      maxDescriptors: descriptorLimit() || NO_LIMIT,
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

function watchRoutes(config: Config, log: Log, follow: (plan: RoutingPlan) => Promise<void>) {
  const { path, text: current } = config.routesFile!;
  return watchRoutesFile({
    path,
    current,
    parse: (text) => planFromFile(config.fixedRouting, { path, text }),
    onRoutes: (plan) => void follow(plan),
    onProblem: (err) => log.error({ err, file: path }, 'routes file refused, the old routes go on'),
  });
}
