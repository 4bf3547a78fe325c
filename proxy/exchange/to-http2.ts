// One HTTP/2 stream to one HTTP/2 stream of an upstream: gRPC above all, trailers, resets and cancellation included.

import { Fault, type FaultCode } from '../faults.ts';
import type { Http2Stream, StreamUser } from '../http2/connection.ts';
import { fieldKind, kindOf } from '../http2/fields.ts';
import { errorCode } from '../http2/frames.ts';
import { createField, type HeaderField } from '../http2/hpack.ts';
import type { Deadline } from '../socket/deadlines.ts';
import type { UpstreamSession } from '../upstream/http2-pool.ts';
import { faultTrailers } from './fault-reply.ts';
import { noteFault, replyFault } from './http2-reply.ts';
import type { Http2Exchange } from './http2-request.ts';
import { MOST_INTERIM_BYTES, UNTAKEN } from './interim.ts';
import { KeptBody } from './kept-body.ts';
import { isWorthKeeping, mayTryAgain, REPLAY_BYTES, type Tries } from './retry.ts';
import { hasNoBody, lossOf, replyLengthOf, replyTrailers, requestTrailers } from './translation.ts';

/**
 * Relays the exchange's stream. What may be tried again is (exchange/retry.ts), on another connection if that one is
 * leaving; anything else that fails ends as a reset with the upstream's code, or, when nothing has been
 * answered yet, as the reply to a Fault.
 */
export function relayToHttp2(exchange: Http2Exchange): void {
  const relay = new Relay(exchange);
  exchange.stream.user = relay;
  relay.begin();
}

/** The client's side, and what both sides share. */
class Relay implements StreamUser, Deadline, Tries {
  at: number;
  place = -1;
  readonly exchange: Http2Exchange;
  readonly stream: Http2Stream;
  session: UpstreamSession | undefined;
  /** Nothing can be said to the client any more. */
  finished = false;
  failed = false;
  responded = false;
  /** The reply is whole. */
  replied = false;
  requestEnded: boolean;
  readonly headBytes: number;
  /** The upstream's stream was given up for what the upstream did or did not do. */
  upFailed = false;

  private readonly endsAt: number;
  private up: Http2Stream | undefined;
  refusals = 0;
  repeated = false;
  private received = 0;
  /** All that has arrived of the body: until there is a stream, and as long as it may be sent again. */
  private kept: KeptBody | undefined;
  private bodyKept = true;
  private heard = false;
  private trailers: readonly HeaderField[] | undefined;

  constructor(exchange: Http2Exchange) {
    const { stream, request, upstream, context } = exchange;
    this.exchange = exchange;
    this.stream = stream;
    this.requestEnded = request.endStream;
    this.headBytes = headBytesOf(exchange);
    const { totalTimeoutMs } = upstream;
    this.endsAt =
      totalTimeoutMs === undefined ? Number.POSITIVE_INFINITY : context.deadlines.after(totalTimeoutMs);
    this.at = this.endsAt;
  }

  begin(): void {
    if (!this.requestEnded) this.stream.pause();
    this.exchange.context.deadlines.watch(this);
    this.acquire();
  }

  private acquire(): void {
    const { context, upstream } = this.exchange;
    context.http2Upstreams.acquire(
      upstream,
      (session) => this.start(session),
      (fault) => this.fail(fault),
      this,
    );
  }

  get restless(): boolean {
    return this.stream.restless;
  }

  private start(session: UpstreamSession) {
    if (this.finished || this.failed) return;
    if (!session.takesHead(this.headBytes)) return this.fail(new Fault('headers-too-large'));
    const { request, access } = this.exchange;
    this.session = session;
    if (access !== undefined) access.upstream = session.address;
    const side = new UpstreamSide(this, session);
    const up = session.openStream(side, this.headBytes);
    side.stream = up;
    this.up = up;
    sendRequestHead(up, this.exchange, session.scheme);
    this.alive();
    if (request.endStream) return;
    const { kept } = this;
    let free = true;
    if (kept !== undefined) {
      free = up.sendData(kept.content, 0, kept.size, false);
      if (kept.size > REPLAY_BYTES) this.dropKept();
    }
    if (this.requestEnded) this.endRequest(up);
    else if (free) this.stream.resume();
    // Whose turn it is has just been settled.
    this.alive();
  }

