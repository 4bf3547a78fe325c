// Accepts connections: PROXY header, TLS handshake, then the protocol that was agreed on; limits, and an orderly end.

import { constants, randomBytes } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls';
import type { LocalHandlers } from '../../src/lib/local-handler.ts';
import type { Log } from '../../src/lib/log.ts';
import type { AccessLog } from '../exchange/access-log.ts';
import type { ClientConnection, ProxyContext } from '../exchange/context.ts';
import { createHttp1Acceptor, type Http1Acceptor } from '../exchange/http1-client.ts';
import { createHttp2Acceptor, type Http2Acceptor } from '../exchange/http2-client.ts';
import { both, countRequests, type ExchangeObserver } from '../exchange/observe.ts';
import type { Compare } from '../exchange/passwords.ts';
import { createRules, type Rules } from '../exchange/rules-in-use.ts';
import type { Tracing } from '../exchange/tracing.ts';
import { serverNameOf } from '../http1/authority.ts';
import { fieldLimitsOf } from '../http2/fields.ts';
import { type ListenerLimits, limitsWith, NO_LIMIT } from '../limits.ts';
import type { CompiledRules } from '../rules/compiled.ts';
import type { Limiter } from '../rules/limits.ts';
import type { RuleSet } from '../rules/model.ts';
import {
  createRouteTable,
  type LocalPath,
  type Route,
  type RouteTable,
  speaksHttp2,
} from '../rules/routes.ts';
import { createDeadlines } from '../socket/deadlines.ts';
import { forbidRenegotiation } from '../socket/errors.ts';
import { askingOptions } from '../socket/insides/client-certificates.ts';
import { descriptorsInUse } from '../socket/insides/descriptors.ts';
import { rememberRawSocket } from '../socket/insides/raw-sockets.ts';
import { createRoster } from '../socket/roster.ts';
import { createUpstreams, type UpstreamNow, type Upstreams } from '../upstream/http1-pool.ts';
import { createHttp2Upstreams, type Http2Upstreams } from '../upstream/http2-pool.ts';
import type { UpstreamChange } from '../upstream/troubles.ts';
import { Accepted, acceptedUnder, type Origin, Secured } from './accepted.ts';
import { createAddressRanges } from './address-ranges.ts';
import { type Capacity, createCapacity } from './capacity.ts';
import {
  ACCEPTED,
  createConnectionCounts,
  FAILED_HANDSHAKES,
  HANDSHAKE_TIMEOUTS,
  HANDSHAKES,
  OPEN,
  RECEIVED,
  REFUSED,
  REQUESTS,
  RESUMED,
  SENT,
  TLS_1_2,
  TLS_1_3,
} from './counts.ts';
import { createFailedHandshakes, type FailedHandshakes } from './failed-handshakes.ts';
import { awaitProxyHeader } from './proxy-protocol.ts';
import { acceptTcp } from './raw-bytes.ts';
import {
  ACME_TLS,
  createSecureContexts,
  type SecureContexts,
  type SecureContextsOptions,
  type ServedCertificate,
} from './secure-contexts.ts';
import { acceptUnnamed, type HttpAcceptors } from './unnamed.ts';

export { createAccessLog } from '../exchange/access-log.ts';
export { createRequestIds } from '../exchange/identity.ts';
export { both } from '../exchange/observe.ts';
export { compileInPauses } from '../exchange/rules-in-use.ts';
export { createTracing } from '../exchange/tracing.ts';
export type { UpstreamNow } from '../upstream/http1-pool.ts';
export { logChange, type UpstreamChange } from '../upstream/troubles.ts';
export type { ServedCertificate } from './secure-contexts.ts';

