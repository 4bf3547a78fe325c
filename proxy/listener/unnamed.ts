// Clients that named no protocol in their handshake: their first bytes decide between HTTP/1, HTTP/2 and raw bytes.

import type { AccessEntry } from '../exchange/access-entry.ts';
import {
  announcementOf,
  type ClientConnection,
  FIRST_WORDS_MS,
  type Holder,
  type ProxyContext,
} from '../exchange/context.ts';
import { lastReply } from '../exchange/fault-reply.ts';
import type { Fault } from '../faults.ts';
import type { UpstreamSettings } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import { destroyOnError } from '../socket/errors.ts';
import { createTunnel, joinClient, logFault, socketClient, type Tunnel } from '../tunnel/tunnel.ts';
import type { Acquisition, UpstreamLink, UpstreamUser } from '../upstream/http1-pool.ts';
import {
  createLineGuard,
  createOpeningReader,
  judgeGreeting,
  type LineGuard,
  type Opening,
} from './opening.ts';
import { beginAccess, createTunnelHolder, logAtClose } from './raw-bytes.ts';

type Accept = (connection: ClientConnection, first?: Buffer) => void;

export interface HttpAcceptors {
  readonly http1: Accept;
  /** Undefined where HTTP/2 is not offered: its preface is then answered as HTTP/1.1 answers it, with 505. */
  readonly http2: Accept | undefined;
}

/** After this long without a byte from the client the upstream is connected, as it may be the one that speaks first. */
const SILENCE_MS = 100;
/** The time for a client to read that it was too slow. */
const LINGER_MS = 2_000;

/**
 * Waits until the first bytes show the protocol (see OpeningReader). HTTP goes to its acceptor with every byte. Anything
 * else is spliced where the upstream is a bare `host:port`; elsewhere it is refused as malformed HTTP/1.1.
 */
export function acceptUnnamed(
  context: ProxyContext,
  connection: ClientConnection,
  settings: UpstreamSettings,
  acceptors: HttpAcceptors,
): void {
  new Unnamed(context, connection, settings, acceptors).begin();
}

class Unnamed implements UpstreamUser, Deadline, Holder {
  at: number;
  place = -1;

  private readonly context: ProxyContext;
  private readonly connection: ClientConnection;
  private readonly settings: UpstreamSettings;
  private readonly acceptors: HttpAcceptors;
  private readonly access: AccessEntry | undefined;
  private readonly opening = createOpeningReader();
  /** Undefined once the upstream has shown that it does not speak HTTP. */
  private guard: LineGuard | undefined = createLineGuard();
  private readonly mayBeRaw: boolean;
  private seen: Buffer[] = [];
  private seenBytes = 0;
  private silence: NodeJS.Timeout | undefined;
  /** Of an upstream that may speak first. */
  private attempt: Acquisition | undefined;
  private link: UpstreamLink | undefined;
  private greeting: Buffer = Buffer.alloc(0);
  private tunnel: Tunnel | undefined;
  private readonly begunAt: number;
  /** The connection was handed to an exchange or a tunnel, or is over. */
  private decided = false;

  constructor(
    context: ProxyContext,
    connection: ClientConnection,
    settings: UpstreamSettings,
    acceptors: HttpAcceptors,
  ) {
    this.context = context;
    this.connection = connection;
    this.settings = settings;
    this.acceptors = acceptors;
    this.mayBeRaw = settings.protocol === 'auto';
    this.access = this.mayBeRaw ? beginAccess(context, connection) : undefined;
    const { deadlines, limits } = context;
    this.begunAt = deadlines.now();
    // The upstream may be the one to speak first, so the client may be silent as long as in any tunnel.
    this.at = deadlines.after(
      this.mayBeRaw ? Math.max(settings.readTimeoutMs, limits.clientIdleTimeoutMs) : limits.headerTimeoutMs,
    );
  }

  begin(): void {
    const { socket } = this.connection;
    socket.on('data', this.look);
    socket.on('end', this.ended);
    destroyOnError(socket);
    socket.on('close', this.closed);
    this.connection.holder = this;
    this.context.deadlines.watch(this);
    if (this.mayBeRaw) this.silence = setTimeout(() => this.invite(), SILENCE_MS);
  }

  /** The first bytes may be half of a request, which has a time limit of its own. */
  idleSince(): number {
    const silent = this.seenBytes === 0 && this.greeting.length === 0;
    return silent ? this.begunAt + FIRST_WORDS_MS : Number.POSITIVE_INFINITY;
  }

  leave(): void {
    this.connection.socket.destroySoon();
  }

  // --- The client ---

  private readonly look = (bytes: Buffer): void => {
    if (this.seen.length === 0) {
      this.at = this.context.deadlines.after(this.context.limits.headerTimeoutMs);
    }
    this.seen.push(bytes);
    this.seenBytes += bytes.length;
    const verdict = this.opening.read(bytes) ?? this.tooLong();
    if (verdict !== undefined) this.decide(verdict);
  };

  /** No head may be that long: the acceptor of HTTP/1.1 gives that answer. */
  private tooLong(): Opening | undefined {
    return this.seenBytes > this.context.limits.maxHeaderBytes ? 'http1' : undefined;
  }

  private readonly ended = () => {
    // The client has ended its request in the middle: nobody can answer it.
    if (!this.mayBeRaw || this.opening.end() !== 'other') return this.giveUp();
    this.splice();
    this.tunnel?.clientEnded();
  };

  private readonly closed = (): void => {
    if (this.decided) return;
    this.stopLooking();
    this.logAccess();
    this.dropUpstream();
  };

