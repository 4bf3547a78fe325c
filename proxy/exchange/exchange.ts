// One request and its reply, whatever is spoken on either side: what is known of it, whose turn it is, and how it ends.

import { Fault, type FaultCode } from '../faults.ts';
import type { HeaderField } from '../http2/hpack.ts';
import type { Fields } from '../rules/compiled.ts';
import type { RetryCause } from '../rules/model.ts';
import type { Address, ForwardMatch, RouteMatch, UpstreamSettings } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import type { SwitchAsked } from '../tunnel/switch.ts';
import type { Endpoint, Wish } from '../upstream/balance.ts';
import { noteUpstreamFault } from '../upstream/faults.ts';
import type { Loss } from '../upstream/http1-pool.ts';
import type { ShownHeader } from './access-entry.ts';
import type { ClientConnection, ProxyContext } from './context.ts';
import type { ReplyEdits } from './head-fields.ts';
import { isRequestId, isTrace, type TraceFields } from './identity.ts';
import { KeptBody } from './kept-body.ts';
import type { ExchangeObserver, Observed } from './observe.ts';
import type { ReplyContent } from './reply-content.ts';
import {
  causeOf,
  isNoTry,
  isWorthKeeping,
  mayTryAgain,
  REPLAY_BYTES,
  type RuledTries,
  type Tries,
  wantsTry,
} from './retry.ts';
import { isSampled, type Tracing } from './tracing.ts';

/** The way to the upstream of one exchange: a connection of HTTP/1.1, or a stream of HTTP/2. */
export interface UpstreamSide {
  /** There is a connection or stream that carries the request. */
  readonly connected: boolean;
  /** Both ends may speak as they like, and either may be silent while the other does. */
  readonly converses: boolean;
  /** The upstream is not read, because the client has not taken what came before. */
  readonly paused: boolean;
  /** Asks for a connection, and sends the request from its beginning. `again`: not the first time. */
  begin(again: boolean): void;
  /** The client has taken what waited for it. */
  resume(): void;
  /** Ends what is under way; nothing is said to the exchange any more. `blamed`: counted against the address. */
  giveUp(blamed: boolean): void;
}

/**
 * What becomes of an upstream's reply. It passes, as `edits` say; or its content goes to takesContent(); or its body is
 * dropped, and proceed() goes on, which may count against its address.
 */
export type Taking = 'passes' | 'content' | 'dropped' | 'blamed';

/** Whoever carries out rules for an exchange: told of what comes of its upstream before the client is. */
export interface Guide {
  /** The head of a final reply. */
  takesReply(status: number, fields: Fields): Taking;
  /** It is the guide's to pass on, or to give up. */
  takesContent(content: ReplyContent): void;
  /** False: the client is told as without rules. True: proceed() goes on, once the upstream's side is given up. */
  takesFault(fault: Fault): boolean;
  proceed(): void;
  /** The exchange has ended, however it did. */
  over(): void;
}

/** In lower case, as HTTP/2 and the tables of names have it. */
export const REQUEST_ID = 'x-request-id';
export const TRACEPARENT = 'traceparent';
const NO_FIELDS: readonly (readonly [string, string])[] = [];
const NO_NAMES: readonly string[] = [];
const TRACE_NAMES: readonly string[] = [TRACEPARENT, 'tracestate'];
const TRACEPARENT_ALONE: readonly string[] = [TRACEPARENT];

/** What each protocol of clients adds is in its own class: Http1Exchange, Http2Exchange. */
export abstract class Exchange implements Observed, Tries {
  readonly context: ProxyContext;
  readonly connection: ClientConnection;
  readonly clientAddress: string;
  protected readonly observer: ExchangeObserver | undefined;
  /** The observer reads more of it than that it is there. */
  private readonly timed: boolean;
  /** An upstream has been had, and is waited for. */
  private isAsking = false;
  /** The observer reads texts. */
  protected readonly detailed: boolean;

  protocol: Observed['protocol'];
  method = '';
  host = '';
  target = '';
  /** Of the request; -1: not announced. */
  contentLength = -1;
  /** What the request asks to switch to; undefined: nothing that is passed on. */
  upgrading: SwitchAsked | undefined = undefined;
  match: RouteMatch | undefined = undefined;
  settings: UpstreamSettings | undefined = undefined;

