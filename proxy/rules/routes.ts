// Which route a request belongs to: by host, then by the longest path prefix.

import { covers, type Domain } from '../../src/lib/domain.ts';
import { NO_LIMIT } from '../limits.ts';

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
  /** In the order of `addresses`: how much each of them gets. */
  readonly servers?: readonly ServerShare[];
  /** Undefined: by turns where shares differ, else the one with the fewest requests. */
  readonly choice?: Choice | undefined;
  /** Undefined: trusted as the system trusts, by the name of the address. */
  readonly tls?: TlsToUpstream | undefined;
  /** It reads a PROXY protocol header, which names the client, in front of each connection. Not with TLS. */
  readonly announced?: boolean;
}

export interface ServerShare {
  /** Default: 1. */
  readonly weight?: number;
  /** Asked only where none of the others can be. */
  readonly backup?: boolean;
  /** Exchanges, tunnels and streams of this process at once; 0: no limit. */
  readonly maxConnections?: number;
  /** So many failures within `failTimeoutMs` leave it out for as long; 0: never. Undefined: as on any route. */
  readonly maxFails?: number;
  /** Default: 10 s. */
  readonly failTimeoutMs?: number;
}

/** `least`: the fewest requests for its weight. `best-of-two`: of two drawn by chance. `key`: what has the same one. */
export type Choice = 'turns' | 'least' | 'random' | 'best-of-two' | 'key';

