// One request of HTTP/1.1 that a handler of our own answers: its body to the handler, the reply to the client.

import type { LocalHandler, LocalReply } from '../../src/lib/local-handler.ts';
import { Fault, type FaultCode } from '../faults.ts';
import { readBody } from '../http1/body.ts';
import type { BodyReader } from '../http1/body-reader.ts';
import { type MessageHead, nameAt, REFUSED, valueAt } from '../http1/message.ts';
import { NO_LIMIT } from '../limits.ts';
import type { RouteMatch } from '../rules/routes.ts';
import { flush, gather, writeLent } from '../socket/writes.ts';
import type { ClientConnection } from './context.ts';
import { headerLines } from './headers.ts';
import { type Http1Question, ownHead, writeOwnReply } from './http1-reply.ts';
import { discard, fieldsOf, hasNoBody, ReplyBody, RequestBody } from './local-body.ts';
import { LocalQuestion } from './local-request.ts';
import { loggedTarget } from './logged.ts';

/** The exchange that is answered. */
export interface Http1Answering extends Http1Question {
  readonly connection: ClientConnection;
  readonly host: string;
  readonly match: RouteMatch | undefined;
  readonly request: BodyReader;
  readonly carrier: BodyCarrier;
  /** Bytes of bodies that came and left. */
  received: number;
  sent: number;
  /** How long the client may now take; NO_LIMIT: it is not the client who is waited for. */
  setClock(ms: number): void;
  /** The client broke its message. */
  breakRequest(code: FaultCode, reason: string): void;
  /** The handler gave no reply. */
  answerFailed(): void;
  /** The reply that has begun will never be whole. `framed`: the client can tell. */
  cutAnswer(code: FaultCode, framed: boolean): void;
}

/** The connection that the request's body comes by. */
export interface BodyCarrier {
  pause(): void;
  resume(): void;
  /** Bytes that cannot be used yet wait here, and the client with them. */
  hold(bytes: Buffer): void;
  /** What was held; the client is read again. */
  takeHeld(): Buffer | undefined;
  holdsNothing(): boolean;
}

export class Http1Answer {
  private readonly exchange: Http1Answering;
  private framed = true;
  private readonly question: LocalQuestion;
  private requestBody: RequestBody | undefined;
  private replyBody: ReplyBody | undefined;
  private settled = false;

  /** `target` in origin form. */
  constructor(exchange: Http1Answering, headers: Readonly<Record<string, string>>, target: string) {
    const { connection, method, host } = exchange;
    this.exchange = exchange;
    const asked = { method, target, host, headers, connection };
    this.question = new LocalQuestion(asked, () => this.openBody());
  }

  begin(handler: LocalHandler) {
    this.exchange.setClock(NO_LIMIT);
    try {
      const reply = handler.handle(this.question);
      if (!(reply instanceof Promise)) return this.reply(reply);
      reply.then((answer) => this.reply(answer)).catch((error) => this.fail(error));
    } catch (error) {
      this.fail(error);
    }
  }

  // --- The request ---

  /** Whether what the client sends now belongs to a body that the handler reads. */
  get reads(): boolean {
    return this.requestBody !== undefined && !this.exchange.request.done;
  }

  private openBody(): RequestBody {
    const { exchange } = this;
    if (this.requestBody !== undefined) throw new Error('the body of a request is read once');
    const body = new RequestBody({ more: () => this.readMore() });
    this.requestBody = body;
    if (exchange.request.done) body.end();
    else if (this.settled || this.replyBody !== undefined)
      body.fail(new Error('the reply has been given already'));
    else this.awaitBody();
    return body;
  }

  private awaitBody(): void {
    const { exchange, question } = this;
    // RFC 9110 §10.1.1: who expects it waits for it, and HTTP/1.0 does not know it.
    const expects = question.headers.expect !== undefined && !exchange.http10;
    if (expects && exchange.carrier.holdsNothing())
      exchange.client.write('HTTP/1.1 100 Continue\r\n\r\n', 'latin1');
    this.readMore();
  }

  private readMore(): void {
    const { exchange } = this;
    if (this.settled || exchange.request.done) return;
    exchange.setClock(exchange.context.limits.clientIdleTimeoutMs);
    const held = exchange.carrier.takeHeld();
    if (held !== undefined) this.clientData(held);
  }

  clientData(bytes: Buffer) {
    const { exchange } = this;
    const { request, carrier } = exchange;
    const { maxBodyBytes } = exchange.match!;
    const body = this.requestBody!;
    let free = true;
    let pos = 0;
    while (pos < bytes.length && !request.done) {
      const next = readBody(request, bytes, pos, bytes.length, exchange.context.limits);
      if (next === REFUSED) return this.refuse(request.refusal.code, request.refusal.reason);
      if (request.received > maxBodyBytes) return this.refuse('body-too-large', 'by count');
      free = body.add(bytes, request.dataStart, request.dataEnd);
      pos = next;
    }
    exchange.received = request.received;
    if (pos < bytes.length) carrier.hold(bytes.subarray(pos));
    if (request.done) body.end();
    else if (!free) carrier.pause();
    exchange.setClock(free && !request.done ? exchange.context.limits.clientIdleTimeoutMs : NO_LIMIT);
  }

