// Accepts connections: PROXY header, TLS handshake, then the protocol that was agreed on; limits, and an orderly end.

import { randomBytes } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls';
import ipaddr from 'ipaddr.js';
import type { LocalHandlers } from '../../src/lib/local-handler.ts';
import type { Log } from '../../src/lib/log.ts';
import type { AccessLog } from '../exchange/access-log.ts';
import { type Connection, FIRST_WORDS_MS, type Holder, type ProxyContext } from '../exchange/context.ts';
import { createHttp1Acceptor } from '../exchange/http1-client.ts';
import { createHttp2Acceptor } from '../exchange/http2-client.ts';
import type { ExchangeObserver } from '../exchange/observe.ts';
import { serverNameOf } from '../http1/authority.ts';
import { fieldLimitsOf } from '../http2/fields.ts';
import { type ListenerLimits, limitsWith, NO_LIMIT } from '../limits.ts';
import { createRouteTable, type LocalPath, type Route, speaksHttp2 } from '../rules/routes.ts';
import { createDeadlines, type Deadline } from '../socket/deadlines.ts';
import { forbidRenegotiation } from '../socket/errors.ts';
import { descriptorsInUse } from '../socket/insides/descriptors.ts';
import { rawSocketUnder, rememberRawSocket } from '../socket/insides/raw-sockets.ts';
import { createRoster } from '../socket/roster.ts';
import { createUpstreams } from '../upstream/http1-pool.ts';
import { createHttp2Upstreams } from '../upstream/http2-pool.ts';
import type { UpstreamChange } from '../upstream/troubles.ts';
import { createCapacity, type Occupant } from './capacity.ts';
import {
  ACCEPTED,
  createConnectionCounts,
  FAILED_HANDSHAKES,
  HANDSHAKES,
  OPEN,
  RECEIVED,
  REFUSED,
  SENT,
} from './counts.ts';
import { createFailedHandshakes } from './failed-handshakes.ts';
import { createProxyHeaderReader } from './proxy-protocol.ts';
import { acceptTcp } from './raw-bytes.ts';
import {
  ACME_TLS,
  createSecureContexts,
  type SecureContextsOptions,
  type ServedCertificate,
} from './secure-contexts.ts';
import { acceptUnnamed } from './unnamed.ts';

export { type AccessLog, createAccessLog } from '../exchange/access-log.ts';
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
   * Forwarded is believed. Who sends a PROXY header has not seen the request, so behind one they are known by the address
   * that it names. Default: nobody.
   */
  readonly trustedForwarders?: readonly string[];
  /** PEM; trusted beside the system's roots for `https` and `grpcs` upstreams. */
  readonly upstreamCa?: string;
  /** 48 bytes, the same in all workers, so that sessions resume in any of them. Default: random. */
  readonly ticketKeys?: Buffer;
  /** See SecureContextsOptions. */
  readonly findChallenge?: SecureContextsOptions['findChallenge'];
  /**
   * Told when an upstream begins to fail and when that ends; each is then looked at without waiting for a visitor.
   * Default: both are logged here, once visitors have found out.
   */
  readonly onUpstreamChange?: ((change: UpstreamChange) => void) | undefined;
  readonly log: Log;
  /** Counted in it, see counts.ts; default: an array of its own that nobody reads. */
  readonly counts?: Float64Array;
  /** Flushed when a drain has ended; whoever ends the process otherwise flushes it himself. Default: none. */
  readonly accessLog?: AccessLog | undefined;
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
  setRoutes(routes: readonly Route[]): void;
  /** 48 bytes. Sessions under the keys before are forgotten. */
  setTicketKeys(keys: Buffer): void;
  /** No new connections; open ones end when what they are doing is done, and at the latest after `timeoutMs`. */
  drain(timeoutMs: number): Promise<void>;
}

/** The kernel takes no more than net.core.somaxconn, which is 4096 as a rule. */
const BACKLOG = 4096;
const TCP_KEEPALIVE_MS = 60_000;
/** Before the deadline of a drain: what is left of it when tunnels are ended. */
const LAST_WORDS_MS = 1_000;

/** Descriptors that are kept for upstreams and for what else a process needs: this many, and this part of all. */
const SPARE_DESCRIPTORS = 32;
const SPARE_PART = 8;
/** Connections that are ended at once where the lack of descriptors was noticed elsewhere than at accept. */
const RELIEF = 16;

