// Which upstream a request belongs to: by host, then by the longest path prefix.

import { covers, type Domain } from '../../src/lib/domain.ts';

/**
 * What is spoken to the upstream. `auto` is the bare `host:port` of the HAProxy images: HTTP is relayed as HTTP/1.1,
 * anything else as raw bytes.
 */
export type UpstreamProtocol = 'http' | 'https' | 'h2c' | 'grpc' | 'grpcs' | 'tcp' | 'auto';

/** Whether HTTP/2 is what is spoken to it, whatever its clients speak. */
export function speaksHttp2(protocol: UpstreamProtocol): boolean {
  return protocol === 'h2c' || protocol === 'grpc' || protocol === 'grpcs';
}

/** Whether it is reached through TLS of our own; what is spliced brings its own or none. */
export function speaksTls(protocol: UpstreamProtocol): boolean {
  return protocol === 'https' || protocol === 'grpcs';
}

export interface Address {
  /** A name or an IP literal without brackets. */
  readonly host: string;
  readonly port: number;
}

/** `host:port`, an IPv6 literal in brackets. */
export function authorityOf({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** Where requests go. Plain data: it crosses to the worker processes. */
export interface UpstreamSettings {
  readonly protocol: UpstreamProtocol;
  /** At least one; equals share the load. */
  readonly addresses: readonly Address[];
  readonly connectTimeoutMs: number;
  /** Longest silence while waiting for, or in the middle of, a reply. */
  readonly readTimeoutMs: number;
  /** Longest time that the upstream may take none of what is being sent. */
  readonly sendTimeoutMs: number;
  /** From the head of a request to the end of its reply, whatever happens in between; tunnels have no such limit. */
  readonly totalTimeoutMs?: number;
  /** How each address is asked whether it is well; without it, it is judged by the requests that it fails alone. */
  readonly health?: HealthSettings;
}

export type HealthProbe =
  /** GET, as HTTP/1.1 (over HTTP/2 for h2c); 2xx and 3xx are well. `host` if not the upstream's own. */
  | { readonly type: 'http'; readonly path: string; readonly host?: string }
  /** A connection is accepted. */
  | { readonly type: 'tcp' }
  /** grpc.health.v1 of this service; an empty name is the server as a whole. */
  | { readonly type: 'grpc'; readonly service: string };

export interface HealthSettings {
  readonly probe: HealthProbe;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** That many failed checks in a row. */
  readonly unhealthyAfter: number;
  /** That many passed checks in a row. */
  readonly healthyAfter: number;
}

export interface PathRoute {
  /** Starts with "/". "/" matches all; "/v1/" matches what starts with it. */
  readonly prefix: string;
  readonly upstream: UpstreamSettings;
}

export interface Route {
  readonly host: Domain;
  /** At least one. Order does not matter: the longest matching prefix wins. */
  readonly paths: readonly PathRoute[];
}

export interface RouteTable {
  /** `host` in lower case without port; `path` without query. Undefined: we have no route for it. */
  find(host: string, path: string): UpstreamSettings | undefined;
  /** Whether some route serves this host. */
  knows(host: string): boolean;
}

/** Exact hosts before wildcards, longer prefixes before shorter. */
export function createRouteTable(routes: readonly Route[]): RouteTable {
  const byHost = new Map<string, readonly PathRoute[]>();
  for (const route of routes) {
    const merged = [...(byHost.get(route.host) ?? []), ...route.paths];
    byHost.set(
      route.host,
      merged.sort((a, b) => b.prefix.length - a.prefix.length),
    );
  }
  const pathsOf = (host: string) => byHost.get(host) ?? byHost.get(wildcardFor(host));
  return {
    knows: (host) => pathsOf(host) !== undefined,
    find(host, path) {
      const paths = pathsOf(host);
      if (paths === undefined) return undefined;
      for (const candidate of paths) {
        if (candidate.prefix === '/' || path.startsWith(candidate.prefix)) return candidate.upstream;
      }
      return undefined;
    },
  };
}

function wildcardFor(host: string): string {
  return `*${host.slice(host.indexOf('.'))}`;
}

/** Whether any of a certificate's names covers the host. */
export function coveredBy(names: readonly string[], host: string): boolean {
  return names.some((name) => covers(name, host));
}
