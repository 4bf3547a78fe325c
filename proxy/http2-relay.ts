// One HTTP/2 stream as one HTTP/1.1 exchange with an upstream, a WebSocket's tunnel included.

import { constants, type ServerHttp2Stream } from 'node:http2';
import type { Deadline } from './deadlines.ts';
import { Fault } from './errors.ts';
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
import {
  discard,
  NO_DATE,
  noteFault,
  refuseRest,
  refuseRestAfterTrailers,
  replyFault,
  resetStream,
  wasReset,
} from './http2-reply.ts';
import type { Http2Exchange } from './http2-request.ts';
import {
  acceptsWebsocket,
  announcesTrailers,
  type FieldObject,
  fieldObject,
  lastChunk,
  replyFields,
  requestFraming,
  requestHeadText,
  trailersOf,
  upgradeHeadText,
  websocketKey,
} from './http2-translation.ts';
import type { Acquisition, UpstreamLink, UpstreamUser } from './upstream.ts';

const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR } = constants;

/** Of a request body, kept until the reply begins, so that a request may be sent again. */
const REPLAY_BYTES = 64 * 1024;
/** RFC 9110 §9.2.2: these may be repeated when it is unknown whether they were acted upon. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE']);
const FRESH = { fresh: true };
const NO_BYTES = Buffer.alloc(0);
const NO_TRAILERS: readonly string[] = [];
/** Of a request without a body; never added to. */
const NO_CHUNKS: Buffer[] = [];

/** Parsing a head and using it happen in one go: one object serves every exchange. */
const head = createMessageHead();

/** Of respond(), by endStream and waitForTrailers. */
const REPLY = { endStream: false, waitForTrailers: false, ...NO_DATE };
const REPLY_ALONE = { endStream: true, waitForTrailers: false, ...NO_DATE };
const REPLY_AND_TRAILERS = { endStream: false, waitForTrailers: true, ...NO_DATE };
const REPLY_OF_TRAILERS = { endStream: true, waitForTrailers: true, ...NO_DATE };

/** One object and few functions for each stream: hundreds are open at once, and what they hold is copied by the GC. */
interface Relay extends UpstreamUser, Deadline {
  readonly exchange: Http2Exchange;
  readonly stream: ServerHttp2Stream;
  readonly websocket: string | undefined;
  readonly chunked: boolean;
  /** When the whole exchange must be over, in the deadlines' time. */
  endsAt: number;
  acquisition: Acquisition | undefined;
  link: UpstreamLink | undefined;
  partialHead: Buffer;
  body: BodyReader | undefined;
  replyTrailers: FieldObject | undefined;
  requestTrailers: readonly string[];
  replay: Buffer[] | undefined;
  received: number;
  requestEnded: boolean;
  listening: boolean;
  listensForDrain: boolean;
  heard: boolean;
  reusable: boolean;
  responded: boolean;
  replied: boolean;
  owesTrailers: boolean;
  tunnel: boolean;
  retried: boolean;
  finished: boolean;
  failed: boolean;
}

/**
 * Relays the exchange's stream. Every body leaves with explicit framing; what is cut short on one side is cut short,
 * visibly, on the other. An extended CONNECT becomes a WebSocket handshake and then a tunnel (RFC 8441).
 */
export function relayToHttp1(exchange: Http2Exchange): void {
  const { stream, request, upstream, context } = exchange;
  const relay = createRelay(exchange);
  stream.on('close', () => clientClosed(relay));
  if (!request.endStream) {
    // At once: they may come before there is a connection for them.
    stream.on('trailers', (_headers, _flags, raw: string[]) => {
      relay.requestTrailers = raw;
    });
  }
  // The upstream's own time to connect is watched where connections are made.
  context.deadlines.watch(relay);
  relay.acquisition = context.upstreams.acquire(
    upstream,
    relay,
    relay.websocket === undefined ? undefined : FRESH,
  );
}

