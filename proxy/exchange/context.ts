// What the acceptors of both protocols share: a client's connection, and the parts of the proxy that they may use.

import type { TLSSocket } from 'node:tls';
import type { LocalHandlers } from '../../src/lib/local-handler.ts';
import type { Log } from '../../src/lib/log.ts';
import type { ListenerLimits } from '../limits.ts';
import type { ClientAuth } from '../rules/model.ts';
import type { RouteTable, UpstreamSettings } from '../rules/routes.ts';
import type { Deadlines } from '../socket/deadlines.ts';
import type { OpenTunnel } from '../tunnel/tunnel.ts';
import { type Announcement, announce } from '../upstream/announcement.ts';
import type { Upstreams } from '../upstream/http1-pool.ts';
import type { Http2Upstreams } from '../upstream/http2-pool.ts';
import type { AccessLog } from './access-log.ts';
import type { ExchangeObserver } from './observe.ts';
import type { RulesInUse } from './rules-in-use.ts';
import type { Tracing } from './tracing.ts';

/** The part that carries a connection. It is asked when there is no room for another one. */
export interface Holder {
  /** Since when nothing has been under way on it, in the deadlines' time; Infinity: something is. */
  idleSince(): number;
  /** Ends a connection on which nothing is under way: in order, and without waiting for the client. */
  leave(): void;
}

/** A client that has just connected has this long before it counts as idle. */
export const FIRST_WORDS_MS = 1_000;

/** A client's connection after its handshake. */
export interface ClientConnection {
  readonly socket: TLSSocket;
  /** The names in the certificate that the client was shown: it may ask for no others (421). */
  readonly certificateNames: readonly string[];
  /** The SNI, lower case. */
  readonly serverName: string;
  /** As Node names it; asked once, while the socket is open, by those who want to know. */
  tlsVersion?: string;
  /** What its handshake asked of the client's certificate, because a site of this name does; undefined: nothing. */
  readonly clientAuth?: ClientAuth | undefined;
  /** Of the client; from the PROXY header if there was one. */
  readonly clientAddress: string;
  /** From the PROXY header if there was one; 0: not known. */
  readonly clientPort: number;
  /** The port that the client connected to. */
  readonly serverPort: number;
  /** Whether it is a proxy that ends TLS before us, whose X-Forwarded-* and Forwarded fields are kept and appended to. */
  readonly trustedClient: boolean;
  /** Which connection it is of those that rules were asked about, and how many requests of it they were asked about. */
  asked?: { readonly serial: number; requests: number } | undefined;
  /** Set by the part that carries it. Without one it never counts as idle. */
  holder?: Holder | undefined;
  /** What upstreams are told of it, made when the first one wants to be: see announcementOf(). */
  announcement?: Announcement | undefined;
}

/** For an upstream that reads one; undefined for all others. To be called while the socket is open. */
export function announcementOf(
  connection: ClientConnection,
  { announced }: UpstreamSettings,
): Announcement | undefined {
  if (announced !== true) return undefined;
  const { clientAddress, clientPort, serverPort, socket } = connection;
  connection.announcement ??= announce({
    source: { address: clientAddress, port: clientPort },
    destination: { address: socket.localAddress ?? '', port: serverPort },
  });
  return connection.announcement;
}

/** How long a drain leaves an idle connection open: a request may be on its way. */
export const LAST_REQUEST_MS = 1_000;

export interface ProxyContext {
  routes(): RouteTable;
  readonly upstreams: Upstreams;
  /** Upstreams that speak HTTP/2. */
  readonly http2Upstreams: Http2Upstreams;
  readonly localHandlers: LocalHandlers;
  /** Where rules decide about some hosts. */
  readonly rules?: RulesInUse | undefined;
  readonly limits: ListenerLimits;
  readonly deadlines: Deadlines;
  readonly log: Log;
  /** WebSockets and spliced connections that are open: a drain tells them. */
  readonly tunnels: Set<OpenTunnel>;
  /** Makes the id of each request; undefined: they have none, and what clients send passes. */
  readonly requestIds?: (() => string) | undefined;
  /** Undefined: traces pass as they come. */
  readonly tracing?: Tracing | undefined;
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
