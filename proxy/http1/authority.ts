// Which host is asked for: of Host, :authority, absolute targets and SNI, in one way of reading (RFC 3986 §3.2, RFC 6066 §3).

// Labels, an IPv4 address or a bracketed IPv6 address, then perhaps a port, which may be empty (RFC 3986 §3.2.3). Narrower
// than §3.2.2 on purpose: nothing else names a host that could be served.
const HOST = /^([a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?\.?|\[[0-9a-f:.]+\])(?::(\d{0,5}))?$/i;

/** The host of a Host field or :authority: lower case, without port and final dot. Undefined: malformed. */
export function parseHost(value: string): string | undefined {
  const match = HOST.exec(value);
  if (match === null || Number(match[2] ?? 0) > 65_535) return undefined;
  return serverNameOf(match[1]!);
}

/** A name in lower case and without the final dot, which says no more than that it is whole (RFC 1034 §3.1). */
export function serverNameOf(name: string): string {
  const host = name.toLowerCase();
  return host.endsWith('.') ? host.slice(0, -1) : host;
}

const DEFAULT_PORTS: Readonly<Record<string, number>> = { http: 80, https: 443 };

/**
 * Whether two authorities under one scheme (lower case) name the same host and port: no port and an empty one are the
 * scheme's own (RFC 3986 §3.2.3).
 */
export function sameAuthority(one: string, other: string, scheme: string): boolean {
  const host = parseHost(one);
  return host !== undefined && host === parseHost(other) && portOf(one, scheme) === portOf(other, scheme);
}

function portOf(authority: string, scheme: string): number | undefined {
  const port = HOST.exec(authority)?.[2];
  return port === undefined || port === '' ? DEFAULT_PORTS[scheme] : Number(port);
}
