// One request of HTTP/2 that a handler of our own answers: its body to the handler, the reply to the client.

import type { LocalHandler, LocalReply } from '../../src/lib/local-handler.ts';
import { Fault, type FaultCode } from '../faults.ts';
import type { StreamUser } from '../http2/connection.ts';
import { errorCode } from '../http2/frames.ts';
import type { HeaderField } from '../http2/hpack.ts';
import { WRITE_BYTES } from '../http2/sending.ts';
import { NO_LIMIT } from '../limits.ts';
import type { Deadline } from '../socket/deadlines.ts';
import type { Http2Exchange } from './http2-exchange.ts';
import { replyWhole, sendOwnHead } from './http2-reply.ts';
import { asBuffer, discard, fieldsOf, hasNoBody, ReplyBody, RequestBody } from './local-body.ts';
import { LocalQuestion } from './local-request.ts';
import { loggedTarget } from './logged.ts';

export class Http2Answer implements StreamUser, Deadline {
  /** While the client is waited for. */
  at = NO_LIMIT;
  place = -1;

  private readonly exchange: Http2Exchange;
  private readonly question: LocalQuestion;
  private requestEnded: boolean;
  private requestBody: RequestBody | undefined;
  private bodyAsked = false;
  private replyBody: ReplyBody | undefined;
  private settled = false;

  constructor(exchange: Http2Exchange) {
    const { request, connection } = exchange;
    const { method, host, path: target, fields } = request;
    this.exchange = exchange;
    this.requestEnded = request.endStream;
    const asked = { method, target, host, headers: joinFields(fields), connection };
    this.question = new LocalQuestion(asked, () => this.openBody());
  }

  begin(handler: LocalHandler) {
    this.exchange.stream.user = this;
    try {
      const reply = handler.handle(this.question);
      if (!(reply instanceof Promise)) return this.reply(reply);
      // The body waits where the client is until somebody asks for it.
      if (!this.requestEnded && !this.bodyAsked) this.exchange.stream.pause();
      reply.then((answer) => this.reply(answer)).catch((error) => this.fail(error));
    } catch (error) {
      this.fail(error);
    }
  }

  // --- The request ---

  private openBody(): RequestBody {
    if (this.bodyAsked) throw new Error('the body of a request is read once');
    this.bodyAsked = true;
    const body = this.bodyOf();
    if (this.settled || this.replyBody !== undefined)
      body.fail(new Error('the reply has been given already'));
    else if (this.exchange.received > this.exchange.match!.maxBodyBytes) this.refuse('body-too-large');
    else if (!this.requestEnded) this.awaitBody();
    return body;
  }

  private bodyOf(): RequestBody {
    if (this.requestBody === undefined) {
      this.requestBody = new RequestBody({ more: () => this.readMore() });
      if (this.requestEnded) this.requestBody.end();
    }
    return this.requestBody;
  }

  private awaitBody(): void {
    const { stream, request } = this.exchange;
    // RFC 9110 §10.1.1: who expects it waits for it.
    if (this.exchange.received === 0 && request.fields.some(({ name }) => name === 'expect')) {
      stream.beginHead();
      stream.addField(':status', '100');
      stream.endHead('interim');
    }
    this.readMore();
  }

  private readMore(): void {
    if (this.settled || this.requestEnded) return;
    this.setClock(this.exchange.context.limits.clientIdleTimeoutMs);
    this.exchange.stream.resume();
  }

  streamData(bytes: Buffer, start: number, end: number) {
    const { exchange } = this;
    const { stream, context } = exchange;
    exchange.received += end - start;
    if (this.settled || (this.replyBody !== undefined && !this.bodyAsked)) return;
    if (this.bodyAsked && exchange.received > exchange.match!.maxBodyBytes)
      return this.refuse('body-too-large');
    // What nobody has asked for yet is bounded by the stream's window.
    const free = this.bodyOf().add(bytes, start, end) && this.bodyAsked;
    if (!free) stream.pause();
    if (this.bodyAsked) this.setClock(free ? context.limits.clientIdleTimeoutMs : NO_LIMIT);
  }

  streamTrailers(_: readonly HeaderField[]): void {}

  streamEnded(): void {
    this.requestEnded = true;
    this.requestBody?.end();
    if (this.bodyAsked && !this.settled) this.setClock(NO_LIMIT);
  }