export interface ListenerOptions {
  /** Default: every address, IPv6 and IPv4. */
  readonly host?: string;
  /** 0: any that is free. */
  readonly port: number;
  /** Several processes listen on one port, and the kernel spreads the connections. */
  readonly reusePort?: boolean;
  /** The descriptor of a socket that is bound already, in place of host and port. */
  readonly fd?: number;
  /** In order of preference; default: both. */
  readonly alpn?: readonly ('h2' | 'http/1.1')[];
  readonly limits?: Partial<ListenerLimits>;
  /** What is answered here before any route, on every host that a certificate is served for. */
  readonly localPaths?: readonly LocalPath[];
  /** Who answers it, by the names that `localPaths` has. */
  readonly localHandlers?: LocalHandlers;
  /** Every connection must begin with a PROXY header, and come from one of `trustedProxies`. */
  readonly proxyProtocol?: boolean;
  /** Addresses and CIDRs whose PROXY header is believed: it vouches for the address of a client, and for nothing else. */
  readonly trustedProxies?: readonly string[];
  /**
   * Addresses and CIDRs of proxies that end TLS before us: what their requests say in X-Forwarded-*, X-Real-IP and
   * Forwarded is believed. The sender of a PROXY header has not seen the request, so behind one it is the address that the
   * header names which counts. Default: nobody.
   */
  readonly trustedForwarders?: readonly string[];
  /** PEM; trusted beside the system's roots for `https` and `grpcs` upstreams. */
  readonly upstreamCa?: string;
  /** 48 bytes, the same in all workers, so that sessions resume in any of them. Default: random. */
  readonly ticketKeys?: Buffer;
  /** Who counts for the limits of rules; default: this process alone. */
  readonly limiter?: Limiter | undefined;
  /** For basic auth, in another process; default: in a thread of this one. */
  readonly comparePassword?: Compare | undefined;
  /** See SecureContextsOptions. */
  readonly findChallenge?: SecureContextsOptions['findChallenge'];
  /**
   * Called when an upstream begins to fail and when that ends. With it, upstreams are also tried without a request.
   * Default: both are logged here, once requests have shown them.
   */
  readonly onUpstreamChange?: ((change: UpstreamChange) => void) | undefined;
  readonly log: Log;
  /** The numbers of counts.ts are counted in it. Default: an array that nobody reads. */
  readonly counts?: Float64Array;
  /** Flushed when a drain has ended. A process that ends otherwise has to flush it. Default: none. */
  readonly accessLog?: AccessLog | undefined;
  /** Makes the id of each request. Default: requests have none. */
  readonly requestIds?: (() => string) | undefined;
  /** Puts each request into a trace. Default: traces pass as they come. */
  readonly tracing?: Tracing | undefined;
  /** Told of the moments of each exchange. Default: nobody is. */
  readonly observer?: ExchangeObserver | undefined;
}

export interface Listener {
  /** Rejects with the system's error if the port cannot be had. */
  listen(): Promise<{ address: string; port: number }>;
  /**
   * Loads all, then serves them from the next handshake on; open connections live on. Throws ServedCertificateError,
   * and serves on as before, if one does not load.
   */
  setCertificates(list: readonly ServedCertificate[]): void;
  /** The tls-alpn-01 certificate of a domain (RFC 8737), PEM; undefined takes it away. */
  setChallenge(domain: string, certificate: { cert: string; key: string } | undefined): void;
  /** `rules`: for the hosts that no route serves. Throws, and serves on as before, if they cannot be compiled. */
  setRoutes(routes: readonly Route[], rules?: RuleSet | CompiledRules): void;
  /** Whether a site of the rules serves a host. */
  hasSite(host: string): boolean;
  /** Every address that routes and rules lead to, and whether it is known to fail. */
  upstreamsNow(): readonly UpstreamNow[];
  /** 48 bytes. Sessions under the keys before are forgotten. */
  setTicketKeys(keys: Buffer): void;
  /** No new connections; open ones end when what they are doing is done, and at the latest after `timeoutMs`. */
  drain(timeoutMs: number): Promise<void>;
}

/** The kernel takes no more than net.core.somaxconn, which is 4096 as a rule. */
const BACKLOG = 4096;
const TCP_KEEPALIVE_MS = 60_000;
/** Tunnels are ended this long before the deadline of a drain. */
const LAST_WORDS_MS = 1_000;

/** Descriptors that are kept for upstreams and for what else a process needs: this many, and this part of all. */
const SPARE_DESCRIPTORS = 32;
const SPARE_PART = 8;
/** Connections that are ended at once when descriptors are lacking elsewhere than at accept. */
const RELIEF = 16;

export function createListener(options: ListenerOptions): Listener {
  return new TlsListener(options);
}

class TlsListener implements Listener {
  private readonly options: ListenerOptions;
  private readonly limits: ListenerLimits;
  private readonly counts: Float64Array;
  private readonly deadlines = createDeadlines();
  private readonly isProxy: (address: string) => boolean;
  private readonly isForwarder: (address: string) => boolean;
  private readonly contexts: SecureContexts;
  private readonly handshakes: FailedHandshakes;
  private readonly upstreams: Upstreams;
  private readonly http2Upstreams: Http2Upstreams;
  private readonly context: ProxyContext;
  private readonly http1: Http1Acceptor;
  private readonly http2: Http2Acceptor;
  private readonly unnamed: HttpAcceptors;
  /** Every connection, from accept to close. */
  private readonly open = createRoster<Accepted>();
  private readonly capacity: Capacity<Accepted>;
  private readonly lastDescriptor: number;
  private tlsServer: TlsServer;
  /** Whether it may ask clients for certificates. */
  private asksClients = false;
  private ticketKeys: Buffer | undefined;
  private readonly server: Server;
  private readonly rules: Rules;
  private routes: RouteTable;
  private boundPort: number;

