// Records as hashes of Redis or Valkey: a write and the lease that guards it are one script, which nothing comes between.

import { randomBytes } from 'node:crypto';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { type Engine, StorageError, type WriteOptions } from '../storage.ts';
import { type Bounds, bounded } from './bounded.ts';
import { createLeases, type LeaseVerbs, refuseIfLost } from './leases.ts';
import { Cluster, Redis } from './redis-package.ts';
import type { ServerOptions } from './server-options.ts';

export interface RedisStorageOptions extends ServerOptions {
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  /** What the nodes are: the server, sentinels that know the server of this name, or members of a cluster. */
  readonly mode: 'single' | 'cluster' | { readonly sentinel: string };
  readonly database: number;
  readonly user?: string | undefined;
  readonly tls: boolean;
}

type Client = Redis | Cluster;
type Ask = <T>(call: (client: Client) => Promise<T>, signal?: AbortSignal) => Promise<T>;

/**
 * Token of the lease or empty, version that must be there or empty for none, version to come or empty to remove, bytes,
 * name, channel. Returns 1, 0 for another version, or -1 where the lease is another's. The client sends a command again whose
 * answer a broken connection has swallowed: what was written already is written.
 */
const WRITE = `
local there = redis.call('HGET', KEYS[1], 'version') or ''
if ARGV[3] ~= '' and there == ARGV[3] then return 1 end
if ARGV[1] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[1] then return -1 end
if there ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[2], ARGV[5])
else
  redis.call('HSET', KEYS[1], 'version', ARGV[3], 'bytes', ARGV[4])
  redis.call('SADD', KEYS[2], ARGV[5])
end
redis.call('PUBLISH', ARGV[6], '')
return 1`;

const TAKE = `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`;

const RENEW = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])`;

const RELEASE = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1`;

export function createRedis(options: RedisStorageOptions): Engine {
  const { namespace, nodes, timeoutMs = 5_000, clock = systemClock, log = silentLog } = options;
  const [{ host, port }] = nodes as [{ host: string; port: number }];
  const where = `${options.tls ? 'rediss' : 'redis'}://${host}:${port}`;
  const bounds: Bounds = { timeoutMs, where, secrets: [options.password ?? ''] };
  let client: Client | undefined;
  const ask: Ask = (call, signal) => {
    client ??= connect(options, timeoutMs);
    const connected = client;
    return bounded(bounds, signal, () => call(connected));
  };
  const keys = keysOf(namespace);
  const place = (name: string) => `${where} ${name}`;
  const { ttlMs = 30_000, pollMs = 1_000 } = options.lease ?? {};
  return {
    place,
    ...recordsOf(keys, ask),
    lease: createLeases({ verbs: leaseVerbs(keys, ask), ttlMs, pollMs, place, clock, log }),
    watch: (_folder, changed) => subscribe(connect(options, timeoutMs), keys.channel, changed),
    async setAside(name, why) {
      throw new StorageError('unreadable', `${place(name)}: ${why.message}`);
    },
    prove: async (signal) => judge(await ask(informationOf, signal), where),
    close: async () => client?.disconnect(),
  };
}

/** A replica that starts before the store waits no longer than this once the store is there. */
const LONGEST_RECONNECT_MS = 1_000;

function connect(options: RedisStorageOptions, timeoutMs: number): Client {
  const client = clientFor(options, commonOf(options, timeoutMs));
  // Whoever asks something is told by its own error.
  client.on('error', () => {});
  return client;
}

function commonOf(options: RedisStorageOptions, timeoutMs: number) {
  const { user, password, ca } = options;
  const tls = options.tls ? { rejectUnauthorized: true, ...(ca !== undefined && { ca }) } : undefined;
  return {
    ...(user !== undefined && { username: user }),
    ...(password !== undefined && { password }),
    ...(tls !== undefined && { tls }),
    connectionName: 'dstack-ingress',
    connectTimeout: timeoutMs,
    // By its defaults it waits without end for what a cut link has swallowed.
    commandTimeout: timeoutMs,
    socketTimeout: timeoutMs,
    maxRetriesPerRequest: 1,
    retryStrategy: (times: number) => Math.min(times * 200, LONGEST_RECONNECT_MS),
  };
}

function clientFor(
  { mode, nodes, database: db }: RedisStorageOptions,
  common: ReturnType<typeof commonOf>,
): Client {
  if (mode === 'single') return new Redis({ ...nodes[0]!, ...common, db });
  if (mode === 'cluster') {
    return new Cluster([...nodes], {
      redisOptions: { ...common },
      // Names as they are given out: with TLS the certificate is for those.
      dnsLookup: (address, callback) => callback(null, address),
      clusterRetryStrategy: (times) => Math.min(times * 200, LONGEST_RECONNECT_MS),
      slotsRefreshTimeout: common.connectTimeout,
    });
  }
  const { tls } = common;
  return new Redis({
    ...common,
    db,
    sentinels: [...nodes],
    name: mode.sentinel,
    ...(tls !== undefined && { sentinelTLS: tls, enableTLSForSentinelMode: true }),
  });
}

interface Keys {
  readonly index: string;
  readonly channel: string;
  record(name: string): string;
  lease(name: string): string;
}

