// What the world sees in DNS: several resolvers asked at once, and a quorum of answers required.

import { createAuthority } from './authority.ts';
import { DnsError } from './error.ts';
import { lookUp, lookUpWhole } from './lookup.ts';
import type { RecordType } from './provider.ts';
import type { Resolver, ResolverView } from './views.ts';
import { createHttpsExchange, createPlainExchange, type Exchange } from './wire/exchange.ts';

export { type PropagationOptions, type WaitForRecords, waitForRecords } from './propagation.ts';
export type { Resolver, ResolverView } from './views.ts';

export interface ResolverOptions {
  /** Plain DNS: IP addresses with an optional port. When given, `doh` has no default. */
  readonly servers?: readonly string[];
  /** DNS over HTTPS (RFC 8484): URLs. Default: two public ones. */
  readonly doh?: readonly string[];
  /** Default: half of them, rounded up. */
  readonly quorum?: number;
  /**
   * Whether propagation is checked at the zones' own servers before the resolvers. By default it is, unless `servers` are
   * given: perhaps only those see the zone. An object says how to talk to the zones' servers.
   */
  readonly authoritative?: boolean | { readonly exchangeWith: (address: string) => Exchange };
  readonly timeoutMs?: number;
  /** PEM, for DNS over HTTPS under a private CA. */
  readonly ca?: string;
}

export const DEFAULT_DOH_RESOLVERS = [
  'https://dns.google/dns-query',
  'https://cloudflare-dns.com/dns-query',
] as const;

/** Throws DnsError `unsupported` when an address cannot be read. No server is asked yet. */
export function createResolver(options: ResolverOptions = {}): Resolver {
  const exchanges = exchangesOf(options);
  const views = exchanges.map((exchange) => ({
    server: exchange.server,
    resolve: (name: string, type: RecordType) => lookUp(exchange, name, type),
    look: (name: string, type: RecordType) => lookUpWhole(exchange, name, type),
  }));
  const quorum = options.quorum ?? Math.ceil(views.length / 2);
  const resolve = (name: string, type: RecordType) => union(views, quorum, name, type);
  const authority = authorityOf(options, exchanges, resolve);
  return { views, quorum, resolve, ...(authority === undefined ? {} : { authority }) };
}

function authorityOf(options: ResolverOptions, exchanges: readonly Exchange[], resolve: Resolver['resolve']) {
  const { authoritative = (options.servers ?? []).length === 0, timeoutMs } = options;
  if (authoritative === false) return undefined;
  return createAuthority({
    nameServers: (zone) =>
      Promise.any(exchanges.map((exchange) => lookUp(exchange, zone, 'NS'))).catch(firstReason),
    addresses: resolve,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(authoritative === true ? {} : authoritative),
  });
}

function firstReason(error: AggregateError): never {
  throw error.errors[0];
}

function exchangesOf(options: ResolverOptions): Exchange[] {
  const { servers = [], timeoutMs, ca } = options;
  const doh = options.doh ?? (servers.length === 0 ? DEFAULT_DOH_RESOLVERS : []);
  if (servers.length + doh.length === 0) throw new DnsError('unsupported', 'there is no DNS resolver to ask');
  const limits = { ...(timeoutMs === undefined ? {} : { timeoutMs }), ...(ca === undefined ? {} : { ca }) };
  return [
    ...servers.map((server) => createPlainExchange(server, limits)),
    ...doh.map((url) => createHttpsExchange(dohAddress(url), limits)),
  ];
}

/** Earlier images used Google's JSON API, whose address people still have in DOH_RESOLVERS. */
function dohAddress(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const secure = url?.protocol === 'https:';
  // Without TLS anyone on the path could forge answers; the loopback has no path.
  const local = url?.protocol === 'http:' && ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
  if (url === undefined || !(secure || local)) {
    throw new DnsError(
      'unsupported',
      `${JSON.stringify(text)} is not a DNS over HTTPS address: give an https:// URL`,
    );
  }
  if (url.hostname === 'dns.google' && url.pathname === '/resolve') url.pathname = '/dns-query';
  return url.href;
}

async function union(
  views: readonly ResolverView[],
  quorum: number,
  name: string,
  type: RecordType,
): Promise<string[]> {
  const answers = await Promise.allSettled(views.map((view) => view.resolve(name, type)));
  const failures = answers.flatMap((answer) =>
    answer.status === 'rejected' ? [answer.reason as Error] : [],
  );
  if (answers.length - failures.length < quorum) {
    const [first] = failures;
    const said = failures.map((failure) => failure.message).join('; ');
    const code = first instanceof DnsError ? first.code : 'unreachable';
    throw new DnsError(code, `${type} of ${name}: too few resolvers answered: ${said}`, { cause: first });
  }
  const values = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  return [...new Set(values)];
}
