// The side of an upstream that speaks HTTP/2: a stream for each attempt, and what comes on it, whatever the client speaks.

import { Fault } from '../faults.ts';
import type { Http2Stream, StreamUser } from '../http2/connection.ts';
import { errorCode } from '../http2/frames.ts';
import type { HeaderField } from '../http2/hpack.ts';
import type { Deadline } from '../socket/deadlines.ts';
import type { Announcement } from '../upstream/announcement.ts';
import type { Wish } from '../upstream/balance.ts';
import type { Company, UpstreamSession } from '../upstream/http2-pool.ts';
import { announcementOf } from './context.ts';
import type { Exchange, Guide, UpstreamSide } from './exchange.ts';
import { contentFieldsIn, editedFields, fieldsIn } from './head-fields.ts';
import { UNTAKEN } from './interim.ts';
import { Http2Content } from './reply-content.ts';
import { hasNoBody, lossOf, replyLengthOf } from './translation.ts';

/** For an upstream that has sent a whole reply to say that it was all. */
const END_MS = 5_000;

export abstract class ToHttp2 implements UpstreamSide, Company {
  abstract readonly converses: boolean;
  /** Of the head, as RFC 9113 §6.5.2 counts. */
  abstract readonly headBytes: number;
  abstract readonly restless: boolean;
  paused = false;

  protected abstract readonly exchange: Exchange;
  /** What the request is sent on, until that has closed. */
  protected up: Http2Stream | undefined = undefined;
  private attempt: Attempt | undefined = undefined;
  /** Sessions are not asked for back: who gets one too late finds that another number is up. */
  private turn = 0;

  /** Reads what has come of the body before anything of the request is sent. False: it is refused for that. */
  protected readEarly(): boolean {
    return true;
  }
  /** True: that was all of the request. */
  protected abstract sendHead(up: Http2Stream, scheme: string): boolean;
  /** What there is of the body, and its end if it has come. */
  protected abstract sendEarly(up: Http2Stream): void;
  /** False: more waits for the client than is kept. */
  protected abstract passInterim(status: number, fields: readonly HeaderField[]): boolean;
  /** `length`: -1 if none was said. */
  protected abstract passHead(
    status: number,
    fields: readonly HeaderField[],
    length: number,
    ended: boolean,
  ): void;
  protected abstract passData(bytes: Buffer, start: number, end: number, last: boolean): void;
  protected abstract passTrailers(fields: readonly HeaderField[]): void;
  protected abstract passEnd(): void;
  /** The stream has closed behind the whole reply, and the upstream wants no more of the request (RFC 9113 §8.1). */
  protected abstract refuseRest(): void;

  get connected(): boolean {
    return this.up !== undefined;
  }

  get wish(): Wish | undefined {
    return this.exchange.wish;
  }

  get announcement(): Announcement | undefined {
    const { connection, settings } = this.exchange;
    return announcementOf(connection, settings!);
  }

  begin(_again: boolean): void {
    const { context, settings } = this.exchange;
    const turn = ++this.turn;
    this.paused = false;
    context.http2Upstreams.acquire(
      settings!,
      (session) => {
        if (turn === this.turn) this.start(session);
      },
      (fault) => {
        if (turn === this.turn) this.exchange.fail(fault);
      },
      this,
    );
  }

  private start(session: UpstreamSession) {
    const { exchange, headBytes } = this;
    if (!session.takesHead(headBytes)) return exchange.fail(new Fault('headers-too-large'));
    if (!this.readEarly()) return;
    const attempt = new Attempt(this, session, headBytes, exchange.context.deadlines);
    const up = session.openStream(attempt, headBytes);
    attempt.stream = up;
    this.attempt = attempt;
    this.up = up;
    exchange.upstreamChosen(session.endpoint);
    const whole = this.sendHead(up, session.scheme);
    exchange.alive();
    if (whole) return;
    this.sendEarly(up);
    // Whose turn it is has just been settled.
    exchange.alive();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.up?.resume();
    this.exchange.alive();
  }

  pauseReply(): void {
    if (this.paused) return;
    this.paused = true;
    this.up?.pause();
  }

  giveUp(blamed: boolean): void {
    const { attempt } = this;
    this.turn++;
    this.up = undefined;
    this.attempt = undefined;
    attempt?.giveUp(blamed);
  }

  /** The client has its reply, whole: the stream may end by itself. */
  protected leave(): void {
    const { attempt } = this;
    this.up = undefined;
    this.attempt = undefined;
    attempt?.mayEnd();
  }

  // --- What comes on the stream of the attempt that counts ---

  counts(attempt: Attempt): boolean {
    return attempt === this.attempt && !this.exchange.failed;
  }

  interim(status: number, fields: readonly HeaderField[]): void {
    const { exchange } = this;
    exchange.hear();
    exchange.alive();
    if (exchange.responded || this.passInterim(status, fields)) return;
    exchange.fail(new Fault('upstream-malformed', UNTAKEN));
  }

