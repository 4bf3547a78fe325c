// Which address of an upstream the next connection or stream goes to: the least loaded one that is healthy and not ejected.

import { isIP } from 'node:net';
import { Fault } from '../faults.ts';
import type {
  Address,
  Choice,
  HealthSettings,
  ServerShare,
  TlsToUpstream,
  UpstreamProtocol,
  UpstreamSettings,
} from '../rules/routes.ts';
import type { Deadlines } from '../socket/deadlines.ts';
import { choose, type Open, type Place, placeOf } from './choice.ts';
import {
  createStanding,
  type Leaving,
  leavingOf,
  noteFailure,
  noteWell,
  reinstate,
  type Standing,
  tryOnce,
} from './ejection.ts';
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

/** What one request asks of the choice, because rules say so. */
export interface Wish {
  /** What has the same one is given the same address, as long as that can be asked. */
  readonly key?: string | undefined;
  /** Asked before all others, if it can be. */
  readonly prefers?: ((endpoint: Endpoint) => boolean) | undefined;
  /**
   * Where it has been: it goes elsewhere, and an address that cannot be connected to is no reason to try another. What is
   * tried again is then for its rules to say.
   */
  readonly tried?: Set<Endpoint> | undefined;
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
   * The address that is next. If all are ejected, the one that comes back first: it may work, a refusal cannot.
   * Undefined: there is none, or all are unhealthy, or tried; noneFault() tells which.
   */
  pick(settings: UpstreamSettings, tried?: ReadonlySet<Endpoint>, wish?: Wish): Endpoint | undefined;
  /** Whether one that was not tried, and is not left out, could be asked now. */
  hasOther(settings: UpstreamSettings, tried: ReadonlySet<Endpoint>): boolean;
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

/** Addresses are used this much past their time while the name is looked up, so that no request waits for the DNS. */
const STALE_MS = 10_000;
/** How long addresses are kept while the DNS does not answer. */
const KEEP_MS = 300_000;
/** Between one failure to resolve and the next attempt. */
const RETRY_MS = 1_000;

interface Watched extends Endpoint, Standing {
  readonly member: Member;
  healthy: boolean;
  retired: boolean;
  stopCheck: (() => void) | undefined;
}

/** One configured address. */
interface Member {
  readonly key: string;
  readonly address: Address;
  readonly protocol: UpstreamProtocol;
  readonly health: HealthSettings | undefined;
  readonly tls: TlsToUpstream | undefined;
  /** When failures of requests leave it out. */
  readonly leaving: Leaving | undefined;
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
  /** Undefined: all are equal, and the least loaded is next. */
  readonly choice: Choice | undefined;
  readonly shares: readonly ServerShare[] | undefined;
  /** In the order of `endpoints`, where there is something to choose by. */
  places: readonly (Place & { readonly endpoint: Watched })[];
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
    const now = this.deadlines.instant();
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
      const { addresses, servers, choice } = settings;
      group = {
        members: addresses.map((address, i) => this.memberOf(address, settings, servers?.[i])),
        choice: choice ?? (servers?.some(isUnequal) === true ? 'turns' : undefined),
        shares: servers,
        places: [],
        endpoints: [],
        version: -1,
        turn: Math.floor(Math.random() * 1_000),
      };
      this.groups.set(settings, group);
    }
    if (group.version !== this.version) {
      group.version = this.version;
      group.endpoints = group.members.flatMap(({ endpoints }) => endpoints);
      if (group.choice !== undefined) group.places = placesOf(group);
    }
    return group;
  }

  private memberOf(
    address: Address,
    { protocol, health, tls }: UpstreamSettings,
    share: ServerShare | undefined,
  ): Member {
    const leaving = leavingOf(share);
    const kept = [health ?? null, tls ?? null, leaving ?? null];
    const key = JSON.stringify([protocol, address.host, address.port, ...kept]);
    const known = this.members.get(key);
    if (known !== undefined) return known;
    const fixed = isIP(address.host) !== 0;
    const member: Member = {
      key,
      address,
      protocol,
      health,
      tls,
      leaving,
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

  pick(settings: UpstreamSettings, tried?: ReadonlySet<Endpoint>, wish?: Wish): Endpoint | undefined {
    const group = this.groupOf(settings);
    const now = this.deadlines.instant();
    for (const member of group.members) if (member.refreshAt <= now) void this.refresh(member);
    if (group.choice !== undefined) return pickByRule(group, group.choice, now, tried, wish);
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

  hasOther(settings: UpstreamSettings, tried: ReadonlySet<Endpoint>): boolean {
    const group = this.groupOf(settings);
    const now = this.deadlines.now();
    return group.endpoints.some((endpoint, i) => {
      if (!endpoint.healthy || endpoint.ejectedUntil > now || tried.has(endpoint)) return false;
      return endpoint.active < (group.places[i]?.most ?? Number.POSITIVE_INFINITY);
    });
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
    const { member } = watched;
    if (outcome === 'well') {
      if (watched.failures > 0) noteWell(watched, member.leaving, this.deadlines.now());
      if (member.troubles !== undefined) recover(member);
      return;
    }
    if (outcome === 'unreachable') this.askAnew(member);
    noteFailure(watched, member.leaving, outcome === 'unreachable', this.deadlines.now());
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
    ...createStanding(),
    stopCheck: undefined,
  };
}

function isUnequal({ weight = 1, backup = false, maxConnections = 0, maxFails }: ServerShare): boolean {
  return weight !== 1 || backup || maxConnections > 0 || maxFails !== undefined;
}

/** Of a name with several addresses each has its part of the name's weight. What they are owed stays. */
function placesOf({ members, places, shares }: Group): Group['places'] {
  const owed = new Map(places.map((place) => [place.endpoint, place.owed]));
  return members.flatMap(({ endpoints, address }, i) =>
    endpoints.map((endpoint) => ({
      ...placeOf(shares?.[i] ?? {}, endpoints.length, `${endpoint.ip} ${address.port}`),
      endpoint,
      owed: owed.get(endpoint) ?? 0,
    })),
  );
}

function pickByRule(
  { places }: Group,
  choice: Choice,
  now: number,
  tried: ReadonlySet<Endpoint> | undefined,
  wish: Wish | undefined,
): Watched | undefined {
  const open = (place: Group['places'][number]): Open => {
    const { endpoint } = place;
    if (!endpoint.healthy || tried?.has(endpoint) === true || endpoint.active >= place.most) return 'no';
    return endpoint.ejectedUntil > now ? 'left-out' : 'yes';
  };
  const prefers = wish?.prefers;
  const own = prefers && places.find((place) => prefers(place.endpoint) && open(place) === 'yes');
  const chosen = own ?? choose(choice, places, open, wish?.key) ?? soonestBack(places, open);
  if (chosen === undefined) return undefined;
  tryOnce(chosen.endpoint, chosen.endpoint.member.leaving, now);
  return chosen.endpoint;
}

/** All are left out: a guess beats a refusal. */
function soonestBack(places: Group['places'], open: (place: Group['places'][number]) => Open) {
  const out = places.filter((place) => open(place) === 'left-out');
  return out.sort((a, b) => a.endpoint.ejectedUntil - b.endpoint.ejectedUntil)[0];
}

function isBetter(one: Watched, other: Watched, now: number): boolean {
  const oneOut = one.ejectedUntil > now;
  const otherOut = other.ejectedUntil > now;
  if (oneOut !== otherOut) return otherOut;
  return oneOut ? one.ejectedUntil < other.ejectedUntil : one.active < other.active;
}
