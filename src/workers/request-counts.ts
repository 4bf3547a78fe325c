// Counts what exchanges show of themselves: requests and how long they took by host, route, method and code; faults; upstreams.

import type { ExchangeObserver, Observed } from '../../proxy/exchange/observe.ts';
import { type FaultCode, faultCodes } from '../../proxy/faults.ts';
import type { UpstreamNow } from '../../proxy/listener/listener.ts';
import type { Address, RouteMatch } from '../../proxy/rules/routes.ts';
import { addressName } from '../../proxy/upstream/troubles.ts';
import {
  faultLayout,
  hostLayout,
  OTHER,
  observe,
  REQUEST,
  type Row,
  requestLayout,
  UPSTREAM,
  upstreamLayout,
} from './counters.ts';
import { methods, routeLabel } from './labels.ts';
import { createRows, type Rows } from './rows.ts';

export interface RequestCounts {
  readonly observer: ExchangeObserver;
  readonly rows: readonly Rows[];
  /** The names that certificates are served for. Those of before keep what they have counted. */
  setHosts(names: readonly string[]): void;
  /** How the upstreams stand now; requests to others are counted together. */
  setUpstreams(now: readonly UpstreamNow[]): void;
}

export function createRequestCounts(now: () => number = () => performance.now()): RequestCounts {
  const counting = new Counting(now);
  return {
    observer: counting,
    // The few before the many: where there is too much to tell at once, the last wait.
    rows: [counting.hosts, counting.faults, counting.upstreams, counting.requests],
    setHosts: (names) => counting.setHosts(names),
    setUpstreams: (upstreams) => counting.setUpstreams(upstreams),
  };
}

/** Of a packed number: a method, and a status. */
const METHOD_BITS = 4;
const STATUS_BITS = 10;
const FAULT_BITS = 6;
/** Pairs of host and route beyond it are one. */
const MOST_PLACES = 2 ** 16;
/** More than there are rows: those of the last row are looked up as fast as the others. */
const MOST_KINDS = 16_384;
/** Of hosts that were asked for. */
const MOST_FOUND = 4_096;

class Counting implements ExchangeObserver {
  readonly reads = 'figures';
  readonly requests = createRows(requestLayout);
  readonly hosts = createRows(hostLayout);
  readonly faults = createRows(faultLayout);
  readonly upstreams = createRows(upstreamLayout);
  private readonly now: () => number;
  /** By its number. */
  private readonly hostNames: string[] = [];
  private readonly hostRows: Row[] = [];
  private readonly numberOfHost = new Map<string, number>();
  /** Those that are served now. */
  private served = new Map<string, number>();
  /** By what was asked for, so that no wildcard has to be put together for each request. */
  private readonly found = new Map<string, number>();
  private readonly routeNames: string[] = [];
  private readonly numberOfRoute = new Map<string, number>();
  /** Pairs of host and route, numbered; a request of a pair that was seen makes nothing new. */
  private readonly places = new Map<number, number>();
  private readonly byKind = new Map<number, Row>();
  private readonly byFault = new Map<number, Row>();
  private readonly byUpstream = new Map<string, Row>();
  private readonly byAddress = new WeakMap<Address, Row>();
  private readonly otherUpstream: Row;
  /** Where one was counted last. */
  private readonly seen = new WeakMap<RouteMatch, { readonly host: number; readonly place: number }>();
  private lastMatch: RouteMatch | undefined = undefined;
  private lastHost = -1;
  private lastPlace = 0;

  constructor(now: () => number) {
    this.now = now;
    this.hostNames.push(OTHER);
    this.hostRows.push(this.hosts.rest());
    this.otherUpstream = this.upstreams.rest();
  }

  // --- What there is ---

  setHosts(names: readonly string[]): void {
    this.found.clear();
    this.served = new Map(names.map((name) => [name, this.numberOfHost.get(name) ?? this.addHost(name)]));
  }

  private addHost(name: string): number {
    const number = this.hostNames.push(name) - 1;
    this.numberOfHost.set(name, number);
    const row = this.hosts.add(name);
    this.hostRows.push(row);
    this.hosts.touch(row);
    return number;
  }

  setUpstreams(now: readonly UpstreamNow[]): void {
    for (const { name, fails } of now) {
      const row = this.byUpstream.get(name) ?? this.addUpstream(name);
      this.setGauge(row, UPSTREAM.fails, fails ? 1 : 0);
    }
    const names = new Set(now.map(({ name }) => name));
    for (const [name, row] of this.byUpstream) if (!names.has(name)) this.setGauge(row, UPSTREAM.fails, 0);
  }

  private addUpstream(name: string): Row {
    const row = this.upstreams.add(name);
    this.byUpstream.set(name, row);
    // One that nobody has asked yet is told of too.
    this.upstreams.touch(row);
    return row;
  }

  private setGauge(row: Row, place: number, value: number): void {
    if (row.numbers[place] === value) return;
    row.numbers[place] = value;
    this.upstreams.touch(row);
  }

