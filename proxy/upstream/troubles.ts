// Upstreams that fail: logged once when it begins and once when it ends, however many requests fail in between.

import { describeError, type Log } from '../../src/lib/log.ts';
import type { Fault, FaultCode } from '../faults.ts';
import { type Address, authorityOf, type UpstreamProtocol, type UpstreamSettings } from '../rules/routes.ts';

export interface UpstreamChange {
  /** As a route names it; several addresses with a space between. */
  readonly upstream: string;
  /** `gone`: no route leads to it any more. */
  readonly state: 'failing' | 'well' | 'gone';
  /** Why, of one that has begun to fail. */
  readonly code?: FaultCode | undefined;
  /** For the log: names addresses. */
  readonly reason?: string | undefined;
  /** Requests that have failed by it since it began, of one that has ended. */
  readonly failed: number;
}

export interface Trouble {
  readonly upstream: string;
  /** It can be connected to. That ends the trouble of one that could not be. */
  connected(): void;
  /** It has answered as it should. */
  well(): void;
}

export interface Troubles {
  /** `asked`: a client's request has failed, and not only a try of our own. */
  failed(upstream: string, fault: Fault, asked: boolean): Trouble;
  /** Undefined: it is not known to fail. */
  of(upstream: string): Trouble | undefined;
  /** No route leads to it any more. */
  forget(upstream: string): void;
}

/** An upstream that fails now and then is logged no more often than this. */
const QUIET_MS = 5_000;

/** Faults that are over once it can be connected to. */
const CONNECTING: ReadonlySet<FaultCode> = new Set([
  'upstream-refused',
  'upstream-unresolved',
  'upstream-untrusted',
  'connect-timeout',
]);

interface State extends Trouble {
  code: FaultCode;
  failed: number;
  quiet: NodeJS.Timeout | undefined;
}

export function createTroubles(changed: (change: UpstreamChange) => void, quietMs = QUIET_MS): Troubles {
  const states = new Map<string, State>();

  function begin(upstream: string, fault: Fault): State {
    const state: State = {
      upstream,
      code: fault.code,
      failed: 0,
      quiet: undefined,
      connected() {
        if (CONNECTING.has(state.code)) state.well();
      },
      well() {
        state.quiet ??= setTimeout(end, quietMs, state).unref();
      },
    };
    states.set(upstream, state);
    changed({
      upstream,
      state: 'failing',
      code: fault.code,
      reason: describeError(fault).message,
      failed: 0,
    });
    return state;
  }

  function end(state: State, how: 'well' | 'gone' = 'well'): void {
    clearTimeout(state.quiet);
    states.delete(state.upstream);
    changed({ upstream: state.upstream, state: how, failed: state.failed });
  }

  return {
    failed(upstream, fault, asked) {
      const state = states.get(upstream) ?? begin(upstream, fault);
      state.code = fault.code;
      if (asked) state.failed++;
      clearTimeout(state.quiet);
      state.quiet = undefined;
      return state;
    },
    of: (upstream) => states.get(upstream),
    forget(upstream) {
      const state = states.get(upstream);
      if (state !== undefined) end(state, 'gone');
    },
  };
}

/** One line for each change. */
export function logChange(log: Log, { upstream, state, code, reason, failed }: UpstreamChange): void {
  if (state === 'failing') log.warn({ upstream, code, reason }, 'upstream fails');
  else if (state === 'well') log.info({ upstream, failed }, 'upstream answers again');
}

/** As a route names it. */
export function upstreamName({
  protocol,
  addresses,
}: Pick<UpstreamSettings, 'protocol' | 'addresses'>): string {
  return addresses.map((address) => addressName(protocol, address)).join(' ');
}

export function addressName(protocol: UpstreamProtocol, address: Address): string {
  return protocol === 'auto' ? authorityOf(address) : `${protocol}://${authorityOf(address)}`;
}
