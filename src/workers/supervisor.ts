// Keeps as many workers alive as there should be, each with the newest of what is to be served.

import type { ChildProcess } from 'node:child_process';
import type { RoundAnswer } from '../../evidence/attest-rounds.ts';
import { EVIDENCE_PATH } from '../../evidence/endpoint.ts';
import { type Clock, monotonicMs, systemClock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { layouts } from './counters.ts';
import { firstUnprivilegedPort } from './fence.ts';
import { createVocabulary } from './labels.ts';
import { createLimitCounts } from './limit-counts.ts';
import type { FoundChallenge, RecordedRequest, Telemetry, WorkerSettings } from './messages.ts';
import { createPasswordProcess, type PasswordProcess } from './password-process.ts';
import { claimAddress, withBoundSockets } from './ports.ts';
import { fenceOfWorkers, forkWorker, linesOf } from './process.ts';
import { type Kind, kinds, type Snapshots } from './serving.ts';
import { createTotals } from './totals.ts';
import { createUpstreamNews } from './upstream-news.ts';
import { isAlive, WorkerLink } from './worker-link.ts';
import { WorkersError } from './workers-error.ts';

export interface SupervisorOptions {
  readonly count: number;
  readonly settings: WorkerSettings;
  readonly snapshots: Snapshots;
  readonly log: Log;
  readonly clock?: Clock;
  readonly forkedAhead?: ChildProcess;
  findChallenge?(domain: string): Promise<FoundChallenge | undefined>;
  attest?(hash: Uint8Array): Promise<RoundAnswer | undefined>;
  /** Takes requests that are recorded as spans. Undefined: none are. */
  readonly takeRecorded?: ((requests: readonly RecordedRequest[]) => void) | undefined;
  /** Has the file that lines of the access log go to. Undefined: there is none. */
  readonly lines?: LineTaker | undefined;
}

/** The bytes of one worker, in order; a line may come in pieces. */
export interface LineTaker {
  take(worker: object, bytes: Buffer): void;
  gone(worker: object): void;
}

interface Started {
  readonly worker: WorkerLink;
  readonly address: { readonly address: string; readonly port: number };
}

/** A worker that lived shorter than this did not work: the next one waits. */
const HEALTHY_LIFE_MS = 10_000;
const LONGEST_BACK_OFF_MS = 30_000;
/** What a worker may take, beyond the drain itself, before it is killed. */
const DRAIN_GRACE_MS = 1_000;

export class Supervisor {
  readonly living = new Set<WorkerLink>();
  /** Workers that took the place of one that died. */
  restarts = 0;
  private readonly vocabulary = createVocabulary([EVIDENCE_PATH]);
  readonly totals = createTotals(layouts, this.vocabulary.knows);
  private readonly options: SupervisorOptions;
  private readonly log: Log;
  private readonly clock: Clock;
  readonly upstreamNews: ReturnType<typeof createUpstreamNews>;
  private readonly limits = createLimitCounts();
  private readonly passwords: PasswordProcess;
  private readonly stopping = new AbortController();
  private forkedAhead: ChildProcess | undefined;
  /** Each resolves when all has been read that a worker has written. */
  private readonly pipesOfLines = new Set<Promise<void>>();
  /** 0 until the system has chosen one, where the settings leave it to the system. */
  private port: number;

  constructor(options: SupervisorOptions) {
    this.options = options;
    this.log = options.log;
    this.clock = options.clock ?? systemClock;
    this.upstreamNews = createUpstreamNews(options.log);
    this.passwords = createPasswordProcess({ log: options.log });
    this.forkedAhead = options.forkedAhead;
    this.port = options.settings.port;
  }

  /** Aborted when the workers are to go. */
  get stopped(): AbortSignal {
    return this.stopping.signal;
  }

  /** Rejects with WorkersError if another program has one of the ports. */
  async claim(): Promise<void> {
    const { host, port, plainHttp } = this.options.settings;
    await claimAddress(host, port);
    if (plainHttp !== undefined) await claimAddress(host, plainHttp.port);
  }

  async start(): Promise<Started['address']> {
    await this.claim();
    // The first one finds the port where it is left to the system; the others join it there.
    const first = await this.startWorker(1);
    this.port = first.address.port;
    const others = await Promise.all(
      Array.from({ length: this.options.count - 1 }, (_, i) => this.startWorker(i + 2)),
    );
    for (const { worker } of [first, ...others]) {
      this.keepFilled(worker).catch((err: unknown) => this.log.error({ err }, 'worker supervision failed'));
    }
    return first.address;
  }

  /**
   * Resolves once every worker serves the newest of this kind. A worker that dies meanwhile is no failure: its successor
   * starts with the newest of everything.
   */
  async serveNewest(kind: Kind): Promise<void> {
    const { snapshots } = this.options;
    const snapshot = snapshots.newest(kind);
    this.vocabulary.learn(snapshots.serving);
    if (snapshot.kind === 'routes') this.limits.setRules(snapshot.value.rules);
    const ready = [...this.living].filter((worker) => worker.ready);
    const results = await Promise.allSettled(ready.map((worker) => worker.serve(snapshot)));
    const refusal = results.find((result, i) => result.status === 'rejected' && this.living.has(ready[i]!));
    if (refusal?.status !== 'rejected') return;
    const cause = refusal.reason as Error;
    throw new WorkersError('worker-failed', `a worker refused new ${kind}: ${cause.message}`, { cause });
  }

  async drain(timeoutMs: number): Promise<void> {
    this.stopping.abort(new Error('the workers are being drained'));
    this.takeForkedAhead()?.kill('SIGKILL');
    await Promise.all([...this.living].map((worker) => drainWorker(worker, timeoutMs)));
    this.passwords.close();
    await Promise.all(this.pipesOfLines);
  }

  private spawn(sockets: readonly number[] | undefined, place: number): WorkerLink {
    // A drain has counted the living: it would not end one that is started after it.
    this.stopped.throwIfAborted();
    const child = (sockets === undefined ? this.takeForkedAhead() : undefined) ?? forkWorker(sockets);
    this.readLines(child);
    const worker = new WorkerLink(child, place, {
      log: this.log,
      stopping: this.stopped,
      takeTelemetry: (from, telemetry) => this.takeTelemetry(from, telemetry),
      takeRecorded: this.options.takeRecorded,
      countLimits: (from, questions) => this.limits.answer(from.pid ?? 0, questions),
      findChallenge: async (domain) => this.options.findChallenge?.(domain),
      attest: async (hash) => this.options.attest?.(hash),
      comparePassword: this.passwords.compare,
      onGone: (gone) => {
        this.living.delete(gone);
        this.upstreamNews.gone(gone);
        this.totals.gone(gone);
        this.limits.forget(gone.pid ?? 0);
      },
    });
    this.living.add(worker);
    return worker;
  }

  private readLines(child: ChildProcess): void {
    const { lines } = this.options;
    const pipe = lines && linesOf(child);
    if (lines === undefined || pipe === undefined) return;
    const ended = new Promise<void>((resolve) => {
      pipe.on('data', (bytes: Buffer) => lines.take(child, bytes));
      pipe.on('error', () => {});
      pipe.once('close', () => {
        lines.gone(child);
        this.pipesOfLines.delete(ended);
        resolve();
      });
    });
    this.pipesOfLines.add(ended);
  }

  private takeForkedAhead(): ChildProcess | undefined {
    const child = this.forkedAhead;
    this.forkedAhead = undefined;
    return child !== undefined && isAlive(child) ? child : undefined;
  }

  private takeTelemetry(worker: WorkerLink, { events, counters, lost }: Telemetry): string | undefined {
    for (const report of counters) {
      const why = this.totals.take(worker, report);
      if (why !== undefined) return why;
    }
    for (const { kind: _, ...change } of events) this.upstreamNews.heard(worker, change);
    if (lost > 0) this.log.warn({ pid: worker.pid, lost }, 'a worker had more to tell than it could keep');
    return undefined;
  }

  private async startWorker(place: number): Promise<Started> {
    const { settings, snapshots } = this.options;
    const bound = this.mustBindForWorkers();
    const worker = bound ? await this.spawnWithSockets(place) : this.spawn(undefined, place);
    const { serving, generations } = snapshots;
    const address = await worker.start({
      type: 'start',
      settings: { ...settings, port: this.port },
      serving,
      generations,
      bound,
    });
    worker.ready = true;
    await this.catchUp(worker);
    return { worker, address };
  }

  /** What has changed while it started. */
  private async catchUp(worker: WorkerLink): Promise<void> {
    const { snapshots } = this.options;
    for (const kind of kinds) {
      if (worker.serves[kind] < snapshots.generations[kind]) await worker.serve(snapshots.newest(kind));
    }
  }

  /** A worker that runs as another user may not bind low ports: it is handed sockets that we have bound. */
  private mustBindForWorkers(): boolean {
    const ports = [this.port, this.options.settings.plainHttp?.port ?? 0];
    const first = firstUnprivilegedPort();
    return fenceOfWorkers()?.raised === true && ports.some((port) => port > 0 && port < first);
  }

  private async spawnWithSockets(place: number): Promise<WorkerLink> {
    // It was started without sockets.
    this.takeForkedAhead()?.kill('SIGKILL');
    const { host, plainHttp } = this.options.settings;
    const ports = [this.port, ...(plainHttp === undefined ? [] : [plainHttp.port])];
    return withBoundSockets(host, ports, (sockets) => this.spawn(sockets, place));
  }

  /** Keeps one place filled: a dead worker is replaced at once, one that keeps dying after a growing pause. */
  private async keepFilled(first: WorkerLink): Promise<void> {
    const { place } = first;
    let worker: WorkerLink | undefined = first;
    let born = monotonicMs(this.clock);
    let failures = 0;
    while (!this.stopped.aborted) {
      await worker?.ended();
      if (this.stopped.aborted) return;
      failures = monotonicMs(this.clock) - born < HEALTHY_LIFE_MS ? failures + 1 : 1;
      const pauseMs = failures === 1 ? 0 : Math.min(1_000 * 2 ** (failures - 2), LONGEST_BACK_OFF_MS);
      this.log[failures > 3 ? 'error' : 'warn'](
        { pid: worker?.pid, failures, pauseMs },
        'worker died, replacing it',
      );
      await this.clock.sleep(pauseMs, this.stopped).catch(() => {});
      if (this.stopped.aborted) return;
      born = monotonicMs(this.clock);
      worker = await this.startSuccessor(place);
      if (worker !== undefined) this.restarts++;
    }
  }

  private async startSuccessor(place: number): Promise<WorkerLink | undefined> {
    try {
      return (await this.startWorker(place)).worker;
    } catch (err) {
      if (!this.stopped.aborted) this.log.error({ err }, 'a new worker did not start');
      return undefined;
    }
  }
}

async function drainWorker(worker: WorkerLink, timeoutMs: number): Promise<void> {
  const patienceMs = timeoutMs + DRAIN_GRACE_MS;
  const killer = setTimeout(() => worker.kill(), patienceMs);
  await worker.tell({ type: 'drain', timeoutMs }, patienceMs).catch(() => {});
  const end = worker.ended();
  worker.closeChannel();
  await end;
  clearTimeout(killer);
}
