// HTTP/2 sessions to upstreams: pooled by address, shared by all streams, tested by PING before they are trusted again.

import type { Fault } from '../faults.ts';
import type { BlockLimits } from '../http2/hpack.ts';
import { speaksTls, type UpstreamSettings } from '../rules/routes.ts';
import type { Deadlines } from '../socket/deadlines.ts';
import type { Announcement } from './announcement.ts';
import type { Endpoint, Wish } from './balance.ts';
import { createHeadMemory } from './head-memory.ts';
import type { Upstreams } from './http1-pool.ts';
import {
  LARGE_HEAD,
  type Pool,
  Session,
  type SessionSettings,
  type UpstreamSession,
  type Waiter,
} from './http2-session.ts';

export type { UpstreamSession } from './http2-session.ts';

/** What of a request decides which sessions it may share. */
export interface Company {
  /** The size of its head, roughly. */
  readonly headBytes: number;
  /** Whether its client resets many streams: see Http2Stream.restless. */
  readonly restless: boolean;
  readonly wish?: Wish | undefined;
  /** What the upstream is told of the client first: it shares sessions with its own connection's requests alone. */
  readonly announcement?: Announcement | undefined;
}

export interface Http2Upstreams {
  /**
   * Hands over a session to the address that is next, with room for one more stream, at once if one is open. Addresses
   * that do not answer are passed over; `failed` gets the fault of the last one. Requests of a kind that has ended whole
   * sessions get sessions apart from others.
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
  /** They choose addresses, and say which certificates are trusted. */
  readonly upstreams: Pick<Upstreams, 'balance' | 'secureContext'> & Partial<Pick<Upstreams, 'relieve'>>;
  /** A session that was silent for longer is sent a PING together with its next stream. */
  readonly quietMs?: number;
  /** A PING is sent when streams are open and nothing was heard for this long. */
  readonly silenceMs?: number;
  readonly pingTimeoutMs?: number;
  /** A session without streams is closed after this. */
  readonly idleMs?: number;
  /** The limits for the heads of replies. */
  readonly fieldLimits: BlockLimits;
}

const ORDINARY: Company = { headBytes: 0, restless: false };
/** So many may wait for one connection: RFC 9113 §6.5.2 recommends that every peer allows at least 100 streams. */
const MOST_WAITING = 100;

export function createHttp2Upstreams(options: Http2UpstreamsOptions): Http2Upstreams {
  return new Http2Pools(options);
}

class Http2Pools implements Http2Upstreams {
  private readonly pools = new Map<Endpoint, Pool>();
  /** Where upstreams are told who their client is: by that, as long as there are sessions. */
  private readonly ownPools = new Map<Endpoint, Map<string, Pool>>();
  private readonly balance: Upstreams['balance'];
  private readonly settings: SessionSettings;

  constructor(options: Http2UpstreamsOptions) {
    this.balance = options.upstreams.balance;
    this.settings = {
      deadlines: options.deadlines,
      upstreams: options.upstreams,
      quietMs: options.quietMs ?? 20_000,
      silenceMs: options.silenceMs ?? 310_000,
      pingTimeoutMs: options.pingTimeoutMs ?? 10_000,
      idleMs: options.idleMs ?? 60_000,
      fieldLimits: options.fieldLimits,
      requeue: (pool, session, waiter) =>
        this.joinQueue(pool, session.connectTimeoutMs, waiter, session.apart),
      emptied: (pool) => this.forget(pool),
    };
    this.balance.onRetired((endpoint) => this.retire(endpoint));
  }

  acquire(
    upstream: UpstreamSettings,
    taken: Waiter['taken'],
    failed: Waiter['failed'],
    company: Company = ORDINARY,
  ): void {
    const { balance } = this;
    if (!balance.isResolved(upstream)) {
      balance.resolve(upstream, () => {
        if (balance.isResolved(upstream)) this.acquire(upstream, taken, failed, company);
        else failed(balance.noneFault(upstream));
      });
      return;
    }
    const { wish, announcement } = company;
    const endpoint = balance.pick(upstream, wish?.tried, wish);
    if (endpoint === undefined) {
      failed(balance.noneFault(upstream));
      return;
    }
    const apart = company.restless || company.headBytes > LARGE_HEAD;
    const session = sessionWithRoom(this.poolOf(endpoint, announcement), apart);
    if (session !== undefined) {
      wish?.tried?.add(endpoint);
      taken(session);
    } else this.connectInTurn(upstream, endpoint, { taken, failed }, apart, company);
  }