  status = 0;
  grpcStatus = -1;
  received = 0;
  sent = 0;
  startedAt = 0;
  replyAt = 0;
  endedAt = 0;
  countedAt = 0;
  upstream: Address | undefined = undefined;
  /** Where the last attempt went. */
  endpoint: Endpoint | undefined = undefined;
  fault: FaultCode | undefined = undefined;
  attempts = 0;
  /** Empty: requests have none. */
  id = '';
  userAgent = '';
  /** Of our own span, where requests are traced; otherwise as it came and passes on; empty: none came that is sound. */
  traceparent = '';
  /** Where requests are traced: that of a trusted peer, whose trace goes on; empty: it began here. */
  parentTrace = '';
  /** Where requests are traced: of the span that is the present attempt, for the upstream. */
  upstreamTrace = '';
  /** Its spans are recorded. */
  sampled = false;
  /** When the upstream that was asked last was had, in the deadlines' time; 0: none was. */
  upstreamAt = 0;
  /** What the upstream that was asked last has answered, whatever the client is told; 0: nothing. */
  upstreamStatus = 0;
  /** Why the upstream that was asked last was given up. */
  loss: FaultCode | undefined = undefined;
  /** Of the request: what the access log shows of it. */
  shownHeaders: readonly ShownHeader[] | undefined = undefined;

  refusals = 0;
  repeated = false;
  /** What has come of the request's body: as long as it waits for an upstream, or may be sent to another. */
  kept: KeptBody | undefined = undefined;
  /** All that has come of it is still in `kept`. */
  bodyKept = true;

  /** Where rules decide. */
  guide: Guide | undefined = undefined;
  edits: ReplyEdits | undefined = undefined;
  /** The method that goes to the upstream, where rules have changed it. */
  changedMethod: string | undefined = undefined;
  /** What rules ask of the choice among the upstream's addresses. */
  wish: Wish | undefined = undefined;
  /** Where they say what is tried again. */
  tries: RuledTries | undefined = undefined;
  logged = true;

  /** The upstream has said something, if only an interim reply. */
  heard = false;
  /** The head of the reply, the upstream's or our own, has gone to the client. */
  responded = false;
  /** The upstream's reply is whole. */
  replied = false;
  /** A fault has ended it; the client is being told. */
  failed = false;
  /** Nothing more happens. */
  over = false;
  /** When all of it must be over, in the deadlines' time. */
  endsAt = Number.POSITIVE_INFINITY;

  constructor(
    context: ProxyContext,
    connection: ClientConnection,
    protocol: Observed['protocol'],
    observer: ExchangeObserver | undefined,
  ) {
    this.context = context;
    this.connection = connection;
    this.clientAddress = connection.clientAddress;
    this.protocol = protocol;
    this.observer = observer;
    this.timed = observer !== undefined && observer.reads !== 'nothing';
    this.detailed = this.timed && observer?.reads !== 'figures';
    // Asked while the socket is open, and once for a connection.
    if (this.detailed) connection.tlsVersion ??= connection.socket.getProtocol() ?? '';
  }

  get tlsVersion(): string {
    return this.connection.tlsVersion ?? '';
  }

  abstract readonly side: UpstreamSide | undefined;
  /** The one clock of the exchange: that of whoever is being waited for. */
  protected abstract readonly clock: Deadline;
  abstract readonly requestEnded: boolean;
  /** No more of the request is read for now: the upstream has not taken what came before, or there is none yet. */
  protected abstract readonly requestPaused: boolean;
  /** Something of the reply waits for the client. */
  protected abstract readonly replyWaits: boolean;
  /** For the log. */
  protected abstract readonly requestLine: string;
  abstract pauseRequest(): void;
  abstract resumeRequest(): void;
  /** Replies to a fault, or makes it visible that a reply which has begun is not whole. */
  protected abstract tell(fault: Fault): void;
  /** The client takes or sends nothing, in the middle of a reply: it is let go. */
  protected abstract letGo(): void;
  /** What is about to be sent again names another span. */
  protected abstract traceAnew(before: string, now: string): void;
  /** The upstream has reset this one stream. True: the client was told the same in its protocol. */
  protected abstract passReset(code: number, fault: Fault): boolean;

