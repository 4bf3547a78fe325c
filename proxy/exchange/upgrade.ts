// Upgrade over HTTP/1.1 (RFC 9110 §7.8, RFC 6455): which requests may switch, and what a 101 turns the connection into.

import type { TLSSocket } from 'node:tls';
import type { MessageHead } from '../http1/message.ts';
import { isWebsocket } from '../tunnel/switch.ts';
import { createTunnel, socketClient, type Tunnel, type TunnelOptions } from '../tunnel/tunnel.ts';
import type { UpstreamLink } from '../upstream/http1-pool.ts';
import type { AccessEntry } from './access-entry.ts';
import { interimHeadText } from './headers.ts';

/**
 * Whether a request's wish to upgrade is passed on. With a body, from HTTP/1.0 or to h2c it is ignored, which RFC 9110
 * §7.8 allows: the first two are how parsers are led astray, and h2c would carry requests past the ingress's rules.
 */
export function asksForUpgrade(head: MessageHead): boolean {
  if (!head.upgrade || head.upgradeTo === '' || head.minor === 0) return false;
  if (head.chunked || head.contentLength > 0) return false;
  return !/\bh2c?\b|\bTLS\b|\bHTTP\b/i.test(head.upgradeTo);
}

/** Passes the 101 on, and joins the sockets: frames, pings and half-closes are the two ends' own business. */
export function beginTunnel(
  client: TLSSocket,
  link: UpstreamLink,
  head: MessageHead,
  options: Omit<TunnelOptions, 'client' | 'websocket' | 'access'> & {
    readonly access: AccessEntry | undefined;
  },
): Tunnel {
  const { access } = options;
  const websocket = isWebsocket(head);
  if (access !== undefined) {
    access.status = head.status;
    if (websocket) access.protocol = 'websocket';
  }
  const named = access === undefined || access.id === '' ? '' : `X-Request-ID: ${access.id}\r\n`;
  const own = `Connection: Upgrade\r\nUpgrade: ${head.upgradeTo}\r\n${named}`;
  client.write(interimHeadText(head, own), 'latin1');
  const tunnel = createTunnel({ ...options, client: socketClient(client), websocket }, link);
  link.handTo(tunnel);
  return tunnel;
}