  private endRequest(up: Http2Stream): void {
    if (this.trailers === undefined) up.sendEnd();
    else up.sendTrailers(this.trailers);
  }

  // --- From the client ---

  streamData(bytes: Buffer, start: number, end: number, last: boolean) {
    if (this.failed || this.isOver()) return;
    const { access, match } = this.exchange;
    this.received += end - start;
    if (access !== undefined) access.received = this.received;
    if (this.received > match.maxBodyBytes) return this.fail(new Fault('body-too-large'));
    this.keep(bytes, start, end);
    this.requestEnded = last;
    this.alive();
    if (this.up !== undefined && !this.up.sendData(bytes, start, end, last)) this.stream.pause();
  }

  private keep(bytes: Buffer, start: number, end: number): void {
    if (!this.bodyKept) return;
    // What has no stream yet is bounded by the window of the client's.
    const tooMuch = this.received > REPLAY_BYTES || !isWorthKeeping(this.exchange.request.contentLength);
    if (this.up !== undefined && tooMuch) this.dropKept();
    else {
      this.kept ??= new KeptBody();
      this.kept.add(bytes, start, end);
    }
  }

  private dropKept(): void {
    this.bodyKept = false;
    this.kept = undefined;
  }

  /** What has been heard of is not sent again. */
  private isHeard(): void {
    if (this.heard) return;
    this.heard = true;
    this.dropKept();
  }

  streamTrailers(fields: readonly HeaderField[]): void {
    this.trailers = requestTrailers(fields);
  }

  streamEnded(): void {
    this.requestEnded = true;
    if (this.failed) return;
    this.alive();
    if (this.up !== undefined) this.endRequest(this.up);
  }

  /** An upstream that has replied may still want the rest of the request; once its stream has closed it does not. */
  private isOver(): boolean {
    return this.replied && this.up === undefined;
  }

  streamDrained(): void {
    this.alive();
    this.up?.resume();
  }

  streamClosed(): void {
    const { up } = this;
    this.finished = true;
    this.exchange.context.deadlines.forget(this);
    if (up === undefined || up.closed) return;
    // What was answered whole closes by itself, unless we still owe it a request that nobody will send.
    if (!this.replied || !this.requestEnded) up.reset(errorCode.cancel);
  }

  // --- From the upstream ---

  interim(status: number, fields: readonly HeaderField[]): void {
    this.isHeard();
    this.alive();
    if (this.responded) return;
    sendHead(this.stream, status, fields, -1, 'interim');
    if (this.stream.backlog > MOST_INTERIM_BYTES) this.fail(new Fault('upstream-malformed', UNTAKEN));
  }

  respond(up: Http2Stream, status: number, fields: readonly HeaderField[], ended: boolean) {
    const { access, request } = this.exchange;
    const length = replyLengthOf(fields);
    if (length === undefined) return up.resetMalformed();
    if (!hasNoBody(request.method, status)) {
      if (ended && length > 0) return up.resetMalformed();
      up.expects = length;
    }
    this.isHeard();
    this.responded = true;
    this.replied = ended;
    if (access !== undefined) {
      access.status = status;
      noteGrpcStatus(access, fields);
    }
    this.alive();
    sendHead(this.stream, status, fields, status === 204 ? -1 : length, ended ? 'last' : 'open');
  }

  reply(bytes: Buffer, start: number, end: number, last: boolean): void {
    const { access } = this.exchange;
    if (access !== undefined) access.sent += end - start;
    this.replied = last;
    if (!this.stream.sendData(bytes, start, end, last)) this.up?.pause();
    this.alive();
  }