  /** Back to the beginning, for the next request of the same connection. */
  protected reset(protocol: Observed['protocol']): void {
    this.protocol = protocol;
    this.method = '';
    this.host = '';
    this.target = '';
    this.contentLength = -1;
    this.upgrading = undefined;
    this.match = undefined;
    this.settings = undefined;
    this.status = 0;
    this.grpcStatus = -1;
    this.received = 0;
    this.sent = 0;
    this.replyAt = 0;
    this.endedAt = 0;
    this.countedAt = 0;
    this.isAsking = false;
    this.upstream = undefined;
    this.endpoint = undefined;
    this.fault = undefined;
    this.attempts = 0;
    this.id = '';
    this.userAgent = '';
    this.traceparent = '';
    this.parentTrace = '';
    this.upstreamTrace = '';
    this.sampled = false;
    this.upstreamAt = 0;
    this.upstreamStatus = 0;
    this.loss = undefined;
    this.shownHeaders = undefined;
    this.refusals = 0;
    this.repeated = false;
    this.kept = undefined;
    this.bodyKept = true;
    this.guide = undefined;
    this.edits = undefined;
    this.changedMethod = undefined;
    this.wish = undefined;
    this.tries = undefined;
    this.logged = true;
    this.heard = false;
    this.responded = false;
    this.replied = false;
    this.failed = false;
    this.over = false;
    this.endsAt = Number.POSITIVE_INFINITY;
  }

  // --- Who it is ---

  /** A client that is trusted may have named it. True: what it sent does not pass on as it is. */
  protected takesId(given: string): boolean {
    if (this.context.requestIds === undefined) return false;
    if (this.connection.trustedClient && isRequestId(given)) this.id = given;
    return true;
  }

  /** Returns the names of what came of a trace and does not pass on as it came. */
  protected takesTrace(fields: TraceFields): readonly string[] {
    const sound = isTrace(fields);
    if (this.context.tracing === undefined) {
      if (!sound) return TRACE_NAMES;
      this.traceparent = fields.traceparent!;
      return NO_NAMES;
    }
    // Whoever may not name a request may not put it among the traces of others either, or have it recorded.
    if (!sound || !this.connection.trustedClient) return TRACE_NAMES;
    this.parentTrace = fields.traceparent!;
    return TRACEPARENT_ALONE;
  }

  /** Nothing more comes of the trace that it is a part of. */
  protected beginTrace(): void {
    const { tracing } = this.context;
    if (tracing === undefined || this.traceparent !== '') return;
    this.traceparent = tracing.begin(this.parentTrace);
    this.upstreamTrace = this.traceparent;
    if (!isSampled(this.traceparent)) return;
    this.sampled = true;
    this.upstreamTrace = tracing.next(this.traceparent);
    this.connection.tlsVersion ??= this.connection.socket.getProtocol() ?? '';
  }

  /** The next attempt is a span of its own. */
  private beginAttempt(): void {
    if (this.sampled) this.upstreamTrace = (this.context.tracing as Tracing).next(this.traceparent);
  }

  /** What the upstream is told of this request alone. */
  get ownFields(): readonly (readonly [name: string, value: string])[] {
    return this.fieldsUnder(this.upstreamTrace);
  }

  /** The same for a service that rules ask about it: that is no attempt. */
  get fieldsOfQuestion(): readonly (readonly [name: string, value: string])[] {
    return this.fieldsUnder(this.upstreamTrace === '' ? '' : this.traceparent);
  }

  private fieldsUnder(trace: string): readonly (readonly [name: string, value: string])[] {
    const { id } = this;
    if (trace === '') return id === '' ? NO_FIELDS : [[REQUEST_ID, id]];
    if (id === '') return [[TRACEPARENT, trace]];
    return [
      [REQUEST_ID, id],
      [TRACEPARENT, trace],
    ];
  }

  /** The same as lines of HTTP/1.1. */
  get ownLines(): string {
    return this.replyLine + this.traceLine;
  }

  get traceLine(): string {
    return this.upstreamTrace === '' ? '' : `${TRACEPARENT}: ${this.upstreamTrace}\r\n`;
  }

  /** What a reply to its client says of it, as a line of HTTP/1.1. */
  get replyLine(): string {
    return this.id === '' ? '' : `X-Request-ID: ${this.id}\r\n`;
  }

  // --- Its moments ---

  /** `method`, `host` and `target` are set as far as they are known. */
  protected headTaken(): void {
    const { observer } = this;
    const { requestIds } = this.context;
    if (requestIds !== undefined && this.id === '') this.id = requestIds();
    this.beginTrace();
    if (observer === undefined) return;
    if (this.timed) this.startedAt = this.context.deadlines.instant();
    observer.headTaken?.(this);
  }

