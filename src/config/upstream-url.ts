// Where requests go, as people write it: a URL, or the bare host:port of the HAProxy images.

import { isIPv6 } from 'node:net';
import type { Address, UpstreamProtocol } from '../../proxy/rules/routes.ts';
import { meantIn } from '../lib/spelling.ts';
import { parseAddress, quote, ValueError } from './values.ts';

export interface UpstreamTarget {
  readonly protocol: UpstreamProtocol;
  readonly address: Address;
}

type Scheme = Exclude<UpstreamProtocol, 'auto'>;

/** Undefined: the scheme says nothing about the port. */
const DEFAULT_PORTS: Readonly<Record<Scheme, number | undefined>> = {
  http: 80,
  https: 443,
  h2c: 80,
  grpc: 80,
  grpcs: 443,
  tcp: undefined,
};

const SCHEMES = Object.keys(DEFAULT_PORTS).map((scheme) => `${scheme}://`);

/** Throws ValueError. A path is refused, except a lone "/": requests keep the path that the client asked for. */
export function parseUpstreamUrl(text: string): UpstreamTarget {
  const match = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/(.*)$/s.exec(text);
  if (match === null) return { protocol: 'auto', address: parseAuthority(text, text, undefined) };
  const scheme = knownScheme(match[1]!);
  const rest = match[2]!;
  const authority = /^[^/?#]*/.exec(rest)![0];
  const after = rest.slice(authority.length);
  if (after !== '' && after !== '/') {
    throw new ValueError(
      `${quote(text)} has a path`,
      `requests keep the path they came with, so wants ${match[1]}://host:port`,
    );
  }
  return { protocol: scheme, address: parseAuthority(text, authority, DEFAULT_PORTS[scheme]) };
}

function knownScheme(scheme: string): Scheme {
  if (Object.hasOwn(DEFAULT_PORTS, scheme)) return scheme as Scheme;
  if (scheme === 'ws' || scheme === 'wss') {
    const plain = scheme === 'ws' ? 'http://' : 'https://';
    throw new ValueError(`${scheme}:// is not an upstream scheme`, `WebSockets go through ${plain}`);
  }
  throw new ValueError(
    `${quote(`${scheme}://`)} is not an upstream scheme`,
    `wants ${SCHEMES.join(', ')} or host:port${meantIn(`${scheme.toLowerCase()}://`, SCHEMES)}`,
  );
}

function parseAuthority(text: string, authority: string, defaultPort: number | undefined): Address {
  if (authority.includes('@'))
    throw new ValueError('has a user name or password', 'upstreams are given without');
  if (authority === '')
    throw new ValueError(`${quote(text)} has no host`, 'wants host:port or a URL as in http://app:80');
  if (isIPv6(authority))
    throw new ValueError(`${quote(text)} is not a host`, 'an IPv6 address needs brackets, as in [::1]:80');
  try {
    return parseAddress(authority, defaultPort);
  } catch (error) {
    if (!(error instanceof ValueError) || authority === text) throw error;
    throw new ValueError(`${quote(text)}: ${error.subject}`, error.cure, { cause: error });
  }
}
