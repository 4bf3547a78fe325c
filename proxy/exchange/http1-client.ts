// Clients of HTTP/1.1 (RFC 9112): their connections, one request after another, and each to where it belongs.

import { Fault, type FaultCode } from '../faults.ts';
import { parseHost, sameAuthority } from '../http1/authority.ts';
import { createMessageHead, INCOMPLETE, type MessageHead, REFUSED } from '../http1/message.ts';
import { parseRequestHead } from '../http1/request-head.ts';
import { coveredBy, type ForwardMatch, speaksHttp2 } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import { destroyOnError } from '../socket/errors.ts';
import { LINGER_MS, Lingering } from '../socket/lingering.ts';
import { createPacer, type Pacer } from '../socket/pacing.ts';
import { addPiece, beginPieces, gathered, type Pieces } from '../socket/pieces.ts';
import { onData } from '../socket/reads.ts';
import { createRoster, type Roster, type RosterMember } from '../socket/roster.ts';
import { flush, flushGathered } from '../socket/writes.ts';
import type { Tunnel } from '../tunnel/tunnel.ts';
import {
  type Acceptor,
  type ClientConnection,
  FIRST_WORDS_MS,
  type Holder,
  LAST_REQUEST_MS,
  type ProxyContext,
} from './context.ts';
import { type Asked, decide, isRefusal } from './decide.ts';
import { forwardedBefore, forwardedFields, forwardedLines, headerLines, requestHeadText } from './headers.ts';
import { type Http1Carrier, Http1Exchange } from './http1-exchange.ts';
import { FamilyLines, Http1Ruled, type Http1Sides } from './http1-ruled.ts';
import { Http1ToHttp1 } from './http1-to-http1.ts';
import { Http1ToHttp2 } from './http1-to-http2.ts';
import { type ExchangeObserver, observerOf } from './observe.ts';
import { followRules } from './ruled.ts';

export interface Http1Acceptor extends Acceptor {
  /** `first`: bytes that were already read from the connection. */
  accept(connection: ClientConnection, first?: Buffer): void;
}

/** Waiting for a request. */
const IDLE = 0;
/** Between the first and the last byte of a request head. */
const HEAD = 1;
/** From a request head to the end of its reply. */
const EXCHANGE = 2;
/** The protocol was switched. */
const TUNNEL = 3;
/** The last reply was written; what still comes is thrown away. */
const CLOSING = 4;
const CLOSED = 5;
/** A request has come, and waits for its turn of the event loop. */
const IN_LINE = 6;

type Writable<T> = { -readonly [name in keyof T]: T[name] };

/** What all connections share. */
interface Shared {
  readonly context: ProxyContext;
  readonly observer: ExchangeObserver | undefined;
  readonly clients: Roster<Http1Client>;
  /** Filled by each parse, and used up before the next. */
  readonly head: MessageHead;
  readonly asked: Writable<Asked>;
  readonly pacer: Pacer<Http1Client>;
  draining: boolean;
}

export function createHttp1Acceptor(context: ProxyContext): Http1Acceptor {
  const shared: Shared = {
    context,
    observer: observerOf(context),
    clients: createRoster(),
    head: createMessageHead(),
    asked: { method: '', host: undefined, path: undefined, contentLength: -1, protocol: undefined },
    pacer: createPacer((client) => client.beginInTurn(), flushGathered),
    draining: false,
  };
  return {
    accept: (connection, first) => new Http1Client(shared, connection).begin(first),
    drain() {
      shared.draining = true;
      shared.clients.each((client) => client.mayLeave());
    },
    get open() {
      return shared.clients.size;
    },
    destroyAll() {
      shared.clients.each((client) => client.cutOff());
    },
  };
}

class Http1Client implements Http1Carrier, Http1Sides, RosterMember, Holder {
  place = -1;
  readonly clock: Deadline;
  keepAlive = true;
  paused = false;

  private readonly shared: Shared;
  private readonly connection: ClientConnection;
  private readonly exchange: Http1Exchange;
  readonly asItComes: Http1ToHttp1;
  /** Made with the first request that rules decide about. */
  private familyLines: FamilyLines | undefined = undefined;
  /** Made with the first request for such an upstream. */
  private framesSide: Http1ToHttp2 | undefined = undefined;
  private state = IDLE;
  /** Whether a request has been read on it. */
  private used = false;
  /** Bytes of the client's that wait: an unfinished head, a body without an upstream, or pipelined requests. */
  private held: Buffer | undefined = undefined;
  /** The unfinished head, once it has come in more than one piece; `held` is what of it has been read. */
  private pieces: Pieces | undefined = undefined;
  private tunnel: Tunnel | undefined = undefined;
  /** Once the last reply was written, and more has come. */
  private lingering: Lingering | undefined = undefined;

