// The content of an upstream's reply on its way to something that makes another of it, in place of the client.

import { Fault } from '../faults.ts';
import { readBody } from '../http1/body.ts';
import type { BodyReader } from '../http1/body-reader.ts';
import { REFUSED } from '../http1/message.ts';
import type { Http2Stream } from '../http2/connection.ts';
import type { UpstreamSettings } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import { noteUpstreamFault } from '../upstream/faults.ts';
import type { UpstreamLink, UpstreamUser } from '../upstream/http1-pool.ts';
import type { ProxyContext } from './context.ts';
import type { SentField } from './head-fields.ts';

export interface ContentSink {
  /** The bytes are the sink's. False: enough waits; drained() says when it has gone. */
  take(bytes: Buffer): boolean;
  end(): void;
  fail(fault: Fault): void;
}

/** The exchange that it belongs to, as far as it is needed once the reply's head is known. */
export interface ContentOf {
  readonly context: ProxyContext;
  readonly settings: UpstreamSettings | undefined;
  readonly host: string;
  readonly method: string;
  readonly endsAt: number;
}

export abstract class ReplyContent implements Deadline {
  at = Number.POSITIVE_INFINITY;
  place = -1;
  /** All of it has come. */
  ended = false;
  /** Of the reply; what concerns the upstream's connection is not among them. */
  readonly fields: readonly SentField[];
  protected readonly context: ProxyContext;
  private readonly of: ContentOf;
  /** What came before there was a sink. */
  private pieces: Buffer[] = [];
  private sink: ContentSink | undefined = undefined;
  private fault: Fault | undefined = undefined;
  private paused = false;
  private over = false;

  constructor(of: ContentOf, fields: readonly SentField[]) {
    const { context, settings, host, method, endsAt } = of;
    this.of = { context, settings, host, method, endsAt };
    this.context = context;
    this.fields = fields;
    this.watch();
  }

  protected abstract pauseSource(): void;
  protected abstract resumeSource(): void;
  /** Nothing more of it is wanted. `blamed`: counted against the address. */
  protected abstract leaveSource(blamed: boolean): void;

  /** Takes out what has come so far. */
  bytes(): Buffer {
    const bytes = Buffer.concat(this.pieces);
    this.pieces = [];
    return bytes;
  }

  flowTo(sink: ContentSink): void {
    this.sink = sink;
    const bytes = this.bytes();
    if (bytes.length > 0) this.pass(bytes);
    if (this.fault !== undefined) sink.fail(this.fault);
    else if (this.ended) sink.end();
  }

  /** The sink takes more. */
  drained(): void {
    if (!this.paused || this.over) return;
    this.paused = false;
    this.watch();
    this.resumeSource();
  }

  /** Nobody wants it any more; also called when it was whole. */
  giveUp(): void {
    if (this.over) return;
    this.finish();
    this.leaveSource(false);
  }

  expired(): void {
    this.break(new Fault('upstream-timeout', 'in the middle of its reply'));
  }

  protected add(bytes: Buffer, start: number, end: number): void {
    if (this.over || end === start) return;
    // Copied: what upstreams are read into is lent.
    this.pass(Buffer.from(bytes.subarray(start, end)));
    if (!this.paused) this.watch();
  }

  private pass(bytes: Buffer): void {
    const free = this.sink === undefined ? this.keep(bytes) : this.sink.take(bytes);
    if (free || this.paused) return;
    this.paused = true;
    // From here on it is not the upstream that is waited for.
    this.at = this.of.endsAt;
    this.pauseSource();
  }

  private keep(bytes: Buffer): boolean {
    this.pieces.push(bytes);
    return true;
  }

  protected end(): void {
    if (this.over) return;
    this.ended = true;
    this.finish();
    this.sink?.end();
  }

  /** It will never be whole. */
  protected break(fault: Fault): void {
    if (this.over) return;
    this.finish();
    this.leaveSource(true);
    this.fault = fault;
    const { host, method, settings } = this.of;
    noteUpstreamFault(this.context, settings, fault, { host, method });
    this.sink?.fail(fault);
  }

  private watch(): void {
    const { deadlines } = this.context;
    this.at = Math.min(deadlines.after(this.of.settings!.readTimeoutMs), this.of.endsAt);
    if (this.place === -1) deadlines.watch(this);
  }

  private finish(): void {
    this.over = true;
    this.context.deadlines.forget(this);
  }
}

/** From a connection of HTTP/1.1, which goes back to its pool when the content was whole. */
export class Http1Content extends ReplyContent implements UpstreamUser {
  private readonly body: BodyReader;
  private readonly keeps: boolean;
  private link: UpstreamLink | undefined;

  /** `keeps`: the connection can carry another exchange. */
  constructor(
    of: ContentOf,
    fields: readonly SentField[],
    link: UpstreamLink,
    body: BodyReader,
    keeps: boolean,
  ) {
    super(of, fields);
    this.link = link;
    this.body = body;
    this.keeps = keeps;
    link.handTo(this);
  }

  upstreamReady(): void {}
  upstreamFailed(): void {}
  upstreamDrained(): void {}

  takesLongReads(): boolean {
    return false;
  }

  upstreamData(bytes: Buffer, end: number): void {
    this.take(bytes, 0, end);
  }

  take(bytes: Buffer, start: number, end: number) {
    const { body } = this;
    let pos = start;
    while (pos < end && !body.done) {
      pos = readBody(body, bytes, pos, end, this.context.limits);
      if (pos === REFUSED) return this.break(new Fault('upstream-malformed', body.refusal.reason));
      this.add(bytes, body.dataStart, body.dataEnd);
    }
    if (body.done) this.whole(pos === end);
  }

  private whole(nothingBehind: boolean): void {
    const { link } = this;
    this.link = undefined;
    link?.socket.resume();
    if (this.keeps && nothingBehind) link?.release();
    else link?.destroy();
    this.end();
  }

  upstreamEnded() {
    if (this.body.kind === 'until-close') return this.whole(false);
    this.upstreamClosed(undefined);
  }

  upstreamClosed(cause: Error | undefined): void {
    const fault =
      cause instanceof Fault ? cause : new Fault('upstream-closed', 'in the middle of its reply', { cause });
    this.break(fault);
  }

  protected pauseSource(): void {
    this.link?.socket.pause();
  }

  protected resumeSource(): void {
    this.link?.socket.resume();
  }

  protected leaveSource(blamed: boolean): void {
    const { link } = this;
    this.link = undefined;
    if (blamed) link?.fail();
    else link?.destroy();
  }
}

/** From a stream of HTTP/2; whoever has the stream says what comes on it. */
export class Http2Content extends ReplyContent {
  private readonly up: Http2Stream;
  private readonly leave: (blamed: boolean) => void;

  constructor(
    of: ContentOf,
    fields: readonly SentField[],
    up: Http2Stream,
    leave: (blamed: boolean) => void,
  ) {
    super(of, fields);
    this.up = up;
    this.leave = leave;
  }

  data(bytes: Buffer, start: number, end: number, last: boolean): void {
    this.add(bytes, start, end);
    if (last) this.end();
  }

  streamEnded(): void {
    this.end();
  }

  streamClosed(fault: Fault): void {
    this.break(fault);
  }

  protected pauseSource(): void {
    this.up.pause();
  }

  protected resumeSource(): void {
    this.up.resume();
  }

  protected leaveSource(blamed: boolean): void {
    if (!this.up.closed) this.leave(blamed);
  }
}
