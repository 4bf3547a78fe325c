// Which address of an upstream the next connection or stream goes to: the least loaded one that is healthy and not ejected.

import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import { Fault } from '../faults.ts';
import type {
  Address,
  HealthSettings,
  ServerShare,
  TlsToUpstream,
  UpstreamProtocol,
  UpstreamSettings,
} from '../rules/routes.ts';
import type { Deadlines } from '../socket/deadlines.ts';
import type { Names } from './names.ts';
import { type Trouble, type Troubles, upstreamName } from './troubles.ts';

/** One IP address of one configured address. */
export interface Endpoint {
  /** As configured: what TLS certificates are checked against. */
  readonly address: Address;
  readonly ip: string;
  readonly protocol: UpstreamProtocol;
  /** How TLS is spoken to it, where its settings say so: what was made for one way is never used for another. */
  readonly tls: TlsToUpstream | undefined;
  /** Exchanges, tunnels and streams under way. Whoever uses the endpoint counts them. */
  active: number;
  /** False while its health checks fail. */
  readonly healthy: boolean;
  /** Its name has another address now, or no route leads to it any more: no connection to it is kept. */
  readonly retired: boolean;
}

/** `unreachable`: it could not be connected to. `failed`: it could, but then it broke the connection or did not answer. */
export type Outcome = 'well' | 'failed' | 'unreachable';

export interface Balance {
  /** Whether addresses are known, so that pick() can choose; otherwise wait for resolve(). */
  isResolved(settings: UpstreamSettings): boolean;
  /** Whether a name is being looked up: the answer may bring addresses that were not tried. */
  isAsking(settings: UpstreamSettings): boolean;
  /** Calls `done` once an address is known, once none can be had, or after the connect timeout. */
  resolve(settings: UpstreamSettings, done: () => void): void;
  /**
   * The address with the fewest exchanges. If all are ejected, the one that comes back first: it may work, a refusal cannot.
   * `key`: what has the same one is given the same address, as long as that can be asked.
   * Undefined: there is none, or all are unhealthy, or tried; noneFault() tells which.
   */
  pick(settings: UpstreamSettings, tried?: ReadonlySet<Endpoint>, key?: string): Endpoint | undefined;
  noneFault(settings: UpstreamSettings): Fault;
  /** Whether the address at this place of the settings can be asked, or is not known to fail yet. */
  isWell(settings: UpstreamSettings, index: number): boolean;
  /** A client's request has failed because of the upstream. */
  failed(settings: UpstreamSettings, fault: Fault): void;
  /** It could be connected to. */
  connected(endpoint: Endpoint): void;
  /** Counts towards ejection. After `unreachable` the name is looked up again. */
  report(endpoint: Endpoint, outcome: Outcome): void;
  /** These settings are in use, and no others: starts and stops health checks, and retires what is in none of them. */
  serve(list: readonly UpstreamSettings[]): void;
  /** `retired` is called for each endpoint that gets no more requests. */
  onRetired(retired: (endpoint: Endpoint) => void): void;
  close(): void;
}

export interface BalanceOptions {
  readonly deadlines: Deadlines;
  readonly names: Names;
  readonly troubles: Troubles;
  /** Begins to check an endpoint; the result ends it. */
  readonly check: (
    endpoint: Endpoint,
    health: HealthSettings,
    changed: (healthy: boolean) => void,
  ) => () => void;
}

const FAILURES_TO_EJECT = 3;
const FIRST_EJECTION_MS = 1_000;
const LONGEST_EJECTION_MS = 60_000;
/** Addresses are used this much past their time while the name is looked up, so that no request waits for the DNS. */
const STALE_MS = 10_000;
/** How long addresses are kept while the DNS does not answer. */
const KEEP_MS = 300_000;
/** Between one failure to resolve and the next attempt. */
const RETRY_MS = 1_000;

interface Watched extends Endpoint {
  readonly member: Member;
  healthy: boolean;
  retired: boolean;
  failures: number;
  ejections: number;
  ejectedUntil: number;
  stopCheck: (() => void) | undefined;
}

