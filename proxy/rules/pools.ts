// Groups of servers as they are spoken to: one object for each group, protocol and set of timeouts, however many places use it.

import type { CompiledBalancing, Pool, PoolOfUrl, PoolVariant } from './compiled.ts';
import type { Balancing, Origin, UpstreamGroup } from './model.ts';
import type { Choice, UpstreamProtocol } from './routes.ts';
import { RuleSetError } from './scope.ts';
import { compileTemplate, type Resolve } from './template.ts';

export interface Pools {
  pool(name: string, protocol: UpstreamProtocol, variant: PoolVariant, origin: Origin | undefined): Pool;
  poolFor(url: string, variant: PoolVariant): PoolOfUrl | undefined;
  /** All that the rules name: what is served, and checked for health. */
  all(): readonly Pool[];
}

/** URLs of variables are kept that long: their pools are kept by these objects. */
const MOST_URLS = 256;

export function createPools(groups: readonly UpstreamGroup[], resolve: Resolve): Pools {
  const byName = new Map(groups.map((group) => [group.name, group]));
  const balancings = new Map(groups.map((group) => [group, compileBalancing(group.balance, resolve)]));
  const pools = new Map<string, Pool>();
  /** The same, found without writing out a key. */
  const byVariant = new Map<PoolVariant, Map<string, Pool>>();
  const dynamic = new Map<string, Pool>();
  const make = (group: UpstreamGroup, protocol: UpstreamProtocol, variant: PoolVariant): Pool =>
    createPool(group, protocol, variant, balancings.get(group));
  return {
    pool(name, protocol, variant, origin) {
      const near = remember(byVariant, variant, () => new Map<string, Pool>());
      const known = near.get(`${protocol} ${name}`);
      if (known !== undefined) return known;
      const group = byName.get(name);
      if (group === undefined) throw new RuleSetError(`there is no upstream ${name}`, origin);
      const pool = remember(pools, JSON.stringify([name, protocol, variant]), () =>
        make(group, protocol, variant),
      );
      near.set(`${protocol} ${name}`, pool);
      return pool;
    },
    poolFor(url, variant) {
      const found = readUrl(url);
      if (found === undefined) return undefined;
      const { protocol, authority, path } = found;
      const group = byName.get(authority) ?? groupOf(authority);
      if (group === undefined) return undefined;
      const key = JSON.stringify([authority, protocol, variant]);
      const pool = pools.get(key) ?? remember(dynamic, key, () => make(group, protocol, variant));
      if (dynamic.size > MOST_URLS) dynamic.delete(dynamic.keys().next().value!);
      return { pool, host: withoutDefaultPort(authority, protocol), path };
    },
    all: () => [...pools.values()],
  };
}

function remember<K, T>(known: Map<K, T>, key: K, make: () => T): T {
  const before = known.get(key);
  if (before !== undefined) return before;
  const made = make();
  known.set(key, made);
  return made;
}

const defaultPorts: Readonly<Record<UpstreamProtocol, number>> = {
  http: 80,
  https: 443,
  h2c: 80,
  grpc: 80,
  grpcs: 443,
  tcp: 0,
  auto: 80,
};

function createPool(
  group: UpstreamGroup,
  protocol: UpstreamProtocol,
  variant: PoolVariant,
  balance: CompiledBalancing | undefined,
): Pool {
  const servers = group.servers.filter(({ down }) => down !== true);
  const { connectTimeoutMs, readTimeoutMs, sendTimeoutMs, totalTimeoutMs, tls } = variant;
  return {
    name: group.name,
    protocol,
    addresses: servers.map(({ host, port }) => ({ host, port: port ?? defaultPorts[protocol] })),
    servers,
    balance,
    choice: choiceOf(balance),
    tls,
    connectTimeoutMs,
    readTimeoutMs,
    sendTimeoutMs,
    ...(totalTimeoutMs === undefined ? {} : { totalTimeoutMs }),
    ...(group.health === undefined ? {} : { health: group.health }),
  };
}

function compileBalancing(balance: Balancing | undefined, resolve: Resolve): CompiledBalancing | undefined {
  if (balance === undefined) return undefined;
  if (balance.by === 'hash')
    return {
      by: 'hash',
      key: compileTemplate(balance.key, resolve),
      consistent: balance.consistent === true,
    };
  if (balance.by === 'chance') return { by: 'chance', two: balance.two === true };
  if (balance.by === 'cookie') return { ...balance, maxAgeSeconds: balance.maxAgeSeconds };
  return balance;
}

/** Undefined: by turns where shares differ, else the least busy. */
function choiceOf(balance: CompiledBalancing | undefined): Choice | undefined {
  switch (balance?.by) {
    case 'turns':
      return 'turns';
    case 'chance':
      return balance.two ? 'best-of-two' : 'random';
    case 'hash':
    case 'address':
      return 'key';
    case 'cookie':
    case 'least-connections':
      return 'least';
    default:
      return undefined;
  }
}

interface UrlParts {
  readonly protocol: UpstreamProtocol;
  readonly authority: string;
  readonly path: string;
}

function readUrl(url: string): UrlParts | undefined {
  const found = /^(https?|h2c|grpcs?):\/\/([^/?#\s]+)([/?].*)?$/is.exec(url);
  if (found === null) return undefined;
  const [, protocol, authority, path = ''] = found;
  return { protocol: protocol!.toLowerCase() as UpstreamProtocol, authority: authority!, path };
}

/** A server by its address. */
function groupOf(authority: string): UpstreamGroup | undefined {
  const found = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/.exec(authority);
  if (found === null) return undefined;
  const port = found[3] === undefined ? undefined : Number(found[3]);
  if (port !== undefined && (port === 0 || port > 65_535)) return undefined;
  const host = (found[1] ?? found[2])!;
  return { name: authority, servers: [{ host, ...(port === undefined ? {} : { port }) }] };
}

function withoutDefaultPort(authority: string, protocol: UpstreamProtocol): string {
  const port = `:${defaultPorts[protocol]}`;
  return authority.endsWith(port) ? authority.slice(0, -port.length) : authority;
}
