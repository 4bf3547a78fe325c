// A request of a client that speaks HTTP/2, and its reply: one stream.

import { Fault } from '../faults.ts';
import type { Http2Stream, StreamUser } from '../http2/connection.ts';
import { fieldKind, kindOf } from '../http2/fields.ts';
import { errorCode } from '../http2/frames.ts';
import { createField, type HeaderField } from '../http2/hpack.ts';
import type { ForwardMatch } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import type { ClientConnection, ProxyContext } from './context.ts';
import { Exchange, REQUEST_ID, type UpstreamSide } from './exchange.ts';
import { faultTrailers } from './fault-reply.ts';
import { replyFault } from './http2-reply.ts';
import type { ForwardedFamily, Forwarding, Http2Request } from './http2-request.ts';
import { loggedTarget } from './logged.ts';
import type { ExchangeObserver } from './observe.ts';

/** The way to an upstream, for a client of HTTP/2. */
export interface Http2Side extends UpstreamSide {
  /** Bytes of the body wait until the upstream has switched to the protocol that they are of. */
  readonly holdsBody: boolean;
  /** False: enough is waiting. */
  sendBody(bytes: Buffer, start: number, end: number, last: boolean): boolean;
  /** The body has ended; its trailers are the exchange's. */
  endBody(): void;
}

const UNREAD: Http2Request = {
  method: 'GET',
  path: '',
  authority: '',
  host: '',
  protocol: undefined,
  endStream: false,
  contentLength: -1,
  grpc: false,
  forwarded: undefined,
  userAgent: '',
  requestId: undefined,
  traceparent: undefined,
  tracestate: undefined,
  fields: [],
};
const NOT_FORWARDED: ForwardedFamily = { fields: [], lines: '' };
const NO_TRAILERS: readonly HeaderField[] = [];

export class Http2Exchange extends Exchange implements StreamUser, Deadline, Forwarding {
  at = Number.POSITIVE_INFINITY;
  place = -1;
  readonly stream: Http2Stream;
  side: Http2Side | undefined = undefined;
  request = UNREAD;
  forwarded = NOT_FORWARDED;
  requestEnded = false;
  trailers = NO_TRAILERS;
  /** Rules are still deciding: what comes of the body waits. */
  awaitsRules = false;
  /** What still comes of the body is nobody's. */
  ignoresBody = false;
  protected readonly clock: Deadline = this;

  constructor(
    context: ProxyContext,
    connection: ClientConnection,
    stream: Http2Stream,
    observer: ExchangeObserver | undefined,
  ) {
    super(context, connection, 'h2', observer);
    this.stream = stream;
  }

  protected get requestPaused(): boolean {
    return this.stream.paused;
  }

  protected get replyWaits(): boolean {
    return this.stream.queued > 0;
  }

  protected get requestLine(): string {
    return `${this.method} ${loggedTarget(this.target)}`;
  }

  // --- Its beginning ---

  /** The head has come and cannot be read; these are its fields, however malformed. */
  beginUnread(fields: readonly HeaderField[]): void {
    this.beginTrace();
    if (this.detailed || this.sampled) this.noteRequestLine(fields);
    if (this.detailed) this.noteShown(fields);
    this.headTaken();
  }

  private noteRequestLine(fields: readonly HeaderField[]): void {
    for (const field of fields) {
      const kind = kindOf(field);
      if (kind === fieldKind.method) this.method = field.value;
      else if (kind === fieldKind.path) this.target = field.value;
      else if (kind === fieldKind.authority) this.host = field.value;
    }
  }

  private noteShown(fields: readonly HeaderField[]): void {
    const shows = this.context.accessLog?.shows;
    if (shows !== undefined) this.shownHeaders = shows(fields);
  }

  /** A request whose head was read. */
  begin(asked: Http2Request): void {
    if (this.detailed) this.noteShown(asked.fields);
    const request = this.withIdentity(asked);
    this.request = request;
    this.method = request.method;
    this.host = request.host;
    this.target = request.path;
    this.contentLength = request.contentLength;
    this.requestEnded = request.endStream;
    if (request.contentLength >= 0) this.stream.expects = request.contentLength;
    this.headTaken();
  }

  /** What is not to pass on is left out. */
  private withIdentity(request: Http2Request): Http2Request {
    const { requestId, traceparent, tracestate } = request;
    const gone: string[] = [];
    if (requestId !== undefined && this.takesId(requestId)) gone.push(REQUEST_ID);
    const traced = traceparent !== undefined || tracestate !== undefined;
    if (traced) gone.push(...this.takesTrace({ traceparent, tracestate }));
    this.beginTrace();
    if (this.detailed || this.sampled) this.userAgent = request.userAgent;
    if (gone.length === 0) return request;
    return { ...request, fields: request.fields.filter(({ name }) => !gone.includes(name)) };
  }

  /** The forwarded family of its client, and what is said of this request alone. */
  forwardedWithOwn(family: ForwardedFamily): ForwardedFamily {
    const { ownFields } = this;
    if (ownFields.length === 0) return family;
    // Of this one message: it must not push out of the tables what will come again.
    const own = ownFields.map(([name, value]) => createField(name, value, true));
    return { fields: [...family.fields, ...own], lines: family.lines + this.ownLines };
  }

