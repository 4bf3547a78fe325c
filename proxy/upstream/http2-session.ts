// One HTTP/2 session to an upstream: connecting, the requests that wait for it, its streams, its clocks, its end.

import { connect as connectTcp, type Socket, type TcpNetConnectOpts } from 'node:net';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { Fault } from '../faults.ts';
import {
  type Http2Connection,
  type Http2Stream,
  openHttp2Connection,
  type StreamUser,
} from '../http2/connection.ts';
import { replyFieldLimitsOf } from '../http2/fields.ts';
import { errorCode } from '../http2/frames.ts';
import type { BlockLimits } from '../http2/hpack.ts';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import { destroyOnError } from '../socket/errors.ts';
import { hearLastWords } from '../socket/insides/last-words.ts';
import type { Announcement } from './announcement.ts';
import type { Endpoint } from './balance.ts';
import { asFault } from './faults.ts';
import { foreignBytes } from './foreign-bytes.ts';
import type { HeadMemory } from './head-memory.ts';
import type { Upstreams } from './http1-pool.ts';
import { trustFor } from './trust.ts';

export interface UpstreamSession {
  readonly scheme: 'http' | 'https';
  readonly endpoint: Endpoint;
  /** Whether its connection is gone, and all its streams with it. */
  readonly lost: boolean;
  /** Whether the upstream takes a head of this size, by what it has announced and by what it has done. */
  takesHead(bytes: number): boolean;
  /** Begins a stream; the caller sends its head, of about `headBytes`, at once. */
  openStream(user: StreamUser, headBytes?: number): Http2Stream;
  /**
   * To be called once for each stream, when it has closed; `heard` if the upstream spoke on it, `failed` if it
   * was given up for what the upstream did or did not do. `headBytes`: as openStream() was told.
   */
  release(heard: boolean, failed?: boolean, headBytes?: number): void;
}

export interface Waiter {
  readonly taken: (session: UpstreamSession) => void;
  readonly failed: (fault: Fault) => void;
}

/** The sessions to one address. */
export interface Pool {
  readonly endpoint: Endpoint;
  /** What each of them begins with, as it is one client's connection's alone. */
  readonly announcement: Announcement | undefined;
  readonly tls: boolean;
  readonly sessions: Session[];
  readonly heads: HeadMemory;
}

/** What all sessions share. */
export interface SessionSettings {
  readonly deadlines: Deadlines;
  readonly upstreams: Pick<Upstreams, 'balance' | 'secureContext'> & Partial<Pick<Upstreams, 'relieve'>>;
  readonly quietMs: number;
  readonly silenceMs: number;
  readonly pingTimeoutMs: number;
  readonly idleMs: number;
  readonly fieldLimits: BlockLimits;
  /** For requests that find no room in the session that they have waited for. */
  requeue(pool: Pool, session: Session, waiter: Waiter): void;
  /** The last session of a pool is gone. */
  emptied(pool: Pool): void;
}

/** Per stream at first. A client that takes nothing can make us hold this much of one reply. */
const STREAM_WINDOW = 64 * 1024;
/** It grows to this while a client takes all that comes: with a round trip of 50 ms a download moves 80 MiB/s. */
const LARGEST_STREAM_WINDOW = 4 * 1024 * 1024;
/** What all streams together may have on their way. Given back on receipt. */
const CONNECTION_WINDOW = 16 * 1024 * 1024;
/**
 * However many an upstream allows: what a session may lose at once, and its visitors may reset at once. nghttp2 and with it
 * Node ends a session over 1,000 resets, nginx over twice its 128 streams begun in one turn.
 */
const MOST_STREAMS = 256;
/** Browsers send more only with unusually large cookies, and every server accepts this much. */
export const LARGE_HEAD = 4 * 1024;
/** As connections of HTTP/1.1. */
const OWN_IDLE_MS = 4_000;
const NEVER = Number.POSITIVE_INFINITY;

/** Bytes from upstreams land here, every connection's: they are read in one go. */
const arrivals = Buffer.allocUnsafeSlow(65_536);

/**
 * PINGs are sparing on purpose: gRPC servers take more than two without data in five minutes for an attack and
 * answer with GOAWAY (gRFC A8). One that rides along with a new stream is followed by a reply, which clears the count.
 */
export class Session implements UpstreamSession {
  readonly socket: Socket;
  readonly scheme: 'http' | 'https';
  readonly endpoint: Endpoint;
  /** Of requests that have been known to end sessions. */
  readonly apart: boolean;
  readonly connectTimeoutMs: number;
  readonly waiting: Waiter[] = [];
  /** The upstream has sent its SETTINGS. */
  ready = false;

