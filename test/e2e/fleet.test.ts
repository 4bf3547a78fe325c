// Replicas with nothing in common but a store: one account and one order for all, whichever of them the CA comes to.

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { type SimulatedAgent, startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { startBalancer } from '../support/balancer.ts';
import { type IngressProcess, runProgram } from '../support/ingress-process.ts';
import { freePort } from '../support/ports.ts';
import { startPostgres } from '../support/postgres.ts';
import { startRedis } from '../support/redis.ts';
import { startS3Double } from '../support/s3-double.ts';
import { createWorld, get, servedSerial, startApp, type World } from '../support/world.ts';

const domain = 'app.example.com';

interface Store {
  /** The settings that lead to it. */
  readonly settings: Readonly<Record<string, string>>;
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

const stores: Readonly<Record<string, (folder: string) => Promise<Store>>> = {
  async PostgreSQL(folder) {
    const server = await startPostgres();
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'ca.pem'), server.ca);
    await writeFile(join(folder, 'password'), `${server.password}\n`);
    return {
      settings: {
        STORE_URL: `postgres://${server.user}@127.0.0.1:${server.port}/${server.database}`,
        STORE_PASSWORD_FILE: join(folder, 'password'),
        STORE_CA_FILE: join(folder, 'ca.pem'),
      },
      kill: server.kill,
      restart: server.restart,
      stop: server.stop,
    };
  },
  async Redis(folder) {
    const server = await startRedis();
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'ca.pem'), server.ca);
    await writeFile(join(folder, 'url'), `rediss://:${server.password}@127.0.0.1:${server.port}/1`);
    return {
      settings: { STORE_URL_FILE: join(folder, 'url'), STORE_CA_FILE: join(folder, 'ca.pem') },
      kill: server.kill,
      restart: server.restart,
      stop: server.stop,
    };
  },
  async S3(folder) {
    const server = await startS3Double();
    // As it is on a good day: some writes meet another, some answers are lost.
    server.misbehave({ delayMs: 5, refuses: [503, 409], doesAndRefuses: 2 });
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'ca.pem'), server.ca);
    await writeFile(join(folder, 'secret'), server.secret);
    return {
      settings: {
        STORE_URL: `s3://${server.accessKeyId}@${server.bucket}/of/ours?endpoint=${server.endpoint}&region=${server.region}`,
        STORE_PASSWORD_FILE: join(folder, 'secret'),
        STORE_CA_FILE: join(folder, 'ca.pem'),
      },
      kill: server.kill,
      restart: server.restart,
      stop: server.stop,
    };
  },
};

interface Replica {
  readonly port: number;
  readonly agent: SimulatedAgent;
  readonly env: Readonly<Record<string, string>>;
  readonly start: (more?: Readonly<Record<string, string>>) => IngressProcess;
}

/** One app on machines of their own, whose keys come from a key service that lasts, as the real one says. */
function agentOf(world: World, port: number): Promise<SimulatedAgent> {
  return startSimulatedAgent({
    socketPath: join(world.folder, `${port}.sock`),
    appId: 'ab'.repeat(20),
    instanceId: port.toString(16).padStart(40, '0'),
    intercept: (_method, reply) => ({ ...reply, body: reply.body.replaceAll('simulated-kms', 'kms') }),
  });
}

async function replicasOf(
  world: World,
  app: { url: string },
  settings: Record<string, string>,
): Promise<Replica[]> {
  const ports = [await freePort(), await freePort(), await freePort()];
  const agents = await Promise.all(ports.map((port) => agentOf(world, port)));
  return ports.map((port, i) => {
    const env = {
      DOMAIN: domain,
      TARGET_ENDPOINT: app.url,
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'print',
      WORKERS: '1',
      PORT: String(port),
      DSTACK_SIMULATOR_ENDPOINT: agents[i]!.endpoint,
      STATE_DIR: join(world.folder, `state-${port}`),
      EVIDENCE_DIR: join(world.folder, `evidences-${port}`),
      ...settings,
    };
    return { port, agent: agents[i]!, env, start: (more = {}) => world.start({ ...env, ...more }) };
  });
}

