// The composition root: starts the workers, serves what is on disk, then keeps certificates, records, routes and evidence.

import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Agent, createAgent } from '../evidence/agent.ts';
import { createAttestRounds } from '../evidence/attest-rounds.ts';
import { buildBundle, quoteIn } from '../evidence/bundle.ts';
import { publishBundle } from '../evidence/publish.ts';
import type { Attestation } from '../evidence/statement.ts';
import { createStatements } from '../evidence/statements.ts';
import { NO_LIMIT } from '../proxy/limits.ts';
import { type AccessLogFile, createAccessLogFile } from './access-log-file.ts';
import type { Admin } from './admin/admin.ts';
import { createTally } from './admin/tally.ts';
import type { Config } from './config/config.ts';
import { createDeployment, type Deployment, type DeploymentParts } from './deployment.ts';
import { createPublisher, type Publisher } from './evidence-publisher.ts';
import { createChallengeLook } from './fleet-challenges.ts';
import { createRoster, type Roster } from './fleet-roster.ts';
import { createFollowing } from './following.ts';
import { createGate, type Gate } from './gate.ts';
import type { Issuance, IssuanceOptions } from './issuance.ts';
import { systemClock } from './lib/clock.ts';
import { descriptorLimit, descriptorShortage } from './lib/descriptors.ts';
import type { Domain } from './lib/domain.ts';
import type { Log } from './lib/log.ts';
import { adopt, type OpenedStore, type OpenStoreOptions, openStore } from './open-store.ts';
import { createRenewing } from './renewing.ts';
import { watchFiles } from './routes/files-watch.ts';
import { describeRoutes } from './routes/plan.ts';
import { foldersOf } from './routes/rule-needs.ts';
import { type ShowingParts, type ShowsOptions, show } from './showing.ts';
import { createStoreFigures, type StoreFigures } from './store-figures.ts';
import type { Tracer } from './tracing/own-spans.ts';
import type { Traces } from './tracing/tracing.ts';
import { version } from './version.ts';
import type { WorkerSettings } from './workers/messages.ts';
import { allowReading } from './workers/process.ts';
import { createWorkers, type Workers } from './workers/workers.ts';

export interface Ingress {
  /** Every domain has a certificate that serves, and the evidence is complete. */
  readonly ready: Promise<void>;
  /** Resolves with why, if the port that a replica opens later cannot be opened any more. */
  readonly broken: Promise<unknown>;
  /** Renews every certificate, due or not. */
  renewNow(): void;
  /** Reads the routes file and the nginx files now; without any there is nothing to do. */
  reloadRoutes(): Promise<void>;
  /** Opens the file of the access log anew; without one there is nothing to do. */
  reopenLog(): void;
  /** Lets open requests finish within the drain time, then ends everything that was started. */
  stop(): Promise<void>;
}

export interface IngressOptions {
  readonly log: Log;
  readonly drainMs?: number;
  /** See WorkersOptions. */
  readonly forkedAhead?: ChildProcess;
  /** How it shows itself; without it, it does not. */
  readonly shows?: ShowsOptions;
}

/** A container that is asked to stop is killed ten seconds later. */
const DRAIN_MS = 8_000;
/** For spans that are still to be sent, and lines that are still to be written, after that. */
const LAST_WORDS_MS = 1_000;

/**
 * Resolves as soon as it listens and serves what is on disk; a replica may listen later, see gate.ts. It waits for nothing
 * that can be unreachable. Rejects with WorkersError if the port cannot be had, and with StoreError if the state folder cannot.
 */