  replyTrailers(fields: readonly HeaderField[]): void {
    const { access } = this.exchange;
    this.replied = true;
    if (access !== undefined) noteGrpcStatus(access, fields);
    this.stream.sendTrailers(replyTrailers(fields));
  }

  replyEnded(): void {
    this.replied = true;
    this.stream.sendEnd();
  }

  takesMore(): void {
    this.alive();
    this.stream.resume();
  }

  /** The upstream's stream has closed. */
  upstreamClosed(up: Http2Stream) {
    if (up === this.up) this.up = undefined;
    if (this.finished || this.failed) return;
    // The upstream wants no more of the request (RFC 9113 §8.1): so say the same to the client, when the reply is out.
    if (this.replied) {
      if (!this.requestEnded) this.stream.refuseRest();
      return;
    }
    if (up.end === 'malformed') return this.fail(new Fault('upstream-malformed'));
    if (!this.responded) return this.retryOrFail(up);
    const { access, request } = this.exchange;
    if (access !== undefined) access.fault = 'upstream-closed';
    if (up.end === 'lost' && request.grpc) return this.endWithStatus('upstream-closed');
    this.stream.reset(up.end === 'lost' || up.code === errorCode.noError ? errorCode.internalError : up.code);
  }

  private retryOrFail(up: Http2Stream) {
    const { access, request } = this.exchange;
    if (!this.heard && mayTryAgain(this, lossOf(up), request.method, this.bodyKept)) {
      this.at = this.endsAt;
      if (!this.requestEnded) this.stream.pause();
      return this.acquire();
    }
    // A reset of this one stream by a living upstream is its answer: the client gets the same code.
    if (up.end === 'reset' && up.code !== errorCode.noError) {
      if (access !== undefined) access.fault = 'upstream-closed';
      return this.stream.reset(up.code);
    }
    this.fail(new Fault('upstream-closed'));
  }

  private endWithStatus(code: FaultCode): void {
    const { access } = this.exchange;
    const trailers = Object.entries(faultTrailers(code)).map(([name, value]) => createField(name, value));
    if (access !== undefined) noteGrpcStatus(access, trailers);
    this.replied = true;
    this.stream.sendTrailers(trailers);
    this.stream.refuseRest();
  }

  // --- The end ---

  expired() {
    const { stream } = this;
    if (this.failed || this.replied) return stream.reset(errorCode.cancel);
    const waitsForClient =
      this.up !== undefined && ((!this.requestEnded && !stream.paused) || stream.queued > 0);
    // A conversation that has had its time may still be told so.
    const { deadlines } = this.exchange.context;
    if (waitsForClient && this.responded && deadlines.now() < this.endsAt)
      return stream.reset(errorCode.cancel);
    this.fail(new Fault(waitsForClient ? 'request-timeout' : 'upstream-timeout'));
  }

  fail(fault: Fault): void {
    if (this.finished || this.failed) return;
    const { exchange, stream, up } = this;
    const { request, context, access } = exchange;
    this.failed = true;
    // Even the short reply to a fault may meet a client that takes nothing.
    this.at = context.deadlines.now() + context.limits.clientIdleTimeoutMs;
    context.deadlines.watch(this);
    noteFault(exchange, fault);
    this.upFailed = fault.side === 'upstream';
    up?.reset(errorCode.cancel);
    stream.resume();
    if (!this.responded) replyFault(stream, request, fault, access);
    else if (request.grpc) this.endWithStatus(fault.code);
    else stream.reset(errorCode.internalError);
  }

  private alive(): void {
    this.at = Math.min(this.exchange.context.deadlines.after(this.patience()), this.endsAt);
  }

  private patience(): number {
    const { upstream, context } = this.exchange;
    if (this.stream.queued > 0) return context.limits.clientIdleTimeoutMs;
    if (this.requestEnded) return upstream.readTimeoutMs;
    if (this.stream.paused) return upstream.sendTimeoutMs;
    return Math.max(upstream.readTimeoutMs, context.limits.clientIdleTimeoutMs);
  }
}