/** How TLS is spoken to an upstream, and whom it must prove to be. */
export interface TlsToUpstream {
  readonly verify: boolean;
  /** PEM; undefined: those of the system. */
  readonly authorities?: string;
  /** Undefined: the host of the address. */
  readonly name?: string;
  /** Default: true. */
  readonly sendName?: boolean;
  /** PEM: what the upstream is shown. */
  readonly certificate?: string;
  readonly key?: string;
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

/** What a route asks for beyond forwarding. Plain data: it crosses to the worker processes. */
export interface RouteRules {
  /** Of a request body, in place of the listener's. */
  readonly maxBodyBytes?: number;
}

export interface PathRoute {
  /** Starts with "/". "/" matches all; "/v1/" matches what starts with it. */
  readonly prefix: string;
  readonly upstream: UpstreamSettings;
  readonly rules?: RouteRules;
}

export interface Route {
  readonly host: Domain;
  /** At least one. Order does not matter: the longest matching prefix wins. */
  readonly paths: readonly PathRoute[];
}

/** A path of every host that the ingress answers itself, before any route. */
export interface LocalPath {
  /** Starts with "/". "/evidences" is also "/evidences/x", and not "/evidencesx"; "/" is every path. */
  readonly path: string;
  /** The name of the handler that answers. */
  readonly answeredBy: string;
}

/** What a pattern of a route took from the host or the path, by name. */
export type Captures = Readonly<Record<string, string>>;

interface Match {
  /** Names the route in logs and metrics: host pattern and prefix, as they were configured. */
  readonly route: string;
  readonly captures: Captures;
  readonly rules: RouteRules | undefined;
  /** Of a request body: what the route says, or else the listener. */
  readonly maxBodyBytes: number;
}

/** A request that the ingress answers itself. */
export interface LocalMatch extends Match {
  /** The name of the handler. */
  readonly answeredBy: string;
  readonly upstream: undefined;
}

/** A request that is forwarded. */
export interface ForwardMatch extends Match {
  readonly answeredBy: undefined;
  readonly upstream: UpstreamSettings;
}

/** A request of which the rules decide step by step what becomes of it. */
export interface RuledMatch extends Match {
  readonly answeredBy: undefined;
  readonly upstream: undefined;
}

export type RouteMatch = LocalMatch | ForwardMatch | RuledMatch;

export interface RouteTable {
  /** `host` in lower case without port; `path` without query. Undefined: we have no route for it. */
  find(host: string, path: string): RouteMatch | undefined;
  /** The same without the local paths and without rules: for what is decided before a request has come. */
  forward(host: string, path: string): ForwardMatch | undefined;
  /** The same without the local paths: for a request whose target is no path. */
  whole(host: string): ForwardMatch | RuledMatch | undefined;
  /** Whether some route serves this host. */
  knows(host: string): boolean;
}

export interface RouteTableOptions {
  readonly localPaths?: readonly LocalPath[];
  /** Of a request body, where the route does not say; default: no limit. */
  readonly maxBodyBytes?: number;
  /** The label of the site that a host belongs to by a name. A route for this very host goes first, one for a wildcard not. */
  readonly siteFor?: ((host: string) => string | undefined) | undefined;
  /** The label of the site for hosts that neither a route nor a site names. */
  readonly defaultSite?: (() => string | undefined) | undefined;
}

/**
 * Local paths before routes, exact hosts before wildcards, longer prefixes before shorter. Every match is made here, once:
 * a request that is looked up allocates none.
 */
export function createRouteTable(routes: readonly Route[], options: RouteTableOptions = {}): RouteTable {
  const { localPaths = [], maxBodyBytes = NO_LIMIT, siteFor, defaultSite } = options;
  const locals = localPaths.map((local) => localEntry(local, maxBodyBytes));
  const byHost = new Map<string, readonly PathEntry[]>();
  for (const { host, paths } of routes) {
    const merged = [...(byHost.get(host) ?? []), ...paths.map((path) => pathEntry(host, path, maxBodyBytes))];
    byHost.set(
      host,
      merged.sort((a, b) => b.prefix.length - a.prefix.length),
    );
  }
  const pathsOf = (host: string) =>
    byHost.get(host) ?? (siteFor?.(host) === undefined ? byHost.get(wildcardFor(host)) : undefined);
  const forward = (host: string, path: string) => entryFor(pathsOf(host), path);
  const bySite = new Map<string, RuledMatch>();
  const ofSite = (label: string): RuledMatch => {
    const known = bySite.get(label);
    if (known !== undefined) return known;
    const match = ruledEntry(label, maxBodyBytes);
    bySite.set(label, match);
    return match;
  };
  /** Each table is asked once: with a thousand hosts, what it answers with has left the processor's caches. */
  const withRules = (host: string, path: string) => {
    const exact = byHost.get(host);
    if (exact !== undefined) return entryFor(exact, path);
    const named = siteFor?.(host);
    if (named !== undefined) return ofSite(named);
    const wildcard = byHost.size === 0 ? undefined : byHost.get(wildcardFor(host));
    if (wildcard !== undefined) return entryFor(wildcard, path);
    const label = defaultSite?.();
    return label === undefined ? undefined : ofSite(label);
  };
  return {
    knows: (host) =>
      pathsOf(host) !== undefined || siteFor?.(host) !== undefined || defaultSite?.() !== undefined,
    forward,
    whole: (host) => withRules(host, '/'),
    find(host, path) {
      for (const { below, match } of locals) {
        if (path.startsWith(below) || path === match.route) return match;
      }
      return withRules(host, path);
    },
  };
}

function entryFor(paths: readonly PathEntry[] | undefined, path: string): ForwardMatch | undefined {
  if (paths === undefined) return undefined;
  for (const { prefix, match } of paths) if (prefix === '/' || path.startsWith(prefix)) return match;
  return undefined;
}

interface PathEntry {
  readonly prefix: string;
  readonly match: ForwardMatch;
}

interface LocalEntry {
  /** With a final slash. */
  readonly below: string;
  readonly match: LocalMatch;
}

const NO_CAPTURES: Captures = Object.freeze({});

function pathEntry(host: string, { prefix, upstream, rules }: PathRoute, maxBodyBytes: number): PathEntry {
  return {
    prefix,
    match: {
      route: `${host}${prefix}`,
      captures: NO_CAPTURES,
      rules,
      maxBodyBytes: rules?.maxBodyBytes ?? maxBodyBytes,
      answeredBy: undefined,
      upstream,
    },
  };
}

function localEntry({ path, answeredBy }: LocalPath, maxBodyBytes: number): LocalEntry {
  return {
    below: path.endsWith('/') ? path : `${path}/`,
    match: {
      route: path,
      captures: NO_CAPTURES,
      rules: undefined,
      maxBodyBytes,
      answeredBy,
      upstream: undefined,
    },
  };
}

function ruledEntry(label: string, maxBodyBytes: number): RuledMatch {
  return {
    route: label,
    captures: NO_CAPTURES,
    rules: undefined,
    maxBodyBytes,
    answeredBy: undefined,
    upstream: undefined,
  };
}

function wildcardFor(host: string): string {
  return `*${host.slice(host.indexOf('.'))}`;
}

/** Whether any of a certificate's names covers the host. */
export function coveredBy(names: readonly string[], host: string): boolean {
  return names.some((name) => covers(name, host));
}