  upstreamChosen(endpoint: Endpoint): void {
    this.upstreamDone();
    this.endpoint = endpoint;
    this.upstream = endpoint.address;
    this.attempts++;
    if (this.timed) this.upstreamAt = this.context.deadlines.instant();
    this.isAsking = true;
    this.upstreamStatus = 0;
    this.loss = undefined;
    this.observer?.upstreamChosen?.(this);
  }

  private upstreamDone(): void {
    if (!this.isAsking) return;
    this.isAsking = false;
    this.observer?.upstreamDone?.(this);
  }

  beginReply(status: number): void {
    this.responded = true;
    this.status = status;
    const { observer } = this;
    if (observer === undefined) return;
    if (this.timed) this.replyAt = this.context.deadlines.instant();
    this.upstreamDone();
    observer.replyBegun?.(this);
  }

  /** `fields`: of a reply, or its trailers. */
  noteGrpcStatus(fields: readonly HeaderField[]): void {
    if (!this.detailed && !this.sampled) return;
    for (const { name, value } of fields) {
      if (name === 'grpc-status' && /^\d{1,3}$/.test(value)) this.grpcStatus = Number(value);
    }
  }

  end(): void {
    if (this.over) return;
    this.over = true;
    this.guide?.over();
    if (this.timed) this.endedAt = this.context.deadlines.instant();
    this.upstreamDone();
    this.observer?.over?.(this);
  }

  /** The end of an exchange whose client cannot be told anything any more. */
  protected endWithout(why: 'client-closed' | 'draining'): void {
    if (this.over) return;
    this.fault ??= why;
    if (this.fault === 'client-closed' && this.status === 0) this.status = 499;
    this.end();
  }

  // --- To the upstream ---

  protected forwardTo(match: ForwardMatch, side: UpstreamSide): void {
    const { totalTimeoutMs } = match.upstream;
    this.match = match;
    this.settings = match.upstream;
    // The upstream's connect timeout counts from here, and the other clocks from when it is connected.
    if (totalTimeoutMs !== undefined) this.endsAt = this.context.deadlines.after(totalTimeoutMs);
    this.clock.at = this.endsAt;
    side.begin(false);
  }

  /**
   * `bytes[start, end)` of the body have come, after `framing` (latin-1) if that is sent as well. `waits`: there is no
   * upstream yet that they could be sent to.
   */
  keepBody(waits: boolean, bytes: Buffer, start: number, end: number, framing = '') {
    if (!this.bodyKept) return;
    if (!waits && this.isTooMuchToKeep(framing.length + end - start)) return this.dropKept();
    this.kept ??= new KeptBody();
    if (framing !== '') this.kept.addText(framing);
    this.kept.add(bytes, start, end);
  }

  private isTooMuchToKeep(more: number): boolean {
    if (this.received > REPLAY_BYTES || !isWorthKeeping(this.contentLength)) return true;
    return this.kept !== undefined && this.kept.size + more > 2 * REPLAY_BYTES;
  }

  dropKept(): void {
    this.bodyKept = false;
    this.kept = undefined;
  }

  /** The upstream has begun to speak: the request is not sent to another one. */
  hear(): void {
    if (this.heard) return;
    this.heard = true;
    // Rules may send it to another one nevertheless.
    if (this.guide === undefined) this.dropKept();
  }

  /** The upstream is gone. `resetCode`: of HTTP/2, if it has reset this one stream. `reused`: its connection was. */
  lost(loss: Loss, fault: Fault, resetCode = 0, reused = false) {
    if (this.over || this.failed || this.replied) return;
    this.loss = fault.code;
    if (!this.responded && !this.heard && this.isSentAgainUnasked(loss, reused)) return this.sendAgain();
    if (this.triesAfter(fault)) return;
    if (resetCode === 0 || !this.passReset(resetCode, fault)) this.fail(fault);
  }

  private isSentAgainUnasked(loss: Loss, reused: boolean): boolean {
    const { tries } = this;
    if (tries !== undefined && !isNoTry(loss, reused)) return false;
    if (!mayTryAgain(this, loss, this.changedMethod ?? this.method, this.bodyKept)) return false;
    if (this.endpoint !== undefined) tries?.tried.delete(this.endpoint);
    return true;
  }

