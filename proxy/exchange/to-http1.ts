// The side of an upstream that speaks HTTP/1.1: its connection, and the heads of its replies, whatever the client speaks.

import { Fault } from '../faults.ts';
import { beginReplyBody, createBodyReader } from '../http1/body-reader.ts';
import { createMessageHead, INCOMPLETE, type MessageHead, REFUSED } from '../http1/message.ts';
import { parseReplyHead } from '../http1/reply-head.ts';
import { addPiece, beginPieces, gathered, type Pieces } from '../socket/pieces.ts';
import { gather } from '../socket/writes.ts';
import { switchesAsAsked } from '../tunnel/switch.ts';
import { foreignBytes } from '../upstream/foreign-bytes.ts';
import type {
  AcquireOptions,
  Acquisition,
  Loss,
  UpstreamLink,
  UpstreamUser,
} from '../upstream/http1-pool.ts';
import { announcementOf } from './context.ts';
import { type Exchange, type Guide, REQUEST_ID, type UpstreamSide } from './exchange.ts';
import { contentFieldsOf, HeadFields } from './head-fields.ts';
import { UNTAKEN } from './interim.ts';
import { Http1Content } from './reply-content.ts';

const FRESH: AcquireOptions = { fresh: true };

/** Filled by each parse, and used up before the next. */
const head = createMessageHead();

export abstract class ToHttp1 implements UpstreamSide, UpstreamUser {
  readonly converses = false;
  paused = false;

  protected abstract readonly exchange: Exchange;
  protected link: UpstreamLink | undefined = undefined;
  /** Of the reply. */
  protected readonly body = createBodyReader();
  /** The upstream's connection can carry another exchange after this one. */
  protected keeps = false;
  private acquisition: Acquisition | undefined = undefined;
  /** The head of a reply, as long as it is not whole. */
  private partialHead: Pieces | undefined = undefined;

  /** The head of the request, and what there is of its body. */
  protected abstract sendRequest(link: UpstreamLink): void;
  /** False: more waits for the client than is kept. */
  protected abstract passInterim(reply: MessageHead): boolean;
  /** The head of the final reply; `bytes[start, end)` came behind it. */
  protected abstract passHead(reply: MessageHead, bytes: Buffer, start: number, end: number): void;
  protected abstract passBody(bytes: Buffer, start: number, end: number): void;
  /** A reply without a length has ended with its connection. */
  protected abstract passEnd(): void;
  /** The reply has been passed on, whole, and the upstream's connection is out of hand. */
  protected abstract replyDone(): void;
  /** The upstream has switched protocols, as it was asked to; `bytes[start, end)` are of the new one. */
  protected abstract switchTo(
    reply: MessageHead,
    link: UpstreamLink,
    bytes: Buffer,
    start: number,
    end: number,
  ): void;

  get connected(): boolean {
    return this.link !== undefined;
  }

  begin(again: boolean): void {
    const { settings, upgrading, context, wish, connection } = this.exchange;
    this.paused = false;
    this.keeps = false;
    this.partialHead = undefined;
    const fresh = again || upgrading !== undefined;
    const announcement = announcementOf(connection, settings!);
    const how =
      wish !== undefined || announcement !== undefined
        ? { fresh, wish, announcement }
        : fresh
          ? FRESH
          : undefined;
    this.acquisition = context.upstreams.acquire(settings!, this, how);
  }

  upstreamReady(link: UpstreamLink): void {
    this.link = link;
    this.acquisition = undefined;
    this.exchange.upstreamChosen(link.endpoint);
    // With those of other clients: an upstream that is asleep is woken once for all of them.
    gather(link.socket);
    this.sendRequest(link);
  }

  upstreamFailed(fault: Fault): void {
    this.acquisition = undefined;
    this.exchange.fail(fault);
  }

  upstreamDrained(): void {
    this.exchange.resumeRequest();
    this.exchange.alive();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.link?.socket.resume();
    this.exchange.alive();
  }

  pauseReply(): void {
    if (this.paused) return;
    this.paused = true;
    this.link?.socket.pause();
  }

  giveUp(blamed: boolean): void {
    const { link, acquisition } = this;
    this.link = undefined;
    this.acquisition = undefined;
    if (link === undefined) acquisition?.abandon();
    else if (blamed) link.fail();
    else link.destroy();
  }

  // --- The reply ---

  upstreamData(bytes: Buffer, end: number): void {
    const { exchange } = this;
    exchange.hear();
    if (exchange.responded) this.passBody(bytes, 0, end);
    else if (this.partialHead === undefined) this.readHeads(bytes, end);
    else {
      const pieces = this.partialHead;
      const { maxHeaderBytes } = exchange.context.limits;
      if (addPiece(pieces, bytes, 0, end, maxHeaderBytes)) this.readHeads(gathered(pieces), pieces.length);
    }
    if (this.link !== undefined) exchange.alive();
  }

