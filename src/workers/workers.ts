// The supervisor's side of the worker processes: starts them, tells them what to serve, replaces those that die.

import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Bundle } from '../../evidence/bundle.ts';
import type { ServedCertificate } from '../../proxy/listener/listener.ts';
import type { Route } from '../../proxy/rules/routes.ts';
import { descriptorOf } from '../../proxy/socket/insides/descriptors.ts';
import { INSIDES_VARIABLE } from '../../proxy/socket/insides/switch.ts';
import { loadFault } from '../lib/certificate.ts';
import { type Clock, monotonicMs, systemClock } from '../lib/clock.ts';
import { CodedError } from '../lib/coded-error.ts';
import type { Log } from '../lib/log.ts';
import { MOST_QUESTIONS, readMessages, writeOrder } from './channel.ts';
import { firstUnprivilegedPort } from './fence.ts';
import {
  type ChallengeCertificate,
  FromWorkerSchema,
  type Order,
  type Reply,
  type Serving,
  type WorkerSettings,
} from './messages.ts';
import { channelOf, fenceOfWorkers, forkWorker } from './process.ts';
import { createUpstreamNews } from './upstream-news.ts';

export interface WorkersOptions {
  readonly count: number;
  readonly settings: WorkerSettings;
  readonly log: Log;
  readonly clock?: Clock;
  /** A worker process that was forked ahead, so that it loads while the configuration is read. */
  readonly forkedAhead?: ChildProcess;
  /** What another instance wants a validation of this domain to be shown; asked where settings.sharedChallenges. */
  findChallenge?(domain: string): Promise<ChallengeCertificate | undefined>;
  /** How often session ticket keys change by themselves; a renewal changes them as well. */
  readonly ticketKeyLifeMs?: number;
}

export type WorkersErrorCode = 'address-in-use' | 'worker-failed' | 'certificate-refused';

export class WorkersError extends CodedError<WorkersErrorCode> {
  override readonly name = 'WorkersError';
}

/** Each call resolves once every living worker serves by it; a worker born later starts with all of it. */
export interface Workers {
  start(): Promise<{ address: string; port: number }>;
  /** Rejects with WorkersError certificate-refused, and all workers go on with the old ones, if one does not load. */
  setCertificates(certificates: readonly ServedCertificate[]): Promise<void>;
  setRoutes(routes: readonly Route[]): Promise<void>;
  setChallenge(domain: string, certificate: ChallengeCertificate | undefined): Promise<void>;
  setHttpChallenge(token: string, keyAuthorization: string | undefined): Promise<void>;
  setEvidence(bundle: Bundle | undefined): Promise<void>;
  /** Process ids of the living. */
  pids(): number[];
  /** Lets open requests finish for so long, then ends the processes. */
  drain(timeoutMs: number): Promise<void>;
}

const TICKET_KEY_BYTES = 48;
const TICKET_KEY_LIFE_MS = 12 * 3_600_000;
/** A worker that lived shorter than this did not work: the next one waits. */
const HEALTHY_LIFE_MS = 10_000;
const LONGEST_BACK_OFF_MS = 30_000;
/** What a worker may take, beyond the drain itself, before it is killed. */
const DRAIN_GRACE_MS = 1_000;
/** A worker that does not answer for so long serves nobody either, and all the others wait for it. */
const ANSWER_MS = 60_000;
const LAST_WORDS_MS = 1_000;
/** As the listener's own. */
const BACKLOG = 4096;

interface Worker {
  readonly process: ChildProcess;
  readonly channel: Duplex | undefined;
  readonly waiting: Map<number, { resolve(reply: Reply): void; reject(error: Error): void }>;
  ready: boolean;
  /** Its questions that are not answered yet. */
  questions: number;
  /** Nothing that it says counts any more. */
  expelled: boolean;
}

