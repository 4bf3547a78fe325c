// A client of HTTP/2 whose request the rules decide about.

import { createField } from '../http2/hpack.ts';
import { type ForwardMatch, speaksHttp2 } from '../rules/routes.ts';
import type { Forward } from '../rules/step.ts';
import { type AskedFacts, http2Facts } from './asked-facts.ts';
import { REQUEST_ID } from './exchange.ts';
import type { ForwardedBefore } from './headers.ts';
import { Http2Answer } from './http2-answer.ts';
import type { Http2Exchange } from './http2-exchange.ts';
import { replyWhole } from './http2-reply.ts';
import type { Http2Request } from './http2-request.ts';
import { Http2ToHttp1 } from './http2-to-http1.ts';
import { Http2ToHttp2 } from './http2-to-http2.ts';
import { fieldsFor, type OwnFields, type OwnReply, type RuledClient } from './ruled-client.ts';
import { grpcTrailersOf, usualReply } from './usual-reply.ts';

export class Http2Ruled implements RuledClient {
  readonly exchange: Http2Exchange;
  readonly facts: AskedFacts;
  readonly nominated: readonly string[] = [];
  readonly forwardedBefore: ForwardedBefore;
  readonly askedProtocol: string | undefined;
  readonly passUnderscores: boolean | undefined;
  /** As it came. */
  private readonly request: Http2Request;

  constructor(exchange: Http2Exchange) {
    const { request, connection, stream } = exchange;
    this.exchange = exchange;
    this.request = request;
    this.facts = http2Facts(request, connection);
    if (exchange.id !== '') this.facts.id = exchange.id;
    this.askedProtocol = request.protocol;
    this.passUnderscores = request.grpc ? true : undefined;
    this.forwardedBefore = (connection.trustedClient ? request.forwarded : undefined) ?? {};
    exchange.awaitsRules = true;
    if (!exchange.requestEnded) stream.pause();
  }

  hasWholeBody(): boolean {
    return this.exchange.bodyKept;
  }

  ignoreBody(): void {
    const { exchange } = this;
    exchange.dropKept();
    exchange.ignoresBody = true;
    exchange.requestEnded = true;
    exchange.trailers = [];
    exchange.stream.resume();
  }

  forward(step: Forward, match: ForwardMatch, clientAddress: string): void {
    const fields = fieldsFor(this, step, {
      clientAddress,
      own: this.exchange.ownFields,
      withBody: step.passBody,
    });
    const { exchange, request } = this;
    const gone = exchange.ignoresBody;
    exchange.request = {
      ...request,
      method: exchange.changedMethod ?? request.method,
      path: step.target,
      authority: step.host ?? request.authority,
      endStream: request.endStream || gone,
      contentLength: gone ? -1 : request.contentLength,
      fields: fields.map(({ name, value }) => {
        const lower = name.toLowerCase();
        return createField(lower, value, lower === 'authorization' || lower === 'cookie');
      }),
    };
    exchange.awaitsRules = false;
    const side = speaksHttp2(match.upstream.protocol)
      ? new Http2ToHttp2(exchange)
      : new Http2ToHttp1(exchange);
    exchange.forward(match, side);
  }

  reply(own: OwnReply) {
    const { exchange, request, facts } = this;
    exchange.replyBegins();
    if (own.body === undefined && request.grpc && own.status >= 400) return this.replyGrpc(own);
    const { status, fields, body } = own.body === undefined ? usualReply(own, facts.headers) : own;
    replyWhole(exchange.stream, request, status, fields, body ?? Buffer.alloc(0), exchange);
  }

  private replyGrpc({ status, fault }: OwnReply): void {
    const { exchange } = this;
    const { stream } = exchange;
    if (stream.closed) return;
    const trailers = grpcTrailersOf(status, fault);
    exchange.beginReply(200);
    exchange.grpcStatus = Number(trailers['grpc-status']);
    stream.beginHead();
    stream.addField(':status', '200');
    stream.addField('content-type', 'application/grpc');
    for (const [name, value] of Object.entries(trailers)) stream.addField(name, value);
    if (exchange.id !== '') stream.addField(REQUEST_ID, exchange.id, true);
    stream.endHead('last');
    stream.refuseRest();
  }

  stream(
    status: number,
    fields: OwnFields,
    body: AsyncIterable<Uint8Array>,
    length: number | undefined,
  ): void {
    const { exchange } = this;
    exchange.replyBegins();
    // The answer has a clock of its own.
    exchange.context.deadlines.forget(exchange);
    exchange.request = this.request;
    new Http2Answer(exchange).begin({
      handle: () => ({ status, headers: {}, fields, body, ...(length === undefined ? {} : { length }) }),
    });
  }

  close(): void {
    this.exchange.closeSilently();
  }
}