  reply(up: Http2Stream, status: number, fields: readonly HeaderField[], ended: boolean) {
    const { exchange } = this;
    const length = replyLengthOf(fields);
    const bodiless = hasNoBody(exchange.method, status);
    if (length === undefined || (ended && length > 0 && !bodiless)) {
      up.resetMalformed();
      return;
    }
    if (!bodiless) up.expects = length;
    exchange.hear();
    const { guide } = exchange;
    exchange.upstreamStatus = status;
    if (guide !== undefined) {
      const taking = guide.takesReply(status, fieldsIn(fields));
      if (taking === 'content') return this.handContent(guide, up, fields, ended);
      if (taking !== 'passes') {
        this.giveUp(taking === 'blamed');
        return guide.proceed();
      }
    }
    exchange.dropKept();
    exchange.replied = ended;
    exchange.noteGrpcStatus(fields);
    const { edits } = exchange;
    exchange.beginReply(edits?.status ?? status);
    exchange.alive();
    if (edits === undefined) this.passHead(status, fields, length, ended);
    else this.passHead(edits.status, editedFields(fields, edits), length, ended);
  }

  private handContent(guide: Guide, up: Http2Stream, fields: readonly HeaderField[], ended: boolean): void {
    const attempt = this.attempt!;
    this.up = undefined;
    this.attempt = undefined;
    const content = new Http2Content(this.exchange, contentFieldsIn(fields), up, (blamed) =>
      attempt.giveUp(blamed),
    );
    attempt.content = content;
    if (ended) content.streamEnded();
    guide.takesContent(content);
  }

  data(bytes: Buffer, start: number, end: number, last: boolean): void {
    const { exchange } = this;
    exchange.sent += end - start;
    this.passData(bytes, start, end, last);
    if (this.up !== undefined) exchange.alive();
  }

  trailers(fields: readonly HeaderField[]): void {
    this.exchange.noteGrpcStatus(fields);
    this.passTrailers(fields);
  }

  ended(): void {
    this.passEnd();
  }

  drained(): void {
    this.exchange.resumeRequest();
    this.exchange.alive();
  }

  closed(up: Http2Stream) {
    const { exchange } = this;
    this.up = undefined;
    this.attempt = undefined;
    if (exchange.over || exchange.failed) return;
    if (exchange.replied) {
      if (!exchange.requestEnded) this.refuseRest();
      return;
    }
    exchange.lost(lossOf(up), reasonOf(up), resetCodeOf(up, exchange.responded));
  }
}

/** Who has the upstream's stream: of each attempt its own, so that what a lost one still says is nobody's. */
class Attempt implements StreamUser, Deadline {
  at = Number.POSITIVE_INFINITY;
  place = -1;
  stream: Http2Stream | undefined = undefined;
  /** Where its reply goes, if not to its side. */
  content: Http2Content | undefined = undefined;
  private readonly side: ToHttp2;
  private readonly session: UpstreamSession;
  private readonly headBytes: number;
  private readonly deadlines: Exchange['context']['deadlines'];
  private heard = false;
  private blamed = false;

  constructor(
    side: ToHttp2,
    session: UpstreamSession,
    headBytes: number,
    deadlines: Exchange['context']['deadlines'],
  ) {
    this.side = side;
    this.session = session;
    this.headBytes = headBytes;
    this.deadlines = deadlines;
  }

  giveUp(blamed: boolean): void {
    this.blamed = blamed;
    this.stream!.reset(errorCode.cancel);
  }

  /** The last bytes of the reply have come; that they were the last is often said by a frame of its own. */
  mayEnd(): void {
    const stream = this.stream!;
    if (stream.closed) return;
    stream.resume();
    this.at = this.deadlines.now() + END_MS;
    this.deadlines.watch(this);
  }

  expired(): void {
    this.stream!.reset(errorCode.cancel);
  }

  streamInterim(status: number, fields: readonly HeaderField[]): void {
    this.heard = true;
    if (this.side.counts(this)) this.side.interim(status, fields);
  }

  streamReplied(status: number, fields: readonly HeaderField[], ended: boolean): void {
    this.heard = true;
    if (this.side.counts(this)) this.side.reply(this.stream!, status, fields, ended);
  }

  streamData(bytes: Buffer, start: number, end: number, last: boolean): void {
    if (this.content !== undefined) this.content.data(bytes, start, end, last);
    else if (this.side.counts(this)) this.side.data(bytes, start, end, last);
  }

  streamTrailers(fields: readonly HeaderField[]): void {
    if (this.content !== undefined) this.content.streamEnded();
    else if (this.side.counts(this)) this.side.trailers(fields);
  }

  streamEnded(): void {
    if (this.content !== undefined) this.content.streamEnded();
    else if (this.side.counts(this)) this.side.ended();
  }

  streamDrained(): void {
    if (this.side.counts(this)) this.side.drained();
  }

  streamClosed(up: Http2Stream): void {
    this.deadlines.forget(this);
    this.session.release(this.heard, this.blamed, this.headBytes);
    this.content?.streamClosed(reasonOf(up));
    if (this.side.counts(this)) this.side.closed(up);
  }
}

function reasonOf({ end, code }: Http2Stream): Fault {
  const reason = `its HTTP/2 stream ended: ${end}, code ${code}`;
  return new Fault(end === 'malformed' ? 'upstream-malformed' : 'upstream-closed', reason);
}

/**
 * A reset of this one stream by a living upstream is its answer, and a client of HTTP/2 gets the same code. In the middle
 * of a reply even a reset that names no error is one.
 */
function resetCodeOf({ end, code }: Http2Stream, responded: boolean): number {
  if (end !== 'reset') return errorCode.noError;
  return responded && code === errorCode.noError ? errorCode.internalError : code;
}
