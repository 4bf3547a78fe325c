// HTTP/2 sessions to upstreams: pooled by address, shared by all streams, tested by PING before they are trusted again.

import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { connect as connectTcp, isIP, isIPv6, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { Endpoint } from './balance.ts';
import type { Deadline, Deadlines } from './deadlines.ts';
import { Fault } from './errors.ts';
import type { Address, UpstreamSettings } from './routes.ts';
import { asFault, type Upstreams } from './upstream.ts';

export interface UpstreamSession {
  readonly scheme: 'http' | 'https';
  readonly address: Address;
  /** Whether its connection is gone, and all its streams with it. */
  readonly lost: boolean;
  /** Starts a stream. `fields` is flat, name and value in turn, and holds all pseudo-header fields. */
  request(fields: string[], options: { endStream: boolean; waitForTrailers: boolean }): ClientHttp2Stream;
  /**
   * To be called once for each `request`, when its stream has closed; `heard` if the upstream spoke on it, `failed` if it
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
  readonly session: ClientHttp2Session;
  readonly waiting: Waiter[];
  ready: boolean;
  limit: number;
  streams: number;
  started: number;
  heardAt: number;
  pinging: boolean;
}

/** Per stream, and what one stalled client can make us hold of one reply. */
const STREAM_WINDOW = 256 * 1024;
const SESSION_WINDOW = 16 * 1024 * 1024;
/** Stream identifiers are 31 bits and never reused (RFC 9113 §5.1.1): retire well before they run out. */
const STREAMS_PER_SESSION = 2 ** 29;
const NEVER = Number.POSITIVE_INFINITY;

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
    for (const member of pools.get(endpoint)?.members ?? []) if (member.ready) member.session.close();
    pools.delete(endpoint);
  });

  return {
    acquire,
    drain: () => forEachMember((member) => member.session.close()),
    destroyAll: () => forEachMember((member) => member.session.destroy()),
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
    const tls = endpoint.protocol === 'grpcs' || endpoint.protocol === 'https';
    const pool: Pool = { endpoint, tls, members: [] };
    if (!endpoint.retired) pools.set(endpoint, pool);
    return pool;
  }

  function connectInTurn(
    upstream: UpstreamSettings,
    first: Endpoint,
    taken: Waiter['taken'],
    failed: Waiter['failed'],
  ): void {
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
    const connecting = pool.members.find((member) => !member.ready && member.waiting.length < member.limit);
    const member = connecting ?? openMember(pool, connectTimeoutMs);
    member.waiting.push(waiter);
    pool.endpoint.active++;
  }

  function openMember(pool: Pool, connectTimeoutMs: number): Member {
    const session = openSession(pool, options.upstreams);
    const member: Member = {
      session,
      scheme: pool.tls ? 'https' : 'http',
      address: pool.endpoint.address,
      waiting: [],
      ready: false,
      // What RFC 9113 §6.5.2 asks every peer to allow at least; its SETTINGS will say more.
      limit: 100,
      streams: 0,
      started: 0,
      heardAt: deadlines.now(),
      pinging: false,
      get lost() {
        return session.destroyed;
      },
      request(fields, streamOptions) {
        pool.endpoint.active++;
        if (member.streams++ === 0) watch(silenceMs);
        if (++member.started > STREAMS_PER_SESSION) session.close();
        if (deadlines.now() - member.heardAt > quietMs) ping();
        return session.request(fields as unknown as OutgoingHttpHeaders, streamOptions);
      },
      release(heard, failed = false) {
        member.streams--;
        pool.endpoint.active--;
        if (heard) member.heardAt = deadlines.now();
        if (failed || session.destroyed) balance.report(pool.endpoint, 'failed');
        else if (heard) balance.report(pool.endpoint, 'well');
        if (member.streams === 0) watch(idleMs);
      },
    };
    let failure: Error | undefined;
    const clock: Deadline = { at: deadlines.now() + connectTimeoutMs, expired: onClock };
    const pong: Deadline = { at: NEVER, expired: () => fail('the upstream does not answer PING') };
    deadlines.watch(clock);
    pool.members.push(member);

    session.once('connect', () => {
      session.setLocalWindowSize(SESSION_WINDOW);
      if (pool.tls && session.alpnProtocol !== 'h2') fail('the upstream does not offer HTTP/2 (ALPN h2)');
    });
    // A peer that has sent SETTINGS speaks HTTP/2 (RFC 9113 §3.4), and its limits are known.
    session.on('remoteSettings', (settings) => {
      member.limit = settings.maxConcurrentStreams ?? NEVER;
      if (!member.ready) becomeReady();
    });
    session.on('error', (error) => {
      failure ??= error;
    });
    session.on('close', onClose);
    return member;

    function becomeReady(): void {
      member.ready = true;
      watch(idleMs);
      for (const waiter of leaveQueue()) {
        if (hasRoom(member)) waiter.taken(member);
        else if (member.limit < 1) waiter.failed(new Fault('upstream-unavailable', 'it allows no streams'));
        else joinQueue(pool, connectTimeoutMs, waiter);
      }
      if (pool.endpoint.retired) session.close();
    }

    function leaveQueue(): Waiter[] {
      pool.endpoint.active -= member.waiting.length;
      return member.waiting.splice(0);
    }

    function onClock() {
      if (!member.ready) {
        failure = new Fault('connect-timeout', `no HTTP/2 within ${connectTimeoutMs} ms`);
        return session.destroy(failure);
      }
      if (member.streams === 0) return session.close();
      ping();
      watch(silenceMs);
    }

    function watch(ms: number): void {
      clock.at = deadlines.now() + ms;
      if (!session.destroyed) deadlines.watch(clock);
    }

    function ping(): void {
      if (member.pinging || session.destroyed || session.closed) return;
      member.pinging = true;
      pong.at = deadlines.now() + pingTimeoutMs;
      deadlines.watch(pong);
      session.ping((error) => {
        member.pinging = false;
        deadlines.forget(pong);
        if (error === null) member.heardAt = deadlines.now();
      });
    }

    function fail(why: string): void {
      failure ??= new Error(why);
      session.destroy(failure);
    }

    function onClose(): void {
      deadlines.forget(clock);
      deadlines.forget(pong);
      pool.members.splice(pool.members.indexOf(member), 1);
      const fault = asFault(failure ?? new Error('it closed before it spoke HTTP/2'), pool.endpoint.address);
      if (!member.ready && fault.side === 'upstream') balance.report(pool.endpoint, 'unreachable');
      for (const waiter of leaveQueue()) waiter.failed(fault);
    }
  }
}

