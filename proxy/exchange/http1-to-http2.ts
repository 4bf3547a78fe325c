// From a client of HTTP/1.1 to an upstream of HTTP/2: fields to fields and bytes to frames, and back into chunks.

import { STATUS_CODES } from 'node:http';
import { readBody } from '../http1/body.ts';
import { requestDrops } from '../http1/drops.ts';
import { field } from '../http1/known-fields.ts';
import { LINE, lowerName, type MessageHead, REFUSED, valueAt } from '../http1/message.ts';
import type { Http2Stream } from '../http2/connection.ts';
import { fieldKind, isPseudo, kindOf, lineOf } from '../http2/fields.ts';
import type { HeaderField } from '../http2/hpack.ts';
import { gather, writeLent, writeReply } from '../socket/writes.ts';
import type { Http1Exchange, Http1Side } from './http1-exchange.ts';
import { ToHttp2 } from './to-http2.ts';
import { hasNoBody, lastChunk, trailersOf } from './translation.ts';

/** How the reply's body leaves. */
const NONE = 0;
const BY_LENGTH = 1;
const CHUNKED = 2;
/** To HTTP/1.0: the end of the connection is the end of the body. */
const UNTIL_CLOSE = 3;

/** RFC 9113 §6.5.2: the four pseudo-header fields, their names included, and `te: trailers`. */
const OWN_HEAD_BYTES = 212;
const FIELD_BYTES = 32;
/** Up to this size a chunk is put together in one piece: one record of TLS, and one copy of its bytes. */
const SMALL_CHUNK = 16 * 1024;
const NO_BYTES = Buffer.alloc(0);
const NO_TRAILERS: readonly HeaderField[] = [];

/** One for each connection of a client, begun anew with each exchange. */
export class Http1ToHttp2 extends ToHttp2 implements Http1Side {
  readonly converses = false;
  readonly restless = false;
  headBytes = 0;

  protected readonly exchange: Http1Exchange;
  /** The request's head, until the upstream has begun to speak: names and values in turn. */
  private readonly fields: string[] = [];
  private method = '';
  private authority = '';
  private path = '';
  /** Content in the bytes that were read last: where each piece of it starts and ends, in turn. */
  private readonly pieces: number[] = [];
  /** For the stream that is about to begin: what was sent on the one before, and what has come since. */
  private resent: Buffer | undefined = undefined;
  private early: Buffer | undefined = undefined;
  private mode = NONE;
  /** Of a reply by length: bytes still to come. */
  private left = 0;
  private replyTrailers = NO_TRAILERS;

  constructor(exchange: Http1Exchange) {
    super();
    this.exchange = exchange;
  }

  /** The head's own object is used for other requests before this one may have left. */
  keepHead(
    head: MessageHead,
    path: string,
    authority: string,
    forwarded: readonly (readonly [string, string])[],
  ): void {
    const { fields } = this;
    const { nominated } = head;
    fields.length = 0;
    this.resent = undefined;
    this.early = undefined;
    this.path = path;
    this.authority = authority;
    let bytes = head.method.length + path.length + authority.length + OWN_HEAD_BYTES;
    for (let line = 0; line < head.count; line++) {
      const id = head.lines[line * LINE + 4]!;
      if (requestDrops[id] === 1 || id === field.host || id === field.transferEncoding) continue;
      const name = lowerName(head, line);
      if (nominated.length > 0 && nominated.includes(name)) continue;
      const value = valueAt(head, line);
      fields.push(name, value);
      bytes += name.length + value.length + FIELD_BYTES;
    }
    for (const [name, value] of forwarded) {
      fields.push(name, value);
      bytes += name.length + value.length + FIELD_BYTES;
    }
    this.headBytes = bytes;
    this.method = head.method;
  }

  /** The same, where rules have said what leaves: names in lower case and values in turn. */
  keepFields(
    {
      method,
      path,
      authority,
    }: { readonly method: string; readonly path: string; readonly authority: string },
    pairs: readonly string[],
  ): void {
    const { fields } = this;
    fields.length = 0;
    this.resent = undefined;
    this.early = undefined;
    this.method = method;
    this.path = path;
    this.authority = authority;
    let bytes = method.length + path.length + authority.length + OWN_HEAD_BYTES;
    for (let i = 0; i < pairs.length; i += 2) {
      fields.push(pairs[i]!, pairs[i + 1]!);
      bytes += pairs[i]!.length + pairs[i + 1]!.length + FIELD_BYTES;
    }
    this.headBytes = bytes;
  }

