// What the access log is told of one exchange, and how its lines are wanted.

import { type FaultCode, factsOf } from '../faults.ts';
import type { Address } from '../rules/routes.ts';

export const accessLogFormats = ['json', 'caddy', 'ecs', 'common'] as const;
export type AccessLogFormat = (typeof accessLogFormats)[number];

export type ShownHeader = readonly [name: string, value: string];

/** What is known of one exchange; filled while it goes on. */
export interface AccessEntry {
  protocol: 'http/1.1' | 'h2' | 'websocket' | 'tcp';
  readonly clientAddress: string;
  /** Empty: not known, for the request could not be read that far, or there was none. So are the next two. */
  method: string;
  host: string;
  /** As sent; the line has what loggedTarget() leaves of it. */
  target: string;
  /** What the client was answered, 499 if it left before; 0: nothing. */
  status: number;
  /** -1: none, or not known. */
  grpcStatus: number;
  /** Bytes of the request's body; of a tunnel, all that the client sent. */
  received: number;
  /** Bytes of the reply's body; of a tunnel, all that the client was sent. */
  sent: number;
  /** In the time of the proxy's deadlines, ms. */
  startedAt: number;
  /** When its reply began, in the same time; 0: it has not. */
  readonly replyAt: number;
  upstream: Address | undefined;
  /** When the upstream that was asked last was had; 0: none was. */
  readonly upstreamAt: number;
  /** How many upstreams were asked so far; more than one: it was sent again. */
  readonly attempts: number;
  fault: FaultCode | undefined;
  /** Empty, as the next three: there is none, or it is not known. */
  readonly id: string;
  readonly traceparent: string;
  readonly userAgent: string;
  /** As Node names it: `TLSv1.3`. */
  readonly tlsVersion: string;
  readonly match: { readonly route: string } | undefined;
  readonly shownHeaders: readonly ShownHeader[] | undefined;
}

export interface AccessLogOptions {
  readonly format: AccessLogFormat;
  /** Whether queries are shown, without the values of what is redacted. */
  readonly query: boolean;
  /** Headers of requests to show, names in lower case. */
  readonly headers: readonly string[];
  /** Names of headers and of parameters whose values are not shown, beside those that never are; lower case. */
  readonly redact: readonly string[];
  /** The part of the lines that is written, from 0 to 1; faults, replies of 500 and above, and slow ones always are. */
  readonly sample: number;
  /** From so long on an exchange is slow. */
  readonly slowMs: number;
}

export const plainAccessLog: AccessLogOptions = {
  format: 'json',
  query: false,
  headers: [],
  redact: [],
  sample: 1,
  slowMs: 1_000,
};

/** gRPC's statuses that mean what 500 and above do. */
const GRPC_FAILURES: ReadonlySet<number> = new Set([2, 4, 13, 14, 15]);

/** Whether somebody should look at it: it failed, and not because of its client. */
export function isTrouble({ status, grpcStatus, fault }: AccessEntry): boolean {
  if (status >= 500 || GRPC_FAILURES.has(grpcStatus)) return true;
  return fault !== undefined && factsOf(fault).side !== 'downstream';
}

/** A new entry; 0 and empty where nothing is known yet. */
export function createAccessEntry(
  protocol: AccessEntry['protocol'],
  clientAddress: string,
  startedAt: number,
  tlsVersion = '',
): AccessEntry {
  return {
    protocol,
    clientAddress,
    method: '',
    host: '',
    target: '',
    status: 0,
    grpcStatus: -1,
    received: 0,
    sent: 0,
    startedAt,
    replyAt: 0,
    upstream: undefined,
    upstreamAt: 0,
    attempts: 0,
    fault: undefined,
    id: '',
    traceparent: '',
    userAgent: '',
    tlsVersion,
    match: undefined,
    shownHeaders: undefined,
  };
}
