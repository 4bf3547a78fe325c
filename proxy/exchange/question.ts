// A request of our own to an upstream, without a body and for nobody's connection: how rules ask whether a request may pass.

import { Fault } from '../faults.ts';
import { readBody } from '../http1/body.ts';
import { type MessageHead, REFUSED } from '../http1/message.ts';
import type { Http2Stream } from '../http2/connection.ts';
import type { HeaderField } from '../http2/hpack.ts';
import { type ForwardMatch, speaksHttp2 } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import type { ClientConnection, ProxyContext } from './context.ts';
import { Exchange, type UpstreamSide } from './exchange.ts';
import { contentFieldsIn, contentFieldsOf } from './head-fields.ts';
import type { Answer, Asking } from './rule-steps.ts';
import { ToHttp1 } from './to-http1.ts';
import { ToHttp2 } from './to-http2.ts';

/** Of its reply. What is longer is no answer to a question. */
const MOST_BODY_BYTES = 1024 * 1024;

export interface QuestionAsked {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly fields: readonly { readonly name: string; readonly value: string }[];
  readonly match: ForwardMatch;
}

type Told = (answer: Answer | Fault) => void;

/** `told` is called once, unless the question is given up. */
export function ask(
  context: ProxyContext,
  connection: ClientConnection,
  asked: QuestionAsked,
  told: Told,
): Asking {
  const question = new Question(context, connection, asked, told);
  question.begin();
  return question;
}

class Question extends Exchange implements Deadline, Asking {
  at = Number.POSITIVE_INFINITY;
  place = -1;
  readonly asked: QuestionAsked;
  readonly side: UpstreamSide;
  readonly requestEnded = true;
  readonly requestPaused = false;
  readonly replyWaits = false;
  protected readonly clock: Deadline = this;
  private readonly told: Told;
  private fields: Answer['sent'] = [];
  private readonly pieces: Buffer[] = [];

  constructor(context: ProxyContext, connection: ClientConnection, asked: QuestionAsked, told: Told) {
    super(context, connection, 'http/1.1', undefined);
    this.asked = asked;
    this.told = told;
    this.method = asked.method;
    this.host = asked.host;
    this.target = asked.target;
    this.side = speaksHttp2(asked.match.upstream.protocol)
      ? new QuestionToHttp2(this)
      : new QuestionToHttp1(this);
  }

  begin(): void {
    this.context.deadlines.watch(this);
    this.forwardTo(this.asked.match, this.side);
  }

  protected get requestLine(): string {
    return `${this.method} of a question`;
  }

  pauseRequest(): void {}

  resumeRequest(): void {}

  takeHead(fields: Answer['sent']): void {
    this.fields = fields;
  }

  takeBody(bytes: Buffer, start: number, end: number): void {
    // Copied: the bytes are lent.
    this.pieces.push(Buffer.from(bytes.subarray(start, end)));
    this.sent += this.side instanceof QuestionToHttp1 ? end - start : 0;
    if (this.sent > MOST_BODY_BYTES)
      this.fail(new Fault('upstream-malformed', 'its answer to a question is too long'));
  }

  whole(): void {
    if (this.over || this.failed) return;
    const { fields, status } = this;
    this.finish({
      status,
      sent: fields,
      fields: {
        all: (wanted) => fields.filter(([name]) => name.toLowerCase() === wanted).map(([, value]) => value),
      },
      body: Buffer.concat(this.pieces),
    });
  }

  protected tell(fault: Fault): void {
    this.finish(fault);
  }

  private finish(answer: Answer | Fault): void {
    this.context.deadlines.forget(this);
    this.end();
    this.told(answer);
  }

  protected letGo(): void {
    this.fail(new Fault('upstream-timeout'));
  }

  protected traceAnew(): void {}

  protected passReset(): boolean {
    return false;
  }

  expired(): void {
    this.timeOut();
  }

  giveUp(): void {
    if (this.over) return;
    this.context.deadlines.forget(this);
    this.end();
    this.side.giveUp(false);
  }
}

class QuestionToHttp1 extends ToHttp1 {
  protected readonly exchange: Question;

  constructor(exchange: Question) {
    super();
    this.exchange = exchange;
  }

  protected sendRequest({ socket }: { readonly socket: { write(text: string, coding: 'latin1'): boolean } }) {
    const { method, target, host, fields } = this.exchange.asked;
    const lines = fields.map(({ name, value }) => `${name}: ${value}\r\n`).join('');
    socket.write(`${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${lines}\r\n`, 'latin1');
    this.exchange.alive();
  }

  protected passInterim(): boolean {
    return true;
  }

  protected passHead(reply: MessageHead, bytes: Buffer, start: number, end: number): void {
    this.exchange.takeHead(contentFieldsOf(reply).map(({ name, value }) => [name, value] as const));
    this.passBody(bytes, start, end);
  }

  protected passBody(bytes: Buffer, start: number, end: number) {
    const { exchange, body } = this;
    let pos = start;
    while (pos < end && !body.done) {
      pos = readBody(body, bytes, pos, end, exchange.context.limits);
      if (pos === REFUSED) return exchange.fail(new Fault('upstream-malformed', body.refusal.reason));
      exchange.takeBody(bytes, body.dataStart, body.dataEnd);
      if (exchange.over) return;
    }
    if (pos < end) this.keeps = false;
    if (body.done) this.finish();
  }

  protected passEnd(): void {
    this.finish();
  }

  protected replyDone(): void {
    this.exchange.whole();
  }

  protected switchTo(): void {
    this.exchange.fail(new Fault('upstream-malformed', 'a switch of protocols in answer to a question'));
  }
}

class QuestionToHttp2 extends ToHttp2 {
  readonly converses = false;
  readonly restless = false;
  protected readonly exchange: Question;

  constructor(exchange: Question) {
    super();
    this.exchange = exchange;
  }

  get headBytes(): number {
    const { method, target, host, fields } = this.exchange.asked;
    let bytes = method.length + target.length + host.length + 240;
    for (const { name, value } of fields) bytes += name.length + value.length + 32;
    return bytes;
  }

  protected sendHead(up: Http2Stream, scheme: string): boolean {
    const { method, target, host, fields } = this.exchange.asked;
    up.beginHead();
    up.addField(':method', method);
    up.addField(':scheme', scheme);
    up.addField(':authority', host);
    up.addField(':path', target);
    for (const { name, value } of fields) {
      const lower = name.toLowerCase();
      up.addField(lower, value, lower === 'authorization' || lower === 'cookie');
    }
    up.endHead('last');
    return true;
  }

  protected sendEarly(): void {}

  protected passInterim(): boolean {
    return true;
  }

  protected passHead(_: number, fields: readonly HeaderField[], __: number, ended: boolean): void {
    this.exchange.takeHead(contentFieldsIn(fields).map(({ name, value }) => [name, value] as const));
    if (ended) this.exchange.whole();
  }

  protected passData(bytes: Buffer, start: number, end: number, last: boolean): void {
    const { exchange } = this;
    exchange.takeBody(bytes, start, end);
    if (!last || exchange.over) return;
    exchange.replied = true;
    exchange.whole();
  }

  protected passTrailers(): void {
    this.exchange.replied = true;
    this.exchange.whole();
  }

  protected passEnd(): void {
    this.exchange.replied = true;
    this.exchange.whole();
  }

  protected refuseRest(): void {}
}
