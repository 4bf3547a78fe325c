// Raw bytes both ways between a client and an upstream, half-closes kept; and the choice between those and HTTP.

import type { TLSSocket } from 'node:tls';
import { type AccessEntry, createAccessEntry } from './access-log.ts';
import type { Connection, ProxyContext } from './connection.ts';
import type { Deadline } from './deadlines.ts';
import type { Fault } from './errors.ts';
import { onData } from './reads.ts';
import type { UpstreamSettings } from './routes.ts';
import { destroyOnError } from './socket-errors.ts';
import type { Acquisition, UpstreamLink, UpstreamUser } from './upstream.ts';
import { noteUpstreamFault } from './upstream-faults.ts';
import { createFrameTracker, type FrameTracker, goingAwayFrame, trackFrames } from './websocket-frames.ts';
import { flush, gather, isFull, writeLent } from './writes.ts';

/** The client's side of a tunnel: a socket, or a stream of HTTP/2. */
export interface TunnelClient {
  /** `bytes[0, end)` are lent. False: enough is waiting, and clientDrained() will say when it has gone. */
  write(bytes: Buffer, end: number): boolean;
  end(): void;
  /** What was written before goes out, as far as it can without waiting. */
  destroy(): void;
  pause(): void;
  resume(): void;
}

export function socketClient(socket: TLSSocket): TunnelClient {
  return {
    write: (bytes, end) => writeLent(socket, bytes, 0, end),
    end: () => void socket.end(),
    destroy() {
      flush(socket);
      socket.destroy();
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
  };
}

/** Two sockets joined. Whoever owns the client's listeners passes their events in. */
export interface Tunnel extends UpstreamUser {
  clientData(bytes: Buffer): void;
  clientDrained(): void;
  clientEnded(): void;
  /** The client is gone: so is the upstream. */
  clientClosed(): void;
}

/** What a drain can ask of a tunnel. */
export interface OpenTunnel {
  /** Of a WebSocket: tells both ends that it is over, each where a frame ends. Nothing that is cheap does it for others. */
  goAway(): void;
  /** Ends both directions after what has been passed on. */
  end(): void;
}

export interface TunnelOptions {
  readonly context: Pick<ProxyContext, 'deadlines' | 'limits' | 'log' | 'tunnels' | 'upstreams'>;
  readonly client: TunnelClient;
  readonly settings: UpstreamSettings;
  /** Both ends speak WebSocket. */
  readonly websocket?: boolean;
  /** Told of bytes, upstream and fault as they come. */
  readonly access?: AccessEntry | undefined;
  /** The first bytes of the upstream came before any of the client's were passed on. */
  readonly upstreamSpokeFirst?: () => void;
}

/** Joins `client` to `link`, or to the link that upstreamReady() will bring. Ends when both directions have. */
export function createTunnel(options: TunnelOptions, existing?: UpstreamLink): Tunnel {
  const { client, settings, context, access } = options;
  const { deadlines } = context;
  // Either side may be silent as long as its own limit says, so both may for the longer of the two.
  const idleMs = Math.max(settings.readTimeoutMs, context.limits.clientIdleTimeoutMs);
  const goodbye = options.websocket === true ? createGoodbye(client, () => link) : undefined;
  let link = existing;
  let early: Buffer[] = [];
  let clientEnded = false;
  let spoken = false;
  const deadline: Deadline = {
    at: deadlines.after(idleMs),
    expired() {
      if (access !== undefined) access.fault = 'upstream-timeout';
      dropUpstream();
      client.destroy();
    },
  };
  const open: OpenTunnel = {
    goAway: () => goodbye?.begin(),
    end() {
      client.end();
      link?.socket.end();
    },
  };
  deadlines.watch(deadline);
  context.tunnels.add(open);
  const touch = () => {
    deadline.at = deadlines.after(idleMs);
  };

  const passUp = (bytes: Buffer) => {
    if (link === undefined) {
      early.push(bytes);
      client.pause();
      return;
    }
    gather(link.socket);
    link.socket.write(bytes);
    if (isFull(link.socket)) client.pause();
  };
  /** What a client said before it was lost is the upstream's. */
  const dropUpstream = () => {
    if (link === undefined) return;
    flush(link.socket);
    link.destroy();
  };

  return {
    clientData(bytes) {
      touch();
      spoken = true;
      if (access !== undefined) access.received += bytes.length;
      const end = goodbye === undefined ? bytes.length : goodbye.fromClient(bytes, bytes.length);
      if (end > 0) passUp(end === bytes.length ? bytes : bytes.subarray(0, end));
      goodbye?.continue();
    },
    clientDrained: () => void link?.socket.resume(),
    clientEnded() {
      clientEnded = true;
      link?.socket.end();
    },
    clientClosed() {
      deadlines.forget(deadline);
      context.tunnels.delete(open);
      dropUpstream();
    },
    upstreamReady(ready) {
      touch();
      link = ready;
      if (access !== undefined) access.upstream = ready.address;
      for (const bytes of early) link.socket.write(bytes);
      early = [];
      if (clientEnded) link.socket.end();
      client.resume();
    },
    upstreamFailed(fault) {
      if (access !== undefined) access.fault = fault.code;
      logFault(context, fault, settings);
      client.destroy();
    },
    upstreamData(bytes, size) {
      touch();
      if (!spoken) {
        spoken = true;
        options.upstreamSpokeFirst?.();
      }
      const end = goodbye === undefined ? size : goodbye.fromUpstream(bytes, size);
      if (access !== undefined) access.sent += end;
      if (end > 0 && !client.write(bytes, end)) link?.socket.pause();
      goodbye?.continue();
    },
    upstreamDrained: () => void client.resume(),
    upstreamEnded() {
      touch();
      client.end();
    },
    upstreamClosed(error) {
      link = undefined;
      // A reset stays visible: an orderly end would tell the client that it has received everything.
      if (error !== undefined) {
        if (access !== undefined) access.fault = 'upstream-closed';
        client.destroy();
      } else client.end();
    },
  };
}

/** The end of a WebSocket at our own wish (RFC 6455 §7.1.1): Close to both ends, and a socket's end after its answer. */
interface Goodbye {
  begin(): void;
  /** How many of these bytes are to be passed on. */
  fromClient(bytes: Buffer, end: number): number;
  fromUpstream(bytes: Buffer, end: number): number;
  /** To be called after they were. */
  continue(): void;
}

/** One way through the tunnel, and whether its receiver was told. */
interface Direction {
  readonly tracker: FrameTracker;
  /** What has been passed on ends with a whole frame. */
  due: boolean;
  /** None of what has been passed on was a Close. */
  owed: boolean;
  told: boolean;
}

function createGoodbye(client: TunnelClient, link: () => UpstreamLink | undefined): Goodbye {
  const fromClient: Direction = { tracker: createFrameTracker(), due: false, owed: false, told: false };
  const fromUpstream: Direction = { tracker: createFrameTracker(), due: false, owed: false, told: false };
  let leaving = false;

  const noteBoundary = (direction: Direction) => {
    const { tracker } = direction;
    if (direction.due || !tracker.atBoundary) return;
    direction.due = true;
    direction.owed = !tracker.closed;
  };
  const take = (direction: Direction, bytes: Buffer, end: number): number => {
    const { tracker } = direction;
    const passed = direction.due ? 0 : trackFrames(tracker, bytes, 0, end, leaving);
    if (leaving) noteBoundary(direction);
    // After our own Close nothing goes on; it is read for the other end's Close alone.
    trackFrames(tracker, bytes, passed, end, false);
    return passed;
  };
  const proceed = () => {
    if (!leaving) return;
    if (fromUpstream.due && !fromUpstream.told) {
      fromUpstream.told = true;
      if (fromUpstream.owed) {
        const frame = goingAwayFrame(false);
        client.write(frame, frame.length);
      }
    }
    if (fromClient.due && !fromClient.told) {
      fromClient.told = true;
      if (fromClient.owed) link()?.socket.write(goingAwayFrame(true));
    }
    if (fromUpstream.told && fromClient.tracker.closed) client.end();
    if (fromClient.told && fromUpstream.tracker.closed) link()?.socket.end();
  };
  return {
    begin() {
      leaving = true;
      noteBoundary(fromClient);
      noteBoundary(fromUpstream);
      proceed();
    },
    fromClient: (bytes, end) => take(fromClient, bytes, end),
    fromUpstream: (bytes, end) => take(fromUpstream, bytes, end),
    continue: proceed,
  };
}

function logFault(
  context: Pick<ProxyContext, 'log' | 'upstreams'>,
  fault: Fault,
  settings: UpstreamSettings,
) {
  noteUpstreamFault(context, settings, fault, { protocol: settings.protocol });
}

/** Splices a connection to its `tcp://` upstream from the start. */
export function acceptTcp(context: ProxyContext, connection: Connection, settings: UpstreamSettings): void {
  const { socket } = connection;
  const access = beginAccess(context, connection);
  const tunnel = createTunnel({ context, client: socketClient(socket), settings, access });
  joinClient(socket, tunnel);
  logAtClose(context, socket, access);
  const attempt = context.upstreams.acquire(settings, tunnel, { fresh: true });
  socket.once('close', () => attempt.abandon());
}

function joinClient(socket: TLSSocket, tunnel: Tunnel) {
  onData(socket, tunnel.clientData);
  socket.on('drain', tunnel.clientDrained);
  socket.on('end', tunnel.clientEnded);
  destroyOnError(socket);
  socket.once('close', tunnel.clientClosed);
}

function beginAccess(context: ProxyContext, { clientAddress, serverName }: Connection) {
  const { accessLog, deadlines } = context;
  if (accessLog === undefined) return undefined;
  const access = createAccessEntry('tcp', clientAddress, deadlines.now());
  access.host = serverName;
  return access;
}

/** To be called once the connection is known to be a tunnel. */
function logAtClose(
  { accessLog, deadlines }: ProxyContext,
  socket: TLSSocket,
  access: AccessEntry | undefined,
) {
  if (access !== undefined) socket.once('close', () => accessLog?.write(access, deadlines.now()));
}

/** How long a client may say nothing before its upstream gets the chance to speak first. */
const SILENCE_MS = 100;

/**
 * For a bare `host:port`: the first bytes decide. A request line goes to `relay`, anything else is spliced. When
 * nobody says anything the upstream is connected to, for it may be the one that speaks first (SMTP, MySQL, SSH).
 */
export function acceptAuto(
  context: ProxyContext,
  connection: Connection,
  settings: UpstreamSettings,
  relay: (connection: Connection, first: Buffer) => void,
): void {
  const { socket } = connection;
  const access = beginAccess(context, connection);
  let seen: Buffer = Buffer.alloc(0);
  let tunnel: Tunnel | undefined;
  let attempt: Acquisition | undefined;

  const openTunnel = () => {
    tunnel = createTunnel({
      context,
      client: socketClient(socket),
      settings,
      access,
      upstreamSpokeFirst: splice,
    });
    attempt = context.upstreams.acquire(settings, tunnel, { fresh: true });
  };
  const stopLooking = () => {
    clearTimeout(silence);
    socket.off('data', look);
    socket.off('drain', onDrain);
    socket.off('end', onEnd);
    socket.off('close', onClose);
  };
  const splice = () => {
    stopLooking();
    if (tunnel === undefined) openTunnel();
    joinClient(socket, tunnel!);
    logAtClose(context, socket, access);
    socket.once('close', () => attempt?.abandon());
    if (seen.length > 0) tunnel!.clientData(seen);
    seen = Buffer.alloc(0);
  };
  const look = (bytes: Buffer) => {
    seen = seen.length === 0 ? bytes : Buffer.concat([seen, bytes]);
    const verdict = looksLikeHttp(seen);
    if (verdict === undefined) return;
    if (!verdict) return splice();
    stopLooking();
    tunnel?.clientClosed();
    attempt?.abandon();
    relay(connection, seen);
  };
  const onDrain = () => tunnel?.clientDrained();
  const onEnd = () => {
    splice();
    tunnel!.clientEnded();
  };
  const onClose = () => {
    clearTimeout(silence);
    if (tunnel === undefined) return;
    tunnel.clientClosed();
    attempt?.abandon();
    if (access !== undefined) context.accessLog?.write(access, context.deadlines.now());
  };
  // What could still become a request line, and does not go on, is spliced as well.
  const silence = setTimeout(() => (seen.length > 0 ? splice() : openTunnel()), SILENCE_MS);
  socket.on('data', look);
  socket.on('drain', onDrain);
  socket.on('end', onEnd);
  destroyOnError(socket);
  socket.on('close', onClose);
}

/** Whether these are the first bytes of an HTTP/1 request; undefined: too few to say. */
export function looksLikeHttp(bytes: Buffer): boolean | undefined {
  const text = bytes.toString('latin1', 0, 40);
  // The preface of HTTP/2 (RFC 9113 §3.4) is meant for the upstream when no ALPN was agreed on.
  if (text.startsWith('PRI ')) return false;
  if (/^[A-Z]{3,24} (?:\/|\*|https?:\/\/)/.test(text)) return true;
  return /^[A-Z]{1,24}(?: (?:h(?:t(?:t(?:p(?:s?|s?:\/?))?)?)?)?)?$/.test(text) ? undefined : false;
}
