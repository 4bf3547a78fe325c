// A stream of an HTTP/2 upstream in the place of an HTTP/1.1 connection to it: for clients that speak HTTP/1.1.

import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { Writable } from 'node:stream';
import { Fault } from '../faults.ts';
import { readBody } from '../http1/body.ts';
import { beginRequestBody, createBodyReader } from '../http1/body-reader.ts';
import { field } from '../http1/known-fields.ts';
import {
  createMessageHead,
  type HeadLimits,
  INCOMPLETE,
  LINE,
  lowerName,
  type MessageHead,
  REFUSED,
  valueAt,
} from '../http1/message.ts';
import { parseRequestHead } from '../http1/request-head.ts';
import type { Http2Stream, StreamUser } from '../http2/connection.ts';
import { isPseudo, kindOf, lineOf } from '../http2/fields.ts';
import { errorCode } from '../http2/frames.ts';
import type { HeaderField } from '../http2/hpack.ts';
import type { Address, UpstreamSettings } from '../rules/routes.ts';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import type { Acquisition, Loss, UpstreamUser } from '../upstream/http1-pool.ts';
import type { Http2Upstreams, UpstreamSession } from '../upstream/http2-pool.ts';
import { hasNoBody, lossOf, replyLengthOf, trailersOf } from './translation.ts';

/** Who has the link: as an HTTP/1.1 connection's, and spoken to in HTTP/1.1. */
export interface Http2LinkUser extends Omit<UpstreamUser, 'upstreamReady'> {
  upstreamReady(link: Http2Link): void;
}

/** What a relay uses of a socket to an upstream. */
interface RequestSocket
  extends Pick<
    Socket,
    'write' | 'cork' | 'uncork' | 'writableCorked' | 'writableNeedDrain' | 'writableLength' | 'destroyed'
  > {
  pause(): void;
  resume(): void;
}

/** One exchange: the request's head is to be written, whole, as soon as upstreamReady() hands the link over. */
export interface Http2Link {
  /** Takes the request as HTTP/1.1 text, one that is known to be well-formed. */
  readonly socket: RequestSocket;
  readonly address: Address;
  /** The exchange is complete on both sides. */
  release(): void;
  /** The exchange is over, whatever is under way; nothing is called any more. */
  destroy(): void;
  /** As destroy(), and counted against the address. */
  fail(): void;
}

/** A request that was read once is not measured again. */
const NO_LIMITS: HeadLimits = { maxHeaderBytes: Number.MAX_SAFE_INTEGER, maxHeaderCount: 10_000 };
const SHORT_HEAD = 1_024;
/** For an upstream that has sent a whole reply to say that it was all. */
const END_MS = 5_000;

/** Filled by each parse, and used up before the next. */
const requestHead = createMessageHead();

/** As Upstreams.acquire(), for upstreams that speak HTTP/2. `headText`: what will be written first. */
export function acquireHttp2Link(
  upstreams: Http2Upstreams,
  deadlines: Deadlines,
  settings: UpstreamSettings,
  user: Http2LinkUser,
  headText = '',
): Acquisition {
  const headBytes = headBytesOf(headText);
  let abandoned = false;
  upstreams.acquire(
    settings,
    (session) => {
      if (abandoned) return;
      if (session.takesHead(headBytes)) {
        user.upstreamReady(new StreamLink(session, headBytes, deadlines, user));
      } else user.upstreamFailed(new Fault('headers-too-large'));
    },
    (fault) => {
      if (!abandoned) user.upstreamFailed(fault);
    },
    { headBytes, restless: false },
  );
  return {
    abandon() {
      abandoned = true;
    },
  };
}

/** The writing half of a socket, whose bytes become frames at once: there is nothing to be gained by waiting. */
class RequestWriter extends Writable {
  private readonly link: StreamLink;

  constructor(link: StreamLink) {
    super();
    this.link = link;
    this.on('drain', () => link.drained());
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, taken: () => void): void {
    this.link.takeRequest(chunk, taken);
  }