  drain(): void {
    this.forEachSession((session) => session.end());
  }

  destroyAll(): void {
    this.forEachSession((session) => session.socket.destroy());
  }

  private forEachSession(act: (session: Session) => void): void {
    const own = [...this.ownPools.values()].flatMap((pools) => [...pools.values()]);
    for (const { sessions } of [...this.pools.values(), ...own])
      for (const session of [...sessions]) act(session);
  }

  /** Sessions that are still connecting end once they are connected. */
  private retire(endpoint: Endpoint): void {
    const retired = [this.pools.get(endpoint), ...(this.ownPools.get(endpoint)?.values() ?? [])];
    this.pools.delete(endpoint);
    this.ownPools.delete(endpoint);
    for (const pool of retired) for (const session of pool?.sessions ?? []) if (session.ready) session.end();
  }

  private poolOf(endpoint: Endpoint, announcement: Announcement | undefined): Pool {
    const key = announcement?.key;
    const known = key === undefined ? this.pools.get(endpoint) : this.ownPools.get(endpoint)?.get(key);
    if (known !== undefined) return known;
    const pool: Pool = {
      endpoint,
      announcement,
      tls: speaksTls(endpoint.protocol),
      sessions: [],
      heads: createHeadMemory(this.settings.deadlines.now),
    };
    if (endpoint.retired) return pool;
    if (key === undefined) this.pools.set(endpoint, pool);
    else {
      const own = this.ownPools.get(endpoint) ?? new Map<string, Pool>();
      this.ownPools.set(endpoint, own.set(key, pool));
    }
    return pool;
  }

  /** What there is of an address stays known; what is of one client's connection goes with it. */
  private forget(pool: Pool): void {
    const { endpoint, announcement } = pool;
    const own = this.ownPools.get(endpoint);
    if (announcement === undefined || own?.get(announcement.key) !== pool) return;
    own.delete(announcement.key);
    if (own.size === 0) this.ownPools.delete(endpoint);
  }

  private connectInTurn(
    upstream: UpstreamSettings,
    first: Endpoint,
    { taken, failed }: Waiter,
    apart: boolean,
    { wish, announcement }: Company,
  ): void {
    const { balance } = this;
    const { deadlines } = this.settings;
    const tried = wish?.tried ?? new Set<Endpoint>();
    const lastStart = deadlines.now() + 2 * upstream.connectTimeoutMs;
    let askedAnew = false;
    const tryOne = (endpoint: Endpoint) => {
      tried.add(endpoint);
      const pool = this.poolOf(endpoint, announcement);
      const session = sessionWithRoom(pool, apart);
      if (session !== undefined) taken(session);
      else this.joinQueue(pool, upstream.connectTimeoutMs, { taken, failed: tryNext }, apart);
    };
    const tryNext = (fault: Fault) => {
      const inTime = deadlines.now() < lastStart;
      // As for connections of HTTP/1.1.
      const ruled = wish?.tried !== undefined && !askedAnew;
      if (ruled && balance.hasOther(upstream, tried)) return failed(fault);
      const next = inTime && !ruled ? balance.pick(upstream, tried, wish) : undefined;
      if (next !== undefined) tryOne(next);
      else if (askedAnew || !inTime || !balance.isAsking(upstream)) failed(fault);
      else {
        askedAnew = true;
        balance.resolve(upstream, () => tryNext(fault));
      }
    };
    tryOne(first);
  }

  private joinQueue(pool: Pool, connectTimeoutMs: number, waiter: Waiter, apart: boolean): void {
    const connecting = pool.sessions.find(
      (session) => session.apart === apart && !session.ready && session.waiting.length < MOST_WAITING,
    );
    const session = connecting ?? this.connect(pool, connectTimeoutMs, apart);
    session.wait(waiter);
  }

  private connect(pool: Pool, connectTimeoutMs: number, apart: boolean): Session {
    const session = new Session(pool, this.settings, connectTimeoutMs, apart);
    pool.sessions.push(session);
    return session;
  }
}

function sessionWithRoom({ sessions }: Pool, apart: boolean): Session | undefined {
  for (let i = 0; i < sessions.length; i++) {
    const session = sessions[i]!;
    if (session.apart === apart && session.ready && session.hasRoom) return session;
  }
  return undefined;
}
