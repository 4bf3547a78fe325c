// From a client of HTTP/2 to an upstream of HTTP/2: gRPC above all, trailers, resets and cancellation included.

import type { Http2Stream } from '../http2/connection.ts';
import { fieldKind, kindOf } from '../http2/fields.ts';
import type { HeaderField } from '../http2/hpack.ts';
import { REQUEST_ID } from './exchange.ts';
import type { Http2Exchange, Http2Side } from './http2-exchange.ts';
import { MOST_INTERIM_BYTES } from './interim.ts';
import { REPLAY_BYTES } from './retry.ts';
import { ToHttp2 } from './to-http2.ts';
import { replyTrailers, requestTrailers } from './translation.ts';

export class Http2ToHttp2 extends ToHttp2 implements Http2Side {
  readonly converses = true;
  readonly holdsBody = false;
  readonly headBytes: number;
  protected readonly exchange: Http2Exchange;
  private readonly stream: Http2Stream;

  constructor(exchange: Http2Exchange) {
    super();
    this.exchange = exchange;
    this.stream = exchange.stream;
    this.headBytes = headBytesOf(exchange);
  }

  get restless(): boolean {
    return this.stream.restless;
  }

  // --- The request ---

  protected sendHead(up: Http2Stream, scheme: string): boolean {
    const { request, forwarded } = this.exchange;
    up.beginHead();
    up.addField(':method', request.method);
    up.addField(':scheme', scheme);
    up.addField(':authority', request.authority);
    up.addField(':path', request.path);
    for (const { name, value, neverIndexed } of request.fields) up.addField(name, value, neverIndexed);
    // RFC 9110 §10.1.4, and without it gRPC servers refuse the call.
    up.addField('te', 'trailers');
    if (request.contentLength >= 0) up.addField('content-length', String(request.contentLength));
    for (const { name, value, neverIndexed } of forwarded.fields) up.addField(name, value, neverIndexed);
    up.endHead(request.endStream ? 'last' : 'open');
    return request.endStream;
  }

  protected sendEarly(up: Http2Stream): void {
    const { exchange, stream } = this;
    const { kept } = exchange;
    let free = true;
    if (kept !== undefined) {
      free = up.sendData(kept.content, 0, kept.size, false);
      if (kept.size > REPLAY_BYTES) exchange.dropKept();
    }
    if (exchange.requestEnded) this.endBody();
    else if (free) stream.resume();
  }

  sendBody(bytes: Buffer, start: number, end: number, last: boolean): boolean {
    return this.up!.sendData(bytes, start, end, last);
  }

  endBody(): void {
    const { trailers } = this.exchange;
    if (trailers.length === 0) this.up!.sendEnd();
    else this.up!.sendTrailers(requestTrailers(trailers));
  }

  // --- The reply ---

  protected passInterim(status: number, fields: readonly HeaderField[]): boolean {
    sendHead(this.stream, status, fields, -1, 'interim');
    return this.stream.backlog <= MOST_INTERIM_BYTES;
  }

  protected passHead(status: number, fields: readonly HeaderField[], length: number, ended: boolean): void {
    const { id } = this.exchange;
    sendHead(this.stream, status, fields, status === 204 ? -1 : length, ended ? 'last' : 'open', id);
  }

  protected passData(bytes: Buffer, start: number, end: number, last: boolean): void {
    this.exchange.replied = last;
    if (!this.stream.sendData(bytes, start, end, last)) this.pauseReply();
  }

  protected passTrailers(fields: readonly HeaderField[]): void {
    this.exchange.replied = true;
    this.stream.sendTrailers(replyTrailers(fields));
  }

  protected passEnd(): void {
    this.exchange.replied = true;
    this.stream.sendEnd();
  }

  protected refuseRest(): void {
    this.stream.refuseRest();
  }
}

/** RFC 9113 §6.5.2: what sendHead() sends, its pseudo-header fields and `te` included. */
function headBytesOf({ request, forwarded }: Http2Exchange): number {
  let bytes = request.method.length + request.path.length + request.authority.length + 240;
  for (const { name, value } of request.fields) bytes += name.length + value.length + 32;
  // Its lines have four bytes more of each field than name and value.
  return bytes + forwarded.lines.length + 28 * forwarded.fields.length;
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
  id = '',
): void {
  stream.beginHead();
  stream.addField(':status', String(status));
  for (const field of fields) {
    const { name, value, neverIndexed } = field;
    const known = kindOf(field);
    if (known === fieldKind.status || known === fieldKind.hopByHop || known === fieldKind.te) continue;
    if (known === fieldKind.contentLength || (id !== '' && known === fieldKind.requestId)) continue;
    stream.addField(name, value, neverIndexed);
  }
  if (id !== '') stream.addField(REQUEST_ID, id, true);
  if (length >= 0) stream.addField('content-length', String(length));
  stream.endHead(kind);
}