  override cork(): void {}
  override uncork(): void {}

  pause(): void {
    this.link.stream?.pause();
  }

  resume(): void {
    this.link.stream?.resume();
  }
}

class StreamLink implements Http2Link, StreamUser, Deadline {
  at = Number.POSITIVE_INFINITY;
  place = -1;
  readonly socket: RequestWriter;
  stream: Http2Stream | undefined;

  private readonly session: UpstreamSession;
  private readonly headBytes: number;
  private readonly deadlines: Deadlines;
  private user: Http2LinkUser | undefined;
  private method = '';
  private readonly body = createBodyReader();
  /** Told when the stream has room again. */
  private taken: (() => void) | undefined;
  private heard = false;
  private failed = false;
  /** The reply leaves in chunks. */
  private chunked = false;
  private trailers = '';

  constructor(session: UpstreamSession, headBytes: number, deadlines: Deadlines, user: Http2LinkUser) {
    this.session = session;
    this.headBytes = headBytes;
    this.deadlines = deadlines;
    this.user = user;
    this.socket = new RequestWriter(this);
  }

  get address(): Address {
    return this.session.address;
  }

  release(): void {
    this.user = undefined;
    const { stream } = this;
    if (stream === undefined || stream.closed) return;
    // The last bytes of the reply have come; that they were the last is often said by a frame of its own.
    stream.resume();
    this.at = this.deadlines.now() + END_MS;
    this.deadlines.watch(this);
  }

  expired(): void {
    this.stream?.reset(errorCode.cancel);
  }

  destroy(): void {
    this.user = undefined;
    this.socket.destroy();
    this.stream?.reset(errorCode.cancel);
  }

  fail(): void {
    this.failed = true;
    this.destroy();
  }

  // --- The request ---

  takeRequest(bytes: Buffer, taken: () => void): void {
    const from = this.stream === undefined ? this.begin(bytes) : 0;
    if (from !== REFUSED && this.passBody(bytes, from)) taken();
    else this.taken = taken;
  }

  drained(): void {
    this.user?.upstreamDrained();
  }

  /** The position after the head, or REFUSED. */
  private begin(bytes: Buffer): number {
    const size = parseRequestHead(requestHead, bytes, 0, bytes.length, NO_LIMITS);
    if (size === REFUSED || size === INCOMPLETE) {
      this.close(new Error('what was written is not a request'), 'answered');
      return REFUSED;
    }
    this.method = requestHead.method;
    beginRequestBody(this.body, requestHead);
    this.stream = this.session.openStream(this, this.headBytes);
    sendRequestHead(this.stream, requestHead, this.session.scheme, this.body.done);
    return size;
  }

  /** Whether there is room for more. */
  private passBody(bytes: Buffer, from: number): boolean {
    const { body } = this;
    const stream = this.stream!;
    if (body.done) return true;
    let free = true;
    for (let pos = from; pos < bytes.length && !body.done; ) {
      const next = readBody(body, bytes, pos, bytes.length, NO_LIMITS);
      if (next === REFUSED) {
        stream.reset(errorCode.internalError);
        return false;
      }
      const last = body.done && body.kind === 'length';
      if (body.dataEnd > body.dataStart) free = stream.sendData(bytes, body.dataStart, body.dataEnd, last);
      pos = next;
    }
    if (!body.done || body.kind === 'length') return free;
    if (body.trailers === undefined) stream.sendEnd();
    else stream.sendTrailers(trailersOf(body.trailers));
    return free;
  }

  streamDrained(): void {
    const { taken } = this;
    this.taken = undefined;
    taken?.();
  }

  // --- The reply ---

  streamInterim(status: number, fields: readonly HeaderField[]): void {
    this.heard = true;
    this.deliver(`${headText(status, fields)}\r\n`);
  }

