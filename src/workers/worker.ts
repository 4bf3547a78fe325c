// A worker process: listens, and serves what the supervisor sends it; it reads no file and no environment.

import { Socket } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import { createAttester } from '../../evidence/attest.ts';
import { createEvidenceEndpoint, type EvidenceEndpoint } from '../../evidence/endpoint.ts';
import { createConnectionCounts } from '../../proxy/listener/counts.ts';
import {
  both,
  compileInPauses,
  createAccessLog,
  createListener,
  createRequestIds,
  createTracing,
  type Listener,
  type UpstreamChange,
} from '../../proxy/listener/listener.ts';
import { createPlainHttp, type PlainHttp } from '../../proxy/listener/plain-http.ts';
import type { CompiledRules } from '../../proxy/rules/compiled.ts';
import { keepFreedMemory } from '../../proxy/socket/insides/allocator.ts';
import type { ChallengeCertificate } from '../lib/certificate.ts';
import { createLog, type Log } from '../lib/log.ts';
import { createAttestQuestions } from './attest-questions.ts';
import { CHANNEL_FD, FIRST_SOCKET_FD, MOST_QUESTIONS, readOrders, writeMessage } from './channel.ts';
import { createComparisons } from './comparisons.ts';
import { connectionLayout, linesLayout, spanLayout } from './counters.ts';
import { collectWhenIdle } from './idle-collection.ts';
import { createKeyRing } from './key-ring.ts';
import { hostLabels } from './labels.ts';
import { zonesOf } from './limit-counts.ts';
import { createAskingLimiter } from './limit-questions.ts';
import { createLineSink } from './log-lines.ts';
import type { FoundChallenge, FromWorker, Order, WorkerEvent, WorkerSettings } from './messages.ts';
import { createProcessFigures } from './process-figures.ts';
import { createRequestCounts } from './request-counts.ts';
import { type Generations, nothingServed, type Serving, type Snapshot, withNewer } from './serving.ts';
import { createSpanRecorder, type SpanRecorder } from './spans.ts';
import { createTelemetrySender } from './telemetry.ts';

/** How long an orphan lets its open requests finish after the supervisor is gone. */
const ORPHAN_DRAIN_MS = 10_000;
const ORPHAN_GRACE_MS = 1_000;
/** Of an error's text, or of what is told about an upstream; see FromWorkerSchema. */
const LONGEST_TEXT = 2_000;
/** RFC 1035 §2.3.4, as text. */
const LONGEST_NAME = 253;

keepFreedMemory();
collectWhenIdle();

let workerLog: Log | undefined;
let listener: Listener | undefined;
let plainHttp: PlainHttp | undefined;
const keyRing = createKeyRing();
const attestQuestions = createAttestQuestions((attest) => say({ attest }));
const evidence: EvidenceEndpoint = createEvidenceEndpoint({
  attester: createAttester({ keyOf: keyRing.keyOf, ask: attestQuestions.ask }),
});
let served: Generations = nothingServed;
let challenges: Serving['challenges'] = new Map();
let httpChallenges: Serving['httpChallenges'] = new Map();

const connectionCounts = createConnectionCounts();
const requestCounts = createRequestCounts();
const lostLines = new Float64Array(linesLayout.names.length);
const spanCounts = new Float64Array(spanLayout.names.length);
const processFigures = createProcessFigures();

const supervisor = new Socket({ fd: CHANNEL_FD, readable: true, writable: true });

const comparisons = createComparisons((comparePassword) => say({ comparePassword }));
const limiter = createAskingLimiter({
  send: (limits) => say({ limits }),
  onSilence: (silent) =>
    workerLog?.warn(
      silent
        ? 'the supervisor does not answer: this worker counts by itself what limits are held against'
        : 'the supervisor answers again: it counts for all workers',
    ),
});

/** Undefined until it is told whether requests are traced, and for ever if they are not. */
let spans: SpanRecorder | undefined;

const telemetry = createTelemetrySender({
  blocks: [
    { layout: connectionLayout, numbers: connectionCounts },
    { layout: spanLayout, numbers: spanCounts },
    { layout: linesLayout, numbers: lostLines },
    processFigures,
  ],
  rows: requestCounts.rows,
  sample() {
    processFigures.sample();
    if (listener !== undefined) requestCounts.setUpstreams(listener.upstreamsNow());
  },
  send: (message) => say({ telemetry: message }),
});

