// One connection to an upstream that speaks HTTP/1.1 or raw bytes: opened, lent to one user at a time, kept or ended.

import { connect as connectTcp, type Socket, type TcpNetConnectOpts } from 'node:net';
import * as tls from 'node:tls';
import { Fault } from '../faults.ts';
import { speaksTls, type UpstreamSettings } from '../rules/routes.ts';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import { destroyOnError } from '../socket/errors.ts';
import { endedByReset, hearLastWords, type LastWords } from '../socket/insides/last-words.ts';
import type { Announcement } from './announcement.ts';
import type { Balance, Endpoint } from './balance.ts';
import { asFault } from './faults.ts';
import { trustFor } from './trust.ts';

/** What became of a request whose reply never came. */
export type Loss =
  /** The upstream has not begun with it: it says so, or the request never left. */
  | 'unbegun'
  /** The connection is gone, and the upstream had not said anything about this request. */
  | 'unheard'
  /** The upstream has answered, perhaps only with a reset or with something malformed, and would do so again. */
  | 'answered';

/** Who is using a link. The calls come from the socket itself: none may throw. */
export interface UpstreamUser {
  /** Connected (and verified): write now. May be called before acquire() returns. */
  upstreamReady(link: UpstreamLink): void;
  /** No connection could be had at any address; nothing was sent. */
  upstreamFailed(fault: Fault): void;
  /** `bytes[0, end)` are lent: they are overwritten after the call. Copy what is kept. */
  upstreamData(bytes: Buffer, end: number): void;
  /** Whether a long read may come next; without it, always. A reader that is stalled holds what is read. */
  takesLongReads?(): boolean;
  /** All that was written has left; after socket.write() gave false. */
  upstreamDrained(): void;
  /** The upstream has sent its last byte; its receiving half may still be open. */
  upstreamEnded(): void;
  /**
   * The socket is gone, after an error or not; `loss` says what that means for a request without a reply. Not called
   * after release() or destroy().
   */
  upstreamClosed(error: Error | undefined, loss: Loss): void;
}

/** A connected socket in the hands of one user. */
export interface UpstreamLink {
  /** Half-open allowed. Never add listeners to it: write, end, pause and resume are the user's. */
  readonly socket: Socket;
  /** Whether it has carried an exchange before. Then it may have ended only because its keep-alive ran out. */
  readonly reused: boolean;
  readonly endpoint: Endpoint;
  /** From now on the calls go to `user`: the connection has become a tunnel. */
  handTo(user: UpstreamUser): void;
  /** The exchange is complete on both sides and the upstream keeps the connection: back to the pool. */
  release(): void;
  /** The connection is over, whatever is under way; nothing is called any more. */
  destroy(): void;
  /** As destroy(), and counted against the address. */
  fail(): void;
}

/** The idle connections to one endpoint, or those of them that one client's connection has to itself. */
export interface Pool {
  readonly endpoint: Endpoint;
  /** What each of them begins with. */
  readonly announcement: Announcement | undefined;
  /** The last in is the first out, so that the rest may grow old. */
  readonly idle: Link[];
  /** Of TLS, to be resumed. */
  session: Buffer | undefined;
}

/** What a connection needs of the pools that it belongs to. */
export interface LinkHome {
  readonly balance: Pick<Balance, 'report' | 'connected'>;
  readonly deadlines: Deadlines;
  readonly secureContext: () => tls.SecureContext;
  poolOf(endpoint: Endpoint, announcement: Announcement | undefined): Pool;
  /** Keeps a connection for the next request. False: there is no place for it. */
  keepIdle(link: Link): boolean;
}

const TCP_KEEPALIVE_MS = 60_000;

/**
 * The bytes of every upstream's socket land here: reads are synchronous, and users copy what they keep. A download is
 * paused after each read until its client has taken it. Larger reads make fewer pauses, and one stalled client holds more.
 */
const arrivals = Buffer.allocUnsafeSlow(256 * 1024);
/** Reads land here until one has filled it. Small replies never do. */
const shortArrivals = arrivals.subarray(0, 64 * 1024);

/** Where the reads of one connection land (`onread` of a socket). */
class Reading {
  link: Link | undefined = undefined;
  private readonly deadlines: Deadlines;
  private room = shortArrivals;
  private filled = false;
  private started = false;

  constructor(deadlines: Deadlines) {
    this.deadlines = deadlines;
  }

  /** Asked before the first read and after each; undefined: the same again. */
  buffer = (): Buffer => {
    const next = this.filled && this.link?.user?.takesLongReads?.() !== false ? arrivals : shortArrivals;
    if (next === this.room && this.started) return undefined as unknown as Buffer;
    this.started = true;
    this.room = next;
    return next;
  };

  callback = (size: number, bytes: Uint8Array): boolean => {
    const { socket, user } = this.link!;
    this.filled = size >= shortArrivals.length && user !== undefined;
    // Nobody asked for these bytes, and the next request would take them for its reply: the connection is not used again.
    if (user === undefined) socket.destroy();
    else this.give(user, bytes as Buffer, size);
    return true;
  };

  private give(user: UpstreamUser, bytes: Buffer, size: number): void {
    this.deadlines.enter();
    try {
      user.upstreamData(bytes, size);
    } finally {
      this.deadlines.leave();
    }
  }
}

