// One worker as the supervisor has it: what it is told, what it says and serves, and its end if it misbehaves.

import type { ChildProcess } from 'node:child_process';
import type { Duplex } from 'node:stream';
import type { RoundAnswer } from '../../evidence/attest-rounds.ts';
import type { Log } from '../lib/log.ts';
import { MOST_COMPARISONS, MOST_QUESTIONS, readMessages, writeOrder } from './channel.ts';
import { MOST_UNANSWERED } from './limit-questions.ts';
import {
  type AttestQuestion,
  type Comparison,
  type DoneReply,
  type FoundChallenge,
  FromWorkerSchema,
  type LimitAnswer,
  type LimitQuestions,
  type Order,
  type RecordedRequest,
  type Reply,
  type Telemetry,
} from './messages.ts';
import { channelOf } from './process.ts';
import { type Generations, nothingServed, type Snapshot, withNewer } from './serving.ts';

export interface WorkerLinkOptions {
  readonly log: Log;
  /** While it is aborted workers are expected to go. */
  readonly stopping: AbortSignal;
  /** Returns why no honest worker sends it, if so. */
  takeTelemetry(worker: WorkerLink, telemetry: Telemetry): string | undefined;
  /** Undefined: nobody wants any. */
  readonly takeRecorded?: ((requests: readonly RecordedRequest[]) => void) | undefined;
  findChallenge(domain: string): Promise<FoundChallenge | undefined>;
  /** Undefined: nobody could compare it. */
  comparePassword(hash: string, password: string): Promise<boolean | undefined>;
  /** A fresh quote over this hash. Undefined: there is none for now. */
  attest(hash: Uint8Array): Promise<RoundAnswer | undefined>;
  /** Undefined: no honest worker asks that. */
  countLimits(worker: WorkerLink, questions: LimitQuestions): readonly LimitAnswer[] | undefined;
  /** Called once, when the process is gone or could not be started. */
  onGone(worker: WorkerLink): void;
}

interface Waiting {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

/** A worker that does not answer for so long serves nobody either, and all the others wait for it. */
const ANSWER_MS = 60_000;
/** The channel of a process that ends closes a moment before the process is gone. */
const EXIT_MS = 1_000;

/** One message a second is allowed. What was not used, or was held up on the way, may follow: so many at once. */
const TELEMETRY_SAVED = 60;
/** An honest worker keeps to four, see spans.ts. */
const RECORDED_A_SECOND = 5;
const RECORDED_SAVED = 60;

export class WorkerLink {
  readonly process: ChildProcess;
  /** From 1 on; its successor has the same. */
  readonly place: number;
  /** It has started, and is told what is new. */
  ready = false;
  private readonly options: WorkerLinkOptions;
  private readonly channel: Duplex | undefined;
  private readonly waiting = new Map<number, Waiting>();
  private told: Generations = nothingServed;
  private served: Generations = nothingServed;
  private lastOrder = 0;
  private openQuestions = 0;
  private openComparisons = 0;
  private unansweredLimits = 0;
  private openAttests = 0;
  private readonly telemetryAllowance = createAllowance(1, TELEMETRY_SAVED);
  private readonly recordedAllowance = createAllowance(RECORDED_A_SECOND, RECORDED_SAVED);
  /** Nothing that it says counts any more. */
  private expelled = false;

  constructor(child: ChildProcess, place: number, options: WorkerLinkOptions) {
    this.process = child;
    this.place = place;
    this.options = options;
    this.channel = channelOf(child);
    const gone = (cause: Error) => {
      options.onGone(this);
      for (const { reject } of this.waiting.values()) reject(cause);
      this.waiting.clear();
    };
    child.on('error', gone);
    child.on('exit', (code, signal) => gone(new Error(`worker ended (${signal ?? `exit code ${code}`})`)));
    this.listen();
  }

  get pid(): number | undefined {
    return this.process.pid;
  }

  /** Of each kind, the generation that it has acknowledged. */
  get serves(): Generations {
    return this.served;
  }

  private listen(): void {
    const { channel } = this;
    if (channel === undefined) return;
    readMessages(
      channel,
      (json) => this.hear(json),
      (why) => this.expel(`it sent ${why}`),
    );
    // A write to a process that has just died fails; its exit is noticed anyway.
    channel.on('error', () => {});
    channel.on('close', () => this.expectExit());
  }

  /** Resolves with its answer. A worker that does not answer in time is ended. */
  async tell(order: Order, patienceMs = ANSWER_MS): Promise<DoneReply> {
    const reply = await this.ask(order, patienceMs);
    if (reply.done) return reply;
    throw Object.assign(new Error(reply.message), reply.code !== undefined && { code: reply.code });
  }

  private ask(order: Order, patienceMs: number): Promise<Reply> {
    const id = ++this.lastOrder;
    const { channel, waiting } = this;
    return new Promise<Reply>((resolve, reject) => {
      if (this.expelled || channel === undefined || !channel.writable)
        return reject(new Error('worker is gone'));
      const patience = setTimeout(() => this.expel(`it did not answer ${order.type}`), patienceMs);
      waiting.set(id, {
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
        waiting.get(id)?.reject(error);
        waiting.delete(id);
      });
    });
  }

  async start(order: Extract<Order, { type: 'start' }>): Promise<{ address: string; port: number }> {
    this.told = order.generations;
    const { address } = await this.tell(order);
    if (address === undefined) throw new Error('a worker did not say where it listens');
    this.served = order.generations;
    return address;
  }

