// HTTP/2 sessions to upstreams: pooled by address, shared by all streams, tested by PING before they are trusted again.

import { connect as connectTcp, isIP, type Socket, type TcpNetConnectOpts } from 'node:net';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import type { Endpoint } from './balance.ts';
import type { Deadline, Deadlines } from './deadlines.ts';
import { Fault } from './errors.ts';
import type { BlockLimits } from './hpack.ts';
import {
  type Http2Connection,
  type Http2Stream,
  openHttp2Connection,
  type StreamUser,
} from './http2-connection.ts';
import { replyFieldLimitsOf } from './http2-fields.ts';
import { hearLastWords } from './last-words.ts';
import { type Address, speaksTls, type UpstreamSettings } from './routes.ts';
import { asFault, type Upstreams } from './upstream.ts';

export interface UpstreamSession {
  readonly scheme: 'http' | 'https';
  readonly address: Address;
  /** Whether its connection is gone, and all its streams with it. */
  readonly lost: boolean;
  /** Begins a stream; the caller sends its head at once. */
  openStream(user: StreamUser): Http2Stream;
  /**
   * To be called once for each stream, when it has closed; `heard` if the upstream spoke on it, `failed` if it
   * was given up for what the upstream did or did not do.
   */
  release(heard: boolean, failed?: boolean): void;
}

export interface Http2Upstreams {
  /**
   * Hands over a session to the address that is next, with room for one more stream, at once if one is open. Addresses
   * that do not answer are passed over; `failed` gets the fault of the last one.
   */
  acquire(
    upstream: UpstreamSettings,
    taken: (session: UpstreamSession) => void,
    failed: (fault: Fault) => void,
  ): void;
  /** Lets open streams finish. */
  drain(): void;
  destroyAll(): void;
}

export interface Http2UpstreamsOptions {
  readonly deadlines: Deadlines;
  /** Whose choice of addresses and whose trust are used. */
  readonly upstreams: Pick<Upstreams, 'balance' | 'secureContext'>;
  /** A session that was silent for longer is sent a PING together with its next stream. */
  readonly quietMs?: number;
  /** A PING is sent when streams are open and nothing was heard for this long. */
  readonly silenceMs?: number;
  readonly pingTimeoutMs?: number;
  /** A session without streams is closed after this. */
  readonly idleMs?: number;
  /** Of the heads of replies. */
  readonly fieldLimits: BlockLimits;
}

interface Waiter {
  readonly taken: (session: UpstreamSession) => void;
  readonly failed: (fault: Fault) => void;
}

interface Pool {
  readonly endpoint: Endpoint;
  readonly tls: boolean;
  readonly members: Member[];
}

interface Member extends UpstreamSession {
  readonly socket: Socket;
  /** Once the socket is connected. */
  http2: Http2Connection | undefined;
  readonly waiting: Waiter[];
  /** The upstream has greeted us. */
  ready: boolean;
  streams: number;
  heardAt: number;
  pinging: boolean;
}

/** Per stream, and what one stalled client can make us hold of one reply. */
const STREAM_WINDOW = 256 * 1024;
const CONNECTION_WINDOW = 16 * 1024 * 1024;
/** Who waits for one connection: what RFC 9113 §6.5.2 asks every peer to allow at least; its SETTINGS will say more. */
const MOST_WAITING = 100;
const NEVER = Number.POSITIVE_INFINITY;

/** Bytes from upstreams land here, every connection's: they are read in one go. */
const arrivals = Buffer.allocUnsafeSlow(65_536);

/**
 * PINGs are sparing on purpose: gRPC servers take more than two without data in five minutes for an attack and
 * answer with GOAWAY (gRFC A8). One that rides along with a new stream is followed by a reply, which clears the count.
 */
