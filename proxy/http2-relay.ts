// One HTTP/2 stream as one HTTP/1.1 exchange with an upstream, a WebSocket's tunnel included.

import type { Deadline } from './deadlines.ts';
import { Fault } from './errors.ts';
import type { HeaderField } from './hpack.ts';
import {
  type BodyReader,
  beginReplyBody,
  createBodyReader,
  createMessageHead,
  INCOMPLETE,
  parseReplyHead,
  REFUSED,
  readBody,
} from './http1.ts';
import type { Http2Stream, StreamUser } from './http2-connection.ts';
import { errorCode } from './http2-frames.ts';
import { noteFault, replyFault } from './http2-reply.ts';
import type { Http2Exchange } from './http2-request.ts';
import {
  acceptsWebsocket,
  lastChunk,
  requestFraming,
  requestHeadText,
  sendReplyHead,
  trailersOf,
  upgradeHeadText,
  websocketKey,
} from './http2-translation.ts';
import { isIdempotent } from './methods.ts';
import { createTunnel, type TunnelClient } from './tcp.ts';
import type { Acquisition, UpstreamLink, UpstreamUser } from './upstream.ts';
import { gather } from './writes.ts';

/** Of a request body, kept until the reply begins, so that a request may be sent again. */
const REPLAY_BYTES = 64 * 1024;
/** Interim replies to one request: they are written without waiting for the client to take them. */
const MAX_INTERIMS = 32;
/** What an upstream's connection is read in when its reader keeps up. */
const LONG_READ = 256 * 1024;
const FRESH = { fresh: true };
const NO_TRAILERS: readonly HeaderField[] = [];
/** Of a request without a body; never added to. */
const NO_CHUNKS: Buffer[] = [];

/** Parsing a head and using it happen in one go: one object serves every exchange. */
const head = createMessageHead();

/**
 * Relays the exchange's stream. Every body leaves with explicit framing; what is cut short on one side is cut short,
 * visibly, on the other. An extended CONNECT becomes a WebSocket handshake and then a tunnel (RFC 8441).
 */
export function relayToHttp1(exchange: Http2Exchange): void {
  const relay = new Relay(exchange);
  exchange.stream.user = relay;
  relay.begin();
}

class Relay implements StreamUser, UpstreamUser, Deadline {
  /** When the clock that is running has run out, in the deadlines' time. */
  at: number;
  place = -1;

  private readonly exchange: Http2Exchange;
  private readonly stream: Http2Stream;
  private readonly websocket: string | undefined;
  private readonly chunked: boolean;
  /** When the whole exchange must be over. */
  private readonly endsAt: number;
  private acquisition: Acquisition | undefined;
  private link: UpstreamLink | undefined;

  /** What has arrived of the body while there was no connection to send it on. */
  private early: Buffer[] | undefined;
  private replay: Buffer[] | undefined;
  private received = 0;
  private requestTrailers = NO_TRAILERS;
  private requestEnded: boolean;

  private partialHead: Buffer | undefined;
  private body: BodyReader | undefined;
  private interims = 0;
  private upstreamPaused = false;
  private heard = false;
  private reusable = false;
  private responded = false;
  private replied = false;
  private retried = false;
  private finished = false;
  private failed = false;

  constructor(exchange: Http2Exchange) {
    const { stream, request, upstream, context } = exchange;
    this.exchange = exchange;
    this.stream = stream;
    this.websocket = request.protocol === undefined ? undefined : websocketKey();
    this.chunked = this.websocket === undefined && requestFraming(exchange) === 'chunked';
    const { totalTimeoutMs } = upstream;
    this.endsAt =
      totalTimeoutMs === undefined ? Number.POSITIVE_INFINITY : context.deadlines.after(totalTimeoutMs);
    this.at = this.endsAt;
    this.replay = request.endStream ? NO_CHUNKS : [];
    this.requestEnded = request.endStream;
  }

  begin(): void {
    const { stream, exchange } = this;
    const { upstream, context } = exchange;
    if (!this.requestEnded) stream.pause();
    // The upstream's own time to connect is watched where connections are made.
    context.deadlines.watch(this);
    const how = this.websocket === undefined ? undefined : FRESH;
    this.acquisition = context.upstreams.acquire(upstream, this, how);
  }

