// One HTTP/2 stream as one HTTP/1.1 exchange with an upstream, a WebSocket's tunnel included.

import { Fault } from '../faults.ts';
import { readBody } from '../http1/body.ts';
import { type BodyReader, beginReplyBody, createBodyReader } from '../http1/body-reader.ts';
import { createMessageHead, INCOMPLETE, REFUSED } from '../http1/message.ts';
import { parseReplyHead } from '../http1/reply-head.ts';
import type { Http2Stream, StreamUser } from '../http2/connection.ts';
import { errorCode } from '../http2/frames.ts';
import type { HeaderField } from '../http2/hpack.ts';
import type { Deadline } from '../socket/deadlines.ts';
import { addPiece, beginPieces, gathered, type Pieces } from '../socket/pieces.ts';
import { gather } from '../socket/writes.ts';
import { askForWebsocket, switchesAsAsked } from '../tunnel/switch.ts';
import { createTunnel, type TunnelClient } from '../tunnel/tunnel.ts';
import { foreignBytes } from '../upstream/foreign-bytes.ts';
import type { Acquisition, Loss, UpstreamLink, UpstreamUser } from '../upstream/http1-pool.ts';
import { noteFault, replyFault } from './http2-reply.ts';
import type { Http2Exchange } from './http2-request.ts';
import { INTERIM_PAUSE_BYTES, MOST_INTERIM_BYTES, UNTAKEN } from './interim.ts';
import { KeptBody } from './kept-body.ts';
import { isWorthKeeping, mayTryAgain, REPLAY_BYTES, type Tries } from './retry.ts';
import {
  lastChunk,
  requestFraming,
  requestHeadText,
  sendReplyHead,
  trailersOf,
  upgradeHeadText,
} from './translation.ts';

/** What an upstream's connection is read in when its reader keeps up. */
const LONG_READ = 256 * 1024;
const FRESH = { fresh: true };
const NO_TRAILERS: readonly HeaderField[] = [];

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

class Relay implements StreamUser, UpstreamUser, Deadline, Tries {
  /** When the clock that is running has run out, in the deadlines' time. */
  at: number;
  place = -1;

  private readonly exchange: Http2Exchange;
  private readonly stream: Http2Stream;
  private readonly websocket: ReturnType<typeof askForWebsocket> | undefined;
  private readonly chunked: boolean;
  /** When the whole exchange must be over. */
  private readonly endsAt: number;
  private acquisition: Acquisition | undefined;
  private link: UpstreamLink | undefined;

  refusals = 0;
  repeated = false;

  /** All that has arrived of the body: until there is a connection, and as long as it may be sent again. */
  private kept: KeptBody | undefined;
  private bodyKept = true;
  private received = 0;
  private requestTrailers = NO_TRAILERS;
  private requestEnded: boolean;

  private partialHead: Pieces | undefined;
  private body: BodyReader | undefined;
  private upstreamPaused = false;
  private heard = false;
  private reusable = false;
  private responded = false;
  private replied = false;
  private finished = false;
  private failed = false;

