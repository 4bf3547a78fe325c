// A request of a client that speaks HTTP/1.1, and its reply: one object for each connection, begun anew for each request.

import type { TLSSocket } from 'node:tls';
import { Fault, type FaultCode } from '../faults.ts';
import { beginBody, beginRequestBody, createBodyReader } from '../http1/body-reader.ts';
import { field } from '../http1/known-fields.ts';
import { LINE, type MessageHead, valueAt } from '../http1/message.ts';
import type { ForwardMatch, LocalMatch } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import { resetConnection } from '../socket/reset.ts';
import { switchAskedBy } from '../tunnel/switch.ts';
import type { Tunnel } from '../tunnel/tunnel.ts';
import type { ClientConnection, ProxyContext } from './context.ts';
import { Exchange, REQUEST_ID, type UpstreamSide } from './exchange.ts';
import { Http1Answer, type Http1Answering, headersOf } from './http1-answer.ts';
import { writeFault } from './http1-reply.ts';
import { INTERIM_PAUSE_BYTES, MOST_INTERIM_BYTES } from './interim.ts';
import { loggedRequestLine } from './logged.ts';
import type { ExchangeObserver } from './observe.ts';
import { asksForUpgrade } from './upgrade.ts';

/** The way to an upstream, for a client of HTTP/1.1. */
export interface Http1Side extends UpstreamSide {
  /** More of the request's body has come, framed as the client frames it; what lies behind its end is held. */
  takeBody(bytes: Buffer): void;
  /** Where it keeps the head's fields itself: one of these values has changed. */
  changeField?(before: string, now: string): void;
}

/** What an exchange needs of the connection that carries it. */
export interface Http1Carrier {
  readonly clock: Deadline;
  /** Whether it can carry another request after this one. */
  keepAlive: boolean;
  /** The client is not read. */
  readonly paused: boolean;
  readonly draining: boolean;
  pause(): void;
  resume(): void;
  /** Bytes that cannot be used yet wait here, and the client with them. */
  hold(bytes: Buffer): void;
  /** What was held; the client is read again. */
  takeHeld(): Buffer | undefined;
  holdsNothing(): boolean;
  /** The reply has been written, whole. */
  replyWritten(): void;
  /** Ends the connection; what the client still sends is thrown away. */
  end(): void;
  /** Ends it at once; replies of before are whole, and go out. */
  destroy(): void;
  /** From now on it carries another protocol. */
  becomeTunnel(begin: () => Tunnel): Tunnel;
}

const NOTHING: readonly string[] = [];

export class Http1Exchange extends Exchange implements Http1Answering {
  readonly carrier: Http1Carrier;
  readonly client: TLSSocket;
  protected readonly clock: Deadline;
  side: Http1Side | undefined = undefined;
  /** Where a handler of our own answers. */
  answer: Http1Answer | undefined = undefined;

  http10 = false;
  /** The head as the upstream gets it, and until then as it came; empty once the reply has begun. */
  headText = '';
  /** Of the body. */
  readonly request = createBodyReader();
  /** The names that the request's Connection nominated. */
  nominated = NOTHING;

  constructor(
    context: ProxyContext,
    connection: ClientConnection,
    carrier: Http1Carrier,
    observer: ExchangeObserver | undefined,
  ) {
    super(context, connection, 'http/1.1', observer);
    this.carrier = carrier;
    this.client = connection.socket;
    this.clock = carrier.clock;
    // Nothing is under way until the first request.
    this.over = true;
  }

  get requestEnded(): boolean {
    return this.request.done;
  }

  protected get requestPaused(): boolean {
    return this.carrier.paused;
  }

  protected get replyWaits(): boolean {
    return this.side?.paused === true;
  }

  protected get requestLine(): string {
    return loggedRequestLine(this.headText);
  }

  // --- Its beginning ---

  private startAnew(): void {
    this.reset('http/1.1');
    this.side = undefined;
    this.answer = undefined;
    this.headText = '';
    this.http10 = false;
    this.nominated = NOTHING;
  }

  /** A request whose head was read; `host` is the one that is asked for. */
  begin(head: MessageHead, host: string): void {
    this.startAnew();
    this.method = head.method;
    this.host = host;
    this.target = head.target;
    this.http10 = head.minor === 0;
    this.contentLength = head.contentLength;
    this.headText = head.text;
    this.readIdentity(head);
    this.nominated = head.nominated;
    this.upgrading = asksForUpgrade(head) ? switchAskedBy(head) : undefined;
    beginRequestBody(this.request, head);
    this.headTaken();
  }

  /** What is not to pass on is left out as if Connection had nominated it. */
  private readIdentity(head: MessageHead): void {
    const { accessLog } = this.context;
    if (this.detailed && accessLog?.shows !== undefined) this.shownHeaders = accessLog.shows(head.text);
    if (head.requestIdLine >= 0 && this.takesId(valueAt(head, head.requestIdLine)))
      head.nominated = [...head.nominated, REQUEST_ID];
    if (head.traceparentLine >= 0 || head.tracestateLine >= 0) {
      const traceparent = head.traceparents === 1 ? valueAt(head, head.traceparentLine) : undefined;
      const gone = this.takesTrace({ traceparent, tracestate: tracestateOf(head) });
      if (gone.length > 0) head.nominated = [...head.nominated, ...gone];
    }
    this.beginTrace();
    if ((this.detailed || this.sampled) && head.userAgentLine >= 0)
      this.userAgent = valueAt(head, head.userAgentLine);
  }

