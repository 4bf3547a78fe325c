// Connections whose bytes pass unread to a `tcp://` upstream or a bare `host:port`: their tunnel, their line in the access log, and when they count as idle.

import type { TLSSocket } from 'node:tls';
import { type AccessEntry, createAccessEntry } from '../exchange/access-entry.ts';
import {
  announcementOf,
  type ClientConnection,
  FIRST_WORDS_MS,
  type Holder,
  type ProxyContext,
} from '../exchange/context.ts';
import type { UpstreamSettings } from '../rules/routes.ts';
import { createTunnel, joinClient, socketClient, type Tunnel } from '../tunnel/tunnel.ts';

/** Splices a connection to its `tcp://` upstream from the start. */
export function acceptTcp(
  context: ProxyContext,
  connection: ClientConnection,
  settings: UpstreamSettings,
): void {
  const { socket } = connection;
  const access = beginAccess(context, connection);
  const tunnel = createTunnel({ context, client: socketClient(socket), settings, access });
  connection.holder = createTunnelHolder(context, socket, tunnel);
  joinClient(socket, tunnel);
  logAtClose(context, socket, access);
  const announcement = announcementOf(connection, settings);
  const attempt = context.upstreams.acquire(settings, tunnel, { fresh: true, announcement });
  socket.once('close', () => attempt.abandon());
}

/**
 * Raw bytes do not show whether something is under way. A connection on which neither side has sent anything counts as
 * idle as soon as one without a first request does. After the first bytes it counts as idle once both sides have been
 * silent for as long as a client may pause between two requests.
 */
export function createTunnelHolder(
  { deadlines, limits }: ProxyContext,
  socket: TLSSocket,
  tunnel: Tunnel,
): Holder {
  return {
    idleSince() {
      if (!tunnel.hasSpoken()) return tunnel.quietSince() + FIRST_WORDS_MS;
      const since = tunnel.quietSince() + limits.keepAliveTimeoutMs;
      return since <= deadlines.now() ? since : Number.POSITIVE_INFINITY;
    },
    leave: () => socket.destroySoon(),
  };
}

/** Of a connection that is, or may become, a tunnel. */
export function beginAccess(
  context: ProxyContext,
  { clientAddress, serverName, socket }: ClientConnection,
): AccessEntry | undefined {
  const { accessLog, deadlines } = context;
  if (accessLog === undefined) return undefined;
  const access = createAccessEntry('tcp', clientAddress, deadlines.now(), socket.getProtocol() ?? '');
  access.host = serverName;
  return access;
}

/** To be called once the connection is known to be a tunnel. */
export function logAtClose(
  { accessLog, deadlines }: ProxyContext,
  socket: TLSSocket,
  access: AccessEntry | undefined,
): void {
  if (access !== undefined) socket.once('close', () => accessLog?.write(access, deadlines.now()));
}