  // --- The moments ---

  headTaken(exchange: Observed): void {
    const host = this.hostOf(exchange.host);
    exchange.countedAt = host;
    const row = this.hostRows[host]!;
    row.numbers[0]!++;
    this.hosts.touch(row);
  }

  upstreamDone(exchange: Observed): void {
    const row = this.rowOfUpstream(exchange);
    // The clock was read for the reply a moment ago, or for the end.
    const { upstreamAt, replyAt, endedAt } = exchange;
    observe(row.numbers, UPSTREAM.duration, (replyAt || endedAt || this.now()) - upstreamAt);
    this.upstreams.touch(row);
  }

  sentAgain(exchange: Observed): void {
    const row = this.rowOfUpstream(exchange);
    row.numbers[UPSTREAM.retries]!++;
    this.upstreams.touch(row);
  }

  over(exchange: Observed): void {
    const { countedAt: host, startedAt, replyAt, endedAt, fault, protocol } = exchange;
    const atHost = this.hostRows[host]!;
    atHost.numbers[0]!--;
    this.hosts.touch(atHost);
    const row = this.rowOf(exchange, host);
    const { numbers } = row;
    numbers[REQUEST.requests]!++;
    numbers[REQUEST.received]! += exchange.received;
    numbers[REQUEST.sent]! += exchange.sent;
    // A conversation lasts as long as its ends like: that says nothing of how fast anybody is.
    if (protocol !== 'websocket') observe(numbers, REQUEST.duration, endedAt - startedAt);
    if (replyAt !== 0) observe(numbers, REQUEST.firstByte, replyAt - startedAt);
    this.requests.touch(row);
    if (fault !== undefined) this.countFault(host, fault);
  }

  // --- Where it is counted ---

  private hostOf(host: string): number {
    const known = this.found.get(host);
    if (known !== undefined) return known;
    const number = this.served.get(host) ?? this.served.get(`*${host.slice(host.indexOf('.'))}`) ?? 0;
    // Names are what clients choose.
    if (this.found.size >= MOST_FOUND) this.found.clear();
    this.found.set(host, number);
    return number;
  }

  private rowOf({ match, method, status }: Observed, host: number): Row {
    const place = this.placeOf(match, host);
    const known = status >= 0 && status < 1 << STATUS_BITS ? status : 0;
    const kind = (place << (METHOD_BITS + STATUS_BITS)) | (methodNumber(method) << STATUS_BITS) | known;
    const row = this.byKind.get(kind);
    return row ?? this.addKind(kind, match, host, method, known);
  }

  private addKind(
    kind: number,
    match: RouteMatch | undefined,
    host: number,
    method: string,
    status: number,
  ): Row {
    const labels = [this.hostNames[host]!, routeLabel(match), methods[methodNumber(method)]!, String(status)];
    const row = this.requests.add(...labels);
    if (this.byKind.size < MOST_KINDS) this.byKind.set(kind, row);
    return row;
  }

  /** Most requests are for what the one before was for. */
  private placeOf(match: RouteMatch | undefined, host: number): number {
    if (match === this.lastMatch && host === this.lastHost) return this.lastPlace;
    const seen = match && this.seen.get(match);
    if (seen?.host === host) return seen.place;
    const label = routeLabel(match);
    const route = this.numberOfRoute.get(label) ?? this.addRoute(label);
    const pair = host * MOST_PLACES + route;
    let place = this.places.get(pair);
    if (place === undefined) {
      place = Math.min(this.places.size, MOST_PLACES - 1);
      this.places.set(pair, place);
    }
    if (match !== undefined) this.seen.set(match, { host, place });
    this.lastMatch = match;
    this.lastHost = host;
    this.lastPlace = place;
    return place;
  }

  private addRoute(label: string): number {
    const number = this.routeNames.push(label) - 1;
    this.numberOfRoute.set(label, number);
    return number;
  }

  private rowOfUpstream({ upstream, settings }: Observed): Row {
    if (upstream === undefined || settings === undefined) return this.otherUpstream;
    let row = this.byAddress.get(upstream);
    if (row === undefined) {
      // What variables of rules name may be a client's choice: only what is configured has a row.
      row = this.byUpstream.get(addressName(settings.protocol, upstream)) ?? this.otherUpstream;
      this.byAddress.set(upstream, row);
    }
    return row;
  }

  private countFault(host: number, fault: FaultCode): void {
    const kind = (host << FAULT_BITS) | faultCodes.indexOf(fault);
    let row = this.byFault.get(kind);
    if (row === undefined) {
      row = this.faults.add(this.hostNames[host]!, fault);
      this.byFault.set(kind, row);
    }
    row.numbers[0]!++;
    this.faults.touch(row);
  }
}

function methodNumber(method: string): number {
  if (method === 'GET') return 0;
  const found = (methods as readonly string[]).indexOf(method);
  return found < 0 ? methods.length - 1 : found;
}
