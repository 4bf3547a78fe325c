// Connections to upstreams that speak HTTP/1.1 or raw bytes: a new one to the address that is next, or an idle one.

import type * as tls from 'node:tls';
import { type Log, silentLog } from '../../src/lib/log.ts';
import type { Fault } from '../faults.ts';
import type { UpstreamSettings } from '../rules/routes.ts';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import type { Announcement } from './announcement.ts';
import { type Balance, createBalance, type Endpoint, type Wish } from './balance.ts';
import { createHealthChecks } from './health.ts';
import { type Link, type LinkHome, open, type Pool, type UpstreamUser } from './link.ts';
import { createNames, type Names } from './names.ts';
import { addressName, createTroubles, logChange, type Troubles, type UpstreamChange } from './troubles.ts';
import { createTrustOfUpstreams } from './trust.ts';
import { createUpstreamWatch, type UpstreamWatch } from './watch.ts';

export type { Loss, UpstreamLink, UpstreamUser } from './link.ts';

export interface Acquisition {
  /** Gives up the attempt; once upstreamReady() was called, use the link's destroy(). */
  abandon(): void;
}

export interface AcquireOptions {
  /** Do not take an idle connection: for a retry, and for tunnels. */
  readonly fresh?: boolean;
  readonly wish?: Wish | undefined;
  /** What the upstream is told of the client first. The connection is then that client's connection's alone. */
  readonly announcement?: Announcement | undefined;
}

/** How an address stands, by what this process has seen. */
export interface UpstreamNow {
  /** As a route names it. */
  readonly name: string;
  readonly fails: boolean;
}

export interface Upstreams {
  /** HTTP/1.1 or raw bytes; TLS for https (ALPN http/1.1) and grpcs. The outcome arrives at `user`, perhaps at once. */
  acquire(settings: UpstreamSettings, user: UpstreamUser, options?: AcquireOptions): Acquisition;
  /** Which address is next: for protocols that keep their own connections. */
  readonly balance: Omit<Balance, 'close' | 'serve'>;
  /** These are the upstreams of all routes: health checks begin and end, and connections to others are let go. */
  serve(list: readonly UpstreamSettings[]): void;
  /** Each address of what is served, once. */
  now(): readonly UpstreamNow[];
  /** Trust for TLS to upstreams: Node's and the system's roots, and the CA given. */
  secureContext(): tls.SecureContext;
  /** Ends idle connections now: their descriptors are needed. Returns how many. */
  closeIdle(): number;
  /** There are no free descriptors: ends idle connections, and calls `onExhausted`. */
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
  /** Called when an upstream begins to fail and when that ends. With it, upstreams are also tried without a request. */
  readonly onChange?: ((change: UpstreamChange) => void) | undefined;
  /** How long an upstream must have worked before it counts as well again. */
  readonly quietMs?: number | undefined;
  /** There are no free descriptors: others may free some before the next attempt. */
  readonly onExhausted?: () => void;
  readonly log?: Log;
}

const IDLE_TIMEOUT_MS = 4_000;
/** After this, connections that were ended for their descriptors are closed. */
const RELIEF_MS = 20;
/** Enough for a burst. With fewer, many steady clients would need a new connection for most requests. */
const MAX_IDLE_PER_ADDRESS = 4_096;

export function createUpstreams(options: UpstreamsOptions): Upstreams {
  return new Pools(options);
}

class Pools implements Upstreams, LinkHome {
  readonly balance: Balance;
  readonly secureContext: () => tls.SecureContext;
  readonly deadlines: Deadlines;
  private readonly idleTimeoutMs: number;
  private readonly onExhausted: (() => void) | undefined;
  private readonly pools = new Map<Endpoint, Pool>();
  /** Where upstreams are told who their client is: by that, while something of it is idle. */
  private readonly ownPools = new Map<Endpoint, Map<string, Pool>>();
  private readonly watch: UpstreamWatch;
  private readonly troubles: Troubles;
  private served: readonly UpstreamSettings[] = [];
  private readonly reaper: Deadline = { at: Number.POSITIVE_INFINITY, expired: () => this.reap() };
  private closed = false;

  constructor(options: UpstreamsOptions) {
    const { deadlines, names = createNames(), log = silentLog, onChange } = options;
    this.deadlines = deadlines;
    this.idleTimeoutMs = options.idleTimeoutMs ?? IDLE_TIMEOUT_MS;
    this.onExhausted = options.onExhausted;
    const secureContext = createTrustOfUpstreams(options.upstreamCa);
    this.secureContext = secureContext;
    const checks = createHealthChecks({ secureContext, log });
    const troubles = createTroubles(onChange ?? ((change) => logChange(log, change)), options.quietMs);
    this.troubles = troubles;
    this.balance = createBalance({ deadlines, names, check: checks.begin, troubles });
    this.balance.onRetired((endpoint) => this.closePool(endpoint));
    this.watch = createUpstreamWatch({ troubles, names, secureContext, looks: onChange !== undefined });
  }

