// Redis as it may be found: behind a sentinel, as a cluster, unfit, or doubtful; and what is said of it.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { proveConflicts } from '../../../acme/storage/proof.ts';
import { createRedis, type RedisStorageOptions } from '../../../acme/storage/redis.ts';
import { type RedisServer, type RedisServerOptions, startRedis } from '../../support/redis.ts';

async function server(t: TestContext, options: RedisServerOptions = {}): Promise<RedisServer> {
  const started = await startRedis(options);
  t.after(() => started.stop());
  return started;
}

function open(t: TestContext, { port, password, ca }: RedisServer, over: Partial<RedisStorageOptions> = {}) {
  const storage = createRedis({
    nodes: [{ host: '127.0.0.1', port }],
    mode: 'single',
    database: 0,
    password,
    tls: true,
    ca,
    namespace: 'app',
    timeoutMs: 6_000,
    lease: { ttlMs: 2_000, pollMs: 30 },
    ...over,
  });
  t.after(() => storage.close());
  return storage;
}

test('a cluster keeps the promises: what one script touches lies together', async (t) => {
  const storage = open(t, await server(t, { cluster: true }), { mode: 'cluster' });
  assert.deepEqual(await storage.prove(), []);
  await proveConflicts(storage);
  await storage.lease('a/lease', AbortSignal.timeout(20_000), async (lease) => {
    assert.ok(await storage.create('a/one', Buffer.from('1'), { lease }));
  });
  assert.deepEqual(await storage.list('a'), ['one']);
});

test('sentinels are asked for the primary', async (t) => {
  const primary = await server(t, { tls: false });
  const sentinel = await server(t, { tls: false, watches: primary.port });
  const storage = open(
    t,
    { ...sentinel, password: primary.password },
    { mode: { sentinel: 'ingress' }, tls: false },
  );
  await proveConflicts(storage);
});

test('a server that throws keys away is refused, one that may lose them is named', async (t) => {
  const evicting = await server(t, { settings: ['maxmemory-policy allkeys-lru'] });
  await assert.rejects(open(t, evicting).prove(), { code: 'unfit', message: /allkeys-lru.*noeviction/ });
  const doubtful = await server(t, { settings: ['maxmemory-policy volatile-ttl'] });
  const warnings = (await open(t, doubtful).prove()).join('\n');
  assert.match(warnings, /a lease may be thrown away/);
  assert.match(warnings, /appendonly is off/);
});

test('a replica of a server takes no writes and is refused; the server is told what a fail-over can lose', async (t) => {
  const primary = await server(t, { tls: false });
  const replica = await server(t, {
    tls: false,
    settings: [`replicaof 127.0.0.1 ${primary.port}`, `masterauth ${primary.password}`],
  });
  await assert.rejects(open(t, replica, { tls: false }).prove(), {
    code: 'unfit',
    message: /takes no writes/,
  });
  const storage = open(t, primary, { tls: false });
  for (let tries = 0; ; tries += 1) {
    if ((await storage.prove()).some((warning) => /min-replicas-to-write/.test(warning))) break;
    assert.ok(tries < 100, 'the replica never came');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});

test('a server whose certificate is under no root of ours is not spoken to, and no error tells the password', async (t) => {
  const one = await server(t);
  const { ca: _, ...untrusting } = one;
  const wrong = [
    open(t, untrusting as RedisServer, { ca: undefined, timeoutMs: 2_000 }),
    open(t, one, { password: 'wrong-and-secret' }),
    open(t, one, { tls: false, timeoutMs: 2_000 }),
  ];
  for (const each of wrong)
    await assert.rejects(each.prove(), (error: Error & { code: string }) => {
      assert.equal(error.code, 'unavailable');
      assert.doesNotMatch(
        JSON.stringify({ ...error, message: error.message, stack: error.stack }),
        /secret|password-of/,
      );
      return true;
    });
});
