// What the protocols share: the connection that a client made, and everything around it that they may use.

import type { TLSSocket } from 'node:tls';
import type { LocalHandler } from '../../src/lib/local-handler.ts';
import type { Log } from '../../src/lib/log.ts';
import type { RouteTable } from '../rules/routes.ts';
import type { Deadlines } from '../socket/deadlines.ts';
import type { OpenTunnel } from '../tunnel/tunnel.ts';
import type { Upstreams } from '../upstream/http1-pool.ts';
import type { Http2Upstreams } from '../upstream/http2-pool.ts';
import type { AccessLog } from './access-log.ts';
import type { ExchangeObserver } from './observe.ts';

/** Who carries a connection: asked when there is no room for another one. */
export interface Holder {
  /** Since when nothing has been under way on it, in the deadlines' time; Infinity: something is. */
  idleSince(): number;
  /** The end of a connection on which nothing is under way: orderly, and without waiting for the client. */
  leave(): void;
}

/** A client that has begun with something has so long to get on with it before it counts as idle. */
export const FIRST_WORDS_MS = 1_000;

/** A client's connection after its handshake. */
export interface ClientConnection {
  readonly socket: TLSSocket;
  /** Names of the certificate that it was served: it may ask for no others (421). */
  readonly certificateNames: readonly string[];
  /** The SNI, lower case. */
  readonly serverName: string;
  /** Of the client; from the PROXY header if there was one. */
  readonly clientAddress: string;
  /** The port that the client connected to. */
  readonly serverPort: number;
  /** Whether it is a proxy that ends TLS before us, whose X-Forwarded-* and Forwarded fields are kept and appended to. */
  readonly trustedClient: boolean;
  /** Set by whoever carries it; without one it is never idle. */
  holder?: Holder | undefined;
}

export type Connection = ClientConnection;

export interface ListenerLimits {
  /** Connections open at once: for one more the longest idle is ended, and without an idle one it is closed at accept. */
  readonly maxConnections: number;
  /** File descriptors that this process may have; 0: not watched. Near the limit room is made as at that of connections. */
  readonly maxDescriptors: number;
  /** From accept to the end of the TLS handshake, the PROXY header included. */
  readonly handshakeTimeoutMs: number;
  /** From the first byte of a request head (of a new connection: from its handshake) to its last. */
  readonly headerTimeoutMs: number;
  /** Longest silence of a client in the middle of a body, in a tunnel, or while it takes none of a reply. */
  readonly clientIdleTimeoutMs: number;
  /** How long a connection without a request is kept. */
  readonly keepAliveTimeoutMs: number;
  /** Of a request head, and of a reply head. */
  readonly maxHeaderBytes: number;
  /** Header lines. */
  readonly maxHeaderCount: number;
  /** Of a request body; 0: no limit. */
  readonly maxBodyBytes: number;
  /** HTTP/2 streams open at once in one connection. */
  readonly maxConcurrentStreams: number;
}

export const defaultLimits: ListenerLimits = {
  maxConnections: 16_384,
  maxDescriptors: 0,
  handshakeTimeoutMs: 10_000,
  headerTimeoutMs: 10_000,
  clientIdleTimeoutMs: 60_000,
  keepAliveTimeoutMs: 75_000,
  maxHeaderBytes: 16_384,
  maxHeaderCount: 128,
  maxBodyBytes: 0,
  maxConcurrentStreams: 128,
};

/** How long a drain leaves a connection open that waits for a request: the next one may be on its way. */
export const LAST_REQUEST_MS = 1_000;

export interface ProxyContext {
  routes(): RouteTable;
  readonly upstreams: Upstreams;
  /** For those that speak HTTP/2. */
  readonly http2Upstreams: Http2Upstreams;
  readonly localHandlers: readonly LocalHandler[];
  readonly limits: ListenerLimits;
  readonly deadlines: Deadlines;
  readonly log: Log;
  /** WebSockets and spliced connections that are open: a drain tells them. */
  readonly tunnels: Set<OpenTunnel>;
  /** Undefined: none is written. */
  readonly accessLog?: AccessLog | undefined;
  /** Told of the moments of each exchange, beside the access log. */
  readonly observer?: ExchangeObserver | undefined;
}

/** What carries one protocol on connections that are handed to it. */
export interface Acceptor {
  accept(connection: ClientConnection): void;
  /** No new requests: each connection ends when what it is doing is done. */
  drain(): void;
  /** Connections still open. */
  readonly open: number;
  destroyAll(): void;
}