/** Opens one connection; `failed` is called if it could not be had, otherwise everything goes to the user. */
export function open(
  home: LinkHome,
  endpoint: Endpoint,
  settings: UpstreamSettings,
  announcement: Announcement | undefined,
  user: UpstreamUser,
  failed: (fault: Fault) => void,
): Link {
  const { address } = endpoint;
  const { deadlines } = home;
  const pool = home.poolOf(endpoint, announcement);
  const secure = speaksTls(settings.protocol);
  const reading = new Reading(deadlines);
  const common = {
    host: endpoint.ip,
    port: address.port,
    noDelay: true,
    allowHalfOpen: true,
    onread: { buffer: reading.buffer, callback: reading.callback },
  };
  const socket = secure ? connectTls(common, pool, home.secureContext) : connectTcp(common);
  const deadline: Deadline = {
    at: deadlines.now() + settings.connectTimeoutMs,
    expired: () => socket.destroy(new Fault('connect-timeout', `${address.host}:${address.port}`)),
  };
  const link = new Link(home, pool, socket, user);
  reading.link = link;
  deadlines.watch(deadline);
  socket.once(secure ? 'secureConnect' : 'connect', () => {
    deadlines.forget(deadline);
    socket.setKeepAlive(true, TCP_KEEPALIVE_MS);
    if (announcement !== undefined) socket.write(announcement.header);
    link.connected();
  });
  socket.on('drain', () => link.user?.upstreamDrained());
  socket.on('end', () => link.ended());
  destroyOnError(socket, (cause) => {
    link.error = cause;
  });
  socket.once('close', () => {
    deadlines.forget(deadline);
    const lost = link.lost();
    if (lost === undefined) return;
    if (link.ready) lost.upstreamClosed(link.error, 'unheard');
    else failed(asFault(link.error, address, endpoint.protocol));
  });
  return link;
}

function connectTls(common: TcpNetConnectOpts, pool: Pool, usual: () => tls.SecureContext): tls.TLSSocket {
  const { address, tls: wanted } = pool.endpoint;
  const options: tls.ConnectionOptions & TcpNetConnectOpts = {
    ...common,
    ...trustFor(address.host, wanted, usual),
    ALPNProtocols: ['http/1.1'],
    ...(pool.session === undefined ? {} : { session: pool.session }),
  };
  const socket = tls.connect(options);
  socket.on('session', (session) => {
    pool.session = session;
  });
  return socket;
}

/** A connection to one endpoint, from its first attempt to its end. */
export class Link implements UpstreamLink {
  readonly socket: Socket;
  pool: Pool;
  /** Nobody, while it is idle and once it is over. */
  user: UpstreamUser | undefined;
  reused = false;
  ready = false;
  idleSince = 0;
  error: Error | undefined = undefined;
  private readonly home: LinkHome;
  private readonly lastWords: LastWords;

  constructor(home: LinkHome, pool: Pool, socket: Socket, user: UpstreamUser) {
    this.home = home;
    this.pool = pool;
    this.socket = socket;
    this.user = user;
    this.lastWords = hearLastWords(socket);
    pool.endpoint.active++;
  }

  get endpoint(): Endpoint {
    return this.pool.endpoint;
  }

  handTo(next: UpstreamUser): void {
    this.user = next;
  }

  release(): void {
    if (this.user === undefined) return;
    const { socket } = this;
    this.leave();
    this.home.balance.report(this.pool.endpoint, 'well');
    const open = !socket.destroyed && !socket.readableEnded && socket.writable;
    const sound = open && socket.writableLength === 0 && this.lastWords.error === undefined;
    if (!sound || !this.home.keepIdle(this)) {
      socket.destroy();
      return;
    }
    this.reused = true;
    // An idle socket must be read, or its end would not be noticed.
    socket.resume();
  }

  destroy(): void {
    if (this.user === undefined) return;
    this.leave();
    this.socket.destroy();
  }

  fail(): void {
    if (this.user === undefined) return;
    this.pool.session = undefined;
    this.home.balance.report(this.pool.endpoint, 'failed');
    this.destroy();
  }

  connected(): void {
    this.ready = true;
    this.home.balance.connected(this.pool.endpoint);
    this.user?.upstreamReady(this);
  }

  /** The upstream has sent its last byte. */
  ended(): void {
    const { user, socket, lastWords } = this;
    if (user === undefined) {
      socket.destroy();
      return;
    }
    if (endedByReset(lastWords)) {
      socket.destroy(lastWords.error);
      return;
    }
    this.noteSilentEnd();
    user.upstreamEnded();
    // A failed write has shown that it takes nothing any more.
    if (lastWords.error !== undefined) socket.destroy();
  }

  /** The socket is closed. Returns the user who has not been told yet. */
  lost(): UpstreamUser | undefined {
    const { user } = this;
    const { idle } = this.pool;
    const at = idle.indexOf(this);
    if (at !== -1) idle.splice(at, 1);
    if (user === undefined) return undefined;
    this.leave();
    if (this.ready && this.error !== undefined) this.noteSilentEnd();
    return user;
  }

  /** An upstream that accepts connections and closes them without a word is no better than one that refuses them. */
  private noteSilentEnd(): void {
    const { protocol } = this.pool.endpoint;
    const speaksHttp = protocol === 'http' || protocol === 'https';
    if (speaksHttp && !this.reused && this.socket.bytesRead === 0)
      this.home.balance.report(this.pool.endpoint, 'failed');
  }

  private leave(): void {
    this.user = undefined;
    this.pool.endpoint.active--;
  }
}
