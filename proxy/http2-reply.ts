// Replies that the ingress itself gives on an HTTP/2 stream: to faults, and from local handlers.

import { constants, type Http2Stream, type ServerHttp2Stream } from 'node:http2';
import type { LocalReply } from '../src/lib/local-handler.ts';
import { type Fault, faultReply, faultTrailers } from './errors.ts';
import type { Http2Exchange, Http2Request } from './http2-request.ts';

/** A Date of our own would hide that the upstream sent none; Node knows the option, its types do not. */
export const NO_DATE = { sendDate: false } as object;

type Answered = Pick<Http2Request, 'method' | 'endStream' | 'grpc'>;

/**
 * For gRPC a trailers-only reply with `grpc-status` (HTTP 200, gRPC over HTTP2, Responses), else the fault's status
 * with its JSON body. What was already being answered is reset: a cut reply must not look complete. Returns the size of
 * the body that was sent.
 */
export function replyFault(stream: ServerHttp2Stream, request: Answered, fault: Fault): number {
  if (stream.closed || stream.destroyed) return 0;
  if (stream.headersSent) {
    resetStream(stream, constants.NGHTTP2_INTERNAL_ERROR);
    return 0;
  }
  if (request.grpc) {
    const trailers = faultTrailers(fault.code);
    const fields = [':status', '200', 'content-type', 'application/grpc'];
    fields.push('grpc-status', trailers['grpc-status'], 'grpc-message', trailers['grpc-message']);
    stream.respond(fields as never, { endStream: true, ...NO_DATE });
    stopRequest(stream, request);
    return 0;
  }
  const { status, contentType, body } = faultReply(fault.code);
  return replyWhole(stream, request, status, ['content-type', contentType], Buffer.from(body));
}

/** Returns the size of the body that was sent. */
export function replyLocal(stream: ServerHttp2Stream, request: Answered, reply: LocalReply): number {
  if (stream.closed || stream.destroyed) return 0;
  const fields = Object.entries(reply.headers).flat();
  return replyWhole(stream, request, reply.status, fields, reply.body);
}

function replyWhole(
  stream: ServerHttp2Stream,
  request: Answered,
  status: number,
  fields: readonly string[],
  body: Uint8Array,
): number {
  // Neither has content, and 204 may not even name a length (RFC 9110 §8.6).
  const bodiless = status === 204 || status === 304;
  const length = bodiless ? [] : ['content-length', String(body.length)];
  const headers = [':status', String(status), ...fields, ...length];
  const bare = bodiless || request.method === 'HEAD';
  if (bare) stream.respond(headers as never, { endStream: true });
  else {
    stream.respond(headers as never);
    stream.end(body);
  }
  stopRequest(stream, request);
  return bare ? 0 : body.length;
}

function stopRequest(stream: ServerHttp2Stream, request: Answered): void {
  if (request.endStream || stream.readableEnded) return;
  discard(stream);
  // In one go with a reply that has no body, RST_STREAM would go out in its place.
  setImmediate(() => {
    if (!stream.closed) refuseRest(stream);
  });
}

/** What the log says of a fault; the client is told less. */
export function noteFault({ request, context, access }: Http2Exchange, err: Fault): void {
  if (access !== undefined) access.fault = err.code;
  const fields = { host: request.host, method: request.method, err };
  if (err.side === 'downstream') context.log.debug(fields, 'request refused');
  else context.log.warn(fields, 'exchange failed');
}

/**
 * RST_STREAM and nothing before it. Node's close() ends the writable side first and flushes that: an END_STREAM that
 * makes what was cut short look complete.
 */
export function resetStream(stream: Http2Stream, code: number): void {
  if (!stream.writableEnded) stream._final = (callback) => callback();
  stream.close(code);
  discard(stream);
}

/** The reply goes out whole, and then the rest of the request is refused (RFC 9113 §8.1). */
export function refuseRest(stream: ServerHttp2Stream): void {
  stream.close(constants.NGHTTP2_NO_ERROR);
  discard(stream);
}

/** As refuseRest(), for a stream that has asked for its trailers: RST_STREAM must not go out in their place. */
export function refuseRestAfterTrailers(stream: ServerHttp2Stream): void {
  setImmediate(() => {
    if (!stream.closed) refuseRest(stream);
  });
}

/** A stream that is not read to its end is never destroyed by Node, nor is its session. */
export function discard(stream: Http2Stream): void {
  stream.removeAllListeners('data');
  stream.resume();
}

/**
 * Whether the end of a stream's data is owed to a reset or a lost connection, for which Node emits `end` as if
 * END_STREAM had come. Of a RST_STREAM with NO_ERROR only the listener that Node leaves behind tells; it leaves none
 * where both sides had ended before.
 */
export function wasReset(stream: Http2Stream): boolean {
  const code = stream.rstCode ?? constants.NGHTTP2_NO_ERROR;
  return code !== constants.NGHTTP2_NO_ERROR || stream.listeners('end').includes(stream.destroy);
}
