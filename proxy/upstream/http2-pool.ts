// HTTP/2 sessions to upstreams: pooled by address, shared by all streams, tested by PING before they are trusted again.

import { connect as connectTcp, isIP, type Socket, type TcpNetConnectOpts } from 'node:net';
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
import { type Address, speaksTls, type UpstreamSettings } from '../rules/routes.ts';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import { destroyOnError } from '../socket/errors.ts';
import { hearLastWords } from '../socket/last-words.ts';
import type { Endpoint } from './balance.ts';
import { asFault } from './faults.ts';
import { foreignBytes } from './foreign-bytes.ts';
import { createHeadMemory, type HeadMemory } from './head-memory.ts';
import type { Upstreams } from './http1-pool.ts';

export interface UpstreamSession {
  readonly scheme: 'http' | 'https';
  readonly address: Address;
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

/** What of a request decides whose company it is in. */
export interface Company {
  /** Of its head, more or less. */
  readonly headBytes: number;
  /** Of its client: Http2Stream.restless. */
  readonly restless: boolean;
}

export interface Http2Upstreams {
  /**
   * Hands over a session to the address that is next, with room for one more stream, at once if one is open. Addresses
   * that do not answer are passed over; `failed` gets the fault of the last one. What has been known to end sessions, with
   * all that was in them, gets sessions apart from others.
   */
  acquire(
    upstream: UpstreamSettings,
    taken: (session: UpstreamSession) => void,
    failed: (fault: Fault) => void,
    company?: Company,
  ): void;
  /** Lets open streams finish. */
  drain(): void;
  destroyAll(): void;
}

export interface Http2UpstreamsOptions {
  readonly deadlines: Deadlines;
  /** Whose choice of addresses and whose trust are used. */
  readonly upstreams: Pick<Upstreams, 'balance' | 'secureContext'> & Partial<Pick<Upstreams, 'relieve'>>;
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
  readonly heads: HeadMemory;
}

interface Member extends UpstreamSession {
  readonly socket: Socket;
  readonly apart: boolean;
  /** Once the socket is connected. */
  http2: Http2Connection | undefined;
  readonly waiting: Waiter[];
  /** The upstream has greeted us. */
  ready: boolean;
  streams: number;
  heardAt: number;
  pinging: boolean;
}

/** Per stream at first, and what a client that takes nothing can make us hold of one reply. */
const STREAM_WINDOW = 64 * 1024;
/** What it grows to while a client takes all that comes: at 50 ms of round trip a download moves 80 MiB/s. */
const LARGEST_STREAM_WINDOW = 4 * 1024 * 1024;
/** Given back on receipt: what all streams together may have on their way. */
const CONNECTION_WINDOW = 16 * 1024 * 1024;
/**
 * However many an upstream allows: what a session may lose at once, and its visitors may reset at once. nghttp2 and with it
 * Node ends a session over 1,000 resets, nginx over twice its 128 streams begun in one turn.
 */
const MOST_STREAMS = 256;
/** Nobody's browser sends more without cookies of an unusual size, and every server takes as much. */
const LARGE_HEAD = 4 * 1024;
const ORDINARY: Company = { headBytes: 0, restless: false };
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

  function acquire(
    upstream: UpstreamSettings,
    taken: Waiter['taken'],
    failed: Waiter['failed'],
    company = ORDINARY,
  ): void {
    if (!balance.isResolved(upstream)) {
      balance.resolve(upstream, () => {
        if (balance.isResolved(upstream)) acquire(upstream, taken, failed, company);
        else failed(balance.noneFault(upstream));
      });
      return;
    }
    const endpoint = balance.pick(upstream);
    if (endpoint === undefined) {
      failed(balance.noneFault(upstream));
      return;
    }
    const apart = company.restless || company.headBytes > LARGE_HEAD;
    const member = memberWithRoom(poolOf(endpoint), apart);
    if (member !== undefined) taken(member);
    else connectInTurn(upstream, endpoint, taken, failed, apart);
  }

  function forEachMember(act: (member: Member) => void): void {
    for (const pool of pools.values()) for (const member of [...pool.members]) act(member);
  }

  function poolOf(endpoint: Endpoint): Pool {
    const known = pools.get(endpoint);
    if (known !== undefined) return known;
    const pool: Pool = {
      endpoint,
      tls: speaksTls(endpoint.protocol),
      members: [],
      heads: createHeadMemory(deadlines.now),
    };
    if (!endpoint.retired) pools.set(endpoint, pool);
    return pool;
  }