function createRelay(exchange: Http2Exchange): Relay {
  const { stream, request, upstream, context } = exchange;
  const websocket = request.protocol === undefined ? undefined : websocketKey();
  const endsAt = context.deadlines.now() + (upstream.totalTimeoutMs ?? Number.POSITIVE_INFINITY);
  return {
    exchange,
    stream,
    websocket,
    chunked: websocket === undefined && requestFraming(exchange) === 'chunked',
    endsAt,
    at: endsAt,
    expired,
    acquisition: undefined,
    link: undefined,
    partialHead: NO_BYTES,
    body: undefined,
    replyTrailers: undefined,
    requestTrailers: NO_TRAILERS,
    replay: request.endStream ? NO_CHUNKS : [],
    received: 0,
    requestEnded: request.endStream,
    listening: false,
    listensForDrain: false,
    heard: false,
    reusable: false,
    responded: false,
    replied: false,
    owesTrailers: false,
    tunnel: false,
    retried: false,
    finished: false,
    failed: false,
    upstreamReady,
    upstreamFailed,
    upstreamData,
    upstreamDrained,
    upstreamEnded,
    upstreamClosed,
  };
}

// --- The request ---

function upstreamReady(this: Relay, link: UpstreamLink) {
  if (this.finished || this.failed) return link.destroy();
  const { exchange, stream, websocket } = this;
  const { request, access } = exchange;
  this.link = link;
  if (access !== undefined) access.upstream = link.address;
  this.acquisition = undefined;
  alive(this);
  const text = websocket === undefined ? requestHeadText(exchange) : upgradeHeadText(exchange, websocket);
  link.socket.write(text, 'latin1');
  if (request.endStream || websocket !== undefined) return;
  if (this.listening) return resendBody(this);
  this.listening = true;
  listen(this, stream);
}

function listen(relay: Relay, stream: ServerHttp2Stream) {
  stream.on('data', (chunk: Buffer) => requestData(relay, chunk));
  stream.on('end', () => requestEnd(relay));
}

function upstreamFailed(this: Relay, fault: Fault) {
  fail(this, fault);
}

function upstreamDrained(this: Relay) {
  this.stream.resume();
}

function resendBody(relay: Relay) {
  for (const chunk of relay.replay ?? []) sendChunk(relay, chunk);
  if (relay.requestEnded) endBody(relay);
  else relay.stream.resume();
}

function requestData(relay: Relay, chunk: Buffer) {
  const { stream, replay } = relay;
  const { access, context } = relay.exchange;
  const { maxBodyBytes } = context.limits;
  relay.received += chunk.length;
  if (access !== undefined) access.received = relay.received;
  if (!relay.tunnel && maxBodyBytes > 0 && relay.received > maxBodyBytes) {
    return fail(relay, new Fault('body-too-large'));
  }
  if (relay.heard || relay.received > REPLAY_BYTES) relay.replay = undefined;
  else replay?.push(chunk);
  alive(relay);
  if (!sendChunk(relay, chunk)) stream.pause();
}

function sendChunk({ link, chunked }: Relay, chunk: Buffer): boolean {
  if (link === undefined) return false;
  const { socket } = link;
  if (!chunked || chunk.length === 0) return socket.write(chunk);
  socket.cork();
  socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1');
  socket.write(chunk);
  const free = socket.write('\r\n', 'latin1');
  socket.uncork();
  return free;
}

function requestEnd(relay: Relay) {
  const { stream } = relay;
  // A reset ends the stream as well, and must never complete the request.
  if (stream.aborted || wasReset(stream)) return clientClosed(relay);
  relay.requestEnded = true;
  alive(relay);
  endBody(relay);
}

function endBody(relay: Relay) {
  const { link } = relay;
  if (relay.tunnel) link?.socket.end();
  else if (relay.chunked) link?.socket.write(lastChunk(relay.requestTrailers), 'latin1');
  if (relay.replied) finishLink(relay);
}

// --- The reply ---

function upstreamData(this: Relay, bytes: Buffer, end: number) {
  alive(this);
  if (this.tunnel) return sendDownstream(this, Buffer.from(bytes.subarray(0, end)));
  if (this.responded) return replyBytes(this, bytes, 0, end);
  this.heard = true;
  if (this.partialHead.length === 0) return headBytes(this, bytes, end);
  const joined = Buffer.concat([this.partialHead, bytes.subarray(0, end)]);
  this.partialHead = NO_BYTES;
  headBytes(this, joined, joined.length);
}