  constructor(options: ListenerOptions) {
    const { log, alpn = ['h2', 'http/1.1'], localHandlers = {} } = options;
    const { deadlines } = this;
    const limits = limitsWith(options.limits);
    assertWired(options.localPaths ?? [], localHandlers);
    this.options = options;
    this.limits = limits;
    this.counts = options.counts ?? createConnectionCounts();
    this.isProxy = createAddressRanges(options.trustedProxies ?? []);
    this.isForwarder = createAddressRanges(options.trustedForwarders ?? []);
    this.boundPort = options.port;
    this.ticketKeys = options.ticketKeys;
    this.lastDescriptor = lastDescriptorOf(limits.maxDescriptors);
    this.rules = createRules(options.limiter, options.comparePassword, (refused) =>
      options.log.warn({ refused }, 'too many passwords at once: some are not looked at'),
    );
    this.routes = this.routeTable([]);
    this.contexts = createSecureContexts({
      findChallenge: options.findChallenge,
      alpn,
      // Spliced connections may speak any protocol that client and upstream agree on.
      takesAnyProtocol: (serverName) => this.isSpliced(serverName),
      clientAuthFor: (serverName) =>
        this.routes.forward(serverName, '/')?.upstream === undefined
          ? this.rules.clientAuthFor(serverName)
          : undefined,
    });
    this.handshakes = createFailedHandshakes({
      isServed: (serverName) => this.contexts.namesFor(serverName) !== undefined,
      now: deadlines.now,
      log,
    });
    this.upstreams = createUpstreams({
      deadlines,
      upstreamCa: options.upstreamCa,
      onChange: options.onUpstreamChange,
      onExhausted: () => void this.capacity.relieve(RELIEF),
      log,
    });
    this.http2Upstreams = createHttp2Upstreams({
      deadlines,
      upstreams: this.upstreams,
      fieldLimits: fieldLimitsOf(limits),
    });
    this.context = {
      routes: () => this.routes,
      rules: this.rules.inUse,
      upstreams: this.upstreams,
      http2Upstreams: this.http2Upstreams,
      localHandlers,
      limits,
      deadlines,
      log,
      tunnels: new Set(),
      accessLog: options.accessLog,
      requestIds: options.requestIds,
      tracing: options.tracing,
      observer: this.observerWith(options.observer),
    };
    this.http1 = createHttp1Acceptor(this.context);
    this.http2 = createHttp2Acceptor(this.context);
    this.unnamed = { http1: this.http1.accept, http2: alpn.includes('h2') ? this.http2.accept : undefined };
    this.capacity = this.createPlaces();
    this.tlsServer = this.createTls();
    this.server = this.createTcp();
  }

  setCertificates(list: readonly ServedCertificate[]): void {
    this.contexts.setCertificates(list);
    // A resumed session never shows its certificate, so no session may outlive the certificates of its time.
    if (this.options.ticketKeys === undefined) this.setTicketKeys(randomBytes(48));
  }

  setChallenge(domain: string, certificate: { cert: string; key: string } | undefined): void {
    this.contexts.setChallenge(domain, certificate);
  }

  setRoutes(list: readonly Route[], set?: RuleSet | CompiledRules): void {
    this.rules.set(set);
    this.routes = this.routeTable(list);
    const asks = this.rules.asksClients();
    if (asks !== this.asksClients) {
      // Handshakes that are under way end as they began.
      this.asksClients = asks;
      this.tlsServer = this.createTls();
    }
    this.upstreams.serve([
      ...list.flatMap(({ paths }) => paths.map(({ upstream }) => upstream)),
      ...(this.rules.inUse.rules()?.pools ?? []),
    ]);
  }

  hasSite(host: string): boolean {
    return (this.rules.siteFor(host) ?? this.rules.defaultSite()) !== undefined;
  }

  upstreamsNow(): readonly UpstreamNow[] {
    return this.upstreams.now();
  }

  setTicketKeys(keys: Buffer): void {
    this.ticketKeys = keys;
    this.tlsServer.setTicketKeys(keys);
  }