/** Who has the upstream's stream: of each attempt its own, so that what a lost one still says is nobody's. */
class UpstreamSide implements StreamUser {
  private readonly relay: Relay;
  private readonly session: UpstreamSession;
  stream: Http2Stream | undefined;

  constructor(relay: Relay, session: UpstreamSession) {
    this.relay = relay;
    this.session = session;
  }

  private get silenced(): boolean {
    return this.relay.finished || this.relay.failed;
  }

  streamInterim(status: number, fields: readonly HeaderField[]): void {
    if (!this.silenced) this.relay.interim(status, fields);
  }

  streamReplied(status: number, fields: readonly HeaderField[], ended: boolean): void {
    if (!this.silenced) this.relay.respond(this.stream!, status, fields, ended);
  }

  streamData(bytes: Buffer, start: number, end: number, last: boolean): void {
    if (!this.silenced) this.relay.reply(bytes, start, end, last);
  }

  streamTrailers(fields: readonly HeaderField[]): void {
    if (!this.silenced) this.relay.replyTrailers(fields);
  }

  streamEnded(): void {
    if (!this.silenced) this.relay.replyEnded();
  }

  streamDrained(): void {
    if (!this.silenced) this.relay.takesMore();
  }

  streamClosed(up: Http2Stream): void {
    const { relay } = this;
    this.session.release(relay.responded, relay.upFailed, relay.headBytes);
    relay.upstreamClosed(up);
  }
}

function sendRequestHead(up: Http2Stream, { request, forwarded }: Http2Exchange, scheme: string): void {
  up.beginHead();
  up.addField(':method', request.method);
  up.addField(':scheme', scheme);
  up.addField(':authority', request.authority);
  up.addField(':path', request.path);
  for (const { name, value, neverIndexed } of request.fields) up.addField(name, value, neverIndexed);
  // RFC 9110 §10.1.4, and without it gRPC servers refuse the call.
  up.addField('te', 'trailers');
  if (request.contentLength >= 0) up.addField('content-length', String(request.contentLength));
  for (const { name, value } of forwarded.fields) up.addField(name, value);
  up.endHead(request.endStream ? 'last' : 'open');
}

/** RFC 9113 §6.5.2: what sendRequestHead() sends, its pseudo-header fields and `te` included. */
function headBytesOf({ request, forwarded }: Http2Exchange): number {
  let bytes = request.method.length + request.path.length + request.authority.length + 240;
  for (const { name, value } of request.fields) bytes += name.length + value.length + 32;
  for (const { name, value } of forwarded.fields) bytes += name.length + value.length + 32;
  return bytes;
}

/**
 * The fields of an upstream's reply, its status among them; what belongs to its connection stays behind. The `length` is
 * said once, as a number (-1: not at all; RFC 9110 §8.6: never in 1xx and 204).
 */
function sendHead(
  stream: Http2Stream,
  status: number,
  fields: readonly HeaderField[],
  length: number,
  kind: 'interim' | 'open' | 'last',
): void {
  stream.beginHead();
  stream.addField(':status', String(status));
  for (const field of fields) {
    const { name, value, neverIndexed } = field;
    const known = kindOf(field);
    if (known === fieldKind.status || known === fieldKind.hopByHop || known === fieldKind.te) continue;
    if (known === fieldKind.contentLength) continue;
    stream.addField(name, value, neverIndexed);
  }
  if (length >= 0) stream.addField('content-length', String(length));
  stream.endHead(kind);
}

function noteGrpcStatus(access: { grpcStatus: number }, fields: readonly HeaderField[]): void {
  for (const { name, value } of fields) {
    if (name === 'grpc-status' && /^\d{1,3}$/.test(value)) access.grpcStatus = Number(value);
  }
}