/** One configured address. */
interface Member {
  readonly key: string;
  readonly address: Address;
  readonly protocol: UpstreamProtocol;
  readonly health: HealthSettings | undefined;
  readonly tls: TlsToUpstream | undefined;
  endpoints: readonly Watched[];
  checked: boolean;
  /** When the name is to be asked again, and until when what is known may be used meanwhile. */
  refreshAt: number;
  staleAt: number;
  keepUntil: number;
  resolvedAt: number;
  fault: Fault | undefined;
  resolving: Promise<void> | undefined;
  refreshTimer: NodeJS.Timeout | undefined;
  /** The troubles that it has been part of since it last worked. */
  troubles: Trouble[] | undefined;
}

interface Group {
  readonly members: readonly Member[];
  endpoints: readonly Watched[];
  version: number;
  turn: number;
  /** Undefined: all are equal. */
  readonly shares: readonly ServerShare[] | undefined;
  /** By endpoint, where they are not equal. */
  places: Map<Endpoint, Place>;
}

/** What an endpoint is to one group; another group may give it another share. */
interface Place {
  readonly weight: number;
  readonly backup: boolean;
  /** Infinity: no limit. */
  readonly most: number;
  /** How much it is owed. */
  owed: number;
}

export function createBalance(options: BalanceOptions): Balance {
  return new LeastLoaded(options);
}

class LeastLoaded implements Balance {
  private readonly options: BalanceOptions;
  private readonly deadlines: Deadlines;
  private readonly members = new Map<string, Member>();
  /** Settings are new objects after each reload. The state of an address is kept by what the settings say. */
  private groups = new WeakMap<UpstreamSettings, Group>();
  private readonly retiredListeners: ((endpoint: Endpoint) => void)[] = [];
  /** Rises whenever a member's endpoints change. */
  private version = 0;

  constructor(options: BalanceOptions) {
    this.options = options;
    this.deadlines = options.deadlines;
  }

  isResolved(settings: UpstreamSettings): boolean {
    const now = this.deadlines.now();
    for (const member of this.groupOf(settings).members) if (member.staleAt > now) return true;
    return false;
  }

  isAsking(settings: UpstreamSettings): boolean {
    return this.groupOf(settings).members.some(({ resolving }) => resolving !== undefined);
  }

  noneFault(settings: UpstreamSettings): Fault {
    const group = this.groupOf(settings);
    if (group.endpoints.some(({ healthy }) => !healthy))
      return new Fault('upstream-unavailable', 'all health checks fail');
    return group.members.find(({ fault }) => fault !== undefined)?.fault ?? new Fault('upstream-unavailable');
  }

  isWell(settings: UpstreamSettings, index: number): boolean {
    const now = this.deadlines.now();
    const { endpoints, fault } = this.groupOf(settings).members[index]!;
    if (endpoints.length === 0) return fault === undefined;
    return endpoints.some(({ healthy, ejectedUntil }) => healthy && ejectedUntil <= now);
  }

  failed(settings: UpstreamSettings, fault: Fault): void {
    const trouble = this.options.troubles.failed(upstreamName(settings), fault, true);
    for (const member of this.groupOf(settings).members) {
      if (member.troubles?.includes(trouble) !== true)
        member.troubles = [...(member.troubles ?? []), trouble];
    }
  }

  connected(endpoint: Endpoint): void {
    for (const trouble of (endpoint as Watched).member.troubles ?? []) trouble.connected();
  }

  onRetired(listener: (endpoint: Endpoint) => void): void {
    this.retiredListeners.push(listener);
  }

  close(): void {
    this.serve([]);
  }

