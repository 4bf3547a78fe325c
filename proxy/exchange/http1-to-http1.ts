// From a client of HTTP/1.1 to an upstream of HTTP/1.1: what was checked passes as it came, framing included.

import { Fault } from '../faults.ts';
import { readBody } from '../http1/body.ts';
import { type MessageHead, REFUSED } from '../http1/message.ts';
import {
  gather,
  isFull,
  settle,
  writeAdjoining,
  writeJoined,
  writeLent,
  writeReply,
} from '../socket/writes.ts';
import type { UpstreamLink } from '../upstream/http1-pool.ts';
import { editedReplyText } from './head-fields.ts';
import { interimHeadText, replyHeadText, trailerText } from './headers.ts';
import type { Http1Exchange, Http1Side } from './http1-exchange.ts';
import { ToHttp1 } from './to-http1.ts';
import { beginTunnel } from './upgrade.ts';

/** How the reply's body leaves: as it came, cut into chunks, or taken out of its chunks. */
const AS_IT_CAME = 0;
const CHUNKED = 1;
const UNCHUNKED = 2;

const NOTHING: readonly string[] = [];

/** One for each connection of a client, begun anew with each exchange. */
export class Http1ToHttp1 extends ToHttp1 implements Http1Side {
  protected readonly exchange: Http1Exchange;
  private mode = AS_IT_CAME;
  /** The names that the reply's Connection nominated. */
  private nominated = NOTHING;

  constructor(exchange: Http1Exchange) {
    super();
    this.exchange = exchange;
  }

  // --- The request ---

  protected sendRequest({ socket }: UpstreamLink) {
    const { exchange } = this;
    const { headText, kept, carrier } = exchange;
    if (kept !== undefined) {
      socket.write(headText, 'latin1');
      // Copied: what is kept may grow while this waits.
      socket.write(Buffer.from(kept.content));
      if (this.link === undefined) return;
    }
    if (!exchange.requestEnded) {
      const bytes = carrier.takeHeld();
      if (bytes !== undefined) return this.passRequest(kept === undefined ? headText : '', bytes);
    }
    if (kept === undefined) socket.write(headText, 'latin1');
    exchange.alive();
  }

  takeBody(bytes: Buffer): void {
    this.passRequest('', bytes);
  }

  private passRequest(head: string, bytes: Buffer) {
    const { exchange } = this;
    const { request, carrier, context } = exchange;
    const { limits } = context;
    const { maxBodyBytes } = exchange.match!;
    let pos = 0;
    let from = 0;
    let text = head;
    while (pos < bytes.length && !request.done) {
      const next = readBody(request, bytes, pos, bytes.length, limits);
      if (next === REFUSED) return exchange.breakRequest(request.refusal.code, request.refusal.reason);
      if (request.received > maxBodyBytes) return exchange.breakRequest('body-too-large', 'by count');
      if (request.cutEnd > request.cutStart) {
        text += bytes.toString('latin1', from, request.cutStart);
        from = request.cutEnd;
        if (request.done) text += trailerText(request.trailers!, exchange.nominated);
      }
      pos = next;
    }
    exchange.received = request.received;
    if (pos < bytes.length) carrier.hold(bytes.subarray(pos));
    if (pos > 0) exchange.keepBody(false, bytes, from, pos, text.slice(head.length));
    const { socket } = this.link!;
    if (!request.done) gather(socket);
    if (text === '') writeAdjoining(socket, bytes, from, pos);
    else {
      settle();
      writeJoined(socket, text, bytes, from, pos);
    }
    if (request.done) settle();
    if (isFull(socket)) carrier.pause();
    exchange.alive();
  }

  // --- The reply ---

  protected passInterim(reply: MessageHead): boolean {
    const { exchange } = this;
    // RFC 9110 §15.2: never to HTTP/1.0.
    if (exchange.http10) return true;
    return exchange.writeInterim(interimHeadText(reply), this);
  }

