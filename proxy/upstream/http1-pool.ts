// Connections to upstreams, made wherever the balance says, and a pool of the idle ones that speak HTTP/1.1.

import { connect as connectTcp, type Socket, type TcpNetConnectOpts } from 'node:net';
import * as tls from 'node:tls';
import { type Log, silentLog } from '../../src/lib/log.ts';
import { Fault } from '../faults.ts';
import { type Address, speaksTls, type UpstreamSettings } from '../rules/routes.ts';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import { destroyOnError } from '../socket/errors.ts';
import { endedByReset, hearLastWords, type LastWords } from '../socket/insides/last-words.ts';
import { type Balance, createBalance, type Endpoint } from './balance.ts';
import { asFault } from './faults.ts';
import { createHealthChecks } from './health.ts';
import { createNames, type Names } from './names.ts';
import { createTroubles, logChange, type UpstreamChange } from './troubles.ts';
import { createTrustOfUpstreams, trustFor } from './trust.ts';
import { createUpstreamWatch } from './watch.ts';

/** What became of a request whose reply never came. */
export type Loss =
  /** The upstream has not begun with it: it says so, or the request never left. */
  | 'unbegun'
  /** The connection is gone, and the upstream had not said anything about this request. */
  | 'unheard'
  /** The upstream has answered, if only with a reset or with what is no reply, and would do so again. */
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
  /** Whether it has carried an exchange before: then its end may be no more than a keep-alive that ran out. */
  readonly reused: boolean;
  /** For the log. */
  readonly address: Address;
  /** From now on the calls go to `user`: the connection has become a tunnel. */
  handTo(user: UpstreamUser): void;
  /** The exchange is complete on both sides and the upstream keeps the connection: back to the pool. */
  release(): void;
  /** The connection is over, whatever is under way; nothing is called any more. */
  destroy(): void;
  /** As destroy(), and counted against the address. */
  fail(): void;
}

export interface Acquisition {
  /** Gives up the attempt; once upstreamReady() was called, use the link's destroy(). */
  abandon(): void;
}

export interface AcquireOptions {
  /** Do not take an idle connection: for a retry, and for tunnels. */
  readonly fresh?: boolean;
}

export interface Upstreams {
  /** HTTP/1.1 or raw bytes; TLS for https (ALPN http/1.1) and grpcs. The outcome arrives at `user`, perhaps at once. */
  acquire(settings: UpstreamSettings, user: UpstreamUser, options?: AcquireOptions): Acquisition;
  /** Which address is next: for protocols that keep their own connections. */
  readonly balance: Omit<Balance, 'close' | 'serve'>;
  /** These are the upstreams of all routes: health checks begin and end, and connections to others are let go. */
  serve(list: readonly UpstreamSettings[]): void;
  /** Trust for TLS to upstreams: Node's and the system's roots, and the CA given. */
  secureContext(): tls.SecureContext;
  /** Ends idle connections now: their descriptors are needed. Returns how many. */
  closeIdle(): number;
  /** No descriptor could be had: idle connections are ended, and whoever else may have some is told. */
  relieve(): void;
  /** Ends idle connections, now and as they come back, and all health checks. */
  close(): void;
}

export interface UpstreamsOptions {
  readonly deadlines: Deadlines;
  /** PEM; trusted beside the system's roots. */
  readonly upstreamCa?: string | undefined;
  /** An idle connection is closed after this; the shortest keep-alive among common servers is 5 s. */
  readonly idleTimeoutMs?: number;
  /** Where the addresses of names come from. */
  readonly names?: Names;
  /** Told when an upstream begins to fail and when that ends; upstreams are then looked at without waiting for visitors. */
  readonly onChange?: ((change: UpstreamChange) => void) | undefined;
  /** For how long one must have been well before that is said. */
  readonly quietMs?: number | undefined;
  /** No descriptor could be had: room may be made elsewhere before the next attempt. */
  readonly onExhausted?: () => void;
  readonly log?: Log;
}