  function connectInTurn(
    upstream: UpstreamSettings,
    first: Endpoint,
    taken: Waiter['taken'],
    failed: Waiter['failed'],
    apart: boolean,
  ) {
    const tried = new Set<Endpoint>();
    const lastStart = deadlines.now() + 2 * upstream.connectTimeoutMs;
    let askedAnew = false;
    const tryOne = (endpoint: Endpoint) => {
      tried.add(endpoint);
      const pool = poolOf(endpoint);
      const member = memberWithRoom(pool, apart);
      if (member !== undefined) return taken(member);
      joinQueue(pool, upstream.connectTimeoutMs, { taken, failed: tryNext }, apart);
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

  function joinQueue(pool: Pool, connectTimeoutMs: number, waiter: Waiter, apart: boolean): void {
    const connecting = pool.members.find(
      (member) => member.apart === apart && !member.ready && member.waiting.length < MOST_WAITING,
    );
    const member = connecting ?? openMember(pool, connectTimeoutMs, apart);
    member.waiting.push(waiter);
    pool.endpoint.active++;
  }

  function openMember(pool: Pool, connectTimeoutMs: number, apart: boolean): Member {
    const { endpoint } = pool;
    const socket = openSocket(pool, options.upstreams, (bytes, end) => {
      if (!member.ready) noteForeign(bytes, end);
      member.http2?.receive(bytes, end);
    });
    const member: Member = {
      socket,
      apart,
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
      takesHead: (bytes) => bytes <= member.http2!.peerMaxHeadBytes && !pool.heads.refuses(bytes),
      openStream(user, headBytes = 0) {
        if (headBytes > LARGE_HEAD) largeHeads.push(headBytes);
        endpoint.active++;
        if (member.streams++ === 0) watch(silenceMs);
        if (deadlines.now() - member.heardAt > quietMs) ping();
        return member.http2!.openStream(user);
      },
      release(heard, failed = false, headBytes = 0) {
        if (headBytes > LARGE_HEAD) judgeHead(heard, headBytes);
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
    /** Of the streams that are open. */
    const largeHeads: number[] = [];
    let judged = false;
    const clock: Deadline = { at: deadlines.now() + connectTimeoutMs, expired: onClock };
    const pong: Deadline = { at: NEVER, expired: () => fail(new Error('the upstream does not answer PING')) };
    deadlines.watch(clock);
    pool.members.push(member);
    socket.once(pool.tls ? 'secureConnect' : 'connect', onConnect);
    destroyOnError(socket, (error) => {
      failure ??= error;
    });
    socket.once('close', onGone);
    return member;

    function onConnect() {
      if (pool.tls && (socket as TLSSocket).alpnProtocol !== 'h2') {
        return fail(
          new Error('the upstream does not offer HTTP/2 (ALPN h2): write https:// if it speaks HTTP/1.1'),
        );
      }
      member.http2 = openHttp2Connection({
        socket,
        role: 'client',
        deadlines,
        streamWindow: STREAM_WINDOW,
        largestStreamWindow: LARGEST_STREAM_WINDOW,
        connectionWindow: CONNECTION_WINDOW,
        fieldLimits: replyFieldLimitsOf(options.fieldLimits),
        // A peer that has sent SETTINGS speaks HTTP/2 (RFC 9113 §3.4), and its limits are known.
        user: { greeted: becomeReady, connectionClosed: onClosed },
      });
    }

    function noteForeign(bytes: Buffer, end: number): void {
      const { protocol, address } = endpoint;
      const spoken = foreignBytes(protocol, bytes, 0, end);
      if (spoken === undefined) return;
      failure ??= new Fault('upstream-refused', `${address.host}:${address.port}: ${spoken}`);
    }

    function becomeReady(): void {
      const http2 = member.http2!;
      member.ready = true;
      balance.connected(endpoint);
      watch(idleMs);
      for (const waiter of leaveQueue()) {
        if (hasRoom(member)) waiter.taken(member);
        else if (http2.peerMaxStreams < 1)
          waiter.failed(new Fault('upstream-unavailable', 'it allows no streams'));
        else joinQueue(pool, connectTimeoutMs, waiter, apart);
      }
      if (endpoint.retired) http2.end();
    }

    /** A session that has ended has ended over the largest head that was unanswered, if over a head at all. */
    function judgeHead(heard: boolean, bytes: number): void {
      const { heads } = pool;
      const { blame } = member.http2!;
      if (heard) heads.taken();
      else if (!judged && (blame !== errorCode.noError || member.lost) && bytes === Math.max(...largeHeads)) {
        judged = true;
        if (blame !== errorCode.noError) heads.refused(bytes);
        else heads.suspected(bytes);
      }
      largeHeads.splice(largeHeads.indexOf(bytes), 1);
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
      const fault = asFault(
        failure ?? new Error('it closed before it spoke HTTP/2'),
        endpoint.address,
        endpoint.protocol,
      );
      if (!member.ready && fault.side === 'upstream') balance.report(endpoint, 'unreachable');
      if (fault.side === 'ingress') options.upstreams.relieve?.();
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

function memberWithRoom(pool: Pool, apart: boolean): Member | undefined {
  const { members } = pool;
  for (let i = 0; i < members.length; i++) {
    const member = members[i]!;
    if (member.apart === apart && member.ready && hasRoom(member)) return member;
  }
  return undefined;
}

function hasRoom({ streams, http2 }: Member): boolean {
  if (http2 === undefined || http2.leaving || http2.isStarved()) return false;
  return streams < MOST_STREAMS && streams < http2.peerMaxStreams;
}