export function createWorkers(options: WorkersOptions): Workers {
  const { count, settings, log } = options;
  const clock = options.clock ?? systemClock;
  const living = new Set<Worker>();
  const upstreamNews = createUpstreamNews(log);
  const stopping = new AbortController();
  let lastOrder = 0;
  let boundPort = settings.port;
  let serving: Serving = {
    certificates: [],
    routes: [],
    challenges: new Map(),
    httpChallenges: new Map(),
    evidence: undefined,
    ticketKeys: randomBytes(TICKET_KEY_BYTES),
  };

  /** A worker of another user may not bind them: it is handed sockets that we have bound. */
  const bindsForWorkers = () =>
    fenceOfWorkers()?.raised === true &&
    [boundPort, settings.plainHttp?.port ?? 0].some((port) => port > 0 && port < firstUnprivilegedPort());

  let ahead = options.forkedAhead;
  function takeFirst(): ChildProcess | undefined {
    const child = ahead;
    ahead = undefined;
    return child !== undefined && isAlive(child) ? child : undefined;
  }

  function spawn(sockets: readonly number[] | undefined): Worker {
    // Nobody would end what is started after the drain has counted the living.
    stopping.signal.throwIfAborted();
    const child = (sockets === undefined ? takeFirst() : undefined) ?? forkWorker(sockets);
    const channel = channelOf(child);
    const worker: Worker = {
      process: child,
      channel,
      waiting: new Map(),
      ready: false,
      questions: 0,
      expelled: false,
    };
    living.add(worker);
    if (channel !== undefined) {
      readMessages(
        channel,
        (json) => hear(worker, json),
        (why) => expel(worker, `it sent ${why}`),
      );
      // Writing to one that has just died: its end is heard of all the same.
      channel.on('error', () => {});
      channel.on('close', () => doubt(worker));
    }
    const gone = (cause: Error) => {
      living.delete(worker);
      upstreamNews.gone(child);
      for (const { reject } of worker.waiting.values()) reject(cause);
      worker.waiting.clear();
    };
    child.on('error', gone);
    child.on('exit', (code, signal) => gone(new Error(`worker ended (${signal ?? `exit code ${code}`})`)));
    return worker;
  }

  function hear(worker: Worker, json: unknown): void {
    if (worker.expelled) return;
    const { data: message } = FromWorkerSchema.safeParse(json);
    if (message === undefined) expel(worker, 'it sent what is no message');
    else if ('findChallenge' in message) hearQuestion(worker, message.findChallenge);
    else if ('upstream' in message) upstreamNews.heard(worker.process, message.upstream);
    else hearReply(worker, message);
  }

  function hearQuestion(worker: Worker, domain: string): void {
    if (worker.questions >= MOST_QUESTIONS) expel(worker, 'it asks without end');
    else void answer(worker, domain);
  }

  function hearReply(worker: Worker, reply: Reply): void {
    const asked = worker.waiting.get(reply.id);
    worker.waiting.delete(reply.id);
    if (asked === undefined) expel(worker, 'it answered what it was not asked');
    else asked.resolve(reply);
  }

  /** The channel of one that ends closes a moment before it is gone; in a drain it is we who close it. */
  function doubt(worker: Worker): void {
    if (stopping.signal.aborted) return;
    setTimeout(() => expel(worker, 'it closed its channel'), LAST_WORDS_MS).unref();
  }

  /** Ends a worker that may be somebody else's by now; what keeps its place filled starts another. */
  function expel(worker: Worker, why: string): void {
    if (worker.expelled || !isAlive(worker.process)) return;
    worker.expelled = true;
    worker.ready = false;
    if (!stopping.signal.aborted) log.error({ pid: worker.process.pid, why }, 'worker killed');
    worker.process.kill('SIGKILL');
    worker.channel?.destroy();
  }

  async function answer(worker: Worker, domain: string): Promise<void> {
    worker.questions++;
    const certificate = await options.findChallenge?.(domain).catch((err: unknown) => {
      log.warn({ err, domain }, 'a challenge of another instance cannot be read');
      return undefined;
    });
    await tell(worker, { type: 'found-challenge', domain, certificate }).catch(() => {});
    // Not before it has taken the answer: one that does not read must not fill our memory.
    worker.questions--;
  }

  async function tell(worker: Worker, order: Order, patienceMs = ANSWER_MS): Promise<Reply & { done: true }> {
    const id = ++lastOrder;
    const { channel } = worker;
    const reply = await new Promise<Reply>((resolve, reject) => {
      if (worker.expelled || channel === undefined || !channel.writable)
        return reject(new Error('worker is gone'));
      const patience = setTimeout(() => expel(worker, `it did not answer ${order.type}`), patienceMs);
      worker.waiting.set(id, {
        resolve(reply) {
          clearTimeout(patience);
          resolve(reply);
        },
        reject(error) {
          clearTimeout(patience);
          reject(error);
        },
      });
      writeOrder(channel, { ...order, id }, (error) => {
        if (!error) return;
        worker.waiting.get(id)?.reject(error);
        worker.waiting.delete(id);
      });
    });
    if (reply.done) return reply;
    throw Object.assign(new Error(reply.message), reply.code !== undefined && { code: reply.code });
  }

  /** A worker that dies while being told is no failure: its successor starts with the new state. */
  async function tellAll(order: Order): Promise<void> {
    const ready = [...living].filter((worker) => worker.ready);
    const results = await Promise.allSettled(ready.map((worker) => tell(worker, order)));
    const refusal = results.find((result, i) => result.status === 'rejected' && living.has(ready[i]!));
    if (refusal?.status === 'rejected') {
      throw new WorkersError(
        'worker-failed',
        `a worker refused new ${order.type}: ${refusal.reason.message}`,
        {
          cause: refusal.reason,
        },
      );
    }
  }

  /** Starts a worker and brings it up to what is served now, even if that changed while it started. */
  async function startWorker(): Promise<{ worker: Worker; address: { address: string; port: number } }> {
    const isBound = bindsForWorkers();
    const worker = isBound ? await spawnWithSockets() : spawn(undefined);
    const given = serving;
    const reply = await tell(worker, {
      type: 'start',
      settings: { ...settings, port: boundPort },
      serving: given,
      bound: isBound,
    });
    if (reply.address === undefined) throw new Error('a worker did not say where it listens');
    worker.ready = true;
    if (serving !== given) await catchUp(worker, given);
    return { worker, address: reply.address };
  }

  async function spawnWithSockets(): Promise<Worker> {
    // It was started without them.
    takeFirst()?.kill('SIGKILL');
    const { host, plainHttp } = settings;
    const ports = [boundPort, ...(plainHttp === undefined ? [] : [plainHttp.port])];
    return withBoundSockets(host, ports, spawn);
  }

  /** Each part is read as it is sent, so that nothing older follows something newer down the channel. */
  async function catchUp(worker: Worker, given: Serving): Promise<void> {
    if (serving.certificates !== given.certificates) {
      await tell(worker, { type: 'certificates', certificates: serving.certificates });
    }
    if (serving.ticketKeys !== given.ticketKeys) {
      await tell(worker, { type: 'ticket-keys', keys: serving.ticketKeys });
    }
    if (serving.routes !== given.routes) await tell(worker, { type: 'routes', routes: serving.routes });
    if (serving.evidence !== given.evidence) {
      await tell(worker, { type: 'evidence', bundle: serving.evidence });
    }
    for (const domain of new Set([...serving.challenges.keys(), ...given.challenges.keys()])) {
      await tell(worker, { type: 'challenge', domain, certificate: serving.challenges.get(domain) });
    }
    for (const token of new Set([...serving.httpChallenges.keys(), ...given.httpChallenges.keys()])) {
      const keyAuthorization = serving.httpChallenges.get(token);
      await tell(worker, { type: 'http-challenge', token, keyAuthorization });
    }
  }

  /** Keeps one place filled: a dead worker is replaced at once, one that keeps dying after a growing pause. */
  async function keep(first: Worker): Promise<void> {
    let worker: Worker | undefined = first;
    let born = monotonicMs(clock);
    let failures = 0;
    while (!stopping.signal.aborted) {
      if (worker !== undefined) await ended(worker.process);
      if (stopping.signal.aborted) return;
      failures = monotonicMs(clock) - born < HEALTHY_LIFE_MS ? failures + 1 : 1;
      const pauseMs = failures === 1 ? 0 : Math.min(1_000 * 2 ** (failures - 2), LONGEST_BACK_OFF_MS);
      log[failures > 3 ? 'error' : 'warn'](
        { pid: worker?.process.pid, failures, pauseMs },
        'worker died, replacing it',
      );
      await clock.sleep(pauseMs, stopping.signal).catch(() => {});
      if (stopping.signal.aborted) return;
      born = monotonicMs(clock);
      worker = await startWorker().then(
        (started) => started.worker,
        (err: unknown) => {
          if (stopping.signal.aborted) return undefined;
          log.error({ err }, 'a new worker did not start');
          return undefined;
        },
      );
    }
  }

  async function rotateTicketKeys(): Promise<void> {
    serving = { ...serving, ticketKeys: randomBytes(TICKET_KEY_BYTES) };
    await tellAll({ type: 'ticket-keys', keys: serving.ticketKeys });
  }

  async function rotateForever(): Promise<void> {
    while (!stopping.signal.aborted) {
      await clock.sleep(options.ticketKeyLifeMs ?? TICKET_KEY_LIFE_MS, stopping.signal);
      await rotateTicketKeys();
    }
  }

  return {
    async start() {
      await claimAddress(settings.host, settings.port);
      if (settings.plainHttp !== undefined) await claimAddress(settings.host, settings.plainHttp.port);
      // The first one settles the port where it was left to the system; the others join it.
      const first = await startWorker();
      boundPort = first.address.port;
      const others = await Promise.all(Array.from({ length: count - 1 }, startWorker));
      for (const { worker } of [first, ...others]) {
        keep(worker).catch((err: unknown) => log.error({ err }, 'worker supervision failed'));
      }
      rotateForever().catch((err: unknown) => {
        if (!stopping.signal.aborted) log.error({ err }, 'ticket key rotation failed');
      });
      return first.address;
    },

    async setCertificates(certificates) {
      for (const certificate of certificates) proveLoads(certificate);
      const old = serving;
      serving = { ...serving, certificates };
      try {
        await tellAll({ type: 'certificates', certificates });
      } catch (error) {
        serving = { ...serving, certificates: old.certificates };
        await tellAll({ type: 'certificates', certificates: old.certificates });
        throw error;
      }
      // A resumed session shows no certificate: without new keys an old one would live on in tickets.
      if (old.certificates.length > 0) await rotateTicketKeys();
    },

    async setRoutes(routes) {
      serving = { ...serving, routes };
      await tellAll({ type: 'routes', routes });
    },

    async setChallenge(domain, certificate) {
      const challenges = new Map(serving.challenges);
      if (certificate === undefined) challenges.delete(domain);
      else challenges.set(domain, certificate);
      serving = { ...serving, challenges };
      await tellAll({ type: 'challenge', domain, certificate });
    },

    async setHttpChallenge(token, keyAuthorization) {
      const httpChallenges = new Map(serving.httpChallenges);
      if (keyAuthorization === undefined) httpChallenges.delete(token);
      else httpChallenges.set(token, keyAuthorization);
      serving = { ...serving, httpChallenges };
      await tellAll({ type: 'http-challenge', token, keyAuthorization });
    },

    async setEvidence(bundle) {
      serving = { ...serving, evidence: bundle };
      await tellAll({ type: 'evidence', bundle });
    },

    pids: () => [...living].flatMap(({ process: { pid } }) => (pid === undefined ? [] : [pid])),

    async drain(timeoutMs) {
      stopping.abort(new Error('the workers are being drained'));
      takeFirst()?.kill('SIGKILL');
      await Promise.all([...living].map((worker) => drainWorker(worker, timeoutMs)));
    },
  };

  async function drainWorker(worker: Worker, timeoutMs: number): Promise<void> {
    const patienceMs = timeoutMs + DRAIN_GRACE_MS;
    const killer = setTimeout(() => worker.process.kill('SIGKILL'), patienceMs);
    await tell(worker, { type: 'drain', timeoutMs }, patienceMs).catch(() => {});
    const end = ended(worker.process);
    worker.channel?.end();
    await end;
    clearTimeout(killer);
  }
}