readOrders(supervisor, (order) => {
  obey(order).then(
    (outcome) => say({ id: order.id, done: true, ...outcome }),
    (error: NodeJS.ErrnoException) =>
      say({
        id: order.id,
        done: false,
        message: error.message.slice(0, LONGEST_TEXT),
        ...(error.code !== undefined && { code: error.code }),
      }),
  );
});

// Without its supervisor it gets no new certificates: it must not take new visitors.
supervisor.once('end', endAsOrphan);
supervisor.once('close', endAsOrphan);
supervisor.on('error', () => {});

function endAsOrphan(): void {
  // A drain that hangs must not keep the port.
  setTimeout(() => process.exit(0), ORPHAN_DRAIN_MS + ORPHAN_GRACE_MS);
  void drain(ORPHAN_DRAIN_MS).finally(() => process.exit(0));
}

// A terminal's Ctrl-C and a container's stop reach the whole group: the supervisor decides when workers go.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});

interface Outcome {
  readonly address?: { address: string; port: number };
  readonly generation?: number;
}

async function obey(order: Order): Promise<Outcome> {
  switch (order.type) {
    case 'start':
      return { address: await start(order) };
    case 'serve':
      return { generation: await serve(order.snapshot) };
    case 'found-challenge':
      asked.get(order.domain)?.resolve(order.found);
      asked.delete(order.domain);
      return {};
    case 'charged':
      limiter.answered(order.answers);
      return {};
    case 'attested':
      attestQuestions.answered(order.question, order.answer);
      return {};
    case 'compared-password':
      comparisons.answered(order.question, order.right);
      return {};
    case 'drain':
      await drain(order.timeoutMs);
      spans?.flush();
      telemetry.flush();
      return {};
  }
}

/** Returns the generation that is served then. */
async function serve(snapshot: Snapshot): Promise<number> {
  const { kind, generation } = snapshot;
  if (generation <= served[kind]) return served[kind];
  const rules = kind === 'routes' ? snapshot.value.rules : undefined;
  // Visitors are served meanwhile, and something newer may overtake it.
  const compiled = rules && (await compileInPauses(rules));
  if (generation > served[kind]) {
    put(snapshot, compiled);
    served = withNewer(served, kind, generation);
  }
  return served[kind];
}

function put({ kind, value }: Snapshot, compiled?: CompiledRules): void {
  switch (kind) {
    case 'certificates':
      started().setCertificates(value);
      requestCounts.setHosts(hostLabels({ certificates: value }));
      keyRing.set(value);
      break;
    case 'routes':
      // First, for it throws where the rules cannot be compiled: then those of before go on, and so do the routes.
      started().setRoutes(value.list, compiled ?? value.rules);
      if (value.limitSecret !== undefined) limiter.setSecret(value.limitSecret);
      limiter.setZones(zonesOf(value.rules));
      plainHttp?.setRoutes(value.list, hasSite);
      requestCounts.setUpstreams(started().upstreamsNow());
      break;
    case 'challenges':
      setChanges(challenges, value, (domain, one) => started().setChallenge(domain, one));
      challenges = value;
      break;
    case 'httpChallenges':
      setChanges(httpChallenges, value, (token, one) => plainHttp?.setChallenge(token, one));
      httpChallenges = value;
      break;
    case 'ticketKeys':
      started().setTicketKeys(Buffer.from(value));
      break;
    case 'evidence':
      evidence.setBundle(value.current, value.next);
  }
}

/** Calls `set` with what is new or different, and with undefined for what is gone. */
function setChanges<T>(
  before: ReadonlyMap<string, T>,
  after: ReadonlyMap<string, T>,
  set: (key: string, value: T | undefined) => void,
): void {
  for (const key of before.keys()) if (!after.has(key)) set(key, undefined);
  for (const [key, value] of after) if (!isDeepStrictEqual(before.get(key), value)) set(key, value);
}

/** Questions to the supervisor that are not answered yet: handshakes for one domain share one. */
const asked = new Map<string, PromiseWithResolvers<FoundChallenge | undefined>>();

async function findCertificate(domain: string): Promise<ChallengeCertificate | undefined> {
  const found = await findChallenge(domain);
  return found !== undefined && 'cert' in found ? found : undefined;
}