/** What stands in braces decides where in a cluster a key lies: what one script touches must lie together. */
function keysOf(namespace: string): Keys {
  const tag = `{dstack-ingress:${namespace}}`;
  return {
    index: `${tag}:names`,
    channel: `dstack-ingress:${namespace}`,
    record: (name) => `${tag}:record:${name}`,
    lease: (name) => `${tag}:lease:${name}`,
  };
}

function recordsOf(keys: Keys, ask: Ask): Pick<Engine, 'read' | 'create' | 'replace' | 'remove' | 'list'> {
  /** An empty version stands for no record. */
  async function write(
    name: string,
    change: { readonly from: string; readonly to: string; readonly bytes: Uint8Array },
    { signal, lease }: WriteOptions = {},
  ): Promise<boolean> {
    refuseIfLost(lease);
    const named = [keys.record(name), keys.index, keys.lease(lease?.name ?? '')] as const;
    const values = [
      lease?.token ?? '',
      change.from,
      change.to,
      Buffer.from(change.bytes),
      name,
      keys.channel,
    ];
    const outcome = await ask((client) => client.eval(WRITE, named.length, ...named, ...values), signal);
    if (outcome === -1)
      throw new StorageError(
        'lease-lost',
        `nothing was written: another replica has the lease ${lease?.name}`,
      );
    return outcome === 1;
  }

  return {
    async read(name, { signal } = {}) {
      const [version, bytes] = await ask(
        (client) => client.hmgetBuffer(keys.record(name), 'version', 'bytes'),
        signal,
      );
      return version && bytes ? { version: version.toString(), bytes } : undefined;
    },
    async create(name, bytes, options) {
      const to = newVersion();
      return (await write(name, { from: '', to, bytes }, options)) ? to : undefined;
    },
    async replace(name, bytes, version, options) {
      // An empty version would stand for none.
      if (version === '') return undefined;
      const to = newVersion();
      return (await write(name, { from: version, to, bytes }, options)) ? to : undefined;
    },
    remove: async (name, version, options) =>
      version !== '' && write(name, { from: version, to: '', bytes: Buffer.alloc(0) }, options),
    async list(folder, { signal } = {}) {
      const names = await ask((client) => client.smembers(keys.index), signal);
      return names
        .filter((name) => name.startsWith(`${folder}/`))
        .map((name) => name.slice(folder.length + 1))
        .filter((name) => !name.includes('/'));
    },
  };
}

/** Another one every time: no version comes twice, not even after a fail-over that has lost some. */
function newVersion(): string {
  return randomBytes(12).toString('hex');
}

/** The token is random, because a number that counts up can repeat after a fail-over. */
function leaseVerbs(keys: Keys, ask: Ask): LeaseVerbs {
  return {
    take: async (name, token, ttlMs) =>
      (await ask((client) => client.eval(TAKE, 1, keys.lease(name), token, ttlMs))) === 1,
    renew: async (name, token, ttlMs) =>
      (await ask((client) => client.eval(RENEW, 1, keys.lease(name), token, ttlMs))) === 1,
    async release(name, token) {
      await ask((client) => client.eval(RELEASE, 1, keys.lease(name), token));
    },
  };
}

/** Of every server that takes writes. */
async function informationOf(client: Client): Promise<string[]> {
  if (client instanceof Redis) return [await client.info()];
  // Before its first answer a cluster does not know its members.
  await client.exists('{dstack-ingress}');
  return Promise.all(client.nodes('master').map((node) => node.info()));
}

/** Throws StorageError `unfit`; returns warnings. */
function judge(information: readonly string[], where: string): string[] {
  return information.flatMap((text) => {
    const facts = new Map(text.split('\r\n').map((line) => line.split(':', 2) as [string, string]));
    const policy = facts.get('maxmemory_policy') ?? 'unknown';
    if (policy.startsWith('allkeys'))
      throw new StorageError(
        'unfit',
        `${where} throws away any key when its memory is full (maxmemory-policy ${policy}): ` +
          'account and certificates would vanish; set it to noeviction',
      );
    if (facts.get('role') === 'slave')
      throw new StorageError(
        'unfit',
        `${where} is a replica, which takes no writes: name the primary, or its sentinels`,
      );
    return warningsOf(facts, policy).map((warning) => `${where}: ${warning}`);
  });
}

function warningsOf(facts: ReadonlyMap<string, string>, policy: string): string[] {
  const replicas = Number(facts.get('connected_slaves') ?? 0);
  return [
    ...(policy === 'noeviction'
      ? []
      : [`maxmemory-policy is ${policy}: a lease may be thrown away; noeviction is what is wanted`]),
    ...(facts.get('aof_enabled') === '1'
      ? []
      : ['appendonly is off: a crash loses what was written since the last snapshot']),
    // Told only where min-replicas-to-write is set.
    ...(replicas > 0 && !facts.has('min_slaves_good_slaves')
      ? ['it has replicas, and min-replicas-to-write is 0: a fail-over can lose what was confirmed']
      : []),
  ];
}

function subscribe(client: Client, channel: string, changed: () => void): () => void {
  client.on('message', changed);
  // Begun anew by itself whenever the connection is back.
  client.subscribe(channel).catch(() => {});
  return () => client.disconnect();
}