  private readHeads(bytes: Buffer, end: number) {
    const { exchange } = this;
    for (let pos = 0; ; ) {
      const size = pos === end ? INCOMPLETE : parseReplyHead(head, bytes, pos, end, exchange.context.limits);
      if (size === INCOMPLETE) return this.keepHead(bytes, pos, end);
      if (size === REFUSED) {
        const foreign = foreignBytes(exchange.settings!.protocol, bytes, pos, end);
        return exchange.fail(new Fault('upstream-malformed', foreign ?? head.refusal.reason));
      }
      pos += size;
      if (head.status >= 200) return this.beginReply(bytes, pos, end);
      if (head.status === 101) return this.switches(bytes, pos, end);
      if (!this.passInterim(head)) return exchange.fail(new Fault('upstream-malformed', UNTAKEN));
    }
  }

  /** The head that is unfinished in `bytes[pos, end)`: a head that is in `pieces` from its beginning stays there. */
  private keepHead(bytes: Buffer, pos: number, end: number): void {
    if (pos === end) this.partialHead = undefined;
    else if (pos > 0 || this.partialHead === undefined) this.partialHead = beginPieces(bytes, pos, end);
  }

  private beginReply(bytes: Buffer, pos: number, end: number) {
    const { exchange, body } = this;
    this.partialHead = undefined;
    beginReplyBody(body, head, exchange.method);
    this.keeps =
      body.kind !== 'until-close' &&
      !head.close &&
      (head.minor === 1 || head.keepAlive) &&
      exchange.upgrading === undefined;
    // The client gets the one by which the log knows it.
    if (exchange.id !== '' && head.requestIdLine >= 0) head.nominated = [...head.nominated, REQUEST_ID];
    const { guide } = exchange;
    exchange.upstreamStatus = head.status;
    if (guide !== undefined) {
      const taking = guide.takesReply(head.status, new HeadFields(head));
      if (taking === 'content') return this.handContent(guide, bytes, pos, end);
      if (taking !== 'passes') {
        this.dropReply(taking === 'blamed');
        return guide.proceed();
      }
    }
    exchange.dropKept();
    exchange.beginReply(exchange.edits?.status ?? head.status);
    this.passHead(head, bytes, pos, end);
  }

  private handContent(guide: Guide, bytes: Buffer, pos: number, end: number): void {
    const { link, exchange } = this;
    this.link = undefined;
    // The reader is this connection's own, and another exchange may begin on it.
    const body = createBodyReader();
    beginReplyBody(body, head, exchange.method);
    const content = new Http1Content(exchange, contentFieldsOf(head), link!, body, this.keeps);
    content.take(bytes, pos, end);
    guide.takesContent(content);
  }

  /** The client is told something else. */
  private dropReply(blamed: boolean): void {
    const { link } = this;
    this.link = undefined;
    if (blamed) link?.fail();
    else if (this.body.done && this.keeps && this.exchange.requestEnded) link?.release();
    else link?.destroy();
  }

  private switches(bytes: Buffer, pos: number, end: number) {
    const { exchange, link } = this;
    const { upgrading } = exchange;
    if (upgrading === undefined || !switchesAsAsked(head, upgrading)) {
      return exchange.fail(new Fault('upstream-malformed', 'a switch of protocols that was not asked for'));
    }
    this.link = undefined;
    exchange.upstreamStatus = head.status;
    this.switchTo(head, link!, bytes, pos, end);
  }

  /** The reply is whole: its connection goes back, or goes. */
  protected finish(): void {
    const { exchange, link } = this;
    exchange.replied = true;
    exchange.sent = this.body.received;
    this.link = undefined;
    if (this.paused) {
      this.paused = false;
      link?.socket.resume();
    }
    // The rest of a request that was answered before its end would be taken for the next one.
    if (this.keeps && exchange.requestEnded) link?.release();
    else link?.destroy();
    this.replyDone();
  }

  // --- The end ---

  upstreamEnded() {
    if (this.exchange.responded && this.body.kind === 'until-close') {
      this.body.done = true;
      return this.passEnd();
    }
    this.link?.destroy();
    this.upstreamClosed(undefined, 'unheard');
  }

  upstreamClosed(cause: Error | undefined, loss: Loss): void {
    const { exchange, link } = this;
    this.link = undefined;
    const when = exchange.responded ? 'in the middle of its reply' : 'without a reply';
    const fault = cause instanceof Fault ? cause : new Fault('upstream-closed', when, { cause });
    exchange.lost(loss, fault, 0, link?.reused);
  }
}