  /** A request whose head could not be read; `head` has what was, if anything was. */
  beginUnread(head: MessageHead | undefined, code: FaultCode, reason: string): void {
    this.startAnew();
    if (head !== undefined) {
      this.method = head.method;
      this.host = head.host;
      this.target = head.target;
    }
    beginBody(this.request, 'none');
    this.headTaken();
    this.refuse(code, reason);
  }

  forward(match: ForwardMatch, side: Http1Side): void {
    this.side = side;
    this.forwardTo(match, side);
  }

  pauseRequest(): void {
    this.carrier.pause();
  }

  resumeRequest(): void {
    // Pipelined requests stay where they are.
    if (this.carrier.holdsNothing()) this.carrier.resume();
  }

  /** The client broke its own message: nobody may take what was sent of it for the whole. */
  breakRequest(code: FaultCode, reason: string) {
    this.received = this.request.received;
    if (this.responded) this.fail(new Fault(code, reason));
    else this.refuse(code, reason);
  }

  // --- Its reply ---

  /** Whether the connection stays open behind a reply that begins now. */
  keepsClient(): boolean {
    // A body that is still arriving may never end: after this reply nothing else can be read.
    if (!this.request.done || this.carrier.draining) this.carrier.keepAlive = false;
    return this.carrier.keepAlive;
  }

  override beginReply(status: number): void {
    this.headText = '';
    super.beginReply(status);
  }

  /** An interim reply's head. False: more waits for the client than is kept. */
  writeInterim(text: string, side: { pauseReply(): void }): boolean {
    const { client } = this;
    client.write(text, 'latin1');
    const waiting = client.writableLength;
    if (waiting > INTERIM_PAUSE_BYTES && client.writableNeedDrain) side.pauseReply();
    return waiting <= MOST_INTERIM_BYTES;
  }

  /** The upstream's reply has been written, whole. */
  replyPassed(): void {
    this.end();
    this.carrier.replyWritten();
  }

  /** The client has taken what waited for it. */
  drained(): void {
    this.side?.resume();
    this.answer?.clientDrained();
  }

  // --- Its end ---

  /** A request that no upstream gets, and after which nothing else may be read. */
  refuse(code: FaultCode, reason: string): void {
    this.carrier.keepAlive = false;
    beginBody(this.request, 'none');
    this.carrier.takeHeld();
    this.fail(new Fault(code, reason));
  }

  protected tell(fault: Fault) {
    if (!this.responded) return writeFault(this, fault.code, this.headText);
    this.end();
    // The end of a body that is framed is missed by itself, and a reset might overtake what there is of the reply.
    if (fault.side === 'upstream' && !this.request.done && !this.http10) this.carrier.end();
    else this.cutReply();
  }

  protected letGo(): void {
    this.end();
    this.cutReply();
  }

  /** Ends the connection in the middle of a reply. */
  private cutReply(): void {
    // HTTP/1.0 knows no chunks: the client would take the end of the connection for that of the body.
    if (this.http10) resetConnection(this.client);
    this.carrier.destroy();
  }

  protected traceAnew(before: string, now: string): void {
    this.headText = this.headText.replace(before, now);
    this.side?.changeField?.(before, now);
  }

  protected passReset(): boolean {
    return false;
  }

  /** Without a word. */
  closeSilently(): void {
    this.status = 444;
    this.end();
    this.carrier.destroy();
  }

  clientGone(why: 'client-closed' | 'draining'): void {
    if (why === 'draining' && this.http10 && this.responded && !this.over) resetConnection(this.client);
    this.endWithout(why);
    this.side?.giveUp(false);
    this.answer?.abandon('the client has gone');
  }

  expired() {
    if (this.answer !== undefined) return this.answer.expired();
    this.timeOut();
  }

  // --- When it is answered here ---

  /** `target` in origin form. */
  answerHere(match: LocalMatch, head: MessageHead, target: string): void {
    this.match = match;
    this.answer = new Http1Answer(this, headersOf(head), target);
    this.answer.begin(this.context.localHandlers[match.answeredBy]!);
  }

  setClock(ms: number): void {
    this.clock.at = this.context.deadlines.after(ms);
  }

  beginOwnReply(status: number, sent: number, framed: boolean): boolean {
    if (!framed) this.carrier.keepAlive = false;
    const keepAlive = this.keepsClient();
    this.beginReply(status);
    this.sent = sent;
    return keepAlive;
  }

  endOwnReply(): void {
    this.end();
    this.carrier.replyWritten();
  }

  answerFailed(): void {
    this.fail(new Fault('failed'));
  }

  cutAnswer(code: FaultCode, framed: boolean): void {
    this.fault = code;
    this.end();
    // The missing end of a body that is framed is missed by itself.
    if (!framed) resetConnection(this.client);
    this.carrier.destroy();
  }
}

/** Several are one list (RFC 9110 §5.3). */
function tracestateOf(head: MessageHead): string | undefined {
  if (head.tracestateLine < 0) return undefined;
  const values: string[] = [];
  for (let line = 0; line <= head.tracestateLine; line++) {
    if (head.lines[line * LINE + 4] === field.tracestate) values.push(valueAt(head, line));
  }
  return values.join(',');
}