  acquire(settings: UpstreamSettings, user: UpstreamUser, how?: AcquireOptions): Acquisition {
    const { balance } = this;
    if (!balance.isResolved(settings)) return this.acquireResolved(settings, user, how);
    const wish = how?.wish;
    const endpoint = balance.pick(settings, wish?.tried, wish);
    if (endpoint === undefined) {
      user.upstreamFailed(balance.noneFault(settings));
      return NOTHING_TO_ABANDON;
    }
    if (how?.fresh !== true) {
      const link = this.takeIdle(endpoint, how?.announcement);
      if (link !== undefined) {
        wish?.tried?.add(endpoint);
        link.user = user;
        endpoint.active++;
        user.upstreamReady(link);
        return NOTHING_TO_ABANDON;
      }
    }
    return new Connecting(this, settings, user, endpoint, how);
  }

  serve(list: readonly UpstreamSettings[]): void {
    this.served = list;
    this.balance.serve(list);
    this.watch.serve(list);
  }

  now(): readonly UpstreamNow[] {
    const found = new Map<string, boolean>();
    for (const settings of this.served) {
      settings.addresses.forEach((address, index) => {
        const name = addressName(settings.protocol, address);
        const fails = this.troubles.of(name) !== undefined || !this.balance.isWell(settings, index);
        found.set(name, fails || found.get(name) === true);
      });
    }
    return [...found].map(([name, fails]) => ({ name, fails }));
  }

  closeIdle(): number {
    let closed = 0;
    for (const { idle } of this.allPools()) {
      for (const link of idle.splice(0)) {
        link.socket.destroy();
        closed++;
      }
    }
    this.ownPools.clear();
    return closed;
  }

  relieve(): void {
    this.closeIdle();
    this.onExhausted?.();
  }

  close(): void {
    this.closed = true;
    this.watch.close();
    this.balance.close();
    this.deadlines.forget(this.reaper);
    for (const endpoint of [...this.pools.keys(), ...this.ownPools.keys()]) this.closePool(endpoint);
  }

  poolOf(endpoint: Endpoint, announcement: Announcement | undefined): Pool {
    // One of a client's own is kept with the first connection that comes to be idle, if that ever happens.
    if (announcement !== undefined) return { endpoint, announcement, idle: [], session: undefined };
    let pool = this.pools.get(endpoint);
    if (pool === undefined) {
      pool = { endpoint, announcement, idle: [], session: undefined };
      // Nothing is kept for an endpoint that is retired.
      if (!endpoint.retired && !this.closed) this.pools.set(endpoint, pool);
    }
    return pool;
  }

  keepIdle(link: Link): boolean {
    const { endpoint, announcement } = link.pool;
    if (this.closed || endpoint.retired) return false;
    if (announcement !== undefined) link.pool = this.ownPool(link.pool, announcement);
    const { idle } = link.pool;
    if (idle.length >= MAX_IDLE_PER_ADDRESS) return false;
    link.idleSince = this.deadlines.coarse();
    idle.push(link);
    if (this.reaper.at === Number.POSITIVE_INFINITY) this.watchIdle();
    return true;
  }

  private acquireResolved(
    settings: UpstreamSettings,
    user: UpstreamUser,
    how: AcquireOptions | undefined,
  ): Acquisition {
    let abandoned = false;
    let attempt: Acquisition | undefined;
    this.balance.resolve(settings, () => {
      if (abandoned) return;
      if (this.balance.isResolved(settings)) attempt = this.acquire(settings, user, how);
      else user.upstreamFailed(this.balance.noneFault(settings));
    });
    return {
      abandon() {
        abandoned = true;
        attempt?.abandon();
      },
    };
  }

  /** That in which what this client's connection has left idle is kept; `made` becomes it if there is none. */
  private ownPool(made: Pool, { key }: Announcement): Pool {
    let own = this.ownPools.get(made.endpoint);
    if (own === undefined) {
      own = new Map();
      this.ownPools.set(made.endpoint, own);
    }
    const pool = own.get(key);
    if (pool !== undefined) return pool;
    own.set(key, made);
    return made;
  }

  private *allPools(): Iterable<Pool> {
    yield* this.pools.values();
    for (const own of this.ownPools.values()) yield* own.values();
  }

  private closePool(endpoint: Endpoint): void {
    const closed = [this.pools.get(endpoint), ...(this.ownPools.get(endpoint)?.values() ?? [])];
    this.pools.delete(endpoint);
    this.ownPools.delete(endpoint);
    for (const pool of closed) for (const link of pool?.idle.splice(0) ?? []) link.socket.destroy();
  }

