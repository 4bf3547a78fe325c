// Records the requests whose spans are wanted, and tells the supervisor of them: in messages of bounded size, so many a second.

import { isTrouble } from '../../proxy/exchange/access-entry.ts';
import { createQueryRedaction } from '../../proxy/exchange/access-redaction.ts';
import { loggedTarget } from '../../proxy/exchange/logged.ts';
import type { ExchangeObserver, Observed } from '../../proxy/exchange/observe.ts';
import { spanIdOf, traceIdOf } from '../../proxy/exchange/tracing.ts';
import type { UpstreamProtocol } from '../../proxy/rules/routes.ts';
import { SPANS } from './counters.ts';
import { methods, routeLabel } from './labels.ts';
import type { RecordedRequest, RecordedTry } from './messages.ts';

export interface SpanRecorder {
  readonly observer: ExchangeObserver;
  /** Sends all that waits, beyond what a second may have. For the end of a worker. */
  flush(): void;
}

export interface SpanRecorderOptions {
  /** Of spanLayout: counted in it. */
  readonly numbers: Float64Array;
  /** Undefined: no query is shown. Otherwise the names of parameters whose values are not, beside those that never are. */
  readonly query: { readonly redact: readonly string[] } | undefined;
  send(requests: RecordedRequest[]): void;
  /** Bytes that have been sent and not been taken. */
  backlog(): number;
  /** In the time of the proxy's deadlines. */
  readonly now?: () => number;
  /** Milliseconds since 1970. */
  readonly wallNow?: () => number;
  readonly everyMs?: number;
}

const EVERY_MS = 250;
/** Of JSON, in one message: see LONGEST_FROM_WORKER. With EVERY_MS it is what a worker may tell in a second. */
const LONGEST_MESSAGE = 96 * 1024;
/** A supervisor that does not keep up is told less. */
const MOST_BACKLOG = 1024 * 1024;
/** Of one request, the last ones; the others are counted in its own span. */
const MOST_TRIES = 10;
const LONGEST = { method: 64, host: 260, path: 2_010, query: 1_000, userAgent: 500 } as const;
const TLS_PROTOCOLS: ReadonlySet<UpstreamProtocol> = new Set(['https', 'grpcs']);
const KNOWN: ReadonlySet<string> = new Set(methods.filter((method) => method !== 'other'));

interface Begun {
  readonly tries: RecordedTry[];
  current: OpenTry | undefined;
}

interface OpenTry {
  readonly span: string;
  readonly startedAt: number;
  readonly number: number;
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
}

export function createSpanRecorder(options: SpanRecorderOptions): SpanRecorder {
  return new Recorder(options);
}

class Recorder implements SpanRecorder, ExchangeObserver {
  readonly reads = 'figures';
  private readonly options: SpanRecorderOptions;
  private readonly now: () => number;
  private readonly wallNow: () => number;
  private readonly redacted: ((query: string) => string) | undefined;
  private readonly begun = new Map<Observed, Begun>();
  private waiting: RecordedRequest[] = [];
  private bytes = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(options: SpanRecorderOptions) {
    this.options = options;
    this.now = options.now ?? (() => performance.now());
    this.wallNow = options.wallNow ?? Date.now;
    this.redacted = options.query && createQueryRedaction(options.query);
  }

  get observer(): ExchangeObserver {
    return this;
  }

  // --- The moments ---

  headTaken(exchange: Observed): void {
    if (exchange.sampled) this.begun.set(exchange, { tries: [], current: undefined });
  }

  upstreamChosen(exchange: Observed): void {
    if (!exchange.sampled) return;
    const begun = this.begun.get(exchange);
    const { upstream, settings } = exchange;
    if (begun === undefined || upstream === undefined) return;
    begun.current = {
      span: spanIdOf(exchange.upstreamTrace),
      startedAt: this.now(),
      number: exchange.attempts,
      host: upstream.host,
      port: upstream.port,
      tls: settings !== undefined && TLS_PROTOCOLS.has(settings.protocol),
    };
  }

  /** One whose reply has begun goes on until the request is over. */
  upstreamDone(exchange: Observed): void {
    if (exchange.sampled && exchange.replyAt === 0) this.endTry(exchange, exchange.loss ?? exchange.fault);
  }

  over(exchange: Observed): void {
    if (!exchange.sampled) return;
    // What ends a reply in its middle ends the attempt as well.
    this.endTry(exchange, exchange.fault);
    const begun = this.begun.get(exchange);
    this.begun.delete(exchange);
    if (begun !== undefined) this.keep(this.recorded(exchange, begun.tries));
  }

  private endTry(exchange: Observed, fault: Observed['fault']): void {
    const begun = this.begun.get(exchange);
    const current = begun?.current;
    if (begun === undefined || current === undefined) return;
    begun.current = undefined;
    const { startedAt, ...rest } = current;
    begun.tries.push({
      ...rest,
      afterMs: startedAt - exchange.startedAt,
      ms: this.now() - startedAt,
      status: exchange.upstreamStatus,
      ...(fault !== undefined && { fault }),
    });
    if (begun.tries.length > MOST_TRIES) begun.tries.shift();
  }

  // --- What is told ---

  private recorded(exchange: Observed, tries: RecordedTry[]): RecordedRequest {
    const { traceparent, parentTrace, startedAt, target, method, match, fault } = exchange;
    const ms = this.now() - startedAt;
    const query = this.queryOf(target);
    const known = KNOWN.has(method);
    return {
      trace: traceIdOf(traceparent),
      span: spanIdOf(traceparent),
      parent: spanIdOf(parentTrace),
      at: this.wallNow() - ms,
      ms,
      method: known ? method : '_OTHER',
      ...(!known && method !== '' && { sentMethod: method.slice(0, LONGEST.method) }),
      path: loggedTarget(target).slice(0, LONGEST.path),
      ...(query !== '' && { query }),
      host: exchange.host.slice(0, LONGEST.host),
      port: exchange.connection.serverPort,
      client: exchange.clientAddress,
      userAgent: exchange.userAgent.slice(0, LONGEST.userAgent),
      protocol: exchange.protocol === 'tcp' ? 'http/1.1' : exchange.protocol,
      tls: exchange.tlsVersion,
      route: match === undefined ? '' : routeLabel(match),
      status: exchange.status,
      grpcStatus: exchange.grpcStatus,
      received: exchange.received,
      sent: exchange.sent,
      trouble: isTrouble(exchange),
      ...(fault !== undefined && { fault }),
      attempts: exchange.attempts,
      tries,
    };
  }

  private queryOf(target: string): string {
    const at = target.indexOf('?');
    if (this.redacted === undefined || at === -1) return '';
    return this.redacted(target.slice(at + 1)).slice(0, LONGEST.query);
  }

  private keep(request: RecordedRequest): void {
    const { numbers } = this.options;
    const spans = 1 + request.tries.length;
    const bytes = Buffer.byteLength(JSON.stringify(request)) + 1;
    if (this.bytes + bytes > LONGEST_MESSAGE || this.options.backlog() > MOST_BACKLOG) {
      numbers[SPANS.dropped]! += spans;
      return;
    }
    numbers[SPANS.recorded]! += spans;
    this.bytes += bytes;
    this.waiting.push(request);
    this.timer ??= setTimeout(() => this.flush(), this.options.everyMs ?? EVERY_MS).unref();
  }

  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const { waiting } = this;
    if (waiting.length === 0) return;
    this.waiting = [];
    this.bytes = 0;
    this.options.send(waiting);
  }
}