  // --- The request ---

  upstreamReady(link: UpstreamLink) {
    if (this.finished || this.failed) return link.destroy();
    const { exchange, websocket } = this;
    const { request, access } = exchange;
    this.link = link;
    this.acquisition = undefined;
    if (access !== undefined) access.upstream = link.address;
    this.alive();
    gather(link.socket);
    if (websocket !== undefined) {
      link.socket.write(upgradeHeadText(exchange, websocket), 'latin1');
      return;
    }
    link.socket.write(requestHeadText(exchange), 'latin1');
    if (!request.endStream && this.sendEarly()) this.stream.resume();
  }

  /** What is to be sent before what is still to come; a second attempt begins with all of it. */
  private sendEarly(): boolean {
    const chunks = (this.retried ? this.replay : this.early) ?? [];
    this.early = undefined;
    let free = true;
    for (const chunk of chunks) free = this.sendChunk(chunk, 0, chunk.length);
    if (this.requestEnded) this.endBody();
    return free;
  }

  upstreamFailed(fault: Fault): void {
    this.fail(fault);
  }

  upstreamDrained(): void {
    this.stream.resume();
  }

  streamData(bytes: Buffer, start: number, end: number) {
    // The rest of a request that was answered before its end.
    if (this.failed || this.replied) return;
    const { access, context } = this.exchange;
    const { maxBodyBytes } = context.limits;
    this.received += end - start;
    if (access !== undefined) access.received = this.received;
    if (maxBodyBytes > 0 && this.received > maxBodyBytes && this.websocket === undefined) {
      return this.fail(new Fault('body-too-large'));
    }
    if (this.heard || this.received > REPLAY_BYTES) this.replay = undefined;
    else this.replay?.push(bytes.subarray(start, end));
    if (this.link === undefined || this.websocket !== undefined) {
      this.early ??= [];
      this.early.push(bytes.subarray(start, end));
      return;
    }
    this.alive();
    if (!this.sendChunk(bytes, start, end)) this.stream.pause();
  }

  private sendChunk(bytes: Buffer, start: number, end: number): boolean {
    const { socket } = this.link!;
    const chunk = bytes.subarray(start, end);
    if (!this.chunked || start === end) return socket.write(chunk);
    socket.cork();
    socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1');
    socket.write(chunk);
    const free = socket.write('\r\n', 'latin1');
    socket.uncork();
    return free;
  }

  streamTrailers(fields: readonly HeaderField[]): void {
    this.requestTrailers = [...fields];
  }

  streamEnded(): void {
    this.requestEnded = true;
    if (this.failed || this.replied) return;
    this.alive();
    if (this.link !== undefined) this.endBody();
  }

  private endBody(): void {
    if (this.chunked) this.link?.socket.write(lastChunk(this.requestTrailers), 'latin1');
  }

  // --- The reply ---

  takesLongReads(): boolean {
    return this.stream.room >= LONG_READ;
  }

  upstreamData(bytes: Buffer, end: number): void {
    if (this.responded) this.replyBytes(bytes, 0, end);
    else if (this.partialHead === undefined) this.headBytes(bytes, end);
    else {
      const joined = Buffer.concat([this.partialHead, bytes.subarray(0, end)]);
      this.partialHead = undefined;
      this.headBytes(joined, joined.length);
    }
    if (!this.failed) this.alive();
  }

  private headBytes(bytes: Buffer, end: number) {
    this.heard = true;
    for (let pos = 0; ; ) {
      const size = parseReplyHead(head, bytes, pos, end, this.exchange.context.limits);
      if (size === REFUSED) return this.fail(new Fault('upstream-malformed', head.refusal.reason));
      if (size === INCOMPLETE) {
        if (pos < end) this.partialHead = Buffer.from(bytes.subarray(pos, end));
        return;
      }
      pos += size;
      if (head.status >= 200) return this.replyBegins(bytes, pos, end);
      if (head.status === 101) return this.switches(bytes, pos, end);
      if (++this.interims > MAX_INTERIMS) {
        return this.fail(new Fault('upstream-malformed', 'endless interim replies'));
      }
      sendReplyHead(this.stream, head, 'interim');
    }
  }