export async function startIngress(config: Config, options: IngressOptions): Promise<Ingress> {
  const { log } = options;
  const stopping = new AbortController();
  const telling = await openTelling(config, log);
  const { traces, logFile, storeFigures } = telling;
  let trouble: OpenedStore['trouble'] | undefined;
  let roster: Roster | undefined;
  // The first two are asked only once visitors come, or there is an account.
  const later: Later = {
    stored: () => stored,
    issuance: () => issuance,
    trouble: () => trouble?.(),
    onAttested: (attestation) => roster?.announce(attestation),
  };
  const parts = createParts(config, { ...withFiles(config, options), ...telling }, later);
  sayIfTooFewDescriptors(config, log);
  const { workers, agent, publisher, deployment, gate } = parts;
  await deployment.follow(config, []);
  const starting = gate.enter();
  const tally = createTally();
  const shown = { ...parts, ...telling, tally, stopping: stopping.signal, log };
  const admin = createShowing(config, options.shows, shown);
  // A replica that waits says what for, while the store is still being asked.
  if (waitsAtTheGate(config)) void starting.then(admin.show, () => {});
  // Awaited below; until then its failure must not count as unhandled.
  starting.catch(() => {});
  const stored = serveStored(config, deployment, { agent, figures: storeFigures, log });
  const giveUp = async (error: unknown): Promise<never> => {
    stopping.abort();
    await workers.drain(0);
    throw error;
  };
  const [kept] = await Promise.all([stored, starting]).catch(giveUp);
  const { store, storage, refuseToRegister } = kept;
  trouble = kept.trouble;
  await tellServing(config, gate, log);
  log.info({ routes: describeRoutes(config) }, 'where requests go');
  roster = config.store && createRoster({ storage, show: publisher.showBeside, log });
  for (const each of [roster, publisher]) void each?.run(stopping.signal);
  void publisher.complete.then(() => publishCollateral(config, publisher, stopping.signal, log));

  const { createIssuance } = await import('./issuance.ts');
  const from = { config, store, storage, refuseToRegister, agent, tracer: traces?.tracer, log };
  const issuance = createIssuance({ ...from, ...challengesThrough(gate, workers) });
  const hooks = { deploy: deployment.offer, onAccount: publisher.setAccount, onOutcome: tally.renewalEnded };
  const renewing = createRenewing(issuance, hooks, stopping.signal);
  await renewing.keep(config).catch(giveUp);
  const parties = { store, deployment, renewing, onFollowed: tally.followed };
  const follow = createFollowing(config, { ...parties, stopping: stopping.signal, log });
  const watch = watchFiles(config, { follow: (plan) => void follow(plan), onRefused: tally.refused, log });
  await admin.show();
  return {
    ready: Promise.all([deployment.covered, publisher.complete, gate.opened]).then(() =>
      log.info({ domains: deployment.plan().domains }, 'ready'),
    ),
    broken: gate.broken,
    renewNow: renewing.renewNow,
    reloadRoutes: () => watch.reload(),
    reopenLog: () => logFile?.reopen(),
    async stop() {
      watch.close();
      stopping.abort();
      await Promise.all([drainAll(workers, options), roster?.leave()]);
      await Promise.all([issuance.close(), admin.close(), closeTelling(telling)]);
      await kept.close();
    },
  };
}

interface Showing {
  show(): Promise<unknown>;
  close(): Promise<void>;
}

function createShowing(
  config: Config,
  shows: IngressOptions['shows'],
  { gate, ...parts }: Omit<ShowingParts, keyof ShowsOptions | 'waitsFor'> & { readonly gate: Gate },
): Showing {
  let admin: Promise<Admin> | undefined;
  return {
    async show() {
      if (shows !== undefined) admin ??= show(config, { ...shows, ...parts, waitsFor: gate.waitsFor });
      await admin;
    },
    close: async () => (await admin)?.close(),
  };
}

/** Where others may take the connections meanwhile. */
function waitsAtTheGate({ store, fleet }: Config): boolean {
  return store !== undefined || fleet !== undefined;
}

/** Said once it is so; a replica that does not listen yet says what it waits for. */
async function tellServing(
  { listen: { httpPort }, workers, domains }: Config,
  gate: Gate,
  log: Log,
): Promise<void> {
  const opened = gate.opened.then((address) =>
    log.info({ ...address, httpPort, workers, domains }, 'serving'),
  );
  // That it could not be opened is said by whoever ends the program.
  opened.catch(() => {});
  const waitsFor = gate.waitsFor();
  if (waitsFor === undefined) await opened;
  else log.info({ waitsFor }, 'replica takes no connections yet');
}

