// The supervisor's side of the worker processes: starts them, tells them what to serve, replaces those that die.

import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { createSecureContext } from 'node:tls';
import type { Bundle } from '../evidence/bundle.ts';
import type { ServedCertificate } from '../proxy/listener.ts';
import type { Route } from '../proxy/routes.ts';
import { type Clock, systemClock } from './lib/clock.ts';
import { CodedError } from './lib/coded-error.ts';
import type { Log } from './lib/log.ts';
import { createUpstreamNews } from './upstream-news.ts';
import type {
  ChallengeCertificate,
  FromWorker,
  Order,
  Reply,
  Serving,
  ToWorker,
  WorkerSettings,
} from './worker-messages.ts';
import { forkWorker } from './worker-process.ts';

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

interface Worker {
  readonly process: ChildProcess;
  readonly waiting: Map<number, { resolve(reply: Reply): void; reject(error: Error): void }>;
  ready: boolean;
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

  let ahead = options.forkedAhead;
  function takeFirst(): ChildProcess | undefined {
    const child = ahead;
    ahead = undefined;
    return child?.connected ? child : undefined;
  }

  function spawn(): Worker {
    const child = takeFirst() ?? forkWorker();
    const worker: Worker = { process: child, waiting: new Map(), ready: false };
    living.add(worker);
    child.on('message', (reply: FromWorker) => {
      if ('findChallenge' in reply) return void answer(worker, reply.findChallenge);
      if ('upstream' in reply) return upstreamNews.heard(child, reply.upstream);
      worker.waiting.get(reply.id)?.resolve(reply);
      worker.waiting.delete(reply.id);
    });
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

  async function answer(worker: Worker, domain: string): Promise<void> {
    const certificate = await options.findChallenge?.(domain).catch((err: unknown) => {
      log.warn({ err, domain }, 'a challenge of another instance cannot be read');
      return undefined;
    });
    await tell(worker, { type: 'found-challenge', domain, certificate }).catch(() => {});
  }

  async function tell(worker: Worker, order: Order): Promise<Reply & { done: true }> {
    const id = ++lastOrder;
    const reply = await new Promise<Reply>((resolve, reject) => {
      if (!worker.process.connected) return reject(new Error('worker is gone'));
      worker.waiting.set(id, { resolve, reject });
      worker.process.send({ ...order, id } satisfies ToWorker, (error) => {
        if (error && worker.waiting.delete(id)) reject(error);
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
    const worker = spawn();
    const given = serving;
    const reply = await tell(worker, {
      type: 'start',
      settings: { ...settings, port: boundPort },
      serving: given,
    });
    worker.ready = true;
    if (serving !== given) await catchUp(worker, given);
    return { worker, address: reply.address! };
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
    let born = clock.now().getTime();
    let failures = 0;
    while (!stopping.signal.aborted) {
      if (worker !== undefined) await ended(worker.process);
      if (stopping.signal.aborted) return;
      failures = clock.now().getTime() - born < HEALTHY_LIFE_MS ? failures + 1 : 1;
      const pauseMs = failures === 1 ? 0 : Math.min(1_000 * 2 ** (failures - 2), LONGEST_BACK_OFF_MS);
      log[failures > 3 ? 'error' : 'warn'](
        { pid: worker?.process.pid, failures, pauseMs },
        'worker died, replacing it',
      );
      await clock.sleep(pauseMs, stopping.signal).catch(() => {});
      if (stopping.signal.aborted) return;
      born = clock.now().getTime();
      worker = await startWorker().then(
        (started) => started.worker,
        (err: unknown) => {
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
      stopping.abort();
      await Promise.all(
        [...living].map(async (worker) => {
          const killer = setTimeout(() => worker.process.kill('SIGKILL'), timeoutMs + DRAIN_GRACE_MS);
          await tell(worker, { type: 'drain', timeoutMs }).catch(() => {});
          const end = ended(worker.process);
          if (worker.process.connected) worker.process.disconnect();
          await end;
          clearTimeout(killer);
        }),
      );
    },
  };
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

function proveLoads({ names, chain, key }: ServedCertificate): void {
  try {
    createSecureContext({ cert: chain, key });
  } catch (cause) {
    throw new WorkersError('certificate-refused', `the certificate for ${names.join(', ')} does not load`, {
      cause,
    });
  }
}

function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => child.once('exit', () => resolve()));
}