  /** The last Host, what it means here, and what the upstream is told of the client because of it. */
  private hostText = '';
  private host: string | undefined = undefined;
  private hostCovered = false;
  private forwardedText: string | undefined = undefined;
  private forwardedPairs: readonly (readonly [string, string])[] | undefined = undefined;

  constructor(shared: Shared, connection: ClientConnection) {
    this.shared = shared;
    this.connection = connection;
    this.clock = { at: 0, expired: () => this.expired(), place: -1 };
    this.exchange = new Http1Exchange(shared.context, connection, this, shared.observer);
    this.asItComes = new Http1ToHttp1(this.exchange);
  }

  begin(first: Buffer | undefined) {
    const { shared, connection, clock } = this;
    const { deadlines, limits } = shared.context;
    const { socket } = connection;
    shared.clients.add(this);
    connection.holder = this;
    clock.at = deadlines.after(limits.headerTimeoutMs);
    deadlines.watch(clock);
    onData(socket, (bytes) => {
      deadlines.enter();
      try {
        this.take(bytes);
      } finally {
        deadlines.leave();
      }
    });
    socket.on('drain', () => this.drained());
    socket.on('end', () => this.ended());
    destroyOnError(socket);
    socket.on('close', () => this.closed('client-closed'));
    if (socket.destroyed) return this.closed('client-closed');
    if (first !== undefined) this.take(first);
  }

  get draining(): boolean {
    return this.shared.draining;
  }

  // --- What arrives ---

  private take(bytes: Buffer) {
    const { exchange } = this;
    switch (this.state) {
      case IDLE:
        // Pipelined requests that are held come first, and begin in a moment.
        if (this.held !== undefined || this.shared.pacer.admits(this))
          return this.readRequest(this.behindHeld(bytes));
        this.state = IN_LINE;
        this.held = bytes;
        this.clock.at = Number.POSITIVE_INFINITY;
        return;
      case IN_LINE:
        return this.hold(bytes);
      case HEAD:
        return this.moreOfHead(bytes);
      case EXCHANGE:
        if (exchange.answer?.reads) return exchange.answer.clientData(bytes);
        if (exchange.requestEnded || exchange.side?.connected !== true) return this.hold(bytes);
        return exchange.side.takeBody(bytes);
      case TUNNEL:
        return this.tunnel!.clientData(bytes);
      case CLOSING:
        return this.linger(bytes.length);
      default:
        return;
    }
  }

  /** Its turn has come, unless the client has gone meanwhile. */
  beginInTurn(): void {
    if (this.state !== IN_LINE) return;
    this.state = IDLE;
    const { deadlines } = this.shared.context;
    deadlines.enter();
    try {
      this.readHeld();
    } finally {
      deadlines.leave();
    }
  }

  /** Pipelined requests (RFC 9112 §9.3.2), or a body whose upstream is not connected yet, wait where the client is. */
  hold(bytes: Buffer): void {
    this.held = this.behindHeld(bytes);
    this.pause();
  }

  holdsNothing(): boolean {
    return this.held === undefined;
  }

  takeHeld(): Buffer | undefined {
    const { held } = this;
    this.held = undefined;
    this.resume();
    return held;
  }

  private behindHeld(bytes: Buffer): Buffer {
    const { held } = this;
    return held === undefined ? bytes : Buffer.concat([held, bytes]);
  }

  pause(): void {
    if (this.paused) return;
    this.paused = true;
    this.connection.socket.pause();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.connection.socket.resume();
  }

  private moreOfHead(bytes: Buffer) {
    const { limits } = this.shared.context;
    const held = this.held!;
    this.pieces ??= beginPieces(held, 0, held.length);
    if (!addPiece(this.pieces, bytes, 0, bytes.length, limits.maxHeaderBytes)) return;
    this.readRequest(gathered(this.pieces));
  }

  private readRequest(bytes: Buffer) {
    const { head, context } = this.shared;
    this.held = undefined;
    const taken = parseRequestHead(head, bytes, 0, bytes.length, context.limits);
    if (taken === INCOMPLETE) {
      this.held = bytes;
      if (this.state === HEAD) return;
      this.state = HEAD;
      this.clock.at = context.deadlines.after(context.limits.headerTimeoutMs);
      return;
    }
    this.state = EXCHANGE;
    this.used = true;
    this.pieces = undefined;
    if (taken === REFUSED) {
      return this.exchange.beginUnread(head, head.refusal.code, head.refusal.reason);
    }
    if (taken < bytes.length) this.held = bytes.subarray(taken);
    this.keepAlive = !this.shared.draining && !head.close && (head.minor === 1 || head.keepAlive);
    this.beginExchange(head);
  }