/** A CA comes to the port: what is to be shown to it opens the port. */
function challengesThrough(
  gate: Gate,
  { setChallenge, setHttpChallenge }: Workers,
): Pick<IssuanceOptions, 'setChallenge' | 'setHttpChallenge'> {
  const opened = (challenge: unknown) =>
    challenge === undefined ? undefined : gate.open('a challenge must be answered');
  return {
    async setChallenge(domain, certificate) {
      await opened(certificate);
      await setChallenge(domain, certificate);
    },
    async setHttpChallenge(token, keyAuthorization) {
      await opened(keyAuthorization);
      await setHttpChallenge(token, keyAuthorization);
    },
  };
}

/** A worker that was forked before it was known which folders it may read is of no use. */
function withFiles({ rules }: Config, options: IngressOptions): IngressOptions {
  const folders = foldersOf(rules);
  if (folders.length === 0) return options;
  allowReading(folders);
  options.forkedAhead?.kill('SIGKILL');
  return { log: options.log, ...(options.drainMs !== undefined && { drainMs: options.drainMs }) };
}

interface Stored extends OpenedStore {
  readonly refuseToRegister: IssuanceOptions['refuseToRegister'];
}

/** What is there only later. */
interface Later {
  stored(): Promise<Stored>;
  issuance(): Pick<Issuance, 'describeAccount'>;
  /** Of what is kept. */
  trouble(): string | undefined;
  onAttested(attestation: Attestation): void;
}

/** What is told beside the log, as far as it was asked for. */
interface Telling {
  readonly traces: Traces | undefined;
  readonly logFile: AccessLogFile | undefined;
  readonly storeFigures: StoreFigures | undefined;
}

async function openTelling({ tracing, accessLog, store }: Config, log: Log): Promise<Telling> {
  const path = accessLog?.file;
  return {
    traces: tracing && (await import('./tracing/tracing.ts')).createTraces(tracing, version(), log),
    logFile: path === undefined ? undefined : createAccessLogFile({ path, log }),
    storeFigures: store && createStoreFigures(store.place.engine),
  };
}

/** What is still to be told is told, for a moment. */
async function closeTelling({ traces, logFile }: Telling): Promise<void> {
  await Promise.all([traces?.close(LAST_WORDS_MS), logFile?.close(LAST_WORDS_MS)]);
}

async function drainAll(workers: Workers, { drainMs = DRAIN_MS, log }: IngressOptions): Promise<void> {
  await workers.drain(drainMs);
  log.info({ ...workers.state().totals }, 'workers have ended');
}

type PartsOptions = IngressOptions & Telling;

/** Makes what serves, and starts nothing. */
function createParts(config: Config, { log, forkedAhead, traces, logFile }: PartsOptions, later: Later) {
  const { agentEndpoint, dir } = config.evidence;
  const asked = createAgent({ ...(agentEndpoint !== undefined && { endpoint: agentEndpoint }), log });
  const agent = traces === undefined ? asked : withTracedQuotes(asked, traces.tracer);
  const look = createChallengeLook();
  const workers = createWorkers({
    count: config.workers,
    settings: workerSettings(config),
    findChallenge: async (domain) =>
      sharedChallenge(domain, { config, own: deployment.plan().domains, stored: later.stored, look }),
    takeRecorded: traces?.take,
    lines: logFile,
    attest: createAttestRounds({ quote: (data) => agent.quote(data), log }).ask,
    log,
    ...(forkedAhead !== undefined && { forkedAhead }),
  });
  const publisher = createPublisher({
    build: (account, certificates) =>
      buildBundle({ account, certificates, quote: (data) => agent.quote(data) }),
    statements: createStatements({
      agent,
      folder: join(config.stateDir, 'dstack-ingress'),
      account: (uri, names) => later.issuance().describeAccount(uri, names),
      bootId: bootId(),
      revision: version(),
      log,
    }),
    write: (bundle) => publishBundle(dir, bundle),
    onAttested: later.onAttested,
    serve: workers.setEvidence,
    log,
  });
  const gate = createGate({
    waits: waitsAtTheGate(config),
    start: workers.start,
    claim: workers.claim,
    trouble: later.trouble,
    log,
  });
  const { setRoutes } = workers;
  const setCertificates = waitsAtTheGate(config)
    ? openingFor(gate, workers.setCertificates)
    : workers.setCertificates;
  const deployment = createDeployment(config, { setRoutes, setCertificates, publisher, log });
  return { workers, agent, publisher, deployment, gate };
}

