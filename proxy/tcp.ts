// Raw bytes both ways between a client and an upstream, half-closes kept; and the choice between those and HTTP.

import type { TLSSocket } from 'node:tls';
import type { Connection, ProxyContext } from './connection.ts';
import type { Deadline } from './deadlines.ts';
import type { Fault } from './errors.ts';
import type { UpstreamSettings } from './routes.ts';
import type { Acquisition, UpstreamLink, UpstreamUser } from './upstream.ts';
import { writeLent } from './writes.ts';

/** Two sockets joined. Whoever owns the client's listeners passes their events in. */
export interface Tunnel extends UpstreamUser {
  clientData(bytes: Buffer): void;
  clientDrained(): void;
  clientEnded(): void;
  /** The client is gone: so is the upstream. */
  clientClosed(): void;
}

export interface TunnelOptions {
  readonly context: Pick<ProxyContext, 'deadlines' | 'limits' | 'log'>;
  readonly client: TLSSocket;
  readonly settings: UpstreamSettings;
  /** The first bytes of the upstream came before any of the client's were passed on. */
  readonly upstreamSpokeFirst?: () => void;
}

/** Joins `client` to `link`, or to the link that upstreamReady() will bring. Ends when both directions have. */
export function createTunnel(options: TunnelOptions, existing?: UpstreamLink): Tunnel {
  const { client, settings, context } = options;
  const { deadlines } = context;
  // Either side may be silent as long as its own limit says, so both may for the longer of the two.
  const idleMs = Math.max(settings.readTimeoutMs, context.limits.clientIdleTimeoutMs);
  let link = existing;
  let early: Buffer[] = [];
  let clientEnded = false;
  let spoken = false;
  const deadline: Deadline = {
    at: deadlines.now() + idleMs,
    expired() {
      link?.destroy();
      client.destroy();
    },
  };
  deadlines.watch(deadline);
  const touch = () => {
    deadline.at = deadlines.now() + idleMs;
  };

  return {
    clientData(bytes) {
      touch();
      spoken = true;
      if (link === undefined) {
        early.push(bytes);
        client.pause();
      } else if (!link.socket.write(bytes)) client.pause();
    },
    clientDrained: () => void link?.socket.resume(),
    clientEnded() {
      clientEnded = true;
      link?.socket.end();
    },
    clientClosed() {
      deadlines.forget(deadline);
      link?.destroy();
    },
    upstreamReady(ready) {
      touch();
      link = ready;
      for (const bytes of early) link.socket.write(bytes);
      early = [];
      if (clientEnded) link.socket.end();
      client.resume();
    },
    upstreamFailed(fault) {
      logFault(context, fault, settings);
      client.destroy();
    },
    upstreamData(bytes, end) {
      touch();
      if (!spoken) {
        spoken = true;
        options.upstreamSpokeFirst?.();
      }
      if (!writeLent(client, bytes, 0, end)) link?.socket.pause();
    },
    upstreamDrained: () => void client.resume(),
    upstreamEnded() {
      touch();
      client.end();
    },
    upstreamClosed(error) {
      link = undefined;
      // A reset stays visible: an orderly end would tell the client that it has received everything.
      if (error !== undefined) client.destroy();
      else client.end();
    },
  };
}

function logFault(context: Pick<ProxyContext, 'log'>, fault: Fault, settings: UpstreamSettings) {
  context.log.warn({ err: fault, protocol: settings.protocol }, 'upstream failed');
}

/** Splices a connection to its `tcp://` upstream from the start. */
export function acceptTcp(context: ProxyContext, connection: Connection, settings: UpstreamSettings): void {
  const { socket } = connection;
  const tunnel = createTunnel({ context, client: socket, settings });
  joinClient(socket, tunnel);
  const attempt = context.upstreams.acquire(settings, tunnel, { fresh: true });
  socket.once('close', () => attempt.abandon());
}

function joinClient(socket: TLSSocket, tunnel: Tunnel) {
  socket.on('data', tunnel.clientData);
  socket.on('drain', tunnel.clientDrained);
  socket.on('end', tunnel.clientEnded);
  // 'close' follows, and says all that matters.
  socket.on('error', () => {});
  socket.once('close', tunnel.clientClosed);
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
  let seen: Buffer = Buffer.alloc(0);
  let tunnel: Tunnel | undefined;
  let attempt: Acquisition | undefined;

  const openTunnel = () => {
    tunnel = createTunnel({ context, client: socket, settings, upstreamSpokeFirst: splice });
    attempt = context.upstreams.acquire(settings, tunnel, { fresh: true });
  };
  const stopLooking = () => {
    clearTimeout(silence);
    socket.off('data', look);
    socket.off('drain', onDrain);
    socket.off('end', onEnd);
    socket.off('error', onError);
    socket.off('close', onClose);
  };
  const splice = () => {
    stopLooking();
    if (tunnel === undefined) openTunnel();
    joinClient(socket, tunnel!);
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
  const onError = () => {};
  const onClose = () => {
    clearTimeout(silence);
    tunnel?.clientClosed();
    attempt?.abandon();
  };
  // What could still become a request line, and does not go on, is spliced as well.
  const silence = setTimeout(() => (seen.length > 0 ? splice() : openTunnel()), SILENCE_MS);
  socket.on('data', look);
  socket.on('drain', onDrain);
  socket.on('end', onEnd);
  socket.on('error', onError);
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
