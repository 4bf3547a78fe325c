// The moments of an exchange, and who is told of them: the access log, and whoever else watches.

import type { FaultCode } from '../faults.ts';
import type { Address, RouteMatch, UpstreamSettings } from '../rules/routes.ts';
import type { AccessEntry } from './access-entry.ts';
import type { AccessLog } from './access-log.ts';

/** What an exchange shows of itself. It may be used for the next one of its connection: keep nothing but values. */
export interface Observed extends AccessEntry {
  /** The route, and where it leads; undefined: neither forwarded nor answered by a handler. */
  readonly match: RouteMatch | undefined;
  /** The address that was asked last. */
  readonly upstream: Address | undefined;
  /** False: rules want no line of it in the access log. */
  readonly logged: boolean;
  /** When its reply began, in the deadlines' time; 0: it has not. */
  readonly replyAt: number;
  /** When nothing more was to happen to it, in the same time; 0: it is under way. */
  readonly endedAt: number;
  /** Where the route leads; undefined: nowhere. */
  readonly settings: UpstreamSettings | undefined;
  /** For whoever counts what is under way: where it has counted this one; 0 at its beginning. */
  countedAt: number;
  /** Its spans are recorded. */
  readonly sampled: boolean;
  /** As `traceparent`: of a trusted peer, whose trace goes on; empty: it began here. */
  readonly parentTrace: string;
  /** As `traceparent`: of the span that is the present attempt. */
  readonly upstreamTrace: string;
  /** What the upstream that was asked last has answered, whatever the client is told; 0: nothing. */
  readonly upstreamStatus: number;
  /** Why the upstream that was asked last was given up. */
  readonly loss: FaultCode | undefined;
  readonly connection: { readonly serverPort: number };
  /** What went wrong; `client-closed`: the client went away. */
  readonly fault: FaultCode | undefined;
}

type Told = ((exchange: Observed) => void) | undefined;

export type Reads = 'nothing' | 'figures' | 'all';

/** Told in this order; an exchange that fails may skip what lies between its head and its end. None may throw. */
export interface ExchangeObserver {
  /**
   * `nothing` of an exchange: no clock is read for it. `figures`: the texts of a head that is malformed, and the status of
   * gRPC, are not looked for. Default: all.
   */
  readonly reads?: Reads;
  /** The head of a request has been read, or could not be. */
  readonly headTaken?: Told;
  /** A connection or stream to an upstream has been had; once for each attempt. */
  readonly upstreamChosen?: Told;
  /** An upstream that was asked is not waited for any more: its reply has begun, or it was given up. Once for each. */
  readonly upstreamDone?: Told;
  /** The upstream was lost before it said anything, and the request is sent to one again. */
  readonly sentAgain?: Told;
  /** The head of the final reply is on its way, be it an upstream's or our own. */
  readonly replyBegun?: Told;
  /** Nothing more will happen to it. */
  readonly over?: Told;
}

/** Who may watch, as a proxy's context has them. */
export interface Watchers {
  readonly accessLog?: AccessLog | undefined;
  readonly observer?: ExchangeObserver | undefined;
}

/** Counts requests at `place`. Every head counts, be it read or not, and so does every stream of HTTP/2. */
export function countRequests(counts: Float64Array, place: number): ExchangeObserver {
  return {
    reads: 'nothing',
    headTaken() {
      counts[place]!++;
    },
  };
}

/** All that watch as one; undefined: nobody does. */
export function observerOf({ accessLog, observer }: Watchers): ExchangeObserver | undefined {
  if (accessLog === undefined) return observer;
  const log: ExchangeObserver = {
    over(exchange) {
      if (exchange.logged) accessLog.write(exchange, exchange.endedAt);
    },
  };
  return observer === undefined ? log : both(log, observer);
}

/** Two observers as one. */
export function both(one: ExchangeObserver, other: ExchangeObserver): ExchangeObserver {
  return {
    reads: more(one.reads, other.reads),
    headTaken: joined(one.headTaken?.bind(one), other.headTaken?.bind(other)),
    upstreamChosen: joined(one.upstreamChosen?.bind(one), other.upstreamChosen?.bind(other)),
    upstreamDone: joined(one.upstreamDone?.bind(one), other.upstreamDone?.bind(other)),
    sentAgain: joined(one.sentAgain?.bind(one), other.sentAgain?.bind(other)),
    replyBegun: joined(one.replyBegun?.bind(one), other.replyBegun?.bind(other)),
    over: joined(one.over?.bind(one), other.over?.bind(other)),
  };
}

function more(one: Reads = 'all', other: Reads = 'all'): Reads {
  if (one === 'nothing') return other;
  return one === 'all' || other === 'nothing' ? one : other;
}

/** What one of them alone is told costs no more than before. */
function joined(one: Told, other: Told): Told {
  if (one === undefined || other === undefined) return one ?? other;
  return (exchange) => {
    one(exchange);
    other(exchange);
  };
}
