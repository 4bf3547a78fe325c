// Where clients are listened for, which of them are believed, and what they may take.

import type { Environment } from './environment.ts';
import {
  parseChoice,
  parseCount,
  parseDuration,
  parseHost,
  parseNetworks,
  parsePort,
  parseSize,
  parseSwitch,
  quote,
  splitWords,
  ValueError,
} from './values.ts';

export type Alpn = 'h2' | 'http/1.1';

export interface Limits {
  /** Of clients, over all workers. */
  readonly maxConnections: number;
  readonly handshakeTimeoutMs: number;
  /** From the first byte of a request's head to its last. */
  readonly headerTimeoutMs: number;
  /** Longest silence of a client in the middle of an exchange or a tunnel. */
  readonly clientIdleTimeoutMs: number;
  /** Longest pause between two requests. */
  readonly keepAliveTimeoutMs: number;
  readonly maxHeaderBytes: number;
  readonly maxHeaderCount: number;
  /** Undefined: no limit. */
  readonly maxBodyBytes: number | undefined;
  /** HTTP/2 requests at once on one connection. */
  readonly maxConcurrentStreams: number;
}

export interface ListenSettings {
  /** Undefined: every address of the machine. */
  readonly host: string | undefined;
  readonly port: number;
  /** Where plain HTTP is listened for, if it is. Always there for http-01. */
  readonly httpPort: number | undefined;
  readonly alpn: readonly Alpn[];
  readonly proxyProtocol: boolean;
  /** CIDR blocks whose PROXY header is believed; empty unless proxyProtocol. */
  readonly trustedProxies: readonly string[];
  /** CIDR blocks of proxies that end TLS before us, whose X-Forwarded-* and Forwarded fields are believed. */
  readonly trustedForwarders: readonly string[];
  readonly limits: Limits;
}

const DAY_MS = 86_400_000;

export function readListen(environment: Environment, alpn: readonly Alpn[]): ListenSettings {
  const proxyProtocol = environment.read(['PROXY_PROTOCOL', 'ACCEPT_PROXY_PROTOCOL'], parseSwitch) ?? false;
  const trusted = environment.read('TRUSTED_PROXIES', parseNetworks) ?? parseNetworks('private');
  if (!proxyProtocol && environment.has('TRUSTED_PROXIES')) {
    environment.warn('TRUSTED_PROXIES', 'does nothing: PROXY_PROTOCOL is off');
  }
  const forwarders = environment.read('TRUSTED_FORWARDERS', parseNetworks) ?? [];
  if (forwarders.some((block) => block.endsWith('/0'))) {
    environment.warn('TRUSTED_FORWARDERS', 'names every address: any visitor can claim to be any other');
  }
  return {
    host: environment.read('LISTEN_ADDRESS', parseHost),
    port: environment.read('PORT', parsePort) ?? 443,
    httpPort: environment.read('HTTP_PORT', parsePort),
    alpn,
    proxyProtocol,
    trustedProxies: proxyProtocol ? trusted : [],
    trustedForwarders: forwarders,
    limits: readLimits(environment),
  };
}

function readLimits(environment: Environment): Limits {
  const duration = (name: string, otherwise: number) => environment.read(name, parseDuration) ?? otherwise;
  const count = (name: string, most: number, otherwise: number) =>
    environment.read(name, (text) => parseCount(text, 1, most)) ?? otherwise;
  return {
    maxConnections: count('MAXCONN', 10_000_000, 4096),
    handshakeTimeoutMs: duration('HANDSHAKE_TIMEOUT', 10_000),
    headerTimeoutMs: duration('HEADER_TIMEOUT', 30_000),
    clientIdleTimeoutMs: duration('TIMEOUT_CLIENT', DAY_MS),
    keepAliveTimeoutMs: duration('KEEPALIVE_TIMEOUT', 75_000),
    maxHeaderBytes: readHeaderSize(environment),
    maxHeaderCount: count('MAX_HEADER_COUNT', 2000, 128),
    // Zero is no limit, as in nginx. Without the setting there is none either, as in the 2.x images.
    maxBodyBytes: environment.read('CLIENT_MAX_BODY_SIZE', parseSize) || undefined,
    maxConcurrentStreams: count('MAX_CONCURRENT_STREAMS', 10_000, 100),
  };
}

const DEFAULT_HEADER_BYTES = 64 * 1024;

function readHeaderSize(environment: Environment): number {
  const size = environment.read(['MAX_HEADER_SIZE', 'PROXY_BUFFER_SIZE'], (text, name) => {
    const bytes = parseSize(text);
    // In nginx it is the size of a buffer; a small one would be a strict limit here.
    if (name === 'PROXY_BUFFER_SIZE' && bytes <= DEFAULT_HEADER_BYTES) return DEFAULT_HEADER_BYTES;
    if (bytes >= 1024 && bytes <= 1024 * 1024) return bytes;
    throw new ValueError(`${quote(text)} is out of range`, 'wants 1k to 1m');
  });
  return size ?? DEFAULT_HEADER_BYTES;
}

export function parseAlpn(text: string): Alpn[] {
  const protocols = splitWords(text).map((word) => parseChoice(word, ['h2', 'http/1.1']));
  if (protocols.length === 0)
    throw new ValueError(`${quote(text)} names no protocol`, 'wants h2, http/1.1 or both');
  return [...new Set(protocols)];
}