  changeField(before: string, now: string): void {
    const at = this.fields.indexOf(before);
    if (at > 0) this.fields[at] = now;
  }

  // --- The request ---

  protected sendHead(up: Http2Stream, scheme: string): boolean {
    const { fields, exchange } = this;
    const bodiless = this.resent === undefined && this.early === undefined;
    const whole = exchange.requestEnded && bodiless && exchange.request.trailers === undefined;
    up.beginHead();
    up.addField(':method', this.method);
    up.addField(':scheme', scheme);
    up.addField(':authority', this.authority);
    up.addField(':path', this.path);
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i]!;
      // RFC 7541 §7.1.3: not for anybody's table.
      up.addField(name, fields[i + 1]!, name === 'authorization' || name === 'cookie');
    }
    // RFC 9110 §10.1.4: trailers are passed on to those who take them, and without it gRPC servers refuse a call.
    up.addField('te', 'trailers');
    up.endHead(whole ? 'last' : 'open');
    return whole;
  }

  /** A body that is refused must not have begun to leave. */
  protected override readEarly(): boolean {
    const { exchange } = this;
    this.resent = exchange.kept?.content;
    this.early = exchange.requestEnded ? undefined : exchange.carrier.takeHeld();
    return this.early === undefined || this.readPieces(this.early);
  }

  protected sendEarly(up: Http2Stream): void {
    const { exchange, resent, early } = this;
    const { requestEnded, request, carrier } = exchange;
    this.resent = undefined;
    this.early = undefined;
    const last = requestEnded && early === undefined && request.kind === 'length';
    if (resent !== undefined && !up.sendData(resent, 0, resent.length, last)) carrier.pause();
    if (early !== undefined) this.sendPieces(up, early);
    else if (requestEnded && !last) this.endRequest(up);
  }

  takeBody(bytes: Buffer): void {
    if (!this.readPieces(bytes)) return;
    this.sendPieces(this.up!, bytes);
    this.exchange.alive();
  }

  /** What of `bytes` is content; what lies behind the body's end is held. False: the request is refused for it. */
  private readPieces(bytes: Buffer): boolean {
    const { exchange, pieces } = this;
    const { request, carrier, context } = exchange;
    const { limits } = context;
    const { maxBodyBytes } = exchange.match!;
    let pos = 0;
    pieces.length = 0;
    while (pos < bytes.length && !request.done) {
      pos = readBody(request, bytes, pos, bytes.length, limits);
      if (pos === REFUSED) {
        exchange.breakRequest(request.refusal.code, request.refusal.reason);
        return false;
      }
      if (request.received > maxBodyBytes) {
        exchange.breakRequest('body-too-large', 'by count');
        return false;
      }
      const { dataStart, dataEnd } = request;
      if (dataEnd === dataStart) continue;
      pieces.push(dataStart, dataEnd);
      exchange.received = request.received;
      exchange.keepBody(false, bytes, dataStart, dataEnd);
    }
    if (pos < bytes.length) carrier.hold(bytes.subarray(pos));
    return true;
  }

  private sendPieces(up: Http2Stream, bytes: Buffer): void {
    const { pieces, exchange } = this;
    const { request, carrier } = exchange;
    const endsWithData = request.done && request.kind === 'length';
    let free = true;
    for (let i = 0; i < pieces.length; i += 2) {
      const last = endsWithData && i + 2 === pieces.length;
      free = up.sendData(bytes, pieces[i]!, pieces[i + 1]!, last);
    }
    if (request.done && !endsWithData) this.endRequest(up);
    if (!free) carrier.pause();
  }

  private endRequest(up: Http2Stream): void {
    const { request, nominated } = this.exchange;
    if (request.trailers === undefined) up.sendEnd();
    else up.sendTrailers(trailersOf(request.trailers, nominated));
  }

  // --- The reply ---

  protected passInterim(status: number, fields: readonly HeaderField[]): boolean {
    const { exchange } = this;
    // RFC 9110 §15.2: never to HTTP/1.0.
    if (exchange.http10) return true;
    return exchange.writeInterim(`${statusLine(status)}${linesOf(fields)}\r\n`, this);
  }

  protected passHead(status: number, fields: readonly HeaderField[], length: number, ended: boolean) {
    const { exchange } = this;
    const { carrier, http10, client } = exchange;
    this.replyTrailers = NO_TRAILERS;
    this.left = length;
    this.mode = this.modeOf(status, length, ended);
    if (this.mode === UNTIL_CLOSE) carrier.keepAlive = false;
    let own = '';
    if (this.mode === CHUNKED) own = 'transfer-encoding: chunked\r\n';
    // RFC 9110 §8.6: not in 204, and said of a HEAD or a 304 only if the upstream said it.
    else if (length >= 0 && status !== 204) own = `content-length: ${length}\r\n`;
    else if (this.mode === BY_LENGTH) own = 'content-length: 0\r\n';
    const keepAlive = exchange.keepsClient();
    if (!keepAlive) own += 'Connection: close\r\n';
    else if (http10) own += 'Connection: keep-alive\r\n';
    own += exchange.replyLine;
    const text = `${statusLine(status)}${linesOf(fields, http10, exchange.id !== '')}${own}\r\n`;
    const ready = writeReply(client, text, NO_BYTES, 0, 0);
    if (this.mode === NONE || (this.mode === BY_LENGTH && this.left <= 0)) return this.finish();
    if (!ready) this.pauseReply();
  }

  private modeOf(status: number, length: number, ended: boolean): number {
    const { method, http10 } = this.exchange;
    if (hasNoBody(method, status)) return NONE;
    if (ended || length >= 0) return BY_LENGTH;
    // RFC 9112 §6.1: HTTP/1.0 knows no chunks.
    return http10 ? UNTIL_CLOSE : CHUNKED;
  }

  protected passData(bytes: Buffer, start: number, end: number) {
    if (start === end) return;
    const { client } = this.exchange;
    const ready =
      this.mode === CHUNKED ? this.passChunk(bytes, start, end) : writeLent(client, bytes, start, end);
    if (this.mode === BY_LENGTH) {
      this.left -= end - start;
      if (this.left <= 0) return this.finish();
    }
    if (!ready) this.pauseReply();
  }

  private passChunk(bytes: Buffer, start: number, end: number): boolean {
    const { client } = this.exchange;
    const size = `${(end - start).toString(16)}\r\n`;
    if (end - start > SMALL_CHUNK) {
      writeReply(client, size, bytes, start, end);
      return client.write('\r\n', 'latin1');
    }
    const chunk = Buffer.allocUnsafe(size.length + end - start + 2);
    chunk.write(size, 0, 'latin1');
    bytes.copy(chunk, size.length, start, end);
    chunk[chunk.length - 2] = 13;
    chunk[chunk.length - 1] = 10;
    gather(client);
    return client.write(chunk);
  }

  protected passTrailers(fields: readonly HeaderField[]): void {
    this.replyTrailers = [...fields];
  }

  protected passEnd(): void {
    const { exchange, mode } = this;
    if (mode === CHUNKED) exchange.client.write(lastChunk(this.replyTrailers), 'latin1');
    this.finish();
  }

  private finish(): void {
    const { exchange } = this;
    exchange.replied = true;
    // A request that was answered before its end is not sent any further.
    if (exchange.requestEnded) this.leave();
    else this.giveUp(false);
    exchange.replyPassed();
  }

  protected refuseRest(): void {}
}

function statusLine(status: number): string {
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`;
}

/** What passes on of a reply's fields; its length is said anew. */
function linesOf(fields: readonly HeaderField[], http10 = false, withoutId = false): string {
  let lines = '';
  for (const one of fields) {
    const kind = kindOf(one);
    if (isPseudo(kind) || kind === fieldKind.hopByHop || kind === fieldKind.te) continue;
    if (kind === fieldKind.contentLength || (http10 && one.name === 'trailer')) continue;
    if (withoutId && kind === fieldKind.requestId) continue;
    lines += lineOf(one);
  }
  return lines;
}