  private takeIdle(endpoint: Endpoint, announcement: Announcement | undefined): Link | undefined {
    const pool =
      announcement === undefined
        ? this.pools.get(endpoint)
        : this.ownPools.get(endpoint)?.get(announcement.key);
    const idle = pool?.idle;
    if (idle === undefined) return undefined;
    const oldest = this.deadlines.coarse() - this.idleTimeoutMs;
    for (let link = idle.pop(); link !== undefined; link = idle.pop()) {
      if (link.idleSince > oldest && !link.socket.destroyed && link.socket.writable) return link;
      link.socket.destroy();
    }
    return undefined;
  }

  /** Of clients that have gone, or whose connections are in use. */
  private forgetEmptyPools(): void {
    for (const [endpoint, own] of this.ownPools) {
      for (const [key, { idle }] of own) if (idle.length === 0) own.delete(key);
      if (own.size === 0) this.ownPools.delete(endpoint);
    }
  }

  private watchIdle(): void {
    this.reaper.at = this.deadlines.now() + Math.min(1_000, this.idleTimeoutMs);
    this.deadlines.watch(this.reaper);
  }

  private reap(): void {
    this.reaper.at = Number.POSITIVE_INFINITY;
    const oldest = this.deadlines.now() - this.idleTimeoutMs;
    let left = 0;
    for (const { idle } of this.allPools()) {
      while (idle.length > 0 && idle[0]!.idleSince <= oldest) idle.shift()!.socket.destroy();
      left += idle.length;
    }
    this.forgetEmptyPools();
    if (left > 0 && !this.closed) this.watchIdle();
  }
}

/**
 * A new connection for one user. Nothing was sent to an address that could not be connected to, so the other addresses
 * are tried in turn, and then those that the name has come to have meanwhile. No attempt begins later than one connect
 * timeout after the first one may have ended.
 */
class Connecting implements Acquisition {
  private readonly pools: Pools;
  private readonly settings: UpstreamSettings;
  private readonly user: UpstreamUser;
  private readonly wish: Wish | undefined;
  private readonly announcement: Announcement | undefined;
  private readonly tried: Set<Endpoint>;
  private readonly lastStart: number;
  private abandoned = false;
  private askedAnew = false;
  private relieved = false;
  private link: Link | undefined = undefined;

  constructor(
    pools: Pools,
    settings: UpstreamSettings,
    user: UpstreamUser,
    first: Endpoint,
    { wish, announcement }: AcquireOptions = {},
  ) {
    this.pools = pools;
    this.settings = settings;
    this.user = user;
    this.wish = wish;
    this.announcement = announcement;
    this.tried = wish?.tried ?? new Set();
    this.lastStart = pools.deadlines.now() + 2 * settings.connectTimeoutMs;
    this.attempt(first);
  }

  abandon(): void {
    this.abandoned = true;
    // A connection that was handed over is the user's to end.
    if (this.link?.ready === false) this.link.socket.destroy();
  }

  private attempt(endpoint: Endpoint): void {
    this.tried.add(endpoint);
    const failed = (fault: Fault) => this.failed(endpoint, fault);
    this.link = open(this.pools, endpoint, this.settings, this.announcement, this.user, failed);
  }

  private failed(endpoint: Endpoint, fault: Fault): void {
    if (this.abandoned) return;
    const { pools } = this;
    if (fault.side === 'upstream') pools.balance.report(endpoint, 'unreachable');
    else if (!this.relieved) {
      // There are too few descriptors or ports, which is not the upstream's fault.
      this.relieved = true;
      pools.relieve();
      setTimeout(() => {
        if (!this.abandoned) this.attempt(endpoint);
      }, RELIEF_MS);
      return;
    }
    this.tryNext(fault);
  }

  private tryNext(fault: Fault) {
    const { settings, wish, tried } = this;
    const { balance, deadlines } = this.pools;
    const inTime = deadlines.now() < this.lastStart;
    // Where rules say what is tried again, only addresses that have just become known are tried unasked.
    const ruled = wish?.tried !== undefined && !this.askedAnew;
    if (ruled && balance.hasOther(settings, tried)) return this.user.upstreamFailed(fault);
    const next = inTime && !ruled ? balance.pick(settings, tried, wish) : undefined;
    if (next !== undefined) this.attempt(next);
    else if (this.askedAnew || !inTime || !balance.isAsking(settings)) this.user.upstreamFailed(fault);
    else {
      this.askedAnew = true;
      balance.resolve(settings, () => {
        if (!this.abandoned) this.tryNext(fault);
      });
    }
  }
}

const NOTHING_TO_ABANDON: Acquisition = { abandon() {} };