export function createHttp2Upstreams(options: Http2UpstreamsOptions): Http2Upstreams {
  const { deadlines } = options;
  const quietMs = options.quietMs ?? 20_000;
  const silenceMs = options.silenceMs ?? 310_000;
  const pingTimeoutMs = options.pingTimeoutMs ?? 10_000;
  const idleMs = options.idleMs ?? 60_000;
  const { balance } = options.upstreams;
  const pools = new Map<Endpoint, Pool>();
  balance.onRetired((endpoint) => {
    for (const member of pools.get(endpoint)?.members ?? []) if (member.ready) member.http2?.end();
    pools.delete(endpoint);
  });

  return {
    acquire,
    drain: () => forEachMember((member) => member.http2?.end()),
    destroyAll: () => forEachMember((member) => member.socket.destroy()),
  };

  function acquire(upstream: UpstreamSettings, taken: Waiter['taken'], failed: Waiter['failed']): void {
    if (!balance.isResolved(upstream)) {
      balance.resolve(upstream, () => {
        if (balance.isResolved(upstream)) acquire(upstream, taken, failed);
        else failed(balance.noneFault(upstream));
      });
      return;
    }
    const endpoint = balance.pick(upstream);
    if (endpoint === undefined) {
      failed(balance.noneFault(upstream));
      return;
    }
    const member = memberWithRoom(poolOf(endpoint));
    if (member !== undefined) taken(member);
    else connectInTurn(upstream, endpoint, taken, failed);
  }

  function forEachMember(act: (member: Member) => void): void {
    for (const pool of pools.values()) for (const member of [...pool.members]) act(member);
  }

  function poolOf(endpoint: Endpoint): Pool {
    const known = pools.get(endpoint);
    if (known !== undefined) return known;
    const pool: Pool = { endpoint, tls: speaksTls(endpoint.protocol), members: [] };
    if (!endpoint.retired) pools.set(endpoint, pool);
    return pool;
  }

  function connectInTurn(
    upstream: UpstreamSettings,
    first: Endpoint,
    taken: Waiter['taken'],
    failed: Waiter['failed'],
  ) {
    const tried = new Set<Endpoint>();
    const lastStart = deadlines.now() + 2 * upstream.connectTimeoutMs;
    let askedAnew = false;
    const tryOne = (endpoint: Endpoint) => {
      tried.add(endpoint);
      const pool = poolOf(endpoint);
      const member = memberWithRoom(pool);
      if (member !== undefined) return taken(member);
      joinQueue(pool, upstream.connectTimeoutMs, { taken, failed: tryNext });
    };
    const tryNext = (fault: Fault) => {
      const inTime = deadlines.now() < lastStart;
      const next = inTime ? balance.pick(upstream, tried) : undefined;
      if (next !== undefined) tryOne(next);
      else if (askedAnew || !inTime || !balance.isAsking(upstream)) failed(fault);
      else {
        askedAnew = true;
        balance.resolve(upstream, () => tryNext(fault));
      }
    };
    tryOne(first);
  }

  function joinQueue(pool: Pool, connectTimeoutMs: number, waiter: Waiter): void {
    const connecting = pool.members.find((member) => !member.ready && member.waiting.length < MOST_WAITING);
    const member = connecting ?? openMember(pool, connectTimeoutMs);
    member.waiting.push(waiter);
    pool.endpoint.active++;
  }

  function openMember(pool: Pool, connectTimeoutMs: number): Member {
    const { endpoint } = pool;
    const socket = openSocket(pool, options.upstreams, (bytes, end) => member.http2?.receive(bytes, end));
    const member: Member = {
      socket,
      http2: undefined,
      scheme: pool.tls ? 'https' : 'http',
      address: endpoint.address,
      waiting: [],
      ready: false,
      streams: 0,
      heardAt: deadlines.now(),
      pinging: false,
      get lost() {
        return socket.destroyed || member.http2?.closed === true;
      },
      openStream(user) {
        endpoint.active++;
        if (member.streams++ === 0) watch(silenceMs);
        if (deadlines.now() - member.heardAt > quietMs) ping();
        return member.http2!.openStream(user);
      },
      release(heard, failed = false) {
        member.streams--;
        endpoint.active--;
        if (heard) member.heardAt = deadlines.now();
        if (failed || member.lost) balance.report(endpoint, 'failed');
        else if (heard) balance.report(endpoint, 'well');
        if (member.streams === 0) watch(idleMs);
      },
    };
    let failure: Error | undefined;
    let gone = false;
    const clock: Deadline = { at: deadlines.now() + connectTimeoutMs, expired: onClock };
    const pong: Deadline = { at: NEVER, expired: () => fail(new Error('the upstream does not answer PING')) };
    deadlines.watch(clock);
    pool.members.push(member);
    socket.once(pool.tls ? 'secureConnect' : 'connect', onConnect);
    socket.on('error', (error) => {
      failure ??= error;
    });
    socket.once('close', onGone);
    return member;

    function onConnect() {
      if (pool.tls && (socket as TLSSocket).alpnProtocol !== 'h2') {
        return fail(new Error('the upstream does not offer HTTP/2 (ALPN h2)'));
      }
      member.http2 = openHttp2Connection({
        socket,
        role: 'client',
        deadlines,
        streamWindow: STREAM_WINDOW,
        connectionWindow: CONNECTION_WINDOW,
        fieldLimits: replyFieldLimitsOf(options.fieldLimits),
        // A peer that has sent SETTINGS speaks HTTP/2 (RFC 9113 §3.4), and its limits are known.
        user: { greeted: becomeReady, connectionClosed: onClosed },
      });
    }

    function becomeReady(): void {
      const http2 = member.http2!;
      member.ready = true;
      watch(idleMs);
      for (const waiter of leaveQueue()) {
        if (hasRoom(member)) waiter.taken(member);
        else if (http2.peerMaxStreams < 1)
          waiter.failed(new Fault('upstream-unavailable', 'it allows no streams'));
        else joinQueue(pool, connectTimeoutMs, waiter);
      }
      if (endpoint.retired) http2.end();
    }

    function leaveQueue(): Waiter[] {
      endpoint.active -= member.waiting.length;
      return member.waiting.splice(0);
    }

    function onClock() {
      if (!member.ready) return fail(new Fault('connect-timeout', `no HTTP/2 within ${connectTimeoutMs} ms`));
      if (member.streams === 0) return member.http2!.end();
      ping();
      watch(silenceMs);
    }

    function watch(ms: number): void {
      clock.at = deadlines.now() + ms;
      if (!member.lost) deadlines.watch(clock);
    }

    function ping(): void {
      if (member.pinging || member.lost) return;
      member.pinging = true;
      pong.at = deadlines.now() + pingTimeoutMs;
      deadlines.watch(pong);
      member.http2!.ping(() => {
        member.pinging = false;
        deadlines.forget(pong);
        member.heardAt = deadlines.now();
      });
    }

    function fail(error: Error): void {
      failure ??= error;
      if (member.http2 === undefined) socket.destroy();
      else member.http2.destroy(error);
    }

    function onClosed(error: Error | undefined): void {
      failure ??= error;
      onGone();
    }

    /** No stream can be had of it any more; its socket may still be saying goodbye. */
    function onGone(): void {
      if (gone) return;
      gone = true;
      deadlines.forget(clock);
      deadlines.forget(pong);
      pool.members.splice(pool.members.indexOf(member), 1);
      const fault = asFault(failure ?? new Error('it closed before it spoke HTTP/2'), endpoint.address);
      if (!member.ready && fault.side === 'upstream') balance.report(endpoint, 'unreachable');
      for (const waiter of leaveQueue()) waiter.failed(fault);
    }
  }
}

