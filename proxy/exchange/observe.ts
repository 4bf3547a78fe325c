// The moments of an exchange, and who is told of them: the access log, and whoever else watches.

import type { FaultCode } from '../faults.ts';
import type { Address, RouteMatch } from '../rules/routes.ts';
import type { Deadlines } from '../socket/deadlines.ts';
import type { AccessEntry, AccessLog } from './access-log.ts';

/** What an exchange shows of itself. It may be used for the next one of its connection: keep nothing but values. */
export interface Observed extends AccessEntry {
  /** How many upstreams were asked so far; more than one: it was sent again. */
  readonly attempts: number;
  /** The route, and where it leads; undefined: neither forwarded nor answered by a handler. */
  readonly match: RouteMatch | undefined;
  /** The address that was asked last. */
  readonly upstream: Address | undefined;
  /** False: rules want no line of it in the access log. */
  readonly logged: boolean;
  /** When its reply began, in the deadlines' time; 0: it has not. */
  readonly replyAt: number;
  /** What went wrong; `client-closed`: the client went away. */
  readonly fault: FaultCode | undefined;
}

/** Told in this order; an exchange that fails may skip what lies between its head and its end. None may throw. */
export interface ExchangeObserver {
  /** The head of a request has been read, or could not be. */
  headTaken?(exchange: Observed): void;
  /** A connection or stream to an upstream has been had; once for each attempt. */
  upstreamChosen?(exchange: Observed): void;
  /** The upstream was lost before it said anything, and the request is sent to one again. */
  sentAgain?(exchange: Observed): void;
  /** The head of the final reply is on its way, be it an upstream's or our own. */
  replyBegun?(exchange: Observed): void;
  /** Nothing more will happen to it. */
  over?(exchange: Observed): void;
}

/** Who may watch, as a proxy's context has them. */
export interface Watchers {
  readonly accessLog?: AccessLog | undefined;
  readonly observer?: ExchangeObserver | undefined;
  readonly deadlines: Deadlines;
}

/** All that watch as one; undefined: nobody does. */
export function observerOf({ accessLog, observer, deadlines }: Watchers): ExchangeObserver | undefined {
  if (accessLog === undefined) return observer;
  const log: ExchangeObserver = {
    over(exchange) {
      if (exchange.logged) accessLog.write(exchange, deadlines.now());
    },
  };
  return observer === undefined ? log : both(log, observer);
}

function both(one: ExchangeObserver, other: ExchangeObserver): ExchangeObserver {
  return {
    headTaken(exchange) {
      one.headTaken?.(exchange);
      other.headTaken?.(exchange);
    },
    upstreamChosen(exchange) {
      one.upstreamChosen?.(exchange);
      other.upstreamChosen?.(exchange);
    },
    sentAgain(exchange) {
      one.sentAgain?.(exchange);
      other.sentAgain?.(exchange);
    },
    replyBegun(exchange) {
      one.replyBegun?.(exchange);
      other.replyBegun?.(exchange);
    },
    over(exchange) {
      one.over?.(exchange);
      other.over?.(exchange);
    },
  };
}