/** RFC 8555 §8.1: the token, a dot, and what only the account's owner can say. */
async function findText(host: string, token: string): Promise<string | undefined> {
  const found = await findChallenge(host);
  if (found === undefined || !('keyAuthorization' in found)) return undefined;
  return found.keyAuthorization.startsWith(`${token}.`) ? found.keyAuthorization : undefined;
}

function findChallenge(domain: string): Promise<FoundChallenge | undefined> {
  const known = asked.get(domain);
  if (known !== undefined) return known.promise;
  // Strangers choose the names and their number: only what the supervisor would answer is asked.
  if (domain === '' || domain.length > LONGEST_NAME || asked.size >= MOST_QUESTIONS) {
    return Promise.resolve(undefined);
  }
  const question = Promise.withResolvers<FoundChallenge | undefined>();
  asked.set(domain, question);
  say({ findChallenge: domain });
  return question.promise;
}

async function start(order: Extract<Order, { type: 'start' }>): Promise<{ address: string; port: number }> {
  const { settings, serving, generations, bound = false } = order;
  const accessLog = settings.accessLog
    ? createAccessLog(createLineSink(settings.accessLog, lostLines), settings.accessLog)
    : undefined;
  if (accessLog !== undefined) process.on('exit', accessLog.flush);
  const log = createLog({ level: settings.logLevel, readable: settings.readableLog });
  workerLog = log;
  if (settings.tracing !== undefined) {
    spans = createSpanRecorder({
      numbers: spanCounts,
      query: settings.tracing.query,
      send: (recorded) => say({ recorded }),
      backlog: () => supervisor.writableLength,
    });
  }
  listener = createListener({
    ...(settings.host !== undefined && { host: settings.host }),
    port: settings.port,
    reusePort: true,
    ...(bound && { fd: FIRST_SOCKET_FD }),
    alpn: settings.alpn,
    limits: settings.limits,
    localPaths: settings.evidence ? [{ path: evidence.path, answeredBy: 'evidence' }] : [],
    localHandlers: { evidence },
    proxyProtocol: settings.proxyProtocol,
    trustedProxies: settings.trustedProxies,
    trustedForwarders: settings.trustedForwarders,
    ticketKeys: Buffer.from(serving.ticketKeys),
    ...(settings.upstreamCa !== undefined && { upstreamCa: settings.upstreamCa }),
    ...(settings.sharedChallenges && { findChallenge: findCertificate }),
    limiter,
    comparePassword: comparisons.compare,
    onUpstreamChange: (change) => telemetry.report(eventOf(change)),
    counts: connectionCounts,
    observer: spans === undefined ? requestCounts.observer : both(requestCounts.observer, spans.observer),
    ...(settings.tracing !== undefined && { tracing: createTracing(settings.tracing) }),
    accessLog,
    ...(settings.requestIds && { requestIds: createRequestIds() }),
    log,
  });
  for (const kind of ['routes', 'certificates', 'challenges', 'evidence'] as const)
    put({ kind, generation: generations[kind], value: serving[kind] } as Snapshot);
  const address = await listener.listen();
  plainHttp = await startPlainHttp(settings, serving, bound, log);
  httpChallenges = serving.httpChallenges;
  served = generations;
  return address;
}

async function startPlainHttp(
  { plainHttp: wanted, host, limits, sharedHttpChallenges }: WorkerSettings,
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
    maxConnections: limits.maxConnections,
    ...(sharedHttpChallenges === true && { findChallenge: findText }),
    log,
  });
  server.setRoutes(serving.routes.list, hasSite);
  for (const [token, text] of serving.httpChallenges) server.setChallenge(token, text);
  await server.listen();
  return server;
}

function hasSite(host: string): boolean {
  return started().hasSite(host);
}

async function drain(timeoutMs: number): Promise<void> {
  await Promise.all([listener?.drain(timeoutMs), plainHttp?.drain(timeoutMs)]);
}

function started(): Listener {
  if (listener === undefined) throw new Error('the worker has not been started');
  return listener;
}

/** Names of many addresses, and what a system says of them, may be longer than a message. */
function eventOf(change: UpstreamChange): WorkerEvent {
  const { upstream, reason } = change;
  return {
    ...change,
    kind: 'upstream',
    upstream: upstream.slice(0, LONGEST_TEXT),
    reason: reason?.slice(0, LONGEST_TEXT),
  };
}

function say(message: FromWorker): void {
  if (supervisor.writable) writeMessage(supervisor, message);
}