  protected passHead(reply: MessageHead, bytes: Buffer, start: number, end: number): void {
    const { exchange, body } = this;
    const { carrier, http10 } = exchange;
    this.nominated = reply.nominated;
    this.mode = AS_IT_CAME;
    let own = exchange.replyLine;
    if (http10) {
      // RFC 9112 §6.1: HTTP/1.0 knows no chunks; the end of the connection is the end of the body.
      if (body.kind === 'chunked') this.mode = UNCHUNKED;
      if (body.kind === 'chunked' || body.kind === 'until-close') carrier.keepAlive = false;
    } else if (body.kind === 'until-close') {
      this.mode = CHUNKED;
      own += 'Transfer-Encoding: chunked\r\n';
    }
    const keepAlive = exchange.keepsClient();
    if (!keepAlive) own += 'Connection: close\r\n';
    else if (http10) own += 'Connection: keep-alive\r\n';
    if (reply.status === 426 && reply.upgradeTo !== '') own += upgradeOffer(reply, keepAlive);
    const framing = http10 ? 'unframed' : 'as-it-came';
    const { edits } = exchange;
    const text =
      edits === undefined ? replyHeadText(reply, framing, own) : editedReplyText(reply, framing, own, edits);
    this.pass(text, bytes, start, end);
  }

  protected passBody(bytes: Buffer, start: number, end: number): void {
    this.pass('', bytes, start, end);
  }

  private pass(prefix: string, bytes: Buffer, start: number, end: number) {
    const { exchange, body } = this;
    const { client } = exchange;
    let ready = true;
    if (body.kind === 'chunked' || this.mode !== AS_IT_CAME) {
      ready = this.passFramed(prefix, bytes, start, end);
      if (exchange.failed) return;
    } else {
      const next = readBody(body, bytes, start, end, exchange.context.limits);
      if (next < end) this.keeps = false;
      if (prefix !== '') ready = writeReply(client, prefix, bytes, start, next);
      else if (next > start) ready = writeLent(client, bytes, start, next);
    }
    if (body.done) return this.finish();
    exchange.sent = body.received;
    if (!ready) this.pauseReply();
  }

  /** Chunks in, chunks out, or both. What was checked passes as it came; only extensions and trailers are cut out. */
  private passFramed(prefix: string, bytes: Buffer, start: number, end: number): boolean {
    const { body, mode } = this;
    const { client, context } = this.exchange;
    let text = prefix;
    let from = start;
    let pos = start;
    let ready = true;
    const passTo = (to: number) => {
      if (text !== '') ready = writeReply(client, text, bytes, from, to);
      else if (to > from) ready = writeLent(client, bytes, from, to);
      text = '';
    };
    while (pos < end && !body.done) {
      const next = readBody(body, bytes, pos, end, context.limits);
      if (next === REFUSED) {
        // The head has left: only the missing end can tell the client.
        passTo(pos);
        this.exchange.fail(new Fault('upstream-malformed', body.refusal.reason));
        return false;
      }
      if (mode === CHUNKED) {
        text += `${(body.dataEnd - body.dataStart).toString(16)}\r\n`;
        from = body.dataStart;
        passTo(body.dataEnd);
        text = '\r\n';
        from = next;
      } else if (mode === UNCHUNKED) {
        from = body.dataStart;
        passTo(body.dataEnd);
        from = next;
      } else if (body.cutEnd > body.cutStart) {
        passTo(body.cutStart);
        from = body.cutEnd;
        if (body.done) text = trailerText(body.trailers!, this.nominated);
      }
      pos = next;
    }
    passTo(pos);
    if (pos < end) this.keeps = false;
    return ready;
  }

  protected passEnd(): void {
    this.finish();
  }

  protected replyDone(): void {
    const { exchange } = this;
    if (this.mode === CHUNKED) exchange.client.write('0\r\n\r\n', 'latin1');
    exchange.replyPassed();
  }

  protected switchTo(
    reply: MessageHead,
    link: UpstreamLink,
    bytes: Buffer,
    start: number,
    end: number,
  ): void {
    const { exchange } = this;
    const { carrier, client, context } = exchange;
    const settings = exchange.settings!;
    const tunnel = carrier.becomeTunnel(() =>
      beginTunnel(client, link, reply, { context, settings, access: exchange }),
    );
    const early = carrier.takeHeld();
    if (start < end) tunnel.upstreamData(bytes.subarray(start, end), end - start);
    if (early !== undefined) tunnel.clientData(early);
  }
}

/** RFC 9110 §15.5.22: a 426 must say what to upgrade to. */
function upgradeOffer({ upgradeTo }: MessageHead, keepAlive: boolean): string {
  return `Upgrade: ${upgradeTo}\r\n${keepAlive ? 'Connection: upgrade\r\n' : ''}`;
}