/** A connection, from accept to close. */
class Accepted implements Occupant {
  place = -1;
  readonly socket: Socket;
  readonly acceptedAt: number;
  /** From its PROXY header, or once somebody has asked: most of what only shakes hands is never asked about. */
  origin: Origin | undefined = undefined;
  peer: string | undefined = undefined;
  leaving = false;
  /** After its handshake. */
  secured: Secured | undefined = undefined;

  constructor(socket: Socket, acceptedAt: number) {
    this.socket = socket;
    this.acceptedAt = acceptedAt;
  }

  idleSince(): number {
    if (this.secured === undefined) return this.acceptedAt + FIRST_WORDS_MS;
    return this.secured.holder?.idleSince() ?? Number.POSITIVE_INFINITY;
  }

  leave(): void {
    const holder = this.secured?.holder;
    if (holder === undefined) this.destroy();
    else holder.leave();
  }

  destroy(): void {
    (this.secured?.socket ?? this.socket).destroy();
  }
}

const acceptedOf = Symbol('accepted');
type AcceptedSocket = Socket & { [acceptedOf]?: Accepted };

/** What is known of a connection before its handshake. */
interface Origin {
  readonly address: string;
  readonly serverPort: number;
  /** Whether its fields about other clients are believed. */
  readonly forwarder: boolean;
}