  private readonly pool: Pool;
  private readonly settings: SessionSettings;
  /** Once the socket is connected. */
  private http2: Http2Connection | undefined;
  private streams = 0;
  private heardAt: number;
  private pinging = false;
  private failure: Error | undefined;
  private gone = false;
  /** Sizes of the large heads of the streams that are open. */
  private readonly largeHeads: number[] = [];
  private judged = false;
  private readonly clock: Deadline;
  private readonly pong: Deadline;

  constructor(pool: Pool, settings: SessionSettings, connectTimeoutMs: number, apart: boolean) {
    const { deadlines } = settings;
    this.pool = pool;
    this.settings = settings;
    this.connectTimeoutMs = connectTimeoutMs;
    this.apart = apart;
    this.scheme = pool.tls ? 'https' : 'http';
    this.endpoint = pool.endpoint;
    this.heardAt = deadlines.now();
    this.clock = { at: deadlines.now() + connectTimeoutMs, expired: () => this.onClock() };
    this.pong = { at: NEVER, expired: () => this.fail(new Error('the upstream does not answer PING')) };
    this.socket = openSocket(pool, settings.upstreams, (bytes, end) => this.receive(bytes, end));
    deadlines.watch(this.clock);
    this.socket.once(pool.tls ? 'secureConnect' : 'connect', () => this.onConnect());
    destroyOnError(this.socket, (error) => {
      this.failure ??= error;
    });
    this.socket.once('close', () => this.onGone());
  }

  // --- Its streams ---

  get lost(): boolean {
    return this.socket.destroyed || this.http2?.closed === true;
  }

  get hasRoom(): boolean {
    const { http2, streams } = this;
    if (http2 === undefined || http2.leaving || http2.isStarved()) return false;
    return streams < MOST_STREAMS && streams < http2.peerMaxStreams;
  }

  takesHead(bytes: number): boolean {
    return bytes <= this.http2!.peerMaxHeadBytes && !this.pool.heads.refuses(bytes);
  }

  openStream(user: StreamUser, headBytes = 0): Http2Stream {
    const { deadlines, quietMs, silenceMs } = this.settings;
    if (headBytes > LARGE_HEAD) this.largeHeads.push(headBytes);
    this.pool.endpoint.active++;
    if (this.streams++ === 0) this.watch(silenceMs);
    if (deadlines.instant() - this.heardAt > quietMs) this.ping();
    return this.http2!.openStream(user);
  }

  release(heard: boolean, failed = false, headBytes = 0): void {
    const { endpoint } = this.pool;
    const { deadlines, upstreams } = this.settings;
    if (headBytes > LARGE_HEAD) this.judgeHead(heard, headBytes);
    this.streams--;
    endpoint.active--;
    if (heard) this.heardAt = deadlines.instant();
    if (failed || this.lost) upstreams.balance.report(endpoint, 'failed');
    else if (heard) upstreams.balance.report(endpoint, 'well');
    if (this.streams === 0) this.watch(this.idleMs);
  }

  /** If a head has ended the session, it was the largest one that was unanswered. */
  private judgeHead(heard: boolean, bytes: number): void {
    const { heads } = this.pool;
    const { largeHeads } = this;
    const { blame } = this.http2!;
    const ended = blame !== errorCode.noError || this.lost;
    if (heard) heads.taken();
    else if (!this.judged && ended && bytes === Math.max(...largeHeads)) {
      this.judged = true;
      if (blame !== errorCode.noError) heads.refused(bytes);
      else heads.suspected(bytes);
    }
    largeHeads.splice(largeHeads.indexOf(bytes), 1);
  }

  // --- Its beginning ---

  wait(waiter: Waiter): void {
    this.waiting.push(waiter);
    this.pool.endpoint.active++;
  }

  private leaveQueue(): Waiter[] {
    this.pool.endpoint.active -= this.waiting.length;
    return this.waiting.splice(0);
  }

  private onConnect(): void {
    const { socket, settings } = this;
    if (this.pool.tls && (socket as TLSSocket).alpnProtocol !== 'h2') {
      this.fail(
        new Error('the upstream does not offer HTTP/2 (ALPN h2): write https:// if it speaks HTTP/1.1'),
      );
      return;
    }
    if (this.pool.announcement !== undefined) socket.write(this.pool.announcement.header);
    this.http2 = openHttp2Connection({
      socket,
      role: 'client',
      deadlines: settings.deadlines,
      streamWindow: STREAM_WINDOW,
      largestStreamWindow: LARGEST_STREAM_WINDOW,
      connectionWindow: CONNECTION_WINDOW,
      fieldLimits: replyFieldLimitsOf(settings.fieldLimits),
      user: {
        // A peer that has sent SETTINGS speaks HTTP/2 (RFC 9113 §3.4), and its limits are known.
        greeted: () => this.becomeReady(),
        connectionClosed: (error) => {
          this.failure ??= error;
          this.onGone();
        },
      },
    });
  }