  private refuse(code: FaultCode): void {
    this.abandon(`the request was refused: ${code}`);
    this.exchange.fail(new Fault(code));
  }

  // --- The reply ---

  private reply(reply: LocalReply) {
    const { exchange } = this;
    const { status, body, length } = reply;
    if (this.settled) return void (body instanceof Uint8Array || discard(body));
    this.setClock(NO_LIMIT);
    if (!(body instanceof Uint8Array)) return this.stream(status, fieldsOf(reply), body, length);
    this.settle();
    replyWhole(exchange.stream, exchange.request, status, fieldsOf(reply), asBuffer(body), exchange);
  }

  private stream(
    status: number,
    fields: readonly (readonly [name: string, value: string])[],
    source: AsyncIterable<Uint8Array>,
    length: number | undefined,
  ) {
    const { exchange } = this;
    const { stream, request } = exchange;
    const bare = request.method === 'HEAD' || hasNoBody(status);
    exchange.beginReply(status);
    sendOwnHead(exchange, stream, status, fields, length, bare ? 'last' : 'open');
    if (bare) {
      discard(source);
      this.settle();
      return stream.refuseRest();
    }
    if (!this.bodyAsked) stream.resume();
    this.replyBody = new ReplyBody(source, length, {
      mostLent: WRITE_BYTES,
      take: (bytes) => this.write(bytes),
      whole: () => this.end(),
      broken: (cause) => this.cut(cause),
    });
    void this.replyBody.send();
  }

  private write(bytes: Buffer): boolean {
    const { stream, context } = this.exchange;
    this.exchange.sent += bytes.length;
    if (stream.sendData(bytes, 0, bytes.length, false)) return true;
    this.setClock(context.limits.clientIdleTimeoutMs);
    return false;
  }

  streamDrained(): void {
    if (this.replyBody === undefined || this.settled) return;
    this.setClock(NO_LIMIT);
    this.replyBody.drained();
  }

  private end(): void {
    const { stream, context } = this.exchange;
    this.settle();
    stream.sendEnd();
    stream.refuseRest();
    // What is still queued must leave in time.
    if (!stream.closed) this.setClock(context.limits.clientIdleTimeoutMs);
  }

  // --- Endings ---

  expired() {
    const { stream } = this.exchange;
    if (this.replyBody === undefined && !this.settled) return this.refuse('request-timeout');
    this.abandon('the client took too long');
    stream.reset(errorCode.cancel);
  }

  streamClosed(): void {
    this.abandon('the client has gone');
    this.exchange.context.deadlines.forget(this);
  }

  private fail(error: unknown): void {
    const answered = this.settled;
    this.note(error);
    if (answered) return;
    this.abandon('the handler failed');
    this.exchange.fail(new Fault('failed', undefined, { cause: error }));
  }

  private cut(error: unknown): void {
    const { exchange } = this;
    // What a fault says has been noted where it came about.
    if (!(error instanceof Fault)) this.note(error);
    this.abandon('the reply broke off');
    exchange.fault = error instanceof Fault ? error.code : 'failed';
    exchange.stream.reset(errorCode.internalError);
  }

  /** What a handler says of a client that is gone is no trouble of anybody's. */
  private note(error: unknown): void {
    const { context, stream } = this.exchange;
    const level = stream.closed ? 'debug' : 'error';
    context.log[level]({ err: error, path: loggedTarget(this.question.path) }, 'local handler failed');
  }

  private setClock(ms: number): void {
    const { deadlines } = this.exchange.context;
    this.at = deadlines.after(ms);
    if (ms !== NO_LIMIT && this.place === -1) deadlines.watch(this);
  }

  /** The reply is whole, or nobody waits for it: what is left of the body has no reader. */
  private settle(why = 'the reply has been given'): void {
    this.settled = true;
    this.requestBody?.fail(new Error(why));
    this.replyBody?.abandon();
  }

  private abandon(why: string): void {
    if (this.settled) return;
    this.settle(why);
    this.question.abandon();
  }
}

function joinFields(fields: readonly HeaderField[]): Record<string, string> {
  const joined: Record<string, string> = Object.create(null);
  for (const { name, value } of fields) {
    joined[name] = joined[name] === undefined ? value : `${joined[name]}, ${value}`;
  }
  return joined;
}