function headBytes(relay: Relay, bytes: Buffer, end: number) {
  const { stream } = relay;
  for (let pos = 0; ; ) {
    const size = parseReplyHead(head, bytes, pos, end, relay.exchange.context.limits);
    if (size === REFUSED) return fail(relay, new Fault('upstream-malformed', head.refusal.reason));
    if (size === INCOMPLETE) {
      relay.partialHead = Buffer.from(bytes.subarray(pos, end));
      return;
    }
    pos += size;
    if (head.status >= 200) return replyBegins(relay, bytes, pos, end);
    if (head.status === 101) return switches(relay, bytes, pos, end);
    if (!stream.closed) stream.additionalHeaders(fieldObject(replyFields(head)));
  }
}

function replyBegins(relay: Relay, bytes: Buffer, pos: number, end: number) {
  const { request } = relay.exchange;
  const body = createBodyReader();
  relay.replay = undefined;
  relay.reusable = head.minor === 1 ? !head.close : head.keepAlive && !head.close;
  relay.body = body;
  beginReplyBody(body, head, request.method);
  const bodiless = body.done;
  const waitForTrailers = body.kind === 'chunked' && (request.trailers || announcesTrailers(head));
  if (!respond(relay, replyFields(head), bodiless, waitForTrailers)) return;
  if (waitForTrailers) {
    relay.owesTrailers = true;
    relay.stream.on('wantTrailers', () => sendTrailers(relay));
  }
  if (!bodiless) return replyBytes(relay, bytes, pos, end);
  if (pos < end) relay.reusable = false;
  replyEnds(relay);
}

function sendTrailers(relay: Relay) {
  relay.stream.sendTrailers(relay.replyTrailers ?? {});
  if (relay.replied && !relay.requestEnded) refuseRestAfterTrailers(relay.stream);
}

function respond(relay: Relay, fields: string[], endStream: boolean, waitForTrailers: boolean): boolean {
  const { stream } = relay;
  if (stream.closed) return false;
  try {
    if (waitForTrailers) stream.respond(fields as never, endStream ? REPLY_OF_TRAILERS : REPLY_AND_TRAILERS);
    else stream.respond(fields as never, endStream ? REPLY_ALONE : REPLY);
    relay.responded = true;
    return true;
  } catch (cause) {
    fail(relay, new Fault('upstream-malformed', undefined, { cause }));
    return false;
  }
}

function replyBytes(relay: Relay, bytes: Buffer, start: number, end: number) {
  const { stream } = relay;
  const { access, context } = relay.exchange;
  const reader = relay.body!;
  let parts: Buffer[] | undefined;
  let content: Buffer = NO_BYTES;
  let pos = start;
  while (pos < end && !reader.done) {
    pos = readBody(reader, bytes, pos, end, context.limits);
    if (pos === REFUSED) return fail(relay, new Fault('upstream-malformed', reader.refusal.reason));
    if (reader.dataEnd === reader.dataStart) continue;
    const part = bytes.subarray(reader.dataStart, reader.dataEnd);
    if (parts !== undefined) parts.push(part);
    else if (content.length === 0) content = part;
    else parts = [content, part];
  }
  // The bytes are lent: what goes to the client is a copy.
  const copy = parts === undefined ? Buffer.from(content) : Buffer.concat(parts);
  if (!reader.done) return sendDownstream(relay, copy);
  if (pos < end) relay.reusable = false;
  if (relay.owesTrailers) relay.replyTrailers = trailersOf(reader.trailers);
  if (!stream.writableEnded) {
    if (access !== undefined) access.sent += copy.length;
    if (copy.length > 0) stream.end(copy);
    else stream.end();
  }
  replyEnds(relay);
}

function sendDownstream(relay: Relay, content: Buffer) {
  const { stream } = relay;
  const { access } = relay.exchange;
  if (content.length === 0 || stream.writableEnded || stream.closed) return;
  if (access !== undefined) access.sent += content.length;
  if (stream.write(content)) return;
  relay.link?.socket.pause();
  if (relay.listensForDrain) return;
  relay.listensForDrain = true;
  stream.on('drain', () => relay.link?.socket.resume());
}

function replyEnds(relay: Relay) {
  relay.replied = true;
  if (relay.requestEnded) return finishLink(relay);
  // The rest of the request would go nowhere (RFC 9113 §8.1), and its connection cannot be used again.
  relay.reusable = false;
  finishLink(relay);
  if (relay.owesTrailers) discard(relay.stream);
  else refuseRest(relay.stream);
}

function finishLink(relay: Relay) {
  const { link } = relay;
  relay.link = undefined;
  if (relay.reusable && !relay.tunnel) link?.release();
  else link?.destroy();
}

