// One HTTP/2 stream as one HTTP/1.1 exchange with an upstream, a WebSocket's tunnel included.

import { constants } from 'node:http2';
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

/** Parsing a head and using it happen in one go: one object serves every exchange. */
const head = createMessageHead();

/**
 * Relays the exchange's stream. Every body leaves with explicit framing; what is cut short on one side is cut short,
 * visibly, on the other. An extended CONNECT becomes a WebSocket handshake and then a tunnel (RFC 8441).
 */
export function relayToHttp1(exchange: Http2Exchange): void {
  const { stream, request, upstream, context, access } = exchange;
  const { deadlines, limits } = context;
  const websocket = request.protocol === undefined ? undefined : websocketKey();
  const chunked = websocket === undefined && requestFraming(exchange) === 'chunked';
  let acquisition: Acquisition | undefined;
  let link: UpstreamLink | undefined;
  let partialHead = NO_BYTES;
  let body: BodyReader | undefined;
  let replyTrailers: FieldObject | undefined;
  let requestTrailers: readonly string[] = [];
  let replay: Buffer[] | undefined = [];
  let received = 0;
  let requestEnded = request.endStream;
  let listening = false;
  let heard = false;
  let reusable = false;
  let responded = false;
  let replied = false;
  let owesTrailers = false;
  let tunnel = false;
  let retried = false;
  let finished = false;
  let failed = false;
  let endsAt = deadlines.now() + (upstream.totalTimeoutMs ?? Number.POSITIVE_INFINITY);
  const deadline: Deadline = { at: endsAt, expired: onDeadline };
  const user: UpstreamUser = {
    upstreamReady,
    upstreamFailed: fail,
    upstreamData,
    upstreamDrained: () => stream.resume(),
    upstreamEnded,
    upstreamClosed: onUpstreamLost,
  };

  stream.on('close', onClientClose);
  if (!request.endStream) {
    // At once: they may come before there is a connection for them.
    stream.on('trailers', (_headers, _flags, raw: string[]) => {
      requestTrailers = raw;
    });
  }
  // The upstream's own time to connect is watched where connections are made.
  deadlines.watch(deadline);
  acquisition = context.upstreams.acquire(upstream, user, websocket === undefined ? undefined : FRESH);

  function upstreamReady(ready: UpstreamLink) {
    if (finished || failed) return ready.destroy();
    link = ready;
    if (access !== undefined) access.upstream = link.address;
    acquisition = undefined;
    alive();
    const text = websocket === undefined ? requestHeadText(exchange) : upgradeHeadText(exchange, websocket);
    link.socket.write(text, 'latin1');
    if (request.endStream || websocket !== undefined) return;
    if (listening) return resendBody();
    listening = true;
    stream.on('data', onRequestData);
    stream.on('end', onRequestEnd);
  }

  function resendBody() {
    for (const chunk of replay ?? []) sendChunk(chunk);
    if (requestEnded) endBody();
    else stream.resume();
  }

  function onRequestData(chunk: Buffer) {
    received += chunk.length;
    if (access !== undefined) access.received = received;
    if (!tunnel && limits.maxBodyBytes > 0 && received > limits.maxBodyBytes)
      return fail(new Fault('body-too-large'));
    if (heard || received > REPLAY_BYTES) replay = undefined;
    else replay?.push(chunk);
    alive();
    if (!sendChunk(chunk)) stream.pause();
  }

  function sendChunk(chunk: Buffer): boolean {
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

  function onRequestEnd() {
    // A reset ends the stream as well, and must never complete the request.
    if (stream.aborted || wasReset(stream)) return onClientClose();
    requestEnded = true;
    alive();
    endBody();
  }

  function endBody() {
    if (tunnel) link?.socket.end();
    else if (chunked) link?.socket.write(lastChunk(requestTrailers), 'latin1');
    if (replied) finishLink();
  }

  function upstreamData(bytes: Buffer, end: number) {
    alive();
    if (tunnel) return sendDownstream(Buffer.from(bytes.subarray(0, end)));
    if (responded) return onReplyBytes(bytes, 0, end);
    heard = true;
    if (partialHead.length === 0) return onHeadBytes(bytes, end);
    const joined = Buffer.concat([partialHead, bytes.subarray(0, end)]);
    partialHead = NO_BYTES;
    onHeadBytes(joined, joined.length);
  }

  function onHeadBytes(bytes: Buffer, end: number) {
    for (let pos = 0; ; ) {
      const size = parseReplyHead(head, bytes, pos, end, limits);
      if (size === REFUSED) return fail(new Fault('upstream-malformed', head.refusal.reason));
      if (size === INCOMPLETE) {
        partialHead = Buffer.from(bytes.subarray(pos, end));
        return;
      }
      pos += size;
      if (head.status >= 200) return onReplyHead(bytes, pos, end);
      if (head.status === 101) return onSwitch(bytes, pos, end);
      if (!stream.closed) stream.additionalHeaders(fieldObject(replyFields(head)));
    }
  }

  function onReplyHead(bytes: Buffer, pos: number, end: number) {
    replay = undefined;
    reusable = head.minor === 1 ? !head.close : head.keepAlive && !head.close;
    body = createBodyReader();
    beginReplyBody(body, head, request.method);
    const bodiless = body.done;
    const waitForTrailers = body.kind === 'chunked' && (request.trailers || announcesTrailers(head));
    if (!respond(replyFields(head), bodiless, waitForTrailers)) return;
    owesTrailers = waitForTrailers;
    if (waitForTrailers) stream.on('wantTrailers', onWantTrailers);
    if (!bodiless) return onReplyBytes(bytes, pos, end);
    if (pos < end) reusable = false;
    onReplyComplete();
  }

  function onWantTrailers() {
    stream.sendTrailers(replyTrailers ?? {});
    if (replied && !requestEnded) refuseRestAfterTrailers(stream);
  }

  function respond(fields: string[], endStream: boolean, waitForTrailers: boolean): boolean {
    if (stream.closed) return false;
    try {
      stream.respond(fields as never, { endStream, waitForTrailers, ...NO_DATE });
      responded = true;
      return true;
    } catch (cause) {
      fail(new Fault('upstream-malformed', undefined, { cause }));
      return false;
    }
  }

  function onReplyBytes(bytes: Buffer, start: number, end: number) {
    const reader = body!;
    let content: Buffer[] | Buffer = NO_BYTES;
    let pos = start;
    while (pos < end && !reader.done) {
      pos = readBody(reader, bytes, pos, end, limits);
      if (pos === REFUSED) return fail(new Fault('upstream-malformed', reader.refusal.reason));
      if (reader.dataEnd === reader.dataStart) continue;
      const part = bytes.subarray(reader.dataStart, reader.dataEnd);
      if (Array.isArray(content)) content.push(part);
      else content = content.length === 0 ? part : [content, part];
    }
    // The bytes are lent: what goes to the client is a copy.
    const copy = Array.isArray(content) ? Buffer.concat(content) : Buffer.from(content);
    if (!reader.done) return sendDownstream(copy);
    if (pos < end) reusable = false;
    replyTrailers = trailersOf(reader.trailers);
    if (!stream.writableEnded) {
      if (access !== undefined) access.sent += copy.length;
      if (copy.length > 0) stream.end(copy);
      else stream.end();
    }
    onReplyComplete();
  }

  function sendDownstream(content: Buffer) {
    if (content.length === 0 || stream.writableEnded || stream.closed) return;
    if (access !== undefined) access.sent += content.length;
    if (stream.write(content)) return;
    link?.socket.pause();
    stream.once('drain', () => link?.socket.resume());
  }

  function onReplyComplete() {
    replied = true;
    if (requestEnded) return finishLink();
    // The rest of the request would go nowhere (RFC 9113 §8.1), and its connection cannot be used again.
    reusable = false;
    finishLink();
    if (owesTrailers) discard(stream);
    else refuseRest(stream);
  }

  function finishLink() {
    const done = link;
    link = undefined;
    if (reusable && !tunnel) done?.release();
    else done?.destroy();
  }

  function onSwitch(bytes: Buffer, pos: number, end: number) {
    if (websocket === undefined || !acceptsWebsocket(head, websocket)) {
      return fail(new Fault('upstream-malformed', 'a switch of protocols that was not asked for'));
    }
    // RFC 8441 §5: 200 stands for 101, and the accept key has no part in it.
    const fields = replyFields(head, 200);
    const at = fields.indexOf('sec-websocket-accept');
    fields.splice(at, 2);
    if (!respond(fields, false, false)) return;
    tunnel = true;
    endsAt = Number.POSITIVE_INFINITY;
    if (access !== undefined) access.protocol = 'websocket';
    stream.on('data', onRequestData);
    stream.on('end', onRequestEnd);
    sendDownstream(Buffer.from(bytes.subarray(pos, end)));
  }

  function upstreamEnded() {
    if (tunnel) return void stream.end();
    if (body?.kind !== 'until-close') return onUpstreamLost(undefined);
    stream.end();
    onReplyComplete();
  }

  function onUpstreamLost(cause: Error | undefined) {
    const reused = link?.reused === true;
    link?.destroy();
    link = undefined;
    if (finished || failed || replied) return;
    if (tunnel) {
      if (cause !== undefined || !stream.writableEnded) {
        if (access !== undefined) access.fault = 'upstream-closed';
        resetStream(stream, NGHTTP2_CANCEL);
      }
      return;
    }
    if (reused && !heard && !retried && mayRepeat()) {
      retried = true;
      acquisition = context.upstreams.acquire(upstream, user, FRESH);
      return;
    }
    fail(new Fault('upstream-closed', undefined, { cause }));
  }

  function mayRepeat(): boolean {
    return IDEMPOTENT.has(request.method) && replay !== undefined;
  }

  function onDeadline() {
    if (failed) return resetStream(stream, NGHTTP2_CANCEL);
    const waitsForClient = responded
      ? stream.writableNeedDrain
      : link !== undefined && !requestEnded && !stream.isPaused();
    if (tunnel || (waitsForClient && responded)) return resetStream(stream, NGHTTP2_CANCEL);
    fail(new Fault(waitsForClient ? 'request-timeout' : 'upstream-timeout'));
  }

  function fail(fault: Fault) {
    if (finished || failed) return;
    failed = true;
    noteFault(exchange, fault);
    stream.off('data', onRequestData);
    if (fault.side === 'upstream') link?.fail();
    else link?.destroy();
    link = undefined;
    acquisition?.abandon();
    // Even the short reply to a fault may meet a client that takes nothing.
    deadline.at = deadlines.now() + limits.clientIdleTimeoutMs;
    deadlines.watch(deadline);
    if (responded || stream.closed) resetStream(stream, NGHTTP2_INTERNAL_ERROR);
    else {
      const sent = replyFault(stream, request, fault);
      if (access !== undefined) access.sent = sent;
    }
  }

  function onClientClose() {
    finished = true;
    deadlines.forget(deadline);
    if (link !== undefined) link.destroy();
    else acquisition?.abandon();
    link = undefined;
  }

  function alive() {
    deadline.at = Math.min(deadlines.now() + patience(), endsAt);
  }

  function patience(): number {
    if (tunnel) return Math.max(upstream.readTimeoutMs, limits.clientIdleTimeoutMs);
    if (requestEnded) return upstream.readTimeoutMs;
    return stream.isPaused() ? upstream.sendTimeoutMs : limits.clientIdleTimeoutMs;
  }
}