function openSession(pool: Pool, trust: Pick<Upstreams, 'secureContext'>): ClientHttp2Session {
  const { host, port } = pool.endpoint.address;
  const authority = `${isIPv6(host) ? `[${host}]` : host}:${port}`;
  return connectHttp2(`${pool.tls ? 'https' : 'http'}://${authority}`, {
    createConnection: () => openSocket(pool, trust),
    settings: { enablePush: false, initialWindowSize: STREAM_WINDOW },
    // What a reply repeats is the upstream's affair; nghttp2 refuses what breaks framing.
    ...({ strictSingleValueFields: false } as object),
  });
}

function openSocket(pool: Pool, trust: Pick<Upstreams, 'secureContext'>): Socket | TLSSocket {
  const { ip, address } = pool.endpoint;
  const { host, port } = address;
  if (!pool.tls) return connectTcp({ host: ip, port, noDelay: true });
  // An IP address is not a server name (RFC 6066 §3); the certificate is still checked against it.
  return connectTls({
    host: ip,
    port,
    secureContext: trust.secureContext(),
    ALPNProtocols: ['h2'],
    servername: isIP(host) === 0 ? host : '',
  });
}

function memberWithRoom(pool: Pool): Member | undefined {
  const { members } = pool;
  for (let i = 0; i < members.length; i++) {
    const member = members[i]!;
    if (member.ready && hasRoom(member)) return member;
  }
  return undefined;
}

function hasRoom(member: Member): boolean {
  return member.streams < member.limit && !member.session.closed && !member.session.destroyed;
}

/** Whether the upstream did not begin with this stream, so that it may be sent again whatever its method (RFC 9113 §8.7). */
export function wasNotProcessed(stream: ClientHttp2Stream, error: Error | undefined): boolean {
  if (stream.rstCode === constants.NGHTTP2_REFUSED_STREAM) return true;
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return code === 'ERR_HTTP2_GOAWAY_SESSION' || code === 'ERR_HTTP2_INVALID_SESSION' || stream.pending;
}