for (const [name, startStore] of Object.entries(stores)) {
  test(`three replicas with empty disks and one ${name} have one account and one order, and outlive the store`, async () => {
    await using world = await createWorld();
    await using app = await startApp('from one app');
    const store = await startStore(join(world.folder, 'store'));
    const replicas = await replicasOf(world, app, { ...store.settings });
    try {
      const ports = replicas.map(({ port }) => port);
      await using balancer = await startBalancer(world.port, ports);
      const running = replicas.map(({ start }) => start());
      await Promise.all(running.map((one) => one.waitFor('ready', undefined, 120_000)));
      const ca = await world.roots();
      const serials = await Promise.all(ports.map((port) => servedSerial({ port, servername: domain, ca })));
      assert.equal(new Set(serials).size, 1, 'all serve one certificate');
      assert.equal((await get({ port: balancer.port, servername: domain, ca })).body, 'from one app');
      assert.equal(world.pebble.made('order'), 1, 'one order for all');
      assert.equal(world.pebble.made('account'), 1, 'one account for all');

      await store.kill();
      await running[0]!.stop();
      const again = replicas[0]!.start();
      await again.waitFor('ready');
      assert.equal(await servedSerial({ port: ports[0]!, servername: domain, ca }), serials[0]);
      assert.ok(
        again.log.some(({ msg }) => msg === 'store does not answer, starting with the copy on this disk'),
      );

      await store.restart();
      running[1]!.kill('SIGUSR2');
      const renewed = await running[1]!.waitFor(
        'certificate obtained',
        ({ serial }) => serial !== serials[0],
        120_000,
      );
      for (const one of [again, running[2]!])
        await one.waitFor(
          'certificate of another process found on disk',
          ({ serial }) => serial === renewed.serial,
        );
      assert.equal(world.pebble.made('order'), 2, 'one more for all');
      assert.equal(world.pebble.made('account'), 1, 'and still one account');
    } finally {
      await Promise.all(replicas.map(({ agent }) => agent.close()));
      await store.stop();
    }
  });
}

test('a single ingress becomes a fleet: what it has is taken into the store, checked, taken out, and brought elsewhere', async () => {
  await using world = await createWorld();
  await using app = await startApp('served');
  const store = await stores.PostgreSQL!(join(world.folder, 'store'));
  const replicas = await replicasOf(world, app, {});
  const [replica, other] = replicas as [Replica, Replica, Replica];
  try {
    await using _balancer = await startBalancer(world.port, [replica.port]);
    const alone = replica.start({});
    await alone.waitFor('ready', undefined, 90_000);
    await alone.stop();
    const [account, orders] = [world.pebble.made('account'), world.pebble.made('order')];

    const settings = { ...world.env, ...replica.env, ...store.settings };
    const migrated = await runProgram(['store', 'migrate'], settings);
    assert.match(migrated.stdout, /account\.json/);
    assert.equal(migrated.code, 0, migrated.stderr);
    const again = await runProgram(['store', 'migrate'], settings);
    assert.match(again.stderr, /the store has an account already/);
    const checked = await runProgram(['store', 'check'], settings);
    assert.match(checked.stdout, /conflicting writes conflict, \d+ records can be read/);
    assert.equal(checked.code, 0);

    const second = other.start(store.settings);
    await second.waitFor('ready', undefined, 90_000);
    await second.stop();
    assert.deepEqual([world.pebble.made('account'), world.pebble.made('order')], [account, orders]);

    const exported = await runProgram(['store', 'export'], settings);
    assert.equal(exported.code, 0, exported.stderr);
    const elsewhere = {
      ...settings,
      STORE_URL: '',
      STORE_PASSWORD_FILE: '',
      STORE_CA_FILE: '',
      STATE_DIR: join(world.folder, 'elsewhere'),
    };
    const imported = await runProgram(['store', 'import'], elsewhere, exported.stdout);
    assert.equal(imported.code, 0, imported.stderr);
    const listed = await runProgram(['store', 'list'], elsewhere);
    assert.equal(listed.stdout, (await runProgram(['store', 'list'], settings)).stdout);
    const refused = await runProgram(['store', 'import'], elsewhere, '{"records":{}}');
    assert.match(refused.stderr, /no export/);
    const status = await runProgram(['status', '--offline'], settings);
    assert.equal(status.code, 0, status.stdout);
  } finally {
    await Promise.all(replicas.map(({ agent }) => agent.close()));
    await store.stop();
  }
});