  // --- What becomes of a request ---

  private beginExchange(head: MessageHead) {
    const { exchange, shared } = this;
    const { asked, context } = shared;
    const hostText = head.hasHost ? head.host : this.hostWithoutField(head);
    if (hostText !== this.hostText) this.noteHost(hostText);
    const { host } = this;
    exchange.begin(head, host ?? hostText);
    asked.method = head.method;
    asked.host = host;
    asked.path = host === undefined ? undefined : originForm(head, hostText);
    asked.contentLength = head.contentLength;
    const decision = decide(asked, this.hostCovered, context);
    if (isRefusal(decision)) return this.refuse(head, decision);
    if (decision.answeredBy !== undefined) return exchange.answerHere(decision, head, asked.path!);
    if (decision.upstream === undefined) {
      const ruled = new Http1Ruled(exchange, head, asked.path!, hostText, this);
      return followRules(ruled, context.rules!, decision);
    }
    this.forward(head, asked.path!, decision);
  }

  private refuse({ method }: MessageHead, code: FaultCode) {
    const { exchange, host } = this;
    switch (code) {
      case 'bad-request':
        return exchange.refuse(
          code,
          host === undefined ? 'the Host is malformed' : 'the target does not fit',
        );
      case 'method-refused':
        return exchange.refuse(code, method);
      case 'body-too-large':
        return exchange.refuse(code, 'by its length');
      default:
        exchange.fail(new Fault(code));
    }
  }

  private noteHost(hostText: string): void {
    const { connection } = this;
    this.hostText = hostText;
    this.host = parseHost(hostText);
    this.forwardedPairs = undefined;
    this.forwardedText = undefined;
    if (this.host === undefined) return;
    this.hostCovered = coveredBy(connection.certificateNames, this.host);
  }

  /** HTTP/1.0 without Host: a target in absolute form names the host, and otherwise the handshake did. */
  private hostWithoutField({ target }: MessageHead): string {
    return ABSOLUTE_FORM.exec(target)?.[2] ?? this.connection.serverName;
  }

  private forward(head: MessageHead, target: string, match: ForwardMatch) {
    const { exchange } = this;
    if (speaksHttp2(match.upstream.protocol)) {
      // No connection of HTTP/2 becomes another protocol's (RFC 9113 §8.6).
      exchange.upgrading = undefined;
      const side = this.inFrames();
      const own = exchange.ownFields;
      const family = this.forwardedFields(head);
      side.keepHead(head, target, this.hostText, own.length === 0 ? family : [...family, ...own]);
      return exchange.forward(match, side);
    }
    const own = this.forwardedLines(head) + exchange.ownLines;
    // RFC 9112 §3.2: what leaves is HTTP/1.1, which has a Host.
    const hosted = head.hasHost ? own : `Host: ${this.hostText}\r\n${own}`;
    exchange.headText = requestHeadText(head, target, hosted, exchange.upgrading !== undefined);
    exchange.forward(match, this.asItComes);
  }

  get family(): FamilyLines {
    this.familyLines ??= new FamilyLines();
    return this.familyLines;
  }

  inFrames(): Http1ToHttp2 {
    this.framesSide ??= new Http1ToHttp2(this.exchange);
    return this.framesSide;
  }

  private forwardedLines(head: MessageHead): string {
    if (this.connection.trustedClient) return headerLines(this.forwardedFields(head));
    this.forwardedText ??= forwardedLines(this.connection, this.hostText);
    return this.forwardedText;
  }

  private forwardedFields(head: MessageHead): readonly (readonly [string, string])[] {
    const { connection, hostText } = this;
    if (connection.trustedClient) return forwardedFields(connection, hostText, forwardedBefore(head));
    this.forwardedPairs ??= forwardedFields(connection, hostText, {});
    return this.forwardedPairs;
  }

  becomeTunnel(begin: () => Tunnel): Tunnel {
    this.state = TUNNEL;
    this.clock.at = Number.POSITIVE_INFINITY;
    this.tunnel = begin();
    return this.tunnel;
  }

  // --- After a reply ---

  replyWritten() {
    if (!this.keepAlive || !this.exchange.requestEnded) return this.end();
    this.state = IDLE;
    const { deadlines, limits } = this.shared.context;
    this.clock.at = deadlines.after(limits.keepAliveTimeoutMs);
    // Who does not take replies gets no more of them to pile up.
    if (this.connection.socket.writableNeedDrain) this.pause();
    else if (this.held !== undefined) process.nextTick(readHeldOf, this);
    else this.resume();
  }