function switches(relay: Relay, bytes: Buffer, pos: number, end: number) {
  const { websocket, stream } = relay;
  const { access } = relay.exchange;
  if (websocket === undefined || !acceptsWebsocket(head, websocket)) {
    return fail(relay, new Fault('upstream-malformed', 'a switch of protocols that was not asked for'));
  }
  // RFC 8441 §5: 200 stands for 101, and the accept key has no part in it.
  const fields = replyFields(head, 200);
  const at = fields.indexOf('sec-websocket-accept');
  fields.splice(at, 2);
  if (!respond(relay, fields, false, false)) return;
  relay.tunnel = true;
  relay.endsAt = Number.POSITIVE_INFINITY;
  if (access !== undefined) access.protocol = 'websocket';
  listen(relay, stream);
  sendDownstream(relay, Buffer.from(bytes.subarray(pos, end)));
}

// --- The end ---

function upstreamEnded(this: Relay) {
  if (this.tunnel) return void this.stream.end();
  if (this.body?.kind !== 'until-close') return upstreamLost(this, undefined);
  this.stream.end();
  replyEnds(this);
}

function upstreamClosed(this: Relay, cause: Error | undefined) {
  upstreamLost(this, cause);
}

function upstreamLost(relay: Relay, cause: Error | undefined) {
  const { stream, link } = relay;
  const { access, context, upstream } = relay.exchange;
  link?.destroy();
  relay.link = undefined;
  if (relay.finished || relay.failed || relay.replied) return;
  if (relay.tunnel) {
    if (cause !== undefined || !stream.writableEnded) {
      if (access !== undefined) access.fault = 'upstream-closed';
      resetStream(stream, NGHTTP2_CANCEL);
    }
    return;
  }
  if (link?.reused === true && !relay.heard && !relay.retried && mayRepeat(relay)) {
    relay.retried = true;
    relay.acquisition = context.upstreams.acquire(upstream, relay, FRESH);
    return;
  }
  fail(relay, new Fault('upstream-closed', undefined, { cause }));
}

function mayRepeat({ exchange, replay }: Relay): boolean {
  return IDEMPOTENT.has(exchange.request.method) && replay !== undefined;
}

function expired(this: Relay) {
  const { stream } = this;
  if (this.failed) return resetStream(stream, NGHTTP2_CANCEL);
  const waitsForClient = this.responded
    ? stream.writableNeedDrain
    : this.link !== undefined && !this.requestEnded && !stream.isPaused();
  if (this.tunnel || (waitsForClient && this.responded)) return resetStream(stream, NGHTTP2_CANCEL);
  fail(this, new Fault(waitsForClient ? 'request-timeout' : 'upstream-timeout'));
}

function fail(relay: Relay, fault: Fault) {
  if (relay.finished || relay.failed) return;
  const { exchange, stream, link } = relay;
  const { request, context, access } = exchange;
  relay.failed = true;
  noteFault(exchange, fault);
  stream.removeAllListeners('data');
  if (fault.side === 'upstream') link?.fail();
  else link?.destroy();
  relay.link = undefined;
  relay.acquisition?.abandon();
  // Even the short reply to a fault may meet a client that takes nothing.
  relay.at = context.deadlines.now() + context.limits.clientIdleTimeoutMs;
  context.deadlines.watch(relay);
  if (relay.responded || stream.closed) resetStream(stream, NGHTTP2_INTERNAL_ERROR);
  else {
    const sent = replyFault(stream, request, fault);
    if (access !== undefined) access.sent = sent;
  }
}

function clientClosed(relay: Relay) {
  const { link } = relay;
  relay.finished = true;
  relay.exchange.context.deadlines.forget(relay);
  if (link !== undefined) link.destroy();
  else relay.acquisition?.abandon();
  relay.link = undefined;
}

function alive(relay: Relay) {
  relay.at = Math.min(relay.exchange.context.deadlines.now() + patience(relay), relay.endsAt);
}

function patience({ exchange, stream, tunnel, requestEnded }: Relay): number {
  const { upstream, context } = exchange;
  if (tunnel) return Math.max(upstream.readTimeoutMs, context.limits.clientIdleTimeoutMs);
  if (requestEnded) return upstream.readTimeoutMs;
  return stream.isPaused() ? upstream.sendTimeoutMs : context.limits.clientIdleTimeoutMs;
}
