// Sends spans to a collector: batches, one at a time, tried again where that may help; whatever it does, nobody waits for it.

import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { CollectorSettings } from '../config/tracing.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import { HttpError, type HttpReply, httpRequest } from '../lib/fetch.ts';
import type { Log } from '../lib/log.ts';
import { parseRetryAfter } from '../lib/retry-after.ts';
import { type Batch, type Encoding, json, type PartialSuccess, protobuf } from './encoding.ts';
import type { Span } from './span.ts';

export interface ExporterOptions {
  readonly collector: CollectorSettings;
  readonly resource: Batch['resource'];
  readonly scope: Batch['scope'];
  readonly log: Log;
  readonly clock?: Clock;
  /** In [0, 1). */
  readonly random?: () => number;
  /** How long spans wait for company. */
  readonly delayMs?: number;
}

/** What has become of spans. */
export interface SpanCounts {
  readonly exported: number;
  /** The collector did not take them, and said so. */
  readonly rejected: number;
  /** It could not be reached, or did not answer as a collector does. */
  readonly failed: number;
  /** There was no room for them. */
  readonly dropped: number;
}

export interface Exporter {
  /** Those that there is no room for are counted and forgotten. */
  take(spans: readonly Span[]): void;
  counts(): SpanCounts;
  /** How many wait, or are on their way. */
  readonly queued: number;
  /** Sends what waits, each batch once, for so long at most. Nothing is taken afterwards. */
  close(withinMs: number): Promise<void>;
}

const BATCH = 512;
/** Some megabytes at most. */
const MOST_QUEUED = 4_096;
const DELAY_MS = 1_000;
const MOST_ATTEMPTS = 5;
const FIRST_BACK_OFF_MS = 1_000;
const LONGEST_BACK_OFF_MS = 30_000;
/** A collector may ask for more patience than that: its spans would not be worth it. */
const LONGEST_RETRY_AFTER_MS = 60_000;
/** Its answer says next to nothing. */
const LARGEST_ANSWER = 64 * 1024;
const LONGEST_WORDS = 300;
/** OTLP/HTTP, "Retryable Response Codes". */
const RETRYABLE: ReadonlySet<number> = new Set([429, 502, 503, 504]);
/** Errors after which it may work next time. What is too large or no HTTP stays so. */
const RETRYABLE_ERRORS: ReadonlySet<string> = new Set(['unresolved', 'refused', 'tls', 'broken', 'timeout']);

export function createExporter(options: ExporterOptions): Exporter {
  return new BatchExporter(options);
}

type Outcome =
  | { readonly is: 'taken'; readonly partial: PartialSuccess | undefined }
  | { readonly is: 'rejected'; readonly why: string }
  | { readonly is: 'failed'; readonly why: string; readonly again: boolean; readonly afterMs: number };

class BatchExporter implements Exporter {
  private readonly options: ExporterOptions;
  private readonly encoding: Encoding;
  private readonly clock: Clock;
  private waiting: Span[] = [];
  private sending = 0;
  private readonly numbers = { exported: 0, rejected: 0, failed: 0, dropped: 0 };
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;
  /** Aborted: no patience is left. */
  private readonly closing = new AbortController();
  /** Aborted: nothing is sent any more. */
  private readonly closed = new AbortController();
  /** What has been said of the collector last; it is said once. */
  private said: 'well' | 'failing' | 'rejecting' = 'well';

  constructor(options: ExporterOptions) {
    this.options = options;
    this.encoding = options.collector.encoding === 'json' ? json : protobuf;
    this.clock = options.clock ?? systemClock;
  }

  get queued(): number {
    return this.waiting.length + this.sending;
  }

  counts(): SpanCounts {
    return { ...this.numbers };
  }

  take(spans: readonly Span[]): void {
    const room = this.closing.signal.aborted ? 0 : MOST_QUEUED - this.queued;
    const taken = spans.slice(0, Math.max(0, room));
    this.numbers.dropped += spans.length - taken.length;
    this.waiting.push(...taken);
    if (this.running !== undefined || this.waiting.length === 0) return;
    if (this.waiting.length >= BATCH) this.run();
    else this.timer ??= setTimeout(() => this.run(), this.options.delayMs ?? DELAY_MS).unref();
  }

  async close(withinMs: number): Promise<void> {
    this.closing.abort(new Error('the exporter is closing'));
    const last = setTimeout(() => this.closed.abort(new Error('the time to send spans is over')), withinMs);
    await this.running;
    this.run();
    await this.running;
    clearTimeout(last);
    this.closed.abort(new Error('the exporter is closed'));
    const { failed, dropped } = this.numbers;
    if (failed + dropped > 0)
      this.options.log.warn({ ...this.numbers }, 'not every span has reached the collector');
  }