  listen(): Promise<{ address: string; port: number }> {
    const { options, server } = this;
    const { promise, resolve, reject } = Promise.withResolvers<{ address: string; port: number }>();
    server.once('error', reject);
    server.listen(
      options.fd !== undefined
        ? { fd: options.fd, backlog: BACKLOG }
        : {
            port: options.port,
            backlog: BACKLOG,
            ...(options.host === undefined ? {} : { host: options.host }),
            ...(options.reusePort === true ? { reusePort: true } : {}),
          },
      () => {
        server.off('error', reject);
        const bound = server.address() as { address: string; port: number };
        this.boundPort = bound.port;
        resolve({ address: bound.address, port: bound.port });
      },
    );
    return promise;
  }

  async drain(timeoutMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    this.http1.drain();
    this.http2.drain();
    this.http2Upstreams.drain();
    for (const tunnel of this.context.tunnels) tunnel.goAway();
    // Other tunnels cannot be told. They have time to end on their own, then they are ended, and at last they are reset.
    const last = setTimeout(
      () => {
        for (const tunnel of this.context.tunnels) tunnel.end();
      },
      timeoutMs - Math.min(LAST_WORDS_MS, timeoutMs / 2),
    );
    const timer = setTimeout(() => {
      this.http1.destroyAll();
      this.http2.destroyAll();
      this.http2Upstreams.destroyAll();
      this.open.each(({ socket }) => socket.destroy());
    }, timeoutMs);
    await closed;
    clearTimeout(timer);
    clearTimeout(last);
    this.upstreams.close();
    this.options.accessLog?.flush();
  }
  private observerWith(more: ExchangeObserver | undefined): ExchangeObserver {
    const counting = countRequests(this.counts, REQUESTS);
    return more === undefined ? counting : both(counting, more);
  }

  private routeTable(list: readonly Route[]): RouteTable {
    const { localPaths = [] } = this.options;
    const { siteFor, defaultSite } = this.rules;
    return createRouteTable(list, {
      localPaths,
      maxBodyBytes: this.limits.maxBodyBytes,
      siteFor,
      defaultSite,
    });
  }

  private isSpliced(serverName: string): boolean {
    return /^(?:tcp|auto)$/.test(this.routes.forward(serverName, '/')?.upstream.protocol ?? '');
  }

  private createPlaces(): Capacity<Accepted> {
    const { maxConnections } = this.limits;
    const { log, proxyProtocol } = this.options;
    return createCapacity<Accepted>({
      limit: maxConnections,
      open: this.open,
      deadlines: this.deadlines,
      // Behind a gateway that says nothing of its clients they all have its address.
      knowsPeers: proxyProtocol === true,
      onFull: (since) =>
        log.warn({ maxConnections, ...since }, 'connection limit reached, the longest idle are ended'),
    });
  }