  /** The next pipelined request; not at once, or a thousand of them would be a thousand frames deep. */
  readHeld(): void {
    if (this.state !== IDLE) return;
    const held = this.takeHeld();
    if (held !== undefined) this.readRequest(held);
  }

  end(): void {
    this.state = CLOSING;
    this.held = undefined;
    const { deadlines } = this.shared.context;
    this.clock.at = deadlines.now() + LINGER_MS;
    this.connection.socket.end();
    // RFC 9112 §9.6: closing with bytes unread would reset the connection, and the reply with it.
    this.resume();
  }

  /** What is still sent is thrown away, and lets the client have more time to come to read its reply. */
  private linger(size: number) {
    const { deadlines } = this.shared.context;
    this.lingering ??= new Lingering(deadlines);
    if (this.lingering.tires(size)) return this.destroy();
    this.clock.at = this.lingering.at;
  }

  // --- The socket ---

  private drained() {
    if (this.state === TUNNEL) return this.tunnel!.clientDrained();
    if (this.state === IDLE) return this.readHeld();
    this.exchange.drained();
  }

  /** In the middle of an exchange the end of a client's bytes is taken for its going away, as other proxies do. */
  private ended() {
    if (this.state === TUNNEL) return this.tunnel!.clientEnded();
    if (this.state === EXCHANGE || this.state === IN_LINE) return this.destroy();
    this.connection.socket.end();
  }

  destroy(): void {
    const { socket } = this.connection;
    flush(socket);
    socket.destroy();
  }

  /** Whatever is under way. */
  cutOff(): void {
    this.closed('draining');
    this.destroy();
  }

  private closed(why: 'client-closed' | 'draining') {
    if (this.state === CLOSED) return;
    this.tunnel?.clientClosed();
    if (this.state === TUNNEL) this.exchange.end();
    else this.exchange.clientGone(why);
    this.state = CLOSED;
    this.held = undefined;
    this.pieces = undefined;
    this.shared.context.deadlines.forget(this.clock);
    this.shared.clients.remove(this);
  }

  // --- When it has to go ---

  /** The next request may be on its way: it is answered, and told that it was the last. */
  mayLeave(): void {
    if (this.state !== IDLE) return;
    this.clock.at = Math.min(this.clock.at, this.shared.context.deadlines.now() + LAST_REQUEST_MS);
  }

  /** Told from the clock, which is set anew where idleness begins. */
  idleSince(): number {
    const { limits } = this.shared.context;
    const { at } = this.clock;
    switch (this.state) {
      case IDLE:
        if (this.held !== undefined) return Number.POSITIVE_INFINITY;
        return this.used ? at - limits.keepAliveTimeoutMs : at - limits.headerTimeoutMs + FIRST_WORDS_MS;
      case HEAD:
        return at - limits.headerTimeoutMs + FIRST_WORDS_MS;
      case CLOSING:
        return at - LINGER_MS;
      default:
        return Number.POSITIVE_INFINITY;
    }
  }

  leave(): void {
    if (this.state !== CLOSING) this.end();
    this.connection.socket.destroySoon();
  }

  private expired() {
    const { deadlines } = this.shared.context;
    deadlines.watch(this.clock);
    // Whatever comes of it, it must not last for ever.
    this.clock.at = deadlines.now() + LINGER_MS;
    switch (this.state) {
      case HEAD:
        this.state = EXCHANGE;
        this.pieces = undefined;
        return this.exchange.beginUnread(undefined, 'request-timeout', 'its head');
      case EXCHANGE:
        return this.exchange.expired();
      case IDLE:
        return this.end();
      default:
        this.destroy();
    }
  }
}

function readHeldOf(client: Http1Client): void {
  client.readHeld();
}

/** RFC 9112 §3.2: origin-form as it is, absolute-form if it names the same host, asterisk-form for OPTIONS. */
function originForm(head: MessageHead, hostText: string): string | undefined {
  const { target, method } = head;
  if (target.startsWith('/')) return target;
  if (target === '*') return method === 'OPTIONS' ? target : undefined;
  // CONNECT has a form of its own, and is refused for itself.
  if (method === 'CONNECT') return target;
  const absolute = ABSOLUTE_FORM.exec(target);
  if (absolute === null || !sameAuthority(absolute[2]!, hostText, absolute[1]!.toLowerCase()))
    return undefined;
  return `${absolute[3] ?? '/'}${absolute[4] ?? ''}`;
}

const ABSOLUTE_FORM = /^(https?):\/\/([^/?]+)(\/[^?]*)?(\?.*)?$/i;