export function createListener(options: ListenerOptions): Listener {
  const { log, alpn = ['h2', 'http/1.1'] } = options;
  const limits = limitsWith(options.limits);
  const counts = options.counts ?? createConnectionCounts();
  const deadlines = createDeadlines();
  const isProxy = createTrust(options.trustedProxies ?? []);
  const isForwarder = createTrust(options.trustedForwarders ?? []);
  const contexts = createSecureContexts({
    findChallenge: options.findChallenge,
    alpn,
    // What is spliced may speak any protocol that client and upstream agree on.
    takesAnyProtocol: (serverName) =>
      /^(?:tcp|auto)$/.test(routes.forward(serverName, '/')?.upstream.protocol ?? ''),
  });
  const handshakes = createFailedHandshakes({
    isServed: (serverName) => contexts.namesFor(serverName) !== undefined,
    now: deadlines.now,
    log,
  });
  const upstreams = createUpstreams({
    deadlines,
    upstreamCa: options.upstreamCa,
    onChange: options.onUpstreamChange,
    onExhausted: () => void capacity.relieve(RELIEF),
    log,
  });
  const http2Upstreams = createHttp2Upstreams({ deadlines, upstreams, fieldLimits: fieldLimitsOf(limits) });
  const localPaths = options.localPaths ?? [];
  const localHandlers = options.localHandlers ?? {};
  assertWired(localPaths, localHandlers);
  const tableOf = (list: readonly Route[]) =>
    createRouteTable(list, { localPaths, maxBodyBytes: limits.maxBodyBytes });
  let routes = tableOf([]);
  const context: ProxyContext = {
    routes: () => routes,
    upstreams,
    http2Upstreams,
    localHandlers,
    limits,
    deadlines,
    log,
    tunnels: new Set(),
    accessLog: options.accessLog,
    observer: options.observer,
  };
  const http1 = createHttp1Acceptor(context);
  const http2 = createHttp2Acceptor(context);
  const unnamed = { http1: http1.accept, http2: alpn.includes('h2') ? http2.accept : undefined };
  /** Every connection, from accept to close. */
  const open = createRoster<Accepted>();
  const capacity = createCapacity<Accepted>({
    limit: limits.maxConnections,
    open,
    deadlines,
    // Behind a gateway that says nothing of its clients all of them have its address.
    knowsPeers: options.proxyProtocol === true,
    onFull: (since) =>
      log.warn(
        { maxConnections: limits.maxConnections, ...since },
        'connection limit reached, the longest idle are ended',
      ),
  });
  const lastDescriptor =
    limits.maxDescriptors === NO_LIMIT
      ? NO_LIMIT
      : limits.maxDescriptors - Math.max(SPARE_DESCRIPTORS, Math.floor(limits.maxDescriptors / SPARE_PART));
  let boundPort = options.port;
  const tlsServer = createTls();
  const server = createTcp();

  return {
    listen,
    setCertificates(list) {
      contexts.setCertificates(list);
      // A resumed session never shows the certificate: the ones of before must end with it.
      if (options.ticketKeys === undefined) tlsServer.setTicketKeys(randomBytes(48));
    },
    setChallenge: contexts.setChallenge,
    setRoutes(list) {
      routes = tableOf(list);
      upstreams.serve(list.flatMap(({ paths }) => paths.map(({ upstream }) => upstream)));
    },
    setTicketKeys: (keys) => tlsServer.setTicketKeys(keys),
    drain,
  };

  function createTls(): TlsServer {
    const created = createTlsServer({
      ...contexts.serverOptions,
      handshakeTimeout: limits.handshakeTimeoutMs,
      ...(options.ticketKeys === undefined ? {} : { ticketKeys: options.ticketKeys }),
    });
    created.on('secureConnection', secured);
    created.on('tlsClientError', (error, socket) => {
      counts[FAILED_HANDSHAKES]!++;
      handshakes.failed(error, socket);
    });
    return created;
  }

  function createTcp(): Server {
    const created = createServer({
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: TCP_KEEPALIVE_MS,
    });
    created.on('connection', accepted);
    created.on('error', (error) => log.warn({ err: error }, 'accept failed'));
    return created;
  }

  function listen(): Promise<{ address: string; port: number }> {
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
        boundPort = bound.port;
        resolve({ address: bound.address, port: bound.port });
      },
    );
    return promise;
  }

  function accepted(socket: Socket) {
    const connection = new Accepted(socket, deadlines.now());
    (socket as AcceptedSocket)[acceptedOf] = connection;
    rememberRawSocket(socket);
    open.add(connection);
    counts[ACCEPTED]!++;
    counts[OPEN]!++;
    socket.once('close', () => {
      open.remove(connection);
      capacity.left(connection);
      counts[OPEN]!--;
      counts[RECEIVED]! += socket.bytesRead;
      counts[SENT]! += socket.bytesWritten;
    });
    if (!capacity.admits(connection) || !leavesDescriptors(socket)) {
      counts[REFUSED]!++;
      socket.destroy();
      return;
    }
    if (options.proxyProtocol === true) readProxyHeader(connection);
    else tlsServer.emit('connection', socket);
  }

  /** When no descriptor is left, libuv closes the connections that wait to be accepted, and tells nobody. */
  function leavesDescriptors(socket: Socket): boolean {
    if (descriptorsInUse(socket) < lastDescriptor) return true;
    return upstreams.closeIdle() > 0 || capacity.relieve(1) > 0;
  }

  /** A header from elsewhere than a trusted proxy would let anyone be anyone: closed, as is a connection without. */
  function readProxyHeader(connection: Accepted) {
    const { socket } = connection;
    const origin = originOf(connection);
    if (!isProxy(origin.address)) {
      socket.destroy();
      return;
    }
    const reader = createProxyHeaderReader();
    const deadline: Deadline = {
      at: deadlines.now() + limits.handshakeTimeoutMs,
      expired: () => socket.destroy(),
    };
    deadlines.watch(deadline);
    const stop = () => {
      deadlines.forget(deadline);
      socket.off('data', read);
      socket.off('end', refuse);
      socket.off('error', refuse);
      socket.off('close', stop);
    };
    const refuse = () => {
      stop();
      log.debug({ peer: origin.address }, 'PROXY header refused');
      socket.destroy();
    };
    const read = (chunk: Buffer) => {
      const header = reader.read(chunk);
      if (header === 'incomplete') return;
      if (header === 'malformed') return refuse();
      stop();
      socket.pause();
      if (reader.rest.length > 0) socket.unshift(reader.rest);
      const { source } = header;
      connection.origin = {
        address: source?.address ?? origin.address,
        serverPort: header.destinationPort ?? origin.serverPort,
        // Without an address it is anybody's, whoever its sender is.
        forwarder: source !== undefined && isForwarder(source.address),
      };
      if (source !== undefined && !capacity.admitsPeer(connection, source.address)) {
        socket.destroy();
        return;
      }
      tlsServer.emit('connection', socket);
    };
    socket.on('data', read);
    socket.on('end', refuse);
    socket.on('error', refuse);
    socket.on('close', stop);
  }

  function secured(socket: TLSSocket) {
    counts[HANDSHAKES]!++;
    forbidRenegotiation(socket);
    // RFC 6066 §3: a name without a final dot; many send the one that was typed.
    const serverName = serverNameOf((socket.servername || '').toString());
    // Half-closes of tunnels are passed on, so none may be answered unasked; before the handshake the end is the end.
    socket.allowHalfOpen = true;
    if (socket.alpnProtocol === ACME_TLS) {
      socket.end();
      return;
    }
    const certificateNames = contexts.namesFor(serverName);
    // A resumed session shows no certificate: it must not outlive the name's being served.
    if (certificateNames === undefined) {
      handshakes.noteUnknown(serverName);
      socket.destroy();
      return;
    }
    const accepted = (rawSocketUnder(socket) as AcceptedSocket | undefined)?.[acceptedOf];
    if (accepted === undefined) {
      socket.destroy();
      return;
    }
    accepted.secured = new Secured(socket, certificateNames, serverName, () => originOf(accepted));
    dispatch(accepted.secured);
  }

  function originOf(accepted: Accepted): Origin {
    if (accepted.origin !== undefined) return accepted.origin;
    const address = unmapped(accepted.socket.remoteAddress ?? '');
    accepted.origin = { address, serverPort: boundPort, forwarder: isForwarder(address) };
    return accepted.origin;
  }

  function dispatch(connection: Connection) {
    const settings = routes.forward(connection.serverName, '/')?.upstream;
    if (settings?.protocol === 'tcp') return acceptTcp(context, connection, settings);
    const { alpnProtocol } = connection.socket;
    if (alpnProtocol === 'h2') return http2.accept(connection);
    // With ALPN the client has said that it speaks HTTP.
    if (settings === undefined || alpnProtocol === 'http/1.1') return http1.accept(connection);
    // HTTP/2 is agreed on by ALPN (RFC 9113 §3.2), but clients of upstreams that speak it have done without.
    if (settings.protocol === 'auto' || speaksHttp2(settings.protocol)) {
      return acceptUnnamed(context, connection, settings, unnamed);
    }
    http1.accept(connection);
  }

  async function drain(timeoutMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    http1.drain();
    http2.drain();
    http2Upstreams.drain();
    for (const tunnel of context.tunnels) tunnel.goAway();
    // What cannot be told may still end on its own; a reset is only for what then still hangs on.
    const last = setTimeout(
      () => {
        for (const tunnel of context.tunnels) tunnel.end();
      },
      timeoutMs - Math.min(LAST_WORDS_MS, timeoutMs / 2),
    );
    const timer = setTimeout(() => {
      http1.destroyAll();
      http2.destroyAll();
      http2Upstreams.destroyAll();
      open.each(({ socket }) => socket.destroy());
    }, timeoutMs);
    await closed;
    clearTimeout(timer);
    clearTimeout(last);
    upstreams.close();
    options.accessLog?.flush();
  }
}