  private refuse(code: FaultCode, reason: string): void {
    this.abandon(reason);
    this.exchange.breakRequest(code, reason);
  }

  // --- The reply ---

  private reply(reply: LocalReply) {
    const { exchange } = this;
    if (this.settled) return void (reply.body instanceof Uint8Array || discard(reply.body));
    const fields = headerLines(fieldsOf(reply));
    exchange.setClock(NO_LIMIT);
    if (!(reply.body instanceof Uint8Array))
      return this.stream(reply.status, fields, reply.body, reply.length);
    this.settle();
    writeOwnReply(exchange, reply.status, '', fields, reply.body);
  }

  private stream(
    status: number,
    fields: string,
    source: AsyncIterable<Uint8Array>,
    length: number | undefined,
  ) {
    const { exchange } = this;
    const { client, http10, method } = exchange;
    const bare = method === 'HEAD' || hasNoBody(status);
    const chunked = !bare && length === undefined && !http10;
    this.framed = bare || chunked || length !== undefined;
    // RFC 9112 §6.3: without a length HTTP/1.0 knows the end of a body by the end of the connection alone.
    const keepAlive = exchange.beginOwnReply(status, 0, this.framed);
    const framing = chunked ? 'Transfer-Encoding: chunked\r\n' : lengthOf(status, length);
    gather(client);
    client.write(ownHead(exchange, status, '', fields + framing, keepAlive), 'latin1');
    if (bare) {
      discard(source);
      this.settle();
      return exchange.endOwnReply();
    }
    this.replyBody = new ReplyBody(source, length, {
      // As it is written, so it is encrypted.
      mostLent: Number.POSITIVE_INFINITY,
      take: (bytes, lent) => this.write(bytes, chunked, lent),
      whole: () => this.end(chunked),
      broken: (cause) => this.cut(cause),
    });
    void this.replyBody.send();
  }

  private write(bytes: Buffer, chunked: boolean, lent: boolean): boolean {
    const { exchange } = this;
    const { client } = exchange;
    if (lent && !chunked) {
      // What waits for the end of this turn goes first: behind it nothing is encrypted at once.
      flush(client);
      writeLent(client, bytes, 0, bytes.length);
    } else {
      gather(client);
      if (chunked) client.write(`${bytes.length.toString(16)}\r\n`, 'latin1');
      client.write(lent ? Buffer.from(bytes) : bytes);
    }
    if (chunked) client.write('\r\n', 'latin1');
    exchange.sent += bytes.length;
    if (!client.writableNeedDrain) return true;
    exchange.setClock(exchange.context.limits.clientIdleTimeoutMs);
    return false;
  }

  clientDrained(): void {
    if (this.replyBody === undefined) return;
    this.exchange.setClock(NO_LIMIT);
    this.replyBody.drained();
  }

  private end(chunked: boolean): void {
    if (chunked) this.exchange.client.write('0\r\n\r\n', 'latin1');
    this.settle();
    this.exchange.endOwnReply();
  }

  // --- Endings ---

  expired() {
    const replying = this.replyBody !== undefined;
    if (!replying) return this.refuse('request-timeout', 'its body');
    this.abandon('the client took too long');
    this.exchange.cutAnswer('request-timeout', this.framed);
  }

  private fail(error: unknown) {
    if (this.settled) return this.note(error);
    this.abandon('the handler failed');
    this.note(error);
    this.exchange.answerFailed();
  }

  private cut(error: unknown): void {
    this.abandon('the reply broke off');
    // What a fault says has been noted where it came about.
    if (!(error instanceof Fault)) this.note(error);
    this.exchange.cutAnswer(error instanceof Fault ? error.code : 'failed', this.framed);
  }

  /** What a handler says of a client that is gone is no trouble of anybody's. */
  private note(error: unknown): void {
    const { context, client } = this.exchange;
    const level = client.destroyed ? 'debug' : 'error';
    context.log[level]({ err: error, path: loggedTarget(this.question.path) }, 'local handler failed');
  }

  /** The reply is whole, or nobody waits for it: what is left of the body has no reader. */
  private settle(why = 'the reply has been given'): void {
    this.settled = true;
    this.requestBody?.fail(new Error(why));
    this.replyBody?.abandon();
  }

  /** Nobody waits for the reply any more. */
  abandon(why: string): void {
    if (this.settled) return;
    this.settle(why);
    this.question.abandon();
  }
}

function lengthOf(status: number, length: number | undefined): string {
  return length === undefined || hasNoBody(status) ? '' : `Content-Length: ${length}\r\n`;
}

export function headersOf(head: MessageHead): Record<string, string> {
  const headers: Record<string, string> = Object.create(null);
  for (let line = 0; line < head.count; line++) {
    const name = nameAt(head, line).toLowerCase();
    const value = valueAt(head, line);
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  return headers;
}
