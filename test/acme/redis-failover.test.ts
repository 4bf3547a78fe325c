// Redis loses what it has confirmed: a sentinel promotes a replica that never got the last writes, as it may without min-replicas-to-write.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Account, generateKey } from '../../acme/account.ts';
import { createManager } from '../../acme/manager.ts';
import { createSealing, sealingKey } from '../../acme/sealing.ts';
import { openLocalCopy } from '../../acme/storage/local-copy.ts';
import { createRedis } from '../../acme/storage/redis.ts';
import { Redis } from '../../acme/storage/redis-package.ts';
import { createSealed } from '../../acme/storage/sealed.ts';
import { createStore, NOTHING } from '../../acme/store.ts';
import type { Certificate } from '../../src/lib/certificate.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { makeCertificate } from '../support/certificates.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';
import { freshFolder, recordedLog } from './support.ts';

const domain = parseDomain('a.example');
const directoryUrl = 'https://ca.example/dir';
const key = sealingKey(randomBytes(32));

async function until(
  what: string,
  check: () => boolean | Promise<boolean>,
  evidence: () => unknown = () => '',
): Promise<void> {
  // While a server changes its part it may close a connection.
  const holds = async () => {
    try {
      return await check();
    } catch {
      return false;
    }
  };
  for (let tries = 0; !(await holds()); tries += 1) {
    assert.ok(tries < 1_200, `waited in vain until ${what}: ${JSON.stringify(evidence())}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Asks a server directly. */
async function ask<T>(
  t: TestContext,
  { port, password }: Pick<RedisServer, 'port'> & { password?: string },
  call: (client: Redis) => Promise<T>,
): Promise<T> {
  const client = new Redis({
    host: '127.0.0.1',
    port,
    ...(password && { password }),
    maxRetriesPerRequest: 1,
    lazyConnect: true,
    retryStrategy: () => null,
  });
  client.on('error', () => {});
  t.after(() => client.disconnect());
  await client.connect();
  try {
    return await call(client);
  } finally {
    client.disconnect();
  }
}

/** Everybody reaches the primary through it; from `starve` on what the primary sends to its standby goes nowhere. */
async function startStarvingRelay(t: TestContext, to: number) {
  const replications = new Set<Socket>();
  const open = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(to, '127.0.0.1');
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      open.add(socket);
      socket
        .on('error', () => {})
        .on('close', () => {
          open.delete(socket);
          other.destroy();
        });
    }
    client.on('data', (bytes) => {
      if (bytes.includes('PSYNC')) replications.add(upstream);
    });
    client.pipe(upstream).pipe(client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    for (const socket of open) socket.destroy();
  });
  return {
    port: (server.address() as AddressInfo).port,
    starve() {
      assert.ok(replications.size > 0, 'the standby follows through here');
      for (const upstream of replications) upstream.unpipe().pause();
    },
  };
}

async function fleetOf(
  folder: string,
  stops: (() => Promise<void>)[],
  sentinel: RedisServer,
  password: string,
) {
  let orders = 0;
  const replica = async (name: string) => {
    const { log, lines } = recordedLog();
    const sealing = createSealing([key], 'app');
    const engine = createRedis({
      nodes: [{ host: '127.0.0.1', port: sentinel.port }],
      mode: { sentinel: 'ingress' },
      database: 0,
      password,
      tls: false,
      namespace: 'app',
      timeoutMs: 2_000,
      lease: { ttlMs: 2_000, pollMs: 50 },
    });
    const copy = await openLocalCopy(join(folder, name), sealing, { log });
    const storage = createSealed({ engine, sealing, copy, log });
    const store = await createStore({ stateDir: folder, directoryUrl, log, storage });
    const deployed: Certificate[] = [];
    const manager = createManager({
      wanted: [[domain]],
      store,
      connect: async () => {
        await store.readAccount();
        const url = 'https://ca.example/1';
        return {
          account: { url, document: { body: {}, uri: url } } as unknown as Account,
          issuer: {
            async obtain() {
              orders += 1;
              return makeCertificate(domain);
            },
          },
        };
      },
      prepare: async () => {},
      deploy: async (_, fresh) => void deployed.push(fresh),
      intervalMs: 3_600_000,
      log,
    });
    await manager.load();
    const stopping = new AbortController();
    const running = manager.run(stopping.signal);
    stops.push(async () => {
      stopping.abort();
      await running;
      await storage.close();
    });
    const said = (msg: string) => lines.some((line) => line.msg === msg);
    return { manager, store, said, serves: () => deployed.at(-1)?.sha256, lines };
  };
  return { replica, orders: () => orders };
}

test('the fleet notices that confirmed writes are gone, says so, serves on, and orders nothing twice', async (t) => {
  // Hooks run in their order: first whoever writes, then servers and folders.
  const stops: (() => Promise<void>)[] = [];
  t.after(() => Promise.all(stops.map((stop) => stop())));
  const settings = ['repl-diskless-sync-delay 0', 'repl-timeout 3600'];
  const primary = await startRedis({ tls: false, settings });
  t.after(() => primary.stop());
  const link = await startStarvingRelay(t, primary.port);
  const standby = await startRedis({
    tls: false,
    settings: [...settings, `replicaof 127.0.0.1 ${link.port}`, `masterauth ${primary.password}`],
  });
  t.after(() => standby.stop());
  const info = (server: RedisServer) => ask(t, server, (client) => client.info('replication'));
  await until('the standby has what the primary has', async () =>
    (await info(standby)).includes('master_link_status:up'),
  );
  const sentinel = await startRedis({ tls: false, watches: link.port });
  t.after(() => sentinel.stop());
  await ask(t, { port: sentinel.port }, (client) =>
    client.call('SENTINEL', 'SET', 'ingress', 'down-after-milliseconds', '1000', 'failover-timeout', '5000'),
  );
  await until('the sentinel knows the standby', async () =>
    (await ask(t, { port: sentinel.port }, (client) => client.info('sentinel'))).includes('slaves=1'),
  );

  const fleet = await fleetOf(await freshFolder(t), stops, sentinel, primary.password);
  const one = await fleet.replica('one');
  await one.store.writeAccount({ key: generateKey(), url: 'https://ca.example/1' }, NOTHING).catch(() => {});
  const two = await fleet.replica('two');
  await until(
    'both serve the first certificate',
    () => one.serves() !== undefined && one.serves() === two.serves(),
  );
  assert.equal(fleet.orders(), 1);
  const first = one.serves();
  // What has been confirmed until now has arrived.
  await ask(t, primary, (client) => client.call('WAIT', '1', '5000'));

  // Certificates tell whole seconds, and the later one counts.
  const firstEnds = one.manager.status()[0]!.certificate!.notBefore.getTime();
  await until('the next certificate is a later one', () => Date.now() > firstEnds + 2_000);
  link.starve();
  one.manager.renewNow();
  await until(
    'both serve the second',
    () => one.serves() !== first && one.serves() === two.serves(),
    () => [one.lines, two.lines],
  );
  assert.equal(fleet.orders(), 2);
  await primary.kill();
  await until('the standby is the primary', async () => (await info(standby)).includes('role:master'));

  two.manager.renewNow();
  for (const { said } of [one, two])
    await until(
      'it is noticed',
      () => said('store holds what cannot be trusted, nothing is written'),
      () => [one.lines, two.lines],
    );
  await until('an attempt to renew has failed', () =>
    two.lines.some(({ msg }) => /^certificates? (cannot be renewed|not obtained)$/.test(String(msg))),
  );
  assert.equal(fleet.orders(), 2, 'nothing was ordered');
  assert.notEqual(one.serves(), first, 'what was lost is served on');
  const newcomer = await fleet.replica('newcomer');
  await until(
    'a newcomer serves what is left',
    () => newcomer.manager.status()[0]?.certificate !== undefined,
  );
  assert.equal(newcomer.manager.status()[0]!.certificate!.sha256, first);
  assert.equal(fleet.orders(), 2, 'a certificate in force is not ordered anew');
});