  private groupOf(settings: UpstreamSettings): Group {
    let group = this.groups.get(settings);
    if (group === undefined) {
      const { protocol, addresses, health, servers, tls } = settings;
      group = {
        members: addresses.map((address) => this.memberOf(address, protocol, health, tls)),
        shares: servers?.some(isUnequal) === true ? servers : undefined,
        places: new Map(),
        endpoints: [],
        version: -1,
        turn: Math.floor(Math.random() * 1_000),
      };
      this.groups.set(settings, group);
    }
    if (group.version !== this.version) {
      group.version = this.version;
      group.endpoints = group.members.flatMap(({ endpoints }) => endpoints);
      if (group.shares !== undefined) group.places = placesOf(group, group.shares);
    }
    return group;
  }

  private memberOf(
    address: Address,
    protocol: UpstreamProtocol,
    health: HealthSettings | undefined,
    tls: TlsToUpstream | undefined,
  ): Member {
    const key = JSON.stringify([protocol, address.host, address.port, health ?? null, tls ?? null]);
    const known = this.members.get(key);
    if (known !== undefined) return known;
    const fixed = isIP(address.host) !== 0;
    const member: Member = {
      key,
      address,
      protocol,
      health,
      tls,
      endpoints: [],
      checked: false,
      refreshAt: fixed ? Number.POSITIVE_INFINITY : 0,
      staleAt: fixed ? Number.POSITIVE_INFINITY : 0,
      keepUntil: 0,
      resolvedAt: Number.NEGATIVE_INFINITY,
      fault: undefined,
      resolving: undefined,
      refreshTimer: undefined,
      troubles: undefined,
    };
    if (fixed) member.endpoints = [createEndpoint(member, address.host)];
    this.members.set(key, member);
    return member;
  }

  pick(settings: UpstreamSettings, tried?: ReadonlySet<Endpoint>, key?: string): Endpoint | undefined {
    const group = this.groupOf(settings);
    const now = this.deadlines.now();
    for (const member of group.members) if (member.refreshAt <= now) void this.refresh(member);
    if (key !== undefined) {
      const own = pickByKey(group, now, key);
      if (own !== undefined) return own;
    }
    if (group.shares !== undefined) return pickByShare(group, now, tried);
    const { endpoints } = group;
    const count = endpoints.length;
    // Endpoints with equal load take turns.
    const first = ++group.turn;
    let best: Watched | undefined;
    for (let i = 0; i < count; i++) {
      const endpoint = endpoints[(first + i) % count]!;
      if (!endpoint.healthy || tried?.has(endpoint)) continue;
      if (best === undefined || isBetter(endpoint, best, now)) best = endpoint;
    }
    return best;
  }

  resolve(settings: UpstreamSettings, done: () => void): void {
    const group = this.groupOf(settings);
    const now = this.deadlines.now();
    const unknown = group.members.filter(
      ({ staleAt, resolving }) => staleAt <= now || resolving !== undefined,
    );
    let waiting = true;
    const finish = () => {
      if (!waiting) return;
      waiting = false;
      this.deadlines.forget(deadline);
      done();
    };
    const deadline = {
      at: now + settings.connectTimeoutMs,
      expired() {
        for (const member of unknown) member.fault ??= new Fault('upstream-unresolved', 'no answer in time');
        finish();
      },
    };
    this.deadlines.watch(deadline);
    // One known name is enough to begin with: the others are used once they are known.
    const anyKnown = Promise.any(
      unknown.map(async (member) => {
        await this.refresh(member);
        if (member.endpoints.length === 0) throw member.fault;
      }),
    );
    anyKnown.then(finish, finish);
  }

  /** Never rejects: a failure is kept in `fault`, and known addresses are used on. */
  private refresh(member: Member): Promise<void> {
    member.resolving ??= this.options.names
      .resolve(member.address.host)
      .then(
        ({ addresses, lifetimeMs }) => {
          const now = this.deadlines.now();
          member.fault = undefined;
          member.refreshAt = now + lifetimeMs;
          member.staleAt = member.refreshAt + STALE_MS;
          member.keepUntil = now + lifetimeMs + KEEP_MS;
          this.replaceEndpoints(member, addresses);
        },
        (cause: Error) => {
          const now = this.deadlines.now();
          member.fault = new Fault('upstream-unresolved', member.address.host, { cause });
          member.refreshAt = now + RETRY_MS;
          if (now >= member.keepUntil) this.replaceEndpoints(member, []);
          member.staleAt = member.refreshAt + (member.endpoints.length === 0 ? 0 : STALE_MS);
        },
      )
      .finally(() => {
        member.resolvedAt = this.deadlines.now();
        member.resolving = undefined;
      });
    return member.resolving;
  }