  private run(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.running ??= this.sendAll()
      .catch((err: unknown) => this.options.log.error({ err }, 'spans could not be sent'))
      .finally(() => {
        this.running = undefined;
        // What has come meanwhile and makes no whole batch.
        if (this.waiting.length > 0 && !this.closed.signal.aborted) this.take([]);
      });
  }

  /** Whole batches, and the first one even if it is not; when it is closed, everything. */
  private async sendAll(): Promise<void> {
    do {
      const spans = this.waiting.splice(0, BATCH);
      this.sending = spans.length;
      if (spans.length > 0) await this.sendBatch(spans);
      this.sending = 0;
    } while (this.waiting.length >= (this.closing.signal.aborted ? 1 : BATCH));
  }

  private async sendBatch(spans: readonly Span[]): Promise<void> {
    const { resource, scope } = this.options;
    const plain = this.encoding.encode({ resource, scope, spans });
    const body = this.options.collector.gzip ? await compressed(plain) : plain;
    for (let attempt = 1; ; attempt++) {
      const outcome = await this.post(body);
      this.tell(outcome, spans.length);
      if (outcome.is !== 'failed') return this.count(outcome, spans.length);
      if (!outcome.again || attempt >= MOST_ATTEMPTS) break;
      if (!(await this.hasPatience(attempt, outcome.afterMs))) break;
    }
    this.numbers.failed += spans.length;
  }

  private count(outcome: Exclude<Outcome, { is: 'failed' }>, spans: number): void {
    const rejected = outcome.is === 'rejected' ? spans : Math.min(spans, outcome.partial?.rejected ?? 0);
    this.numbers.rejected += rejected;
    this.numbers.exported += spans - rejected;
  }

  private async post(body: Buffer): Promise<Outcome> {
    const { url, headers, timeoutMs, ca, gzip: zipped } = this.options.collector;
    try {
      const reply = await httpRequest({
        method: 'POST',
        url,
        headers: {
          'user-agent': this.options.scope.name,
          ...headers,
          'content-type': this.encoding.contentType,
          ...(zipped && { 'content-encoding': 'gzip' }),
        },
        body,
        timeoutMs,
        maxBytes: LARGEST_ANSWER,
        signal: this.closed.signal,
        ...(ca !== undefined && { ca }),
      });
      return this.read(reply);
    } catch (error) {
      if (!(error instanceof HttpError)) throw error;
      return { is: 'failed', why: error.message, again: RETRYABLE_ERRORS.has(error.code), afterMs: 0 };
    }
  }

  private read({ status, headers, body }: HttpReply): Outcome {
    if (status >= 200 && status < 300) return { is: 'taken', partial: this.encoding.readAnswer(body) };
    if (!RETRYABLE.has(status)) return { is: 'rejected', why: `status ${status}` };
    return {
      is: 'failed',
      why: `status ${status}`,
      again: true,
      afterMs: Math.min(
        parseRetryAfter(headers['retry-after'], this.clock.now()) ?? 0,
        LONGEST_RETRY_AFTER_MS,
      ),
    };
  }

  /** Waits until it may be tried again. False: there is no time for that. */
  private async hasPatience(attempt: number, askedMs: number): Promise<boolean> {
    const { signal } = this.closing;
    if (signal.aborted) return false;
    const longest = Math.min(FIRST_BACK_OFF_MS * 2 ** (attempt - 1), LONGEST_BACK_OFF_MS);
    const ownMs = longest * (0.5 + (this.options.random ?? Math.random)() / 2);
    // Whoever waits no more sends what it has once again: it is the end.
    await this.clock.sleep(Math.max(ownMs, askedMs), signal).catch(() => {});
    return !this.closed.signal.aborted;
  }

  /** Once, and once more when it is over: a collector that is away must not fill the log. */
  private tell(outcome: Outcome, spans: number): void {
    const { log, collector } = this.options;
    const now = outcome.is === 'failed' ? 'failing' : isWhole(outcome) ? 'well' : 'rejecting';
    if (now === this.said) return;
    this.said = now;
    const at = new URL(collector.url).host;
    if (outcome.is === 'failed')
      log.warn({ collector: at, why: outcome.why }, 'the collector takes no spans; requests go on without');
    else if (outcome.is === 'rejected')
      log.warn({ collector: at, why: outcome.why, spans }, 'the collector refuses spans');
    else if (outcome.partial === undefined) log.info({ collector: at }, 'the collector takes spans again');
    else {
      const { rejected, message } = outcome.partial;
      const why = message.slice(0, LONGEST_WORDS);
      log.warn({ collector: at, rejected, why }, 'the collector refuses spans');
    }
  }
}

function isWhole(outcome: Outcome): boolean {
  return outcome.is === 'taken' && outcome.partial === undefined;
}

const compressed = promisify(gzip) as (bytes: Buffer) => Promise<Buffer>;