  /** Resolves once it serves this or something newer. */
  async serve(snapshot: Snapshot): Promise<void> {
    const { kind, generation } = snapshot;
    this.told = withNewer(this.told, kind, generation);
    const { generation: acknowledged = 0 } = await this.tell({ type: 'serve', snapshot });
    if (acknowledged < generation || acknowledged > this.told[kind]) {
      this.expel(`it acknowledged generation ${acknowledged} of ${kind}, and was given ${generation}`);
      await this.ended();
      throw new Error('worker is gone');
    }
    this.served = withNewer(this.served, kind, acknowledged);
  }

  private hear(json: unknown): void {
    if (this.expelled) return;
    const { data: message } = FromWorkerSchema.safeParse(json);
    if (message === undefined) this.expel('it sent what is no message');
    else if ('findChallenge' in message) this.hearQuestion(message.findChallenge);
    else if ('limits' in message) void this.hearLimits(message.limits);
    else if ('comparePassword' in message) this.hearComparison(message.comparePassword);
    else if ('attest' in message) void this.hearAttest(message.attest);
    else if ('telemetry' in message) this.hearTelemetry(message.telemetry);
    else if ('recorded' in message) this.hearRecorded(message.recorded);
    else this.hearReply(message);
  }

  private hearQuestion(domain: string): void {
    if (this.openQuestions >= MOST_QUESTIONS) this.expel('it asks without end');
    else void this.answer(domain);
  }

  private async answer(domain: string): Promise<void> {
    const { findChallenge, log } = this.options;
    this.openQuestions++;
    const found = await findChallenge(domain).catch((err: unknown) => {
      log.warn({ err, domain }, 'a challenge of another instance cannot be read');
      return undefined;
    });
    await this.tell({ type: 'found-challenge', domain, found }).catch(() => {});
    // Only once it has taken the answer: one that does not read must not fill our memory.
    this.openQuestions--;
  }

  private hearComparison(comparison: Comparison): void {
    // As with limits.
    if (this.openComparisons >= 2 * MOST_COMPARISONS) this.expel('it compares passwords without end');
    else void this.compare(comparison);
  }

  private async compare({ question, hash, password }: Comparison): Promise<void> {
    this.openComparisons++;
    const right = await this.options.comparePassword(hash, password);
    await this.tell({ type: 'compared-password', question, right }).catch(() => {});
    this.openComparisons--;
  }

  private async hearLimits(questions: LimitQuestions): Promise<void> {
    // What it asks next may be here before its word that it has an answer.
    if (this.unansweredLimits >= 2 * MOST_UNANSWERED) return this.expel('it asks for limits without end');
    const answers = this.options.countLimits(this, questions);
    if (answers === undefined) return this.expel('it holds more than it can have open');
    this.unansweredLimits++;
    await this.tell({ type: 'charged', answers }).catch(() => {});
    this.unansweredLimits--;
  }

  private async hearAttest({ question, hash }: AttestQuestion): Promise<void> {
    // As with limits: an honest worker has one open.
    if (this.openAttests >= 2) return this.expel('it asks for quotes without end');
    this.openAttests++;
    const answer = await this.options.attest(Buffer.from(hash, 'hex'));
    await this.tell({ type: 'attested', question, answer }).catch(() => {});
    this.openAttests--;
  }

  private hearTelemetry(telemetry: Telemetry): void {
    const flood = this.telemetryAllowance() ? undefined : 'telemetry without end';
    const why = flood ?? this.options.takeTelemetry(this, telemetry);
    if (why !== undefined) this.expel(`it sent ${why}`);
  }

  private hearRecorded(requests: readonly RecordedRequest[]): void {
    const { takeRecorded } = this.options;
    if (takeRecorded === undefined) this.expel('it sent spans that nobody wants');
    else if (this.recordedAllowance()) takeRecorded(requests);
    else this.expel('it sent spans without end');
  }

  private hearReply(reply: Reply): void {
    const asked = this.waiting.get(reply.id);
    this.waiting.delete(reply.id);
    if (asked === undefined) this.expel('it answered what it was not asked');
    else asked.resolve(reply);
  }

  private expectExit(): void {
    // In a drain we have closed the channel ourselves.
    if (this.options.stopping.aborted) return;
    setTimeout(() => this.expel('it closed its channel'), EXIT_MS).unref();
  }

  /** Ends a worker that strangers may have taken over. */
  private expel(why: string): void {
    if (this.expelled || !this.isAlive()) return;
    this.expelled = true;
    this.ready = false;
    const { stopping, log } = this.options;
    if (!stopping.aborted) log.error({ pid: this.pid, why }, 'worker killed');
    this.kill();
    this.channel?.destroy();
  }

  /** After this it is given no order. */
  closeChannel(): void {
    this.channel?.end();
  }

  kill(): void {
    this.process.kill('SIGKILL');
  }

  isAlive(): boolean {
    return isAlive(this.process);
  }

  ended(): Promise<void> {
    if (!this.isAlive()) return Promise.resolve();
    return new Promise((resolve) => this.process.once('exit', () => resolve()));
  }
}

/** So many a second; what was not used may follow, up to `saved` at once. Says whether one more is within that. */
function createAllowance(perSecond: number, saved: number): () => boolean {
  let left = saved;
  let at = performance.now();
  return () => {
    const now = performance.now();
    left = Math.min(left + ((now - at) / 1_000) * perSecond, saved) - 1;
    at = now;
    return left >= 0;
  };
}

export function isAlive(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}