const IDLE_TIMEOUT_MS = 4_000;
/** What has been ended for want of descriptors is closed after this. */
const RELIEF_MS = 20;
/** As many as a burst may have needed: with fewer, a steady crowd of clients would connect anew for most requests. */
const MAX_IDLE_PER_ADDRESS = 4_096;
const TCP_KEEPALIVE_MS = 60_000;

/**
 * Bytes from upstreams land here, every socket's: reads are synchronous, and users copy what they keep. A download is
 * paused after each read until its client has taken it: the larger, the rarer, and the more one stalled client holds.
 */
const arrivals = Buffer.allocUnsafeSlow(256 * 1024);
/** Where reads land until one has filled it, which a small reply never does. */
const shortArrivals = arrivals.subarray(0, 64 * 1024);

interface Pool {
  readonly endpoint: Endpoint;
  /** The last in is the first out, so that the rest may grow old. */
  readonly idle: Link[];
  /** Of TLS, to be resumed. */
  session: Buffer | undefined;
}

interface Link extends UpstreamLink {
  reused: boolean;
  user: UpstreamUser | undefined;
  idleSince: number;
}

export function createUpstreams(options: UpstreamsOptions): Upstreams {
  const { deadlines, upstreamCa, idleTimeoutMs = IDLE_TIMEOUT_MS, names = createNames() } = options;
  const pools = new Map<Endpoint, Pool>();
  const secureContext = createTrustOfUpstreams(upstreamCa);
  const log = options.log ?? silentLog;
  const checks = createHealthChecks({ secureContext, log });
  const troubles = createTroubles(options.onChange ?? ((change) => logChange(log, change)), options.quietMs);
  const balance = createBalance({ deadlines, names, check: checks.begin, troubles });
  const watch = createUpstreamWatch({
    troubles,
    names,
    secureContext,
    looks: options.onChange !== undefined,
  });
  let closed = false;
  const reaper: Deadline = { at: Number.POSITIVE_INFINITY, expired: reap };
  balance.onRetired(closePool);

  return {
    acquire,
    balance,
    serve(list) {
      balance.serve(list);
      watch.serve(list);
    },
    secureContext,
    closeIdle,
    relieve,
    close() {
      closed = true;
      watch.close();
      balance.close();
      deadlines.forget(reaper);
      for (const endpoint of [...pools.keys()]) closePool(endpoint);
    },
  };

  function acquire(settings: UpstreamSettings, user: UpstreamUser, how?: AcquireOptions): Acquisition {
    if (!balance.isResolved(settings)) return acquireResolved(settings, user, how);
    const endpoint = balance.pick(settings);
    if (endpoint === undefined) {
      user.upstreamFailed(balance.noneFault(settings));
      return NOTHING_TO_ABANDON;
    }
    if (how?.fresh !== true) {
      const link = takeIdle(endpoint);
      if (link !== undefined) {
        link.user = user;
        endpoint.active++;
        user.upstreamReady(link);
        return NOTHING_TO_ABANDON;
      }
    }
    return connectToOneOf(settings, endpoint, user);
  }

  function acquireResolved(
    settings: UpstreamSettings,
    user: UpstreamUser,
    how: AcquireOptions | undefined,
  ): Acquisition {
    let abandoned = false;
    let attempt: Acquisition | undefined;
    balance.resolve(settings, () => {
      if (abandoned) return;
      if (balance.isResolved(settings)) attempt = acquire(settings, user, how);
      else user.upstreamFailed(balance.noneFault(settings));
    });
    return {
      abandon() {
        abandoned = true;
        attempt?.abandon();
      },
    };
  }

  function poolOf(endpoint: Endpoint): Pool {
    let pool = pools.get(endpoint);
    if (pool === undefined) {
      pool = { endpoint, idle: [], session: undefined };
      // What is retired has no place to keep anything.
      if (!endpoint.retired && !closed) pools.set(endpoint, pool);
    }
    return pool;
  }

  function closePool(endpoint: Endpoint) {
    const pool = pools.get(endpoint);
    pools.delete(endpoint);
    for (const link of pool?.idle.splice(0) ?? []) link.socket.destroy();
  }

  function closeIdle(): number {
    let closed = 0;
    for (const { idle } of pools.values()) {
      for (const link of idle.splice(0)) {
        link.socket.destroy();
        closed++;
      }
    }
    return closed;
  }

  function relieve(): void {
    closeIdle();
    options.onExhausted?.();
  }

  function takeIdle(endpoint: Endpoint): Link | undefined {
    const idle = pools.get(endpoint)?.idle;
    if (idle === undefined) return undefined;
    const oldest = deadlines.coarse() - idleTimeoutMs;
    for (let link = idle.pop(); link !== undefined; link = idle.pop()) {
      if (link.idleSince > oldest && !link.socket.destroyed && link.socket.writable) return link;
      link.socket.destroy();
    }
    return undefined;
  }

  /**
   * A failed connection did no harm: the other addresses are tried in turn, and when none is left, those that the name
   * has come to have meanwhile. No attempt begins later than one connect timeout after the first one may have ended.
   */
  function connectToOneOf(settings: UpstreamSettings, first: Endpoint, user: UpstreamUser): Acquisition {
    const tried = new Set<Endpoint>();
    const lastStart = deadlines.now() + 2 * settings.connectTimeoutMs;
    let abandoned = false;
    let askedAnew = false;
    let relieved = false;
    let opening: Acquisition | undefined;
    const attempt = (endpoint: Endpoint) => {
      tried.add(endpoint);
      opening = open(settings, poolOf(endpoint), user, (fault) => {
        if (abandoned) return;
        // Too few descriptors or ports is no failing of the upstream's.
        if (fault.side === 'upstream') balance.report(endpoint, 'unreachable');
        else if (!relieved) {
          relieved = true;
          relieve();
          setTimeout(() => {
            if (!abandoned) attempt(endpoint);
          }, RELIEF_MS);
          return;
        }
        tryNext(fault);
      });
    };
    const tryNext = (fault: Fault) => {
      const inTime = deadlines.now() < lastStart;
      const next = inTime ? balance.pick(settings, tried) : undefined;
      if (next !== undefined) return attempt(next);
      if (askedAnew || !inTime || !balance.isAsking(settings)) return user.upstreamFailed(fault);
      askedAnew = true;
      balance.resolve(settings, () => {
        if (!abandoned) tryNext(fault);
      });
    };
    attempt(first);
    return {
      abandon() {
        abandoned = true;
        opening?.abandon();
      },
    };
  }

  /** Opens one connection; `failed` is called if it never was one, otherwise everything goes to the user. */
  function open(
    settings: UpstreamSettings,
    pool: Pool,
    user: UpstreamUser,
    failed: (fault: Fault) => void,
  ): Acquisition {
    const { endpoint } = pool;
    const { address } = endpoint;
    const secure = speaksTls(settings.protocol);
    let error: Error | undefined;
    let ready = false;
    let room = shortArrivals;
    let filled = false;
    let started = false;
    const onread = {
      /** Asked before the first read and after each; undefined: the same again. */
      buffer(): Buffer {
        const next = filled && link.user?.takesLongReads?.() !== false ? arrivals : shortArrivals;
        if (next === room && started) return undefined as unknown as Buffer;
        started = true;
        room = next;
        return next;
      },
      callback(size: number, bytes: Uint8Array): boolean {
        filled = size >= shortArrivals.length && link.user !== undefined;
        // A byte that nobody asked for would be taken for the next reply: the connection is not to be used again.
        if (link.user === undefined) link.socket.destroy();
        else link.user.upstreamData(bytes as Buffer, size);
        return true;
      },
    };
    const common = { host: endpoint.ip, port: address.port, noDelay: true, allowHalfOpen: true, onread };
    const socket = secure ? connectTls(common, pool) : connectTcp(common);
    const deadline: Deadline = {
      at: deadlines.now() + settings.connectTimeoutMs,
      expired: () => socket.destroy(new Fault('connect-timeout', `${address.host}:${address.port}`)),
    };
    const lastWords = hearLastWords(socket);
    const link = createLink(socket, lastWords, pool, user);
    deadlines.watch(deadline);
    endpoint.active++;
    socket.once(secure ? 'secureConnect' : 'connect', () => {
      ready = true;
      deadlines.forget(deadline);
      socket.setKeepAlive(true, TCP_KEEPALIVE_MS);
      balance.connected(endpoint);
      user.upstreamReady(link);
    });
    socket.on('drain', () => link.user?.upstreamDrained());
    socket.on('end', () => {
      if (link.user === undefined) {
        socket.destroy();
        return;
      }
      if (endedByReset(lastWords)) {
        socket.destroy(lastWords.error);
        return;
      }
      noteSilentEnd(link, pool);
      link.user.upstreamEnded();
      // It takes nothing any more either.
      if (lastWords.error !== undefined) socket.destroy();
    });
    destroyOnError(socket, (cause) => {
      error = cause;
    });
    socket.once('close', () => {
      deadlines.forget(deadline);
      const at = pool.idle.indexOf(link);
      if (at !== -1) pool.idle.splice(at, 1);
      const { user: last } = link;
      if (last === undefined) return;
      link.user = undefined;
      endpoint.active--;
      if (!ready) return failed(asFault(error, address, endpoint.protocol));
      if (error !== undefined) noteSilentEnd(link, pool);
      last.upstreamClosed(error, 'unheard');
    });
    return {
      abandon() {
        // What was handed over is the user's to end.
        if (!ready) socket.destroy();
      },
    };
  }

  /** Who accepts connections and closes them without a word is no better than one that refuses them. */
  function noteSilentEnd({ reused, socket }: Link, { endpoint }: Pool) {
    const speaksHttp = endpoint.protocol === 'http' || endpoint.protocol === 'https';
    if (speaksHttp && !reused && socket.bytesRead === 0) balance.report(endpoint, 'failed');
  }

  function connectTls(common: TcpNetConnectOpts, pool: Pool): tls.TLSSocket {
    const { address, tls: wanted } = pool.endpoint;
    const options: tls.ConnectionOptions & TcpNetConnectOpts = {
      ...common,
      ...trustFor(address.host, wanted, secureContext),
      ALPNProtocols: ['http/1.1'],
      ...(pool.session === undefined ? {} : { session: pool.session }),
    };
    const socket = tls.connect(options);
    socket.on('session', (session) => {
      pool.session = session;
    });
    return socket;
  }

  function createLink(socket: Socket, lastWords: LastWords, pool: Pool, user: UpstreamUser): Link {
    const { endpoint, idle } = pool;
    const link: Link = {
      socket,
      address: endpoint.address,
      reused: false,
      user,
      idleSince: 0,
      handTo(next) {
        link.user = next;
      },
      release() {
        if (link.user === undefined) return;
        leave();
        balance.report(endpoint, 'well');
        const open = !socket.destroyed && !socket.readableEnded && socket.writable;
        const sound = open && socket.writableLength === 0 && lastWords.error === undefined;
        if (closed || !sound || endpoint.retired || idle.length >= MAX_IDLE_PER_ADDRESS) {
          socket.destroy();
          return;
        }
        link.reused = true;
        link.idleSince = deadlines.coarse();
        idle.push(link);
        // Idle sockets must be read, or their end would go unseen.
        socket.resume();
        if (reaper.at === Number.POSITIVE_INFINITY) watchIdle();
      },
      destroy() {
        if (link.user === undefined) return;
        leave();
        socket.destroy();
      },
      fail() {
        if (link.user === undefined) return;
        pool.session = undefined;
        balance.report(endpoint, 'failed');
        link.destroy();
      },
    };
    const leave = () => {
      link.user = undefined;
      endpoint.active--;
    };
    return link;
  }

  function watchIdle() {
    reaper.at = deadlines.now() + Math.min(1_000, idleTimeoutMs);
    deadlines.watch(reaper);
  }

  function reap() {
    reaper.at = Number.POSITIVE_INFINITY;
    const oldest = deadlines.now() - idleTimeoutMs;
    let left = 0;
    for (const { idle } of pools.values()) {
      while (idle.length > 0 && idle[0]!.idleSince <= oldest) idle.shift()!.socket.destroy();
      left += idle.length;
    }
    if (left > 0 && !closed) watchIdle();
  }
}

const NOTHING_TO_ABANDON: Acquisition = { abandon() {} };