  streamReplied(status: number, fields: readonly HeaderField[], ended: boolean): void {
    this.heard = true;
    let framing = '';
    const length = replyLengthOf(fields);
    const bodiless = hasNoBody(this.method, status);
    if (length === undefined || (ended && length > 0 && !bodiless)) {
      this.stream!.resetMalformed();
      return;
    }
    if (!bodiless) {
      this.stream!.expects = length;
      this.chunked = !ended && length === -1;
      if (this.chunked) framing = 'transfer-encoding: chunked\r\n';
      else if (length === -1) framing = 'content-length: 0\r\n';
    }
    this.deliver(`${headText(status, fields)}${framing}\r\n`);
  }

  streamData(bytes: Buffer, start: number, end: number): void {
    const { user } = this;
    if (user === undefined || start === end) return;
    if (!this.chunked) {
      user.upstreamData(bytes.subarray(start, end), end - start);
      return;
    }
    const size = `${(end - start).toString(16)}\r\n`;
    const chunk = Buffer.allocUnsafe(size.length + end - start + 2);
    chunk.write(size, 0, 'latin1');
    bytes.copy(chunk, size.length, start, end);
    chunk.write('\r\n', chunk.length - 2, 'latin1');
    user.upstreamData(chunk, chunk.length);
  }

  streamTrailers(fields: readonly HeaderField[]): void {
    this.trailers = linesOf(fields);
  }

  streamEnded(): void {
    if (this.chunked) this.deliver(`0\r\n${this.trailers}\r\n`);
  }

  streamClosed(stream: Http2Stream): void {
    this.deadlines.forget(this);
    this.session.release(this.heard, this.failed, this.headBytes);
    this.close(reasonOf(stream), lossOf(stream));
  }

  private close(error: Error, loss: Loss): void {
    const { user } = this;
    if (user === undefined) return;
    this.user = undefined;
    this.socket.destroy();
    user.upstreamClosed(error, loss);
  }

  private deliver(text: string): void {
    const bytes = Buffer.from(text, 'latin1');
    this.user?.upstreamData(bytes, bytes.length);
  }
}

function reasonOf({ end, code }: Http2Stream): Fault {
  const reason = `its HTTP/2 stream ended: ${end}, code ${code}`;
  return new Fault(end === 'malformed' ? 'upstream-malformed' : 'upstream-closed', reason);
}

function sendRequestHead(stream: Http2Stream, head: MessageHead, scheme: string, ended: boolean): void {
  stream.beginHead();
  stream.addField(':method', head.method);
  stream.addField(':scheme', scheme);
  stream.addField(':authority', head.host);
  stream.addField(':path', head.target);
  for (let line = 0; line < head.count; line++) {
    const id = head.lines[line * LINE + 4]!;
    if (id === field.host || id === field.transferEncoding) continue;
    // RFC 7541 §7.1.3: not for anybody's table.
    const secret = id === field.authorization || id === field.cookie;
    stream.addField(lowerName(head, line), valueAt(head, line), secret);
  }
  // RFC 9110 §10.1.4: trailers are passed on to those who take them, and without it gRPC servers refuse a call.
  stream.addField('te', 'trailers');
  stream.endHead(ended ? 'last' : 'open');
}

/**
 * As RFC 9113 §6.5.2 counts: 32 for each field where the text has four, and for what sendRequestHead() adds. The lines of
 * a short head are not counted: every server takes as much.
 */
function headBytesOf(text: string): number {
  if (text.length < SHORT_HEAD) return text.length;
  let bytes = text.length + 152;
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) bytes += 28;
  return bytes;
}

/** The start line and the fields, without the empty line. */
function headText(status: number, fields: readonly HeaderField[]): string {
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${linesOf(fields)}`;
}

/** What of them is not to be passed on is left out by whoever has the link, as of any reply in HTTP/1.1. */
function linesOf(fields: readonly HeaderField[]): string {
  let lines = '';
  for (const field of fields) if (!isPseudo(kindOf(field))) lines += lineOf(field);
  return lines;
}
