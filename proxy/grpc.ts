// One HTTP/2 stream to one HTTP/2 stream of an upstream: gRPC above all, trailers, resets and cancellation included.

import { type ClientHttp2Stream, constants } from 'node:http2';
import type { Deadline } from './deadlines.ts';
import { Fault, type FaultCode, faultTrailers } from './errors.ts';
import { discard, NO_DATE, noteFault, refuseRest, replyFault, resetStream, wasReset } from './http2-reply.ts';
import type { Http2Exchange } from './http2-request.ts';
import { type FieldObject, replyTrailers, requestTrailers } from './http2-translation.ts';
import { type Http2Upstreams, type UpstreamSession, wasNotProcessed } from './http2-upstream.ts';

const { NGHTTP2_CANCEL, NGHTTP2_FLAG_END_STREAM, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR } = constants;

/** Of a request body, kept until the reply begins, so that a refused stream can be sent again. */
const REPLAY_BYTES = 64 * 1024;

/**
 * Relays the exchange's stream. A stream that the upstream refused unprocessed is sent once more on another session; anything else that fails ends
 * as a reset with the upstream's code, or, when nothing has been answered yet, as the reply to a Fault.
 */
export function relayToHttp2(exchange: Http2Exchange, upstreams: Http2Upstreams): void {
  const { stream, request, upstream, context, access } = exchange;
  const { deadlines, limits } = context;
  let session: UpstreamSession | undefined;
  let up: ClientHttp2Stream | undefined;
  let upError: Error | undefined;
  let upEnded = false;
  let responded = false;
  // Trailers cost a frame and a turn of the loop: only those that were announced are waited for (RFC 9110 §6.6.2).
  const announced = !request.endStream && request.fields.includes('trailer');
  let finished = false;
  let failed = false;
  let upFailed = false;
  let retried = false;
  let requestEnded = request.endStream;
  let received = 0;
  let replay: Buffer[] | undefined = [];
  let fromClient: FieldObject | undefined;
  let fromUpstream: FieldObject | undefined;
  const endsAt = deadlines.now() + (upstream.totalTimeoutMs ?? Number.POSITIVE_INFINITY);
  const deadline: Deadline = { at: endsAt, expired: onDeadline };

  stream.on('close', onClientClose);
  stream.on('wantTrailers', () => stream.sendTrailers(fromUpstream ?? {}));
  if (!requestEnded) {
    stream.on('trailers', (_headers, _flags, raw: string[]) => {
      fromClient = requestTrailers(raw);
    });
  }
  deadlines.watch(deadline);
  upstreams.acquire(upstream, start, fail);

  function start(taken: UpstreamSession) {
    if (finished || failed) return;
    session = taken;
    if (access !== undefined) access.upstream = taken.address;
    const attempt = taken.request(requestFields(exchange, taken.scheme), {
      endStream: request.endStream,
      waitForTrailers: announced,
    });
    up = attempt;
    upError = undefined;
    attempt.on('response', onResponse);
    attempt.on('headers', onInterim);
    attempt.on('trailers', (_headers, _flags, raw: string[]) => {
      fromUpstream = replyTrailers(raw);
    });
    attempt.on('data', onReplyData);
    attempt.on('end', onReplyEnd);
    attempt.on('error', (error) => {
      upError = error;
    });
    attempt.on('close', onUpstreamClose);
    if (announced) attempt.on('wantTrailers', () => attempt.sendTrailers(fromClient ?? {}));
    if (!request.endStream) sendBody(attempt);
    alive();
  }

  function sendBody(attempt: ClientHttp2Stream) {
    attempt.on('drain', () => stream.resume());
    if (retried) {
      for (const chunk of replay ?? []) attempt.write(chunk);
      if (requestEnded) attempt.end();
      else stream.resume();
      return;
    }
    stream.on('data', onRequestData);
    stream.on('end', onRequestEnd);
  }

  function onRequestData(chunk: Buffer) {
    received += chunk.length;
    if (access !== undefined) access.received = received;
    if (limits.maxBodyBytes > 0 && received > limits.maxBodyBytes) return fail(new Fault('body-too-large'));
    if (responded || received > REPLAY_BYTES) replay = undefined;
    else replay?.push(chunk);
    alive();
    if (up?.write(chunk) === false) stream.pause();
  }

  function onRequestEnd() {
    // A reset looks like an end here, and must never complete the request.
    if (stream.aborted || wasReset(stream)) return onClientClose();
    requestEnded = true;
    alive();
    up?.end();
  }

  function onInterim(headers: Record<string, unknown>, _flags: number, raw: string[]) {
    alive();
    if (headers[':status'] === 101 || stream.closed || stream.headersSent) return;
    stream.additionalHeaders(replyTrailers(raw));
  }

  function onResponse(headers: Record<string, unknown>, flags: number, raw: string[]) {
    if (finished || failed || stream.closed) return;
    responded = true;
    replay = undefined;
    alive();
    const endStream = (flags & NGHTTP2_FLAG_END_STREAM) !== 0;
    const waitForTrailers = !endStream && !endsItself(request.method, headers[':status'] as number);
    try {
      stream.respond(raw as never, { endStream, waitForTrailers, ...NO_DATE });
    } catch (cause) {
      responded = false;
      fail(new Fault('upstream-malformed', undefined, { cause }));
    }
  }

  function onReplyData(chunk: Buffer) {
    alive();
    if (stream.writableEnded) return;
    if (access !== undefined) access.sent += chunk.length;
    if (stream.write(chunk)) return;
    up?.pause();
    stream.once('drain', () => up?.resume());
  }

  function onReplyEnd() {
    // RFC 9113 §8.1 has a use for RST_STREAM with NO_ERROR after a reply, while the request is still under way.
    if (up?.rstCode !== NGHTTP2_NO_ERROR || (up.writableFinished && wasReset(up))) return;
    upEnded = responded;
    if (upEnded && !stream.writableEnded) stream.end();
  }

  function onUpstreamClose() {
    session?.release(responded, upFailed);
    if (finished || failed) return;
    // Reset by the client, but held until what it had sent is read: nobody will.
    if (stream.closed) return resetStream(stream, NGHTTP2_CANCEL);
    const code = up?.rstCode ?? NGHTTP2_INTERNAL_ERROR;
    if (upEnded) {
      // The upstream wants no more of the request (RFC 9113 §8.1): say the same to the client, when the reply is out.
      if (!requestEnded) refuseRest(stream);
      return;
    }
    if (!responded) return retryOrFail();
    if (access !== undefined) access.fault = 'upstream-closed';
    if (session?.lost && request.grpc) return endWithStatus('upstream-closed');
    resetStream(stream, code === NGHTTP2_NO_ERROR ? NGHTTP2_INTERNAL_ERROR : code);
  }

  function retryOrFail() {
    const unprocessed = up !== undefined && wasNotProcessed(up, upError);
    if (unprocessed && !retried && replay !== undefined) {
      retried = true;
      return upstreams.acquire(upstream, start, fail);
    }
    // A reset of this one stream by a living upstream is its answer: the client gets the same code.
    const code = up?.rstCode ?? NGHTTP2_NO_ERROR;
    if (session?.lost === false && code !== NGHTTP2_NO_ERROR && !unprocessed) {
      if (access !== undefined) access.fault = 'upstream-closed';
      return resetStream(stream, code);
    }
    fail(new Fault('upstream-closed', undefined, { cause: upError }));
  }

  function endWithStatus(code: FaultCode) {
    fromUpstream = { ...faultTrailers(code) };
    stream.end();
    discard(stream);
  }

  function onDeadline() {
    if (failed) return resetStream(stream, NGHTTP2_CANCEL);
    const waitsForClient =
      up !== undefined && ((!requestEnded && !stream.isPaused()) || stream.writableNeedDrain);
    // A conversation that has had its time may still be told so.
    if (waitsForClient && responded && deadlines.now() < endsAt) return resetStream(stream, NGHTTP2_CANCEL);
    fail(new Fault(waitsForClient ? 'request-timeout' : 'upstream-timeout'));
  }

  function fail(fault: Fault) {
    if (finished || failed) return;
    failed = true;
    upFailed = fault.side === 'upstream';
    // Even the short reply to a fault may meet a client that takes nothing.
    deadline.at = deadlines.now() + limits.clientIdleTimeoutMs;
    deadlines.watch(deadline);
    stream.off('data', onRequestData);
    noteFault(exchange, fault);
    if (stream.closed) resetStream(stream, NGHTTP2_CANCEL);
    else if (!responded) {
      const sent = replyFault(stream, request, fault);
      if (access !== undefined) access.sent = sent;
    } else if (request.grpc && !stream.writableEnded) endWithStatus(fault.code);
    else resetStream(stream, NGHTTP2_INTERNAL_ERROR);
    if (up !== undefined) resetStream(up, NGHTTP2_CANCEL);
  }

  function onClientClose() {
    finished = true;
    deadlines.forget(deadline);
    if (up !== undefined && !up.destroyed) resetStream(up, NGHTTP2_CANCEL);
  }

  function alive() {
    deadline.at = Math.min(deadlines.now() + patience(), endsAt);
  }

  function patience(): number {
    if (requestEnded) return upstream.readTimeoutMs;
    if (stream.isPaused()) return upstream.sendTimeoutMs;
    return Math.max(upstream.readTimeoutMs, limits.clientIdleTimeoutMs);
  }
}

function requestFields({ request, forwarded }: Http2Exchange, scheme: string): string[] {
  const { method, authority, path, contentLength, fields } = request;
  const all = [':method', method, ':scheme', scheme, ':authority', authority, ':path', path, ...fields];
  // RFC 9110 §10.1.4, and without it gRPC servers refuse the call.
  all.push('te', 'trailers');
  if (contentLength >= 0) all.push('content-length', String(contentLength));
  all.push(...forwarded.fields);
  return all;
}

/** Node ends the stream by itself with these (RFC 9110 §6.4.1): no trailers can follow. */
function endsItself(method: string, status: number): boolean {
  return method === 'HEAD' || status === 204 || status === 205 || status === 304;
}