  private replyBegins(bytes: Buffer, pos: number, end: number) {
    const { request, access } = this.exchange;
    const body = createBodyReader();
    this.replay = undefined;
    this.reusable = head.minor === 1 ? !head.close : head.keepAlive && !head.close;
    this.body = body;
    this.responded = true;
    if (access !== undefined) access.status = head.status;
    beginReplyBody(body, head, request.method);
    if (!body.done) {
      sendReplyHead(this.stream, head, 'open');
      return this.replyBytes(bytes, pos, end);
    }
    if (pos < end) this.reusable = false;
    this.replied = true;
    sendReplyHead(this.stream, head, 'last');
    this.replyEnds();
  }

  private replyBytes(bytes: Buffer, start: number, end: number) {
    const { stream } = this;
    const { access, context } = this.exchange;
    const reader = this.body!;
    // Each piece is kept until it is known whether it is the last: then the end goes with it.
    let heldStart = start;
    let heldEnd = start;
    let free = true;
    let pos = start;
    while (pos < end && !reader.done) {
      pos = readBody(reader, bytes, pos, end, context.limits);
      if (pos === REFUSED) return this.fail(new Fault('upstream-malformed', reader.refusal.reason));
      if (reader.dataEnd === reader.dataStart) continue;
      if (heldEnd > heldStart) free = stream.sendData(bytes, heldStart, heldEnd, false);
      heldStart = reader.dataStart;
      heldEnd = reader.dataEnd;
      if (access !== undefined) access.sent += heldEnd - heldStart;
    }
    if (reader.done) return this.finishReply(bytes, heldStart, heldEnd, pos === end);
    if (heldEnd > heldStart) free = stream.sendData(bytes, heldStart, heldEnd, false);
    if (free || this.upstreamPaused) return;
    this.upstreamPaused = true;
    this.link?.socket.pause();
  }

  private finishReply(bytes: Buffer, start: number, end: number, nothingLeft: boolean): void {
    const { stream } = this;
    const trailers = trailersOf(this.body!.trailers);
    if (!nothingLeft) this.reusable = false;
    this.replied = true;
    stream.sendData(bytes, start, end, trailers.length === 0);
    if (trailers.length > 0) stream.sendTrailers(trailers);
    this.replyEnds();
  }

  private replyEnds(): void {
    // The rest of the request would go nowhere (RFC 9113 §8.1), and its connection cannot be used again.
    if (!this.requestEnded) this.reusable = false;
    const { link } = this;
    this.link = undefined;
    if (this.upstreamPaused) link?.socket.resume();
    if (this.reusable) link?.release();
    else link?.destroy();
    this.stream.refuseRest();
  }

  streamDrained(): void {
    this.alive();
    if (!this.upstreamPaused) return;
    this.upstreamPaused = false;
    this.link?.socket.resume();
  }

  private switches(bytes: Buffer, pos: number, end: number) {
    const { websocket, stream, link } = this;
    const { access, context, upstream } = this.exchange;
    if (websocket === undefined || !acceptsWebsocket(head, websocket)) {
      return this.fail(new Fault('upstream-malformed', 'a switch of protocols that was not asked for'));
    }
    if (access !== undefined) {
      access.status = 200;
      access.protocol = 'websocket';
      access.received = 0;
    }
    // RFC 8441 §5: 200 stands for 101, and the accept key has no part in it.
    sendReplyHead(stream, head, 'open', 200, 'sec-websocket-accept');
    this.finished = true;
    this.link = undefined;
    context.deadlines.forget(this);
    const early = this.early ?? [];
    const tunnel = createTunnel(
      {
        context,
        client: tunnelClient(stream, () => tunnel.clientClosed()),
        settings: upstream,
        websocket: true,
        access,
      },
      link!,
    );
    stream.user = {
      streamData: (data, from, to) => tunnel.clientData(data.subarray(from, to)),
      streamTrailers() {},
      streamEnded: () => tunnel.clientEnded(),
      streamDrained: () => tunnel.clientDrained(),
      streamClosed() {
        // Both have ended in peace: what the upstream is still owed must reach it.
        if (stream.end !== 'complete' || link!.socket.destroyed) tunnel.clientClosed();
      },
    };
    link!.handTo(tunnel);
    for (const chunk of early) tunnel.clientData(chunk);
    if (this.requestEnded) tunnel.clientEnded();
    stream.resume();
    if (pos < end) tunnel.upstreamData(bytes.subarray(pos, end), end - pos);
  }