  /** Whether rules want it to be tried again after a reply with this status. */
  wantsAnotherThan(status: number): boolean {
    // With nearly all replies there is nothing else to look at.
    return this.tries?.rule.on.includes(status) === true && this.mayTry(status, true);
  }

  private mayTry(cause: RetryCause, sent: boolean): boolean {
    const { tries, context, settings } = this;
    const now = context.deadlines.now();
    if (tries === undefined || this.responded || now >= this.endsAt) return false;
    const method = this.changedMethod ?? this.method;
    const hasOther = context.upstreams.balance.hasOther(settings!, tries.tried);
    return wantsTry(tries, cause, { now, method, sent, bodyKept: this.bodyKept, hasOther });
  }

  private triesAfter(fault: Fault): boolean {
    const { tries } = this;
    const cause = tries && causeOf(fault.code);
    if (cause === undefined || !this.mayTry(cause, this.attempts > tries!.attempts)) return false;
    const { host, method } = this;
    this.loss = fault.code;
    this.context.log.debug({ host, method, err: fault }, 'upstream failed, another is tried');
    this.side?.giveUp(fault.side === 'upstream');
    this.tryNext();
    return true;
  }

  /** To another server, as rules want it. */
  tryNext(): void {
    this.heard = false;
    this.tries!.attempts = this.attempts;
    this.sendAgain();
  }

  private sendAgain(): void {
    this.clock.at = this.endsAt;
    if (!this.requestEnded) this.pauseRequest();
    this.upstreamDone();
    this.observer?.sentAgain?.(this);
    if (this.sampled) {
      const before = this.upstreamTrace;
      this.beginAttempt();
      this.traceAnew(before, this.upstreamTrace);
    }
    this.side!.begin(true);
  }

  // --- Its fault ---

  fail(fault: Fault) {
    if (this.over || this.failed || this.triesAfter(fault)) return;
    if (this.guide !== undefined && !this.responded && this.guide.takesFault(fault))
      return this.failInside(this.guide, fault);
    this.failed = true;
    this.fault = fault.code;
    this.logFault(fault);
    this.side?.giveUp(fault.side === 'upstream');
    this.tell(fault);
  }

  /** Rules say what the client is told of it. */
  private failInside(guide: Guide, fault: Fault): void {
    this.fault = fault.code;
    this.logFault(fault);
    this.side?.giveUp(fault.side === 'upstream');
    guide.proceed();
  }

  /** The upstream that was asked is done with, and the client has not been told anything: another one may be asked. */
  beginAgain(): void {
    this.beginAttempt();
    this.heard = false;
    this.replied = false;
    this.refusals = 0;
    this.repeated = false;
    this.endsAt = Number.POSITIVE_INFINITY;
  }

  /** The client is told less. */
  private logFault(err: Fault): void {
    const { host, method, clientAddress: client, context, id } = this;
    const about = id === '' ? { host, method } : { id, host, method };
    // What there are too many of must not fill the log as well: whoever counts them says so now and then.
    const isRefused = err.side === 'downstream' || (err.code === 'overloaded' && this.settings === undefined);
    if (isRefused) context.log.debug({ client, ...about, err }, 'request refused');
    else noteUpstreamFault(context, this.settings, err, about);
  }

  // --- Its clock ---

  /** Something has moved: whose turn it is may have changed. */
  alive(): void {
    this.clock.at = Math.min(this.context.deadlines.after(this.patience()), this.endsAt);
  }

  /** One clock at a time: that of the side that is being waited for. */
  private patience(): number {
    const { clientIdleTimeoutMs } = this.context.limits;
    const { readTimeoutMs, sendTimeoutMs } = this.settings!;
    if (this.replyWaits) return clientIdleTimeoutMs;
    if (this.requestEnded) return readTimeoutMs;
    if (this.requestPaused) return sendTimeoutMs;
    return this.side!.converses ? Math.max(readTimeoutMs, clientIdleTimeoutMs) : clientIdleTimeoutMs;
  }

  protected timeOut() {
    const waitsForClient =
      this.side?.connected === true && (this.replyWaits || (!this.requestEnded && !this.requestPaused));
    // A conversation that has had its time may still be told so.
    if (waitsForClient && this.responded && this.context.deadlines.now() < this.endsAt) {
      this.fault = 'request-timeout';
      return this.letGo();
    }
    this.fail(new Fault(waitsForClient ? 'request-timeout' : 'upstream-timeout', this.requestLine));
  }
}