  private receive(bytes: Buffer, end: number): void {
    if (!this.ready) this.noteForeign(bytes, end);
    const { deadlines } = this.settings;
    deadlines.enter();
    try {
      this.http2?.receive(bytes, end);
    } finally {
      deadlines.leave();
    }
  }

  private noteForeign(bytes: Buffer, end: number): void {
    const { protocol, address } = this.pool.endpoint;
    const spoken = foreignBytes(protocol, bytes, 0, end);
    if (spoken === undefined) return;
    this.failure ??= new Fault('upstream-refused', `${address.host}:${address.port}: ${spoken}`);
  }

  private becomeReady(): void {
    const { endpoint } = this.pool;
    const { upstreams, requeue } = this.settings;
    const http2 = this.http2!;
    this.ready = true;
    upstreams.balance.connected(endpoint);
    this.watch(this.idleMs);
    for (const waiter of this.leaveQueue()) {
      if (this.hasRoom) waiter.taken(this);
      else if (http2.peerMaxStreams < 1)
        waiter.failed(new Fault('upstream-unavailable', 'it allows no streams'));
      else requeue(this.pool, this, waiter);
    }
    if (endpoint.retired) http2.end();
  }

  // --- Its clocks ---

  private onClock(): void {
    if (!this.ready) {
      this.fail(new Fault('connect-timeout', `no HTTP/2 within ${this.connectTimeoutMs} ms`));
    } else if (this.streams === 0) this.http2!.end();
    else {
      this.ping();
      this.watch(this.settings.silenceMs);
    }
  }

  /** What one client has to itself is not worth keeping for as long as what all share. */
  private get idleMs(): number {
    const { idleMs } = this.settings;
    return this.pool.announcement === undefined ? idleMs : Math.min(idleMs, OWN_IDLE_MS);
  }

  private watch(ms: number): void {
    const { deadlines } = this.settings;
    this.clock.at = deadlines.now() + ms;
    if (!this.lost) deadlines.watch(this.clock);
  }

  private ping(): void {
    if (this.pinging || this.lost) return;
    const { deadlines, pingTimeoutMs } = this.settings;
    this.pinging = true;
    this.pong.at = deadlines.now() + pingTimeoutMs;
    deadlines.watch(this.pong);
    this.http2!.ping(() => {
      this.pinging = false;
      deadlines.forget(this.pong);
      this.heardAt = deadlines.now();
    });
  }

  // --- Its end ---

  /** Lets open streams finish. */
  end(): void {
    this.http2?.end();
  }

  private fail(error: Error): void {
    this.failure ??= error;
    if (this.http2 === undefined) this.socket.destroy();
    else this.http2.destroy(error);
  }

  /** It takes no more streams. Its socket may still be sending its last frames. */
  private onGone(): void {
    if (this.gone) return;
    this.gone = true;
    const { endpoint, sessions } = this.pool;
    const { deadlines, upstreams } = this.settings;
    deadlines.forget(this.clock);
    deadlines.forget(this.pong);
    sessions.splice(sessions.indexOf(this), 1);
    if (sessions.length === 0) this.settings.emptied(this.pool);
    const failure = this.failure ?? new Error('it closed before it spoke HTTP/2');
    const fault = asFault(failure, endpoint.address, endpoint.protocol);
    if (!this.ready && fault.side === 'upstream') upstreams.balance.report(endpoint, 'unreachable');
    if (fault.side === 'ingress') upstreams.relieve?.();
    for (const waiter of this.leaveQueue()) waiter.failed(fault);
  }
}

function openSocket(
  pool: Pool,
  trust: Pick<Upstreams, 'secureContext'>,
  arrived: (bytes: Buffer, end: number) => void,
): Socket | TLSSocket {
  const { ip, address, tls } = pool.endpoint;
  const { host, port } = address;
  const onread = {
    buffer: arrivals,
    callback(size: number, bytes: Uint8Array): boolean {
      arrived(bytes as Buffer, size);
      return true;
    },
  };
  const common: TcpNetConnectOpts = { host: ip, port, noDelay: true, onread };
  if (!pool.tls) return hearing(connectTcp(common));
  const options: ConnectionOptions & TcpNetConnectOpts = {
    ...common,
    ...trustFor(host, tls, trust.secureContext),
    ALPNProtocols: ['h2'],
  };
  return hearing(connectTls(options));
}

/** Replies and GOAWAY that came before a reset count. */
function hearing<S extends Socket>(socket: S): S {
  hearLastWords(socket);
  return socket;
}