  forward(match: ForwardMatch, side: Http2Side): void {
    this.side = side;
    if (!this.requestEnded) this.stream.pause();
    this.context.deadlines.watch(this);
    this.forwardTo(match, side);
  }

  pauseRequest(): void {
    this.stream.pause();
  }

  resumeRequest(): void {
    this.stream.resume();
  }

  // --- The stream ---

  streamData(bytes: Buffer, start: number, end: number, last: boolean) {
    const { side } = this;
    if (this.awaitsRules) return this.holdBody(bytes, start, end, last);
    // The rest of a request that was answered before its end.
    if (side === undefined || this.ignoresBody || this.failed || (this.replied && !side.connected)) return;
    this.received += end - start;
    if (this.received > this.match!.maxBodyBytes && !side.holdsBody)
      return this.fail(new Fault('body-too-large'));
    const waits = !side.connected || side.holdsBody;
    this.keepBody(waits, bytes, start, end);
    this.requestEnded = last;
    if (waits) return;
    this.alive();
    if (!side.sendBody(bytes, start, end, last)) this.stream.pause();
  }

  /** Bounded by the window of its stream, which is paused. */
  private holdBody(bytes: Buffer, start: number, end: number, last: boolean): void {
    if (this.ignoresBody) return;
    this.received += end - start;
    this.keepBody(true, bytes, start, end);
    this.requestEnded = last;
  }

  streamTrailers(fields: readonly HeaderField[]): void {
    if (this.ignoresBody) return;
    this.trailers = [...fields];
  }

  streamEnded(): void {
    if (this.ignoresBody) return;
    this.requestEnded = true;
    const { side } = this;
    if (side === undefined || this.awaitsRules || this.failed || (this.replied && !side.connected)) return;
    this.alive();
    if (side.connected && !side.holdsBody) side.endBody();
  }

  streamDrained(): void {
    const { side } = this;
    if (side === undefined || this.awaitsRules || this.failed) return;
    this.alive();
    side.resume();
  }

  /** Whoever has the connection calls closed(). */
  streamClosed(): void {}

  /** The first bytes of a WebSocket still wait for the switch. */
  override hear(): void {
    if (this.side?.holdsBody === true) this.heard = true;
    else super.hear();
  }

  // --- Its end ---

  /** A reply of ours: nothing more of the request is wanted. */
  replyBegins(): void {
    const { stream, context } = this;
    this.side = undefined;
    this.awaitsRules = false;
    this.replied = true;
    stream.resume();
    // Even a short reply may meet a client that takes nothing.
    this.at = context.deadlines.now() + context.limits.clientIdleTimeoutMs;
    context.deadlines.watch(this);
  }

  /** Without a word. */
  closeSilently(): void {
    this.status = 444;
    this.end();
    this.stream.reset(errorCode.cancel);
  }

  protected tell(fault: Fault) {
    const { stream, request, context } = this;
    this.awaitsRules = false;
    stream.resume();
    // Even the short reply to a fault may meet a client that takes nothing.
    this.at = context.deadlines.now() + context.limits.clientIdleTimeoutMs;
    context.deadlines.watch(this);
    if (!this.responded) return replyFault(stream, request, fault, this);
    if (request.grpc) this.endWithStatus(fault);
    else stream.reset(errorCode.internalError);
  }

  /** A gRPC call whose reply has begun is still told its status. */
  private endWithStatus({ code }: Fault): void {
    const trailers = Object.entries(faultTrailers(code)).map(([name, value]) => createField(name, value));
    this.noteGrpcStatus(trailers);
    this.replied = true;
    this.stream.sendTrailers(trailers);
    this.stream.refuseRest();
  }

  protected letGo(): void {
    this.stream.reset(errorCode.cancel);
  }

  protected traceAnew(before: string, now: string): void {
    const changed = (fields: readonly HeaderField[]) =>
      fields.map((field) =>
        field.value === before ? createField(field.name, now, field.neverIndexed) : field,
      );
    const { request, forwarded } = this;
    this.request = { ...request, fields: changed(request.fields) };
    this.forwarded = { fields: changed(forwarded.fields), lines: forwarded.lines.replace(before, now) };
  }

  protected passReset(code: number, { code: fault }: Fault): boolean {
    this.fault = fault;
    this.stream.reset(code);
    return true;
  }

  expired(): void {
    if (this.failed || this.replied) this.letGo();
    else this.timeOut();
  }

  /** The stream has closed, however it did; `draining`: connections are being ended by us. */
  closed(draining: boolean): void {
    this.context.deadlines.forget(this);
    if (this.stream.end === 'complete') this.end();
    else this.endWithout(draining ? 'draining' : 'client-closed');
    // What was answered whole closes by itself, unless we still owe it a request that nobody will send.
    if (!this.replied || !this.requestEnded) this.side?.giveUp(false);
  }
}