/**
 * Runs `use` with descriptors of sockets that listen on these ports, and closes ours: whoever `use` has started holds the
 * others. Addresses are no names, so all of it happens before this process looks for connections, and none of them is
 * accepted here; they wait for the worker.
 */
async function withBoundSockets<T>(
  host: string | undefined,
  ports: readonly number[],
  use: (descriptors: readonly number[]) => T,
): Promise<T> {
  const servers = ports.map((port) => {
    const server = createServer((socket) => void socket.destroy());
    return { server, listening: listening(server, host, port) };
  });
  try {
    await Promise.all(servers.map(({ listening }) => listening));
    return use(servers.map(({ server }) => neededDescriptorOf(server)));
  } finally {
    for (const { server } of servers) server.close();
  }
}

async function listening(server: Server, host: string | undefined, port: number): Promise<void> {
  const address = host !== undefined && { host };
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...address, port, exclusive: true, reusePort: true, backlog: BACKLOG }, resolve);
  });
}

function neededDescriptorOf(server: Server): number {
  const fd = descriptorOf(server);
  if (fd !== undefined) return fd;
  throw new Error(
    `a worker that runs as another user cannot be given a port below ${firstUnprivilegedPort()}: this Node does not tell the descriptor of a server, or ${INSIDES_VARIABLE} has switched it off: choose a higher port`,
  );
}

/** Workers share the port by SO_REUSEPORT, which would also share it, silently, with a second ingress. */
async function claimAddress(host: string | undefined, port: number): Promise<void> {
  if (port === 0) return;
  await new Promise<void>((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen({ ...(host !== undefined && { host }), port, exclusive: true }, () =>
      probe.close(() => resolve()),
    );
  }).catch((cause: NodeJS.ErrnoException) => {
    const why =
      cause.code === 'EADDRINUSE'
        ? 'another program has it'
        : cause.code === 'EACCES'
          ? 'this user may not bind it'
          : cause.message;
    throw new WorkersError(
      'address-in-use',
      `cannot listen on ${host ?? 'any address'}, port ${port}: ${why}`,
      { cause },
    );
  });
}

function proveLoads(certificate: ServedCertificate): void {
  const why = loadFault(certificate);
  if (why === undefined) return;
  const subject = `the certificate for ${certificate.names.join(', ')}`;
  throw new WorkersError('certificate-refused', `${subject} does not load`, { cause: new Error(why) });
}

function isAlive(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}

function ended(child: ChildProcess): Promise<void> {
  if (!isAlive(child)) return Promise.resolve();
  return new Promise((resolve) => child.once('exit', () => resolve()));
}