function openSocket(
  pool: Pool,
  trust: Pick<Upstreams, 'secureContext'>,
  arrived: (bytes: Buffer, end: number) => void,
): Socket | TLSSocket {
  const { ip, address } = pool.endpoint;
  const { host, port } = address;
  const onread = {
    buffer: arrivals,
    callback(size: number, bytes: Uint8Array): boolean {
      arrived(bytes as Buffer, size);
      return true;
    },
  };
  const common: TcpNetConnectOpts = { host: ip, port, noDelay: true, onread };
  if (!pool.tls) return heard(connectTcp(common));
  // An IP address is not a server name (RFC 6066 §3); the certificate is still checked against it.
  const options: ConnectionOptions & TcpNetConnectOpts = {
    ...common,
    secureContext: trust.secureContext(),
    ALPNProtocols: ['h2'],
    servername: isIP(host) === 0 ? host : '',
  };
  return heard(connectTls(options));
}

/** Replies and GOAWAY that came before a reset count. */
function heard<S extends Socket>(socket: S): S {
  hearLastWords(socket);
  return socket;
}

function memberWithRoom(pool: Pool): Member | undefined {
  const { members } = pool;
  for (let i = 0; i < members.length; i++) {
    const member = members[i]!;
    if (member.ready && hasRoom(member)) return member;
  }
  return undefined;
}

function hasRoom({ streams, http2 }: Member): boolean {
  return http2 !== undefined && streams < http2.peerMaxStreams && !http2.leaving;
}