  constructor(exchange: Http2Exchange) {
    const { stream, request, upstream, context } = exchange;
    this.exchange = exchange;
    this.stream = stream;
    this.websocket = request.protocol === undefined ? undefined : askForWebsocket();
    this.chunked = this.websocket === undefined && requestFraming(exchange) === 'chunked';
    const { totalTimeoutMs } = upstream;
    this.endsAt =
      totalTimeoutMs === undefined ? Number.POSITIVE_INFINITY : context.deadlines.after(totalTimeoutMs);
    this.at = this.endsAt;
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
      link.socket.write(upgradeHeadText(exchange, websocket.key), 'latin1');
      return;
    }
    link.socket.write(requestHeadText(exchange), 'latin1');
    if (!request.endStream && this.sendEarly()) this.stream.resume();
    // Whose turn it is has just been settled.
    this.alive();
  }

  /** What is to be sent before what is still to come; a second attempt begins with all of it. */
  private sendEarly(): boolean {
    const { kept } = this;
    let free = true;
    if (kept !== undefined) {
      // Copied, if more may be added while it waits to leave.
      const content = this.requestEnded ? kept.content : Buffer.from(kept.content);
      free = this.sendChunk(content, 0, content.length);
      if (kept.size > REPLAY_BYTES) this.dropKept();
    }
    if (this.requestEnded) this.endBody();
    return free;
  }

  private keep(bytes: Buffer, start: number, end: number): void {
    if (!this.bodyKept) return;
    // What has no connection yet is bounded by the stream's window.
    const waits = this.link === undefined || this.websocket !== undefined;
    const tooMuch = this.received > REPLAY_BYTES || !isWorthKeeping(this.exchange.request.contentLength);
    if (!waits && tooMuch) this.dropKept();
    else {
      this.kept ??= new KeptBody();
      this.kept.add(bytes, start, end);
    }
  }

  private dropKept(): void {
    this.bodyKept = false;
    this.kept = undefined;
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
    const { access, match } = this.exchange;
    this.received += end - start;
    if (access !== undefined) access.received = this.received;
    if (this.received > match.maxBodyBytes && this.websocket === undefined) {
      return this.fail(new Fault('body-too-large'));
    }
    this.keep(bytes, start, end);
    if (this.link === undefined || this.websocket !== undefined) return;
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
      const pieces = this.partialHead;
      const { maxHeaderBytes } = this.exchange.context.limits;
      if (addPiece(pieces, bytes, 0, end, maxHeaderBytes)) this.headBytes(gathered(pieces), pieces.length);
    }
    if (!this.failed) this.alive();
  }

  private headBytes(bytes: Buffer, end: number) {
    if (!this.heard) this.isHeard();
    for (let pos = 0; ; ) {
      const size = parseReplyHead(head, bytes, pos, end, this.exchange.context.limits);
      if (size === REFUSED) {
        const { protocol } = this.exchange.upstream;
        const reason = foreignBytes(protocol, bytes, pos, end) ?? head.refusal.reason;
        return this.fail(new Fault('upstream-malformed', reason));
      }
      if (size === INCOMPLETE) {
        if (pos === end) this.partialHead = undefined;
        else if (pos > 0 || this.partialHead === undefined) this.partialHead = beginPieces(bytes, pos, end);
        return;
      }
      pos += size;
      if (head.status >= 200) return this.replyBegins(bytes, pos, end);
      if (head.status === 101) return this.switches(bytes, pos, end);
      sendReplyHead(this.stream, head, 'interim');
      if (this.stream.backlog > MOST_INTERIM_BYTES)
        return this.fail(new Fault('upstream-malformed', UNTAKEN));
      if (this.stream.backlog > INTERIM_PAUSE_BYTES) this.awaitDrain();
    }
  }

  private awaitDrain(): void {
    this.stream.awaitDrain();
    if (this.upstreamPaused) return;
    this.upstreamPaused = true;
    this.link?.socket.pause();
  }

  /** What has been heard of is not sent again; the first bytes of a WebSocket still wait for the 101. */
  private isHeard(): void {
    this.heard = true;
    if (this.websocket === undefined) this.dropKept();
  }

  private replyBegins(bytes: Buffer, pos: number, end: number) {
    const { request, access } = this.exchange;
    const body = createBodyReader();
    this.partialHead = undefined;
    this.dropKept();
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
    if (websocket === undefined || !switchesAsAsked(head, websocket)) {
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
    const early = this.kept?.content;
    this.dropKept();
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
    if (early !== undefined) tunnel.clientData(early);
    if (this.requestEnded) tunnel.clientEnded();
    stream.resume();
    if (pos < end) tunnel.upstreamData(bytes.subarray(pos, end), end - pos);
  }

  // --- The end ---

  upstreamEnded() {
    const { body, link } = this;
    if (body?.kind !== 'until-close' || this.replied) {
      link?.destroy();
      return this.upstreamLost(undefined, 'unheard');
    }
    this.replied = true;
    this.stream.sendEnd();
    this.reusable = false;
    this.replyEnds();
  }

  upstreamClosed(cause: Error | undefined, loss: Loss): void {
    this.upstreamLost(cause, loss);
  }

  private upstreamLost(cause: Error | undefined, loss: Loss) {
    this.link = undefined;
    if (this.finished || this.failed || this.replied) return;
    const { context, upstream, request } = this.exchange;
    if (this.heard || !mayTryAgain(this, loss, request.method, this.bodyKept)) {
      return this.fail(new Fault('upstream-closed', undefined, { cause }));
    }
    if (!this.requestEnded) this.stream.pause();
    this.at = this.endsAt;
    this.acquisition = context.upstreams.acquire(upstream, this, FRESH);
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