  private replaceEndpoints(member: Member, addresses: readonly string[]): void {
    const before = member.endpoints;
    const kept = (ip: string) => before.find((endpoint) => endpoint.ip === ip);
    member.endpoints = addresses.map((ip) => kept(ip) ?? createEndpoint(member, ip));
    for (const endpoint of before) if (!member.endpoints.includes(endpoint)) this.retire(endpoint);
    if (member.checked) for (const endpoint of member.endpoints) this.startCheck(endpoint);
    this.version++;
  }

  private retire(endpoint: Watched): void {
    endpoint.retired = true;
    endpoint.stopCheck?.();
    endpoint.stopCheck = undefined;
    for (const tell of this.retiredListeners) tell(endpoint);
  }

  private startCheck(endpoint: Watched): void {
    const { health } = endpoint.member;
    if (health === undefined || endpoint.stopCheck !== undefined) return;
    endpoint.stopCheck = this.options.check(endpoint, health, (healthy) => {
      endpoint.healthy = healthy;
      // Its earlier failures say nothing about an endpoint that is healthy again.
      if (healthy) reinstate(endpoint);
    });
  }

  report(endpoint: Endpoint, outcome: Outcome): void {
    const watched = endpoint as Watched;
    if (outcome === 'well') {
      if (watched.failures > 0) reinstate(watched);
      if (watched.member.troubles !== undefined) recover(watched.member);
      return;
    }
    if (outcome === 'unreachable') this.askAnew(watched.member);
    watched.failures = outcome === 'unreachable' ? FAILURES_TO_EJECT : watched.failures + 1;
    if (watched.failures < FAILURES_TO_EJECT) return;
    const now = this.deadlines.now();
    // Requests that were under way at the same time fail together, and count as one ejection.
    if (watched.ejectedUntil > now) return;
    watched.ejectedUntil = now + Math.min(FIRST_EJECTION_MS * 2 ** watched.ejections, LONGEST_EJECTION_MS);
    watched.ejections++;
    // After its return one more failure ejects it again, for longer.
    watched.failures = FAILURES_TO_EJECT - 1;
  }

  /** Unless the name was looked up a moment ago: the answer would be the same. */
  private askAnew(member: Member): void {
    if (isIP(member.address.host) !== 0 || this.deadlines.now() - member.resolvedAt < RETRY_MS) return;
    void this.refresh(member);
  }

  serve(list: readonly UpstreamSettings[]): void {
    const inUse = new Set(list.flatMap((settings) => this.groupOf(settings).members));
    for (const member of this.members.values()) {
      if (!inUse.has(member)) {
        this.members.delete(member.key);
        member.checked = false;
        clearInterval(member.refreshTimer);
        for (const endpoint of member.endpoints) this.retire(endpoint);
        // Requests that still have old settings get new endpoints, and so do settings that come back.
        this.groups = new WeakMap();
      } else if (member.health !== undefined && !member.checked) this.beginChecks(member, member.health);
    }
  }

  private beginChecks(member: Member, { intervalMs }: HealthSettings): void {
    member.checked = true;
    for (const endpoint of member.endpoints) this.startCheck(endpoint);
    if (isIP(member.address.host) !== 0) return;
    // Without requests nothing else would notice that the name has another address.
    const keepFresh = () => {
      if (member.refreshAt <= this.deadlines.now()) void this.refresh(member);
    };
    member.refreshTimer = setInterval(keepFresh, Math.min(intervalMs, MOST_BETWEEN_LOOKS_MS)).unref();
    keepFresh();
  }
}

const MOST_BETWEEN_LOOKS_MS = 30_000;

