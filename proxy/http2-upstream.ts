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
  /** To be called once for each `request`, when its stream has closed; `heard` if the upstream spoke on it. */
  release(heard: boolean): void;
}

export interface Http2Upstreams {
  /**
   * Hands over a session with room for one more stream, at once if one is open. Addresses that do not answer are
   * passed over; `failed` gets the fault of the last one.
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
  /** Whose names and trust are used. */
  readonly upstreams: Pick<Upstreams, 'lookup' | 'secureContext'>;
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
  readonly address: Address;
  readonly tls: boolean;
  readonly members: Member[];
  /** When connecting failed last, in the deadlines' time; -Infinity if it never did. */
  failedAt: number;
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
const FAILED_ADDRESS_REST_MS = 10_000;
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
  const poolsByKey = new Map<string, Pool>();
  const poolsBySettings = new WeakMap<UpstreamSettings, Pool[]>();

  return {
    acquire(upstream, taken, failed) {
      const pools = poolsFor(upstream);
      const pool = pools.length === 1 ? pools[0]! : leastLoaded(pools, deadlines.now());
      const member = memberWithRoom(pool);
      if (member !== undefined) return taken(member);
      connectInTurn(upstream, pool, pools, taken, failed);
    },
    drain: () => forEachMember((member) => member.session.close()),
    destroyAll: () => forEachMember((member) => member.session.destroy()),
  };

  function forEachMember(act: (member: Member) => void): void {
    for (const pool of poolsByKey.values()) for (const member of [...pool.members]) act(member);
  }

  function poolsFor(upstream: UpstreamSettings): Pool[] {
    const known = poolsBySettings.get(upstream);
    if (known !== undefined) return known;
    const tls = upstream.protocol === 'grpcs' || upstream.protocol === 'https';
    const pools = upstream.addresses.map((address) => poolOf(address, tls));
    poolsBySettings.set(upstream, pools);
    return pools;
  }

  function poolOf(address: Address, tls: boolean): Pool {
    const key = `${tls} ${address.host} ${address.port}`;
    const pool = poolsByKey.get(key) ?? { address, tls, members: [], failedAt: -NEVER };
    poolsByKey.set(key, pool);
    return pool;
  }

  function connectInTurn(
    upstream: UpstreamSettings,
    first: Pool,
    pools: readonly Pool[],
    taken: Waiter['taken'],
    failed: Waiter['failed'],
  ): void {
    const rest = pools.filter((pool) => pool !== first);
    const tryOne = (pool: Pool) => {
      const onFailure = (fault: Fault) => {
        const next = rest.shift();
        if (next === undefined) return failed(fault);
        const member = memberWithRoom(next);
        if (member !== undefined) return taken(member);
        tryOne(next);
      };
      joinQueue(pool, upstream.connectTimeoutMs, { taken, failed: onFailure });
    };
    tryOne(first);
  }

  function joinQueue(pool: Pool, connectTimeoutMs: number, waiter: Waiter): void {
    const connecting = pool.members.find((member) => !member.ready && member.waiting.length < member.limit);
    const member = connecting ?? openMember(pool, connectTimeoutMs);
    member.waiting.push(waiter);
  }

  function openMember(pool: Pool, connectTimeoutMs: number): Member {
    const session = openSession(pool, options.upstreams);
    const member: Member = {
      session,
      scheme: pool.tls ? 'https' : 'http',
      address: pool.address,
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
        if (member.streams++ === 0) watch(silenceMs);
        if (++member.started > STREAMS_PER_SESSION) session.close();
        if (deadlines.now() - member.heardAt > quietMs) ping();
        return session.request(fields as unknown as OutgoingHttpHeaders, streamOptions);
      },
      release(heard) {
        member.streams--;
        if (heard) member.heardAt = deadlines.now();
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
      pool.failedAt = -NEVER;
      watch(idleMs);
      for (const waiter of member.waiting.splice(0)) {
        if (hasRoom(member)) waiter.taken(member);
        else if (member.limit < 1) waiter.failed(new Fault('upstream-unavailable', 'it allows no streams'));
        else joinQueue(pool, connectTimeoutMs, waiter);
      }
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
      if (!member.ready) pool.failedAt = deadlines.now();
      const fault = asFault(failure ?? new Error('it closed before it spoke HTTP/2'), pool.address);
      for (const waiter of member.waiting.splice(0)) waiter.failed(fault);
    }
  }
}

function openSession(pool: Pool, upstreams: Http2UpstreamsOptions['upstreams']): ClientHttp2Session {
  const { host, port } = pool.address;
  const authority = `${isIPv6(host) ? `[${host}]` : host}:${port}`;
  return connectHttp2(`${pool.tls ? 'https' : 'http'}://${authority}`, {
    createConnection: () => openSocket(pool, upstreams),
    settings: { enablePush: false, initialWindowSize: STREAM_WINDOW },
    // What a reply repeats is the upstream's affair; nghttp2 refuses what breaks framing.
    ...({ strictSingleValueFields: false } as object),
  });
}

function openSocket(pool: Pool, upstreams: Http2UpstreamsOptions['upstreams']): Socket | TLSSocket {
  const { host, port } = pool.address;
  const { lookup } = upstreams;
  if (!pool.tls) return connectTcp({ host, port, lookup, noDelay: true });
  // An IP address is not a server name (RFC 6066 §3); the certificate is still checked against it.
  return connectTls({
    host,
    port,
    lookup,
    secureContext: upstreams.secureContext(),
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

function leastLoaded(pools: readonly Pool[], now: number): Pool {
  let best = pools[0]!;
  let least = NEVER;
  for (const pool of pools) {
    const load = loadOf(pool) + (now - pool.failedAt < FAILED_ADDRESS_REST_MS ? 1e9 : 0);
    if (load >= least) continue;
    least = load;
    best = pool;
  }
  return best;
}

function loadOf(pool: Pool): number {
  let load = 0;
  for (const member of pool.members) load += member.streams + member.waiting.length;
  return load;
}

/** Whether the upstream did not begin with this stream, so that it may be sent again whatever its method (RFC 9113 §8.7). */
export function wasNotProcessed(stream: ClientHttp2Stream, error: Error | undefined): boolean {
  if (stream.rstCode === constants.NGHTTP2_REFUSED_STREAM) return true;
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return code === 'ERR_HTTP2_GOAWAY_SESSION' || code === 'ERR_HTTP2_INVALID_SESSION' || stream.pending;
}
