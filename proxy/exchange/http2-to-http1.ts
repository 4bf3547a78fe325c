// From a client of HTTP/2 to an upstream of HTTP/1.1: every body is framed anew, and WebSockets become tunnels (RFC 8441).

import { Fault } from '../faults.ts';
import { readBody } from '../http1/body.ts';
import { type MessageHead, REFUSED } from '../http1/message.ts';
import type { Http2Stream } from '../http2/connection.ts';
import { errorCode } from '../http2/frames.ts';
import { askForWebsocket } from '../tunnel/switch.ts';
import { createTunnel, type TunnelClient } from '../tunnel/tunnel.ts';
import type { UpstreamLink } from '../upstream/http1-pool.ts';
import type { Http2Exchange, Http2Side } from './http2-exchange.ts';
import { INTERIM_PAUSE_BYTES, MOST_INTERIM_BYTES } from './interim.ts';
import { REPLAY_BYTES } from './retry.ts';
import { ToHttp1 } from './to-http1.ts';
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

export class Http2ToHttp1 extends ToHttp1 implements Http2Side {
  protected readonly exchange: Http2Exchange;
  private readonly stream: Http2Stream;
  /** The key of a WebSocket's handshake, which is the ingress's own. */
  private readonly key: string | undefined;
  private readonly chunked: boolean;

  constructor(exchange: Http2Exchange) {
    super();
    this.exchange = exchange;
    this.stream = exchange.stream;
    this.key = undefined;
    if (exchange.request.protocol !== undefined) {
      const asked = askForWebsocket();
      exchange.upgrading = asked;
      this.key = asked.key;
    }
    this.chunked = this.key === undefined && requestFraming(exchange) === 'chunked';
  }

  get holdsBody(): boolean {
    return this.key !== undefined;
  }

  // --- The request ---

  protected sendRequest({ socket }: UpstreamLink): void {
    const { exchange, stream, key } = this;
    exchange.alive();
    if (key !== undefined) {
      socket.write(upgradeHeadText(exchange, key), 'latin1');
      return;
    }
    socket.write(requestHeadText(exchange), 'latin1');
    if (!exchange.request.endStream && this.sendEarly()) stream.resume();
    // Whose turn it is has just been settled.
    exchange.alive();
  }

  /** What is to be sent before what is still to come; a second attempt begins with all of it. */
  private sendEarly(): boolean {
    const { exchange } = this;
    const { kept, requestEnded } = exchange;
    let free = true;
    if (kept !== undefined) {
      // Copied, if more may be added while it waits to leave.
      const content = requestEnded ? kept.content : Buffer.from(kept.content);
      free = this.sendBody(content, 0, content.length);
      if (kept.size > REPLAY_BYTES) exchange.dropKept();
    }
    if (requestEnded) this.endBody();
    return free;
  }

  sendBody(bytes: Buffer, start: number, end: number): boolean {
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

  endBody(): void {
    if (this.chunked) this.link?.socket.write(lastChunk(this.exchange.trailers), 'latin1');
  }

  // --- The reply ---

  takesLongReads(): boolean {
    return this.stream.room >= LONG_READ;
  }

  protected passInterim(reply: MessageHead): boolean {
    const { stream } = this;
    sendReplyHead(stream, reply, 'interim');
    if (stream.backlog > INTERIM_PAUSE_BYTES) {
      stream.awaitDrain();
      this.pauseReply();
    }
    return stream.backlog <= MOST_INTERIM_BYTES;
  }

  protected passHead(reply: MessageHead, bytes: Buffer, start: number, end: number) {
    const { stream, body, exchange } = this;
    const { edits } = exchange;
    const status = edits?.status ?? reply.status;
    if (!body.done) {
      sendReplyHead(stream, reply, 'open', exchange.id, status, '', edits);
      return this.passBody(bytes, start, end);
    }
    if (start < end) this.keeps = false;
    // Before it is: with the last frame the stream may close.
    exchange.replied = true;
    sendReplyHead(stream, reply, 'last', exchange.id, status, '', edits);
    this.finish();
  }

  protected passBody(bytes: Buffer, start: number, end: number) {
    const { stream, body, exchange } = this;
    // Each piece is kept until it is known whether it is the last: then the end goes with it.
    let heldStart = start;
    let heldEnd = start;
    let free = true;
    let pos = start;
    while (pos < end && !body.done) {
      pos = readBody(body, bytes, pos, end, exchange.context.limits);
      if (pos === REFUSED) return exchange.fail(new Fault('upstream-malformed', body.refusal.reason));
      if (body.dataEnd === body.dataStart) continue;
      if (heldEnd > heldStart) free = stream.sendData(bytes, heldStart, heldEnd, false);
      heldStart = body.dataStart;
      heldEnd = body.dataEnd;
    }
    exchange.sent = body.received;
    if (body.done) return this.passLast(bytes, heldStart, heldEnd, pos === end);
    if (heldEnd > heldStart) free = stream.sendData(bytes, heldStart, heldEnd, false);
    if (!free) this.pauseReply();
  }

  private passLast(bytes: Buffer, start: number, end: number, nothingLeft: boolean): void {
    const { stream, body, exchange } = this;
    const trailers = trailersOf(body.trailers);
    if (!nothingLeft) this.keeps = false;
    exchange.replied = true;
    stream.sendData(bytes, start, end, trailers.length === 0);
    if (trailers.length > 0) stream.sendTrailers(trailers);
    this.finish();
  }

  protected passEnd(): void {
    this.exchange.replied = true;
    this.stream.sendEnd();
    this.finish();
  }

  /** The rest of the request would go nowhere (RFC 9113 §8.1). */
  protected replyDone(): void {
    this.stream.refuseRest();
  }

  protected switchTo(
    reply: MessageHead,
    link: UpstreamLink,
    bytes: Buffer,
    start: number,
    end: number,
  ): void {
    const { exchange, stream } = this;
    const { context, kept } = exchange;
    const early = kept?.content;
    exchange.dropKept();
    // A tunnel counts for itself, what came early included.
    exchange.received = 0;
    exchange.protocol = 'websocket';
    exchange.beginReply(200);
    // RFC 8441 §5: 200 stands for 101, and the accept key has no part in it.
    sendReplyHead(stream, reply, 'open', exchange.id, 200, 'sec-websocket-accept');
    context.deadlines.forget(exchange);
    const settings = exchange.settings!;
    const client = tunnelClient(stream, () => tunnel.clientClosed());
    const tunnel = createTunnel({ context, client, settings, websocket: true, access: exchange }, link);
    stream.user = {
      streamData: (data, from, to) => tunnel.clientData(data.subarray(from, to)),
      streamTrailers() {},
      streamEnded: () => tunnel.clientEnded(),
      streamDrained: () => tunnel.clientDrained(),
      streamClosed() {
        // Both have ended in peace: what the upstream is still owed must reach it.
        if (stream.end !== 'complete' || link.socket.destroyed) tunnel.clientClosed();
      },
    };
    link.handTo(tunnel);
    if (early !== undefined) tunnel.clientData(early);
    if (exchange.requestEnded) tunnel.clientEnded();
    stream.resume();
    if (start < end) tunnel.upstreamData(bytes.subarray(start, end), end - start);
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