  // --- The end ---

  upstreamEnded() {
    const { body, link } = this;
    if (body?.kind !== 'until-close' || this.replied) {
      link?.destroy();
      return this.upstreamLost(undefined, link?.reused === true);
    }
    this.replied = true;
    this.stream.sendEnd();
    this.reusable = false;
    this.replyEnds();
  }

  upstreamClosed(cause: Error | undefined): void {
    this.upstreamLost(cause, this.link?.reused === true);
  }

  private upstreamLost(cause: Error | undefined, reused: boolean): void {
    this.link = undefined;
    if (this.finished || this.failed || this.replied) return;
    const { context, upstream, request } = this.exchange;
    const mayRepeat = isIdempotent(request.method) && this.replay !== undefined;
    if (reused && !this.heard && !this.retried && mayRepeat) {
      this.retried = true;
      if (!this.requestEnded) this.stream.pause();
      this.acquisition = context.upstreams.acquire(upstream, this, FRESH);
      return;
    }
    this.fail(new Fault('upstream-closed', undefined, { cause }));
  }

  expired() {
    const { stream } = this;
    if (this.failed || this.replied) return stream.reset(errorCode.cancel);
    const waitsForClient = this.responded
      ? stream.queued > 0
      : this.link !== undefined && !this.requestEnded && !stream.paused;
    if (waitsForClient && this.responded) return stream.reset(errorCode.cancel);
    this.fail(new Fault(waitsForClient ? 'request-timeout' : 'upstream-timeout'));
  }

  private fail(fault: Fault): void {
    if (this.finished || this.failed) return;
    const { exchange, stream, link } = this;
    const { request, context, access } = exchange;
    this.failed = true;
    noteFault(exchange, fault);
    if (fault.side === 'upstream') link?.fail();
    else link?.destroy();
    this.link = undefined;
    this.acquisition?.abandon();
    stream.resume();
    // Even the short reply to a fault may meet a client that takes nothing.
    this.at = context.deadlines.now() + context.limits.clientIdleTimeoutMs;
    context.deadlines.watch(this);
    if (this.responded) stream.reset(errorCode.internalError);
    else replyFault(stream, request, fault, access);
  }

  streamClosed(): void {
    const { link } = this;
    this.finished = true;
    this.exchange.context.deadlines.forget(this);
    // A reply that is whole leaves its connection to be used again.
    if (this.replied) return;
    this.link = undefined;
    if (link !== undefined) link.destroy();
    else this.acquisition?.abandon();
  }

  private alive(): void {
    this.at = Math.min(this.exchange.context.deadlines.after(this.patience()), this.endsAt);
  }

  private patience(): number {
    const { upstream, context } = this.exchange;
    if (this.stream.queued > 0) return context.limits.clientIdleTimeoutMs;
    if (this.requestEnded) return upstream.readTimeoutMs;
    return this.stream.paused ? upstream.sendTimeoutMs : context.limits.clientIdleTimeoutMs;
  }
}

/** `closed`: to be called instead of an end that the stream has had already. */
function tunnelClient(stream: Http2Stream, closed: () => void): TunnelClient {
  return {
    write: (bytes, end) => stream.sendData(bytes, 0, end, false),
    end() {
      if (stream.closed) closed();
      else stream.sendEnd();
    },
    destroy() {
      if (stream.closed) closed();
      else stream.reset(errorCode.cancel);
    },
    pause: () => stream.pause(),
    resume: () => stream.resume(),
  };
}