  private createTls(): TlsServer {
    const created = createTlsServer({
      ...this.contexts.serverOptions,
      handshakeTimeout: this.limits.handshakeTimeoutMs,
      ...(this.ticketKeys === undefined ? {} : { ticketKeys: this.ticketKeys }),
      // In a resumed session nothing is shown, and nobody is asked: whoever is asked at all handshakes anew.
      ...(this.asksClients ? { ...askingOptions, secureOptions: constants.SSL_OP_NO_TICKET } : {}),
    });
    created.on('secureConnection', (socket) => this.secured(socket));
    created.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
      this.counts[FAILED_HANDSHAKES]!++;
      if (error.code === 'ERR_TLS_HANDSHAKE_TIMEOUT') this.counts[HANDSHAKE_TIMEOUTS]!++;
      this.handshakes.failed(error, socket);
    });
    return created;
  }

  private createTcp(): Server {
    const created = createServer({
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: TCP_KEEPALIVE_MS,
    });
    created.on('connection', (socket) => this.accepted(socket));
    created.on('error', (error) => this.options.log.warn({ err: error }, 'accept failed'));
    return created;
  }

  private accepted(socket: Socket) {
    const connection = new Accepted(socket, this.deadlines.now());
    rememberRawSocket(socket);
    this.open.add(connection);
    this.counts[ACCEPTED]!++;
    this.counts[OPEN]!++;
    socket.once('close', () => {
      this.open.remove(connection);
      this.capacity.left(connection);
      this.counts[OPEN]!--;
      this.counts[RECEIVED]! += socket.bytesRead;
      this.counts[SENT]! += socket.bytesWritten;
    });
    if (!this.capacity.admits(connection) || !this.leavesDescriptors(socket)) {
      this.counts[REFUSED]!++;
      socket.destroy();
      return;
    }
    if (this.options.proxyProtocol === true) this.readProxyHeader(connection);
    else this.tlsServer.emit('connection', socket);
  }

  /** When no descriptor is left, libuv closes the connections that wait to be accepted, and tells nobody. */
  private leavesDescriptors(socket: Socket): boolean {
    if (descriptorsInUse(socket) < this.lastDescriptor) return true;
    return this.upstreams.closeIdle() > 0 || this.capacity.relieve(1) > 0;
  }

  private readProxyHeader(connection: Accepted): void {
    const { socket } = connection;
    const origin = this.originOf(connection);
    // A PROXY header from anywhere else would let a client claim any address.
    if (!this.isProxy(origin.address)) {
      socket.destroy();
      return;
    }
    awaitProxyHeader(socket, {
      deadlines: this.deadlines,
      timeoutMs: this.limits.handshakeTimeoutMs,
      taken: ({ source, destinationPort }) => {
        connection.origin = {
          address: source?.address ?? origin.address,
          port: source?.port ?? origin.port,
          serverPort: destinationPort ?? origin.serverPort,
          // A header without an address does not say whose connection it is, so nothing more is believed of it.
          forwarder: source !== undefined && this.isForwarder(source.address),
        };
        if (source !== undefined && !this.capacity.admitsPeer(connection, source.address)) socket.destroy();
        else this.tlsServer.emit('connection', socket);
      },
      refused: () => this.options.log.debug({ peer: origin.address }, 'PROXY header refused'),
    });
  }

  private secured(socket: TLSSocket) {
    this.countHandshake(socket);
    forbidRenegotiation(socket);
    // RFC 6066 §3: a name without a final dot; many send the one that was typed.
    const serverName = serverNameOf((socket.servername || '').toString());
    // Half-closes of tunnels are passed on, so Node must not answer them by itself. Before the handshake it may.
    socket.allowHalfOpen = true;
    if (socket.alpnProtocol === ACME_TLS) {
      socket.end();
      return;
    }
    const certificateNames = this.contexts.namesFor(serverName);
    // A resumed session shows no certificate. It must end when its name is no longer served.
    if (certificateNames === undefined) {
      this.handshakes.noteUnknown(serverName);
      socket.destroy();
      return;
    }
    const accepted = acceptedUnder(socket);
    if (accepted === undefined) {
      socket.destroy();
      return;
    }
    const clientAuth = this.contexts.clientAuthOf(socket);
    const origin = () => this.originOf(accepted);
    accepted.secured = new Secured(socket, certificateNames, serverName, clientAuth, origin);
    this.dispatch(accepted.secured);
  }

  private countHandshake(socket: TLSSocket): void {
    const version = socket.getProtocol() === 'TLSv1.2' ? TLS_1_2 : TLS_1_3;
    this.counts[HANDSHAKES]!++;
    this.counts[version + (socket.isSessionReused() ? RESUMED : 0)]!++;
  }

  private originOf(accepted: Accepted): Origin {
    if (accepted.origin !== undefined) return accepted.origin;
    const { remoteAddress = '', remotePort: port = 0 } = accepted.socket;
    const address = unmapped(remoteAddress);
    accepted.origin = { address, port, serverPort: this.boundPort, forwarder: this.isForwarder(address) };
    return accepted.origin;
  }

  private dispatch(connection: ClientConnection) {
    const settings = this.routes.forward(connection.serverName, '/')?.upstream;
    if (settings?.protocol === 'tcp') return acceptTcp(this.context, connection, settings);
    const { alpnProtocol } = connection.socket;
    if (alpnProtocol === 'h2') return this.http2.accept(connection);
    // With ALPN the client has said that it speaks HTTP.
    if (settings === undefined || alpnProtocol === 'http/1.1') return this.http1.accept(connection);
    // HTTP/2 is agreed on by ALPN (RFC 9113 §3.2), but some clients of such upstreams begin without it.
    if (settings.protocol === 'auto' || speaksHttp2(settings.protocol)) {
      return acceptUnnamed(this.context, connection, settings, this.unnamed);
    }
    this.http1.accept(connection);
  }
}

/** Some descriptors are kept back, for upstreams and for what else a process needs. */
function lastDescriptorOf(most: number): number {
  if (most === NO_LIMIT) return NO_LIMIT;
  return most - Math.max(SPARE_DESCRIPTORS, Math.floor(most / SPARE_PART));
}

function assertWired(localPaths: readonly LocalPath[], localHandlers: LocalHandlers): void {
  for (const { path, answeredBy } of localPaths) {
    if (!Object.hasOwn(localHandlers, answeredBy)) {
      throw new Error(`${path} is to be answered by ${answeredBy}, which is no handler of this listener`);
    }
  }
}

/** A socket for both families names an IPv4 peer ::ffff:192.0.2.1. */
function unmapped(address: string): string {
  return address.startsWith('::ffff:') ? address.slice(7) : address;
}
