// Replies that the ingress itself gives on an HTTP/2 stream: to faults, and from local handlers.

import type { Fault } from '../faults.ts';
import type { Http2Stream } from '../http2/connection.ts';
import { errorCode } from '../http2/frames.ts';
import { type Exchange, REQUEST_ID } from './exchange.ts';
import { faultReply, faultTrailers } from './fault-reply.ts';
import type { Http2Request } from './http2-request.ts';
import { hasNoBody } from './local-body.ts';

type Answered = Pick<Http2Request, 'method' | 'grpc' | 'fields'>;

/**
 * For gRPC a trailers-only reply with `grpc-status` (HTTP 200, gRPC over HTTP2, Responses), else the fault's status
 * with its body. What was already being answered is reset: a cut reply must not look complete.
 */
export function replyFault(stream: Http2Stream, request: Answered, fault: Fault, exchange: Exchange) {
  if (stream.closed) return;
  if (stream.headersSent) return stream.reset(errorCode.internalError);
  if (request.grpc) return replyGrpcFault(stream, fault, exchange);
  const { status, fields, body } = faultReply(fault.code, acceptOf(request));
  replyWhole(stream, request, status, fields, Buffer.from(body), exchange);
}

function acceptOf({ fields }: Answered): string {
  return fields
    .filter(({ name }) => name === 'accept')
    .map(({ value }) => value)
    .join(',');
}

function replyGrpcFault(stream: Http2Stream, fault: Fault, exchange: Exchange): void {
  const trailers = faultTrailers(fault.code);
  exchange.beginReply(200);
  exchange.grpcStatus = fault.grpcStatus;
  stream.beginHead();
  stream.addField(':status', '200');
  stream.addField('content-type', 'application/grpc');
  stream.addField('grpc-status', trailers['grpc-status']);
  stream.addField('grpc-message', trailers['grpc-message']);
  if (exchange.id !== '') stream.addField(REQUEST_ID, exchange.id, true);
  stream.endHead('last');
  stream.refuseRest();
}

export function replyWhole(
  stream: Http2Stream,
  request: Answered,
  status: number,
  fields: readonly (readonly [name: string, value: string])[],
  body: Buffer,
  exchange: Exchange,
): void {
  if (stream.closed) return;
  const bare = hasNoBody(status) || request.method === 'HEAD';
  exchange.beginReply(status);
  exchange.sent = bare ? 0 : body.length;
  sendOwnHead(exchange, stream, status, fields, body.length, bare ? 'last' : 'open');
  if (!bare) stream.sendData(body, 0, body.length, true);
  stream.refuseRest();
}

/** `length`: of the body, if it is known. */
export function sendOwnHead(
  { id }: Exchange,
  stream: Http2Stream,
  status: number,
  fields: readonly (readonly [name: string, value: string])[],
  length: number | undefined,
  kind: 'open' | 'last',
): void {
  stream.beginHead();
  stream.addField(':status', String(status));
  // RFC 9110 §6.6.1: an origin server with a clock sends Date.
  stream.addField('date', new Date().toUTCString());
  for (const [name, value] of fields) stream.addField(name.toLowerCase(), value);
  if (id !== '') stream.addField(REQUEST_ID, id, true);
  if (length !== undefined && !hasNoBody(status)) stream.addField('content-length', String(length));
  stream.endHead(kind);
}