type Swap = DeploymentParts['setCertificates'];

/** What has expired is better than nothing, but others may have something better still. */
const EXPIRED_PATIENCE_MS = 30_000;

function openingFor(gate: Gate, set: Swap): Swap {
  return async (certificates) => {
    await set(certificates);
    const now = systemClock.now();
    // What fails is told by `broken`.
    const open = (why: string) => void gate.open(why).catch(() => {});
    if (certificates.some(({ notAfter }) => notAfter > now)) open('it has a certificate in force');
    else if (certificates.length > 0)
      setTimeout(
        () => open('it has nothing but certificates that have expired'),
        EXPIRED_PATIENCE_MS,
      ).unref();
  };
}

async function publishCollateral(
  { evidence: { pccs } }: Config,
  { shown, setCollateral }: Publisher,
  signal: AbortSignal,
  log: Log,
): Promise<void> {
  if (pccs?.length === 0) return;
  const { keepCollateral } = await import('./collateral.ts');
  const quote = () => quoteIn(shown());
  await keepCollateral({ quote, publish: setCollateral, services: pccs, log }, signal);
}

function withTracedQuotes(agent: Agent, { inSpan }: Tracer): Agent {
  return { ...agent, quote: (data) => inSpan('quote', [], () => agent.quote(data)) };
}

/** Another one after every boot of the machine; see random(4). */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}

interface ChallengeQuestion {
  readonly config: Config;
  readonly own: readonly Domain[];
  stored(): Promise<Stored>;
  readonly look: ReturnType<typeof createChallengeLook>;
}

/** A challenge of another instance that keeps its state where we do: the CA may have come to us instead. */
async function sharedChallenge(asked: string, { config, own, stored, look }: ChallengeQuestion) {
  const domain = own.find((each) => each === asked);
  if (domain === undefined) return undefined;
  const { store } = await stored();
  const keyAuthorization = store.shared ? await look(store, domain) : await store.sharedChallenge(domain);
  if (keyAuthorization === undefined) return undefined;
  if (config.acme.challenge === 'http-01') return { keyAuthorization };
  const { challengeCertificate } = await import('../acme/tls-alpn01.ts');
  return challengeCertificate(domain, keyAuthorization, new Date());
}

async function serveStored(
  config: Config,
  deployment: Deployment,
  options: OpenStoreOptions,
): Promise<Stored> {
  const opened = await openStore(config, options);
  const refuseToRegister = await adopt(config, opened, options.log);
  // Where replicas share it, it may not answer, and there may be no copy: then there is nothing to serve yet.
  const certificates = opened.store.readCertificates();
  await deployment.follow(config, await (opened.store.shared ? certificates.catch(() => []) : certificates));
  return { ...opened, refuseToRegister };
}

function workerSettings(config: Config): WorkerSettings {
  const { host, port, httpPort, alpn, proxyProtocol, trustedProxies, trustedForwarders, limits } =
    config.listen;
  return {
    host,
    port,
    // Visitors are sent to the port that leads here from outside.
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
    sharedHttpChallenges: config.acme.challenge === 'http-01' && config.store !== undefined,
    accessLog: config.accessLog && { ...config.accessLog, toFile: config.accessLog.file !== undefined },
    requestIds: config.requestIds,
    tracing: config.tracing && {
      followsParent: config.tracing.followsParent,
      ratio: config.tracing.ratio,
      query: config.tracing.query,
    },
    logLevel: config.logLevel,
    readableLog: process.stdout.isTTY === true,
  };
}

/** Near the limit idle connections are ended; where there are none, new ones are refused. */
function sayIfTooFewDescriptors({ listen, workers }: Config, log: Log): void {
  const limit = descriptorLimit();
  const { maxConnections } = listen.limits;
  const shortage = descriptorShortage({ maxConnections, workers, limit });
  if (shortage === undefined) return;
  log.warn(
    { limit, ...shortage, maxConnections },
    'fewer file descriptors than MAXCONN needs: raise the limit (ulimits: nofile in compose) or lower MAXCONN',
  );
}
