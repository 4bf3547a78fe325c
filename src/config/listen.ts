// Where clients are listened for, which of them are believed, and what they may take.

import { defaultLimits, type ListenerLimits, NO_LIMIT } from '../../proxy/limits.ts';
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

/** Connections are counted over all workers; how many descriptors there are is the machine's to say. */
export type Limits = Omit<ListenerLimits, 'maxDescriptors'>;

/** Who is believed about clients. */
export interface Trust {
  readonly proxyProtocol: boolean;
  /** CIDR blocks whose PROXY header is believed; empty unless proxyProtocol. */
  readonly trustedProxies: readonly string[];
  /** CIDR blocks of proxies that end TLS before us, whose X-Forwarded-* and Forwarded fields are believed. */
  readonly trustedForwarders: readonly string[];
}

export interface ListenSettings extends Trust {
  /** Undefined: every address of the machine. */
  readonly host: string | undefined;
  readonly port: number;
  /** Where plain HTTP is listened for, if it is. Always there for http-01. */
  readonly httpPort: number | undefined;
  readonly alpn: readonly Alpn[];
  readonly limits: Limits;
}

export function readTrust(environment: Environment): Trust {
  const proxyProtocol = environment.read(['PROXY_PROTOCOL', 'ACCEPT_PROXY_PROTOCOL'], parseSwitch) ?? false;
  const trusted = environment.read('TRUSTED_PROXIES', parseNetworks) ?? parseNetworks('private');
  if (!proxyProtocol && environment.has('TRUSTED_PROXIES')) {
    environment.warn('TRUSTED_PROXIES', 'does nothing: PROXY_PROTOCOL is off');
  }
  const forwarders = environment.read('TRUSTED_FORWARDERS', parseNetworks) ?? [];
  if (forwarders.some((block) => block.endsWith('/0'))) {
    environment.warn('TRUSTED_FORWARDERS', 'names every address: any visitor can claim to be any other');
  }
  return { proxyProtocol, trustedProxies: proxyProtocol ? trusted : [], trustedForwarders: forwarders };
}

/** Without a word about its clients, the address of every connection is the gateway's. */
export function knowsClients({ proxyProtocol, trustedForwarders }: Trust): boolean {
  return proxyProtocol || trustedForwarders.length > 0;
}

export function readListen(environment: Environment, alpn: readonly Alpn[], trust: Trust): ListenSettings {
  return {
    host: environment.read('LISTEN_ADDRESS', parseHost),
    port: environment.read('PORT', parsePort) ?? 443,
    httpPort: environment.read('HTTP_PORT', parsePort),
    alpn,
    ...trust,
    limits: readLimits(environment),
  };
}

function readLimits(environment: Environment): Limits {
  const duration = (name: string, otherwise: number) => environment.read(name, parseDuration) ?? otherwise;
  const count = (name: string, most: number, otherwise: number) =>
    environment.read(name, (text) => parseCount(text, 1, most)) ?? otherwise;
  return {
    maxConnections: count('MAXCONN', 10_000_000, defaultLimits.maxConnections),
    handshakeTimeoutMs: duration('HANDSHAKE_TIMEOUT', defaultLimits.handshakeTimeoutMs),
    headerTimeoutMs: duration('HEADER_TIMEOUT', defaultLimits.headerTimeoutMs),
    clientIdleTimeoutMs: duration('TIMEOUT_CLIENT', defaultLimits.clientIdleTimeoutMs),
    keepAliveTimeoutMs: duration('KEEPALIVE_TIMEOUT', defaultLimits.keepAliveTimeoutMs),
    maxHeaderBytes: readHeaderSize(environment),
    maxHeaderCount: count('MAX_HEADER_COUNT', 2000, defaultLimits.maxHeaderCount),
    maxBodyBytes: environment.read('CLIENT_MAX_BODY_SIZE', parseBodyLimit) ?? defaultLimits.maxBodyBytes,
    maxConcurrentStreams: count('MAX_CONCURRENT_STREAMS', 10_000, defaultLimits.maxConcurrentStreams),
  };
}

/** nginx writes no limit as zero. */
function parseBodyLimit(text: string): number {
  return parseSize(text) || NO_LIMIT;
}

function readHeaderSize(environment: Environment): number {
  const size = environment.read(['MAX_HEADER_SIZE', 'PROXY_BUFFER_SIZE'], (text, name) => {
    const bytes = parseSize(text);
    // In nginx it is the size of a buffer; a small one would be a strict limit here.
    if (name === 'PROXY_BUFFER_SIZE' && bytes <= defaultLimits.maxHeaderBytes)
      return defaultLimits.maxHeaderBytes;
    if (bytes >= 1024 && bytes <= 1024 * 1024) return bytes;
    throw new ValueError(`${quote(text)} is out of range`, 'wants 1k to 1m');
  });
  return size ?? defaultLimits.maxHeaderBytes;
}

export function parseAlpn(text: string): Alpn[] {
  const protocols = splitWords(text).map((word) => parseChoice(word, ['h2', 'http/1.1']));
  if (protocols.length === 0)
    throw new ValueError(`${quote(text)} names no protocol`, 'wants h2, http/1.1 or both');
  return [...new Set(protocols)];
}