  expired(): void {
    const { socket } = this.connection;
    if (this.decided || this.seen.length === 0) {
      socket.destroy();
      return;
    }
    if (this.access !== undefined) this.access.fault = 'request-timeout';
    this.giveUp(lastReply('request-timeout'));
  }

  /** Gives the request up, and tells the client if it has begun one. */
  private giveUp(reply?: string): void {
    const { socket } = this.connection;
    const { deadlines } = this.context;
    this.stopLooking();
    this.logAccess();
    this.dropUpstream();
    this.at = deadlines.now() + LINGER_MS;
    deadlines.watch(this);
    socket.once('close', () => deadlines.forget(this));
    if (reply === undefined) socket.end();
    else socket.end(reply, 'latin1');
    // RFC 9112 §9.6: closing with bytes unread would reset the connection, and the reply with it.
    socket.resume();
  }

  private decide(opening: Opening) {
    if (opening === 'other' && this.mayBeRaw) return this.splice();
    const { http1, http2 = http1 } = this.acceptors;
    const first = this.takeSeen();
    this.stopLooking();
    this.dropUpstream();
    if (opening === 'http2') http2(this.connection, first);
    else http1(this.connection, first);
  }

  private takeSeen(): Buffer | undefined {
    const { seen } = this;
    this.seen = [];
    return seen.length > 1 ? Buffer.concat(seen) : seen[0];
  }

  private stopLooking(): void {
    const { socket } = this.connection;
    this.decided = true;
    clearTimeout(this.silence);
    this.context.deadlines.forget(this);
    socket.off('data', this.look);
    socket.off('end', this.ended);
    socket.off('close', this.closed);
  }

  // --- The upstream, which may be the one that speaks first (SMTP, MySQL, SSH) ---

  /** What the client has sent decides, if it has begun to speak. */
  private invite(): void {
    if (this.opening.blank) this.connect(this);
  }

  private connect(user: UpstreamUser): void {
    const announcement = announcementOf(this.connection, this.settings);
    this.attempt = this.context.upstreams.acquire(this.settings, user, { fresh: true, announcement });
  }

  upstreamReady(link: UpstreamLink): void {
    this.attempt = undefined;
    this.link = link;
    if (this.tunnel === undefined) return;
    link.handTo(this.tunnel);
    this.tunnel.upstreamReady(link);
  }

  upstreamFailed(fault: Fault) {
    if (this.tunnel !== undefined) return this.tunnel.upstreamFailed(fault);
    if (this.access !== undefined) this.access.fault = fault.code;
    logFault(this.context, fault, this.settings);
    this.connection.socket.destroy();
  }

  upstreamData(bytes: Buffer, end: number) {
    this.greeting = Buffer.concat([this.greeting, bytes.subarray(0, end)]);
    const greeting = judgeGreeting(this.greeting);
    if (greeting === undefined) return;
    if (greeting === 'other') {
      this.guard = undefined;
      return this.splice();
    }
    // A server of HTTP does not speak first: the client is still to begin.
    this.dropUpstream();
    if (this.seen.length > 0) return;
    this.at = this.context.deadlines.after(this.context.limits.headerTimeoutMs);
  }

  upstreamDrained(): void {}

  upstreamEnded(): void {
    this.upstreamClosed(undefined);
  }

  /** The upstream, which was to speak first, has ended without a word or in the middle of one. */
  upstreamClosed(error: Error | undefined): void {
    const { socket } = this.connection;
    const { link, greeting } = this;
    this.link = undefined;
    link?.destroy();
    if (this.access !== undefined && error !== undefined) this.access.fault = 'upstream-closed';
    if (error === undefined && greeting.length > 0) socket.write(greeting);
    if (error === undefined) this.giveUp();
    else socket.destroy();
  }

  private dropUpstream(): void {
    this.attempt?.abandon();
    this.link?.destroy();
    this.attempt = undefined;
    this.link = undefined;
    this.greeting = Buffer.alloc(0);
  }

  // --- Raw bytes ---

  private splice(): void {
    const { context, settings, access, link, greeting } = this;
    const { socket } = this.connection;
    const first = this.takeSeen();
    this.stopLooking();
    const tunnel = createTunnel({ context, client: socketClient(socket), settings, access }, link);
    this.tunnel = tunnel;
    this.connection.holder = createTunnelHolder(context, socket, tunnel);
    logAtClose(context, socket, access);
    joinClient(socket, tunnel, (bytes) => this.passOn(bytes));
    socket.once('close', () => this.attempt?.abandon());
    if (link !== undefined) {
      if (access !== undefined) access.upstream = link.endpoint.address;
      link.handTo(tunnel);
      if (greeting.length > 0) tunnel.upstreamData(greeting, greeting.length);
    } else if (this.attempt === undefined) this.connect(tunnel);
    if (first !== undefined) this.passOn(first);
  }

  private passOn(bytes: Buffer) {
    if (this.guard === undefined || this.guard.passes(bytes)) return this.tunnel!.clientData(bytes);
    const { log } = this.context;
    log.debug({ client: this.connection.clientAddress }, 'a request in the guise of raw bytes refused');
    this.connection.socket.destroy();
  }

  // --- The access log ---

  /** Writes a line if an upstream was asked for, or if something has gone wrong. */
  private logAccess(): void {
    const { access, context } = this;
    const asked = this.attempt !== undefined || this.link !== undefined;
    if (access === undefined || (!asked && access.fault === undefined)) return;
    context.accessLog?.write(access, context.deadlines.now());
  }
}