function assertWired(localPaths: readonly LocalPath[], localHandlers: LocalHandlers): void {
  for (const { path, answeredBy } of localPaths) {
    if (!Object.hasOwn(localHandlers, answeredBy)) {
      throw new Error(`${path} is to be answered by ${answeredBy}, which is no handler of this listener`);
    }
  }
}

/** Where it comes from is asked for with its first request: a handshake alone does not need it. */
class Secured implements Connection {
  readonly socket: TLSSocket;
  readonly certificateNames: readonly string[];
  readonly serverName: string;
  holder: Holder | undefined = undefined;
  private readonly origin: () => Origin;

  constructor(
    socket: TLSSocket,
    certificateNames: readonly string[],
    serverName: string,
    origin: () => Origin,
  ) {
    this.socket = socket;
    this.certificateNames = certificateNames;
    this.serverName = serverName;
    this.origin = origin;
  }

  get clientAddress(): string {
    return this.origin().address;
  }

  get serverPort(): number {
    return this.origin().serverPort;
  }

  get trustedClient(): boolean {
    return this.origin().forwarder;
  }
}

/** ::ffff:192.0.2.1 is how a socket for both families names an IPv4 peer. */
function unmapped(address: string): string {
  return address.startsWith('::ffff:') ? address.slice(7) : address;
}

function createTrust(list: readonly string[]): (address: string) => boolean {
  const ranges = list.map((entry) => {
    if (entry.includes('/')) return ipaddr.parseCIDR(entry);
    const address = ipaddr.parse(entry);
    return [address, address.kind() === 'ipv4' ? 32 : 128] as [typeof address, number];
  });
  return (address) => {
    if (ranges.length === 0 || !ipaddr.isValid(address)) return false;
    const parsed = ipaddr.process(address);
    return ranges.some(([range, bits]) => range.kind() === parsed.kind() && parsed.match(range, bits));
  };
}