/** If it fails again, it is noted again. */
function recover(member: Member) {
  for (const trouble of member.troubles ?? []) trouble.well();
  member.troubles = undefined;
}

function reinstate(endpoint: Watched) {
  endpoint.failures = 0;
  endpoint.ejections = 0;
  endpoint.ejectedUntil = 0;
}

function createEndpoint(member: Member, ip: string): Watched {
  return {
    member,
    address: member.address,
    ip,
    protocol: member.protocol,
    tls: member.tls,
    active: 0,
    healthy: true,
    retired: false,
    failures: 0,
    ejections: 0,
    ejectedUntil: 0,
    stopCheck: undefined,
  };
}

function isUnequal({ weight = 1, backup = false, maxConnections = 0 }: ServerShare): boolean {
  return weight !== 1 || backup || maxConnections > 0;
}

function placesOf({ members, places }: Group, shares: readonly ServerShare[]): Map<Endpoint, Place> {
  return new Map(
    members.flatMap(({ endpoints }, index) => {
      const { weight = 1, backup = false, maxConnections = 0 } = shares[index] ?? {};
      // Of a name with several addresses each has its part.
      const part = weight / Math.max(1, endpoints.length);
      const most = maxConnections > 0 ? maxConnections : Number.POSITIVE_INFINITY;
      return endpoints.map(
        (endpoint) =>
          [endpoint, { weight: part, backup, most, owed: places.get(endpoint)?.owed ?? 0 }] as const,
      );
    }),
  );
}

/**
 * By weights, in turns that are spread evenly: each is owed its weight with every turn, and who is owed most has its turn
 * and owes the sum. Those that stand by come only where no other can be asked.
 */
function pickByShare(
  { endpoints, places }: Group,
  now: number,
  tried: ReadonlySet<Endpoint> | undefined,
): Watched | undefined {
  const open = endpoints.filter((endpoint) => endpoint.healthy && tried?.has(endpoint) !== true);
  const free = open.filter((endpoint) => endpoint.active < places.get(endpoint)!.most);
  const well = free.filter(({ ejectedUntil }) => ejectedUntil <= now);
  const isFirst = (endpoint: Watched) => !places.get(endpoint)!.backup;
  const first = well.filter(isFirst);
  const candidates = first.length > 0 ? first : well;
  // All are ejected: a guess beats a refusal.
  if (candidates.length === 0) return free.sort((a, b) => a.ejectedUntil - b.ejectedUntil)[0];
  let sum = 0;
  let best = candidates[0]!;
  for (const endpoint of candidates) {
    const place = places.get(endpoint)!;
    place.owed += place.weight;
    sum += place.weight;
    if (place.owed > places.get(best)!.owed) best = endpoint;
  }
  places.get(best)!.owed -= sum;
  return best;
}

/**
 * The same one for the same key, as long as it can be asked: each gets a number by key and address, and the highest has
 * it (rendezvous hashing), so that one which comes or goes moves its own keys alone. Undefined: none can be asked.
 */
function pickByKey({ endpoints, places }: Group, now: number, key: string): Watched | undefined {
  let best: Watched | undefined;
  let highest = Number.NEGATIVE_INFINITY;
  for (const endpoint of endpoints) {
    const { weight = 1, backup = false, most = Number.POSITIVE_INFINITY } = places.get(endpoint) ?? {};
    if (backup || !endpoint.healthy || endpoint.ejectedUntil > now || endpoint.active >= most) continue;
    const digest = createHash('md5').update(`${endpoint.ip} ${endpoint.address.port} ${key}`).digest();
    const share = -weight / Math.log((digest.readUInt32BE(0) + 0.5) / 2 ** 32);
    if (share <= highest) continue;
    highest = share;
    best = endpoint;
  }
  return best;
}

function isBetter(one: Watched, other: Watched, now: number): boolean {
  const oneOut = one.ejectedUntil > now;
  const otherOut = other.ejectedUntil > now;
  if (oneOut !== otherOut) return otherOut;
  return oneOut ? one.ejectedUntil < other.ejectedUntil : one.active < other.active;
}
