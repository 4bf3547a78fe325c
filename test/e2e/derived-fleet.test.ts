// FLEET=derived: replicas with nothing in common but the app's key and the public name.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { startBalancer } from '../support/balancer.ts';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import { freePort } from '../support/ports.ts';
import { createWorld, get, servedSerial, startApp } from '../support/world.ts';

const domain = 'app.example.com';

test('three replicas without a store have one account and one order, renew once, and a fourth serves what it finds', async () => {
  await using world = await createWorld();
  await using app = await startApp('from one app');
  const api = await startCloudflareDouble({ zones: { 'example.com': [] }, dns: world.pebble.dns });
  const ports = [await freePort(), await freePort(), await freePort(), await freePort()];
  const agents = await Promise.all(
    ports.map((port) =>
      startSimulatedAgent({
        socketPath: join(world.folder, `${port}.sock`),
        appId: 'ab'.repeat(20),
        instanceId: port.toString(16).padStart(40, '0'),
        kmsSeed: Buffer.alloc(32, 7),
        intercept: (_method, reply) => ({ ...reply, body: reply.body.replaceAll('simulated-kms', 'kms') }),
      }),
    ),
  );
  await using balancer = await startBalancer(await freePort(), ports);
  const start = (i: number) =>
    world.start({
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
      DOMAIN: domain,
      TARGET_ENDPOINT: app.url,
      FLEET: 'derived',
      FLEET_PORT: String(balancer.port),
      WORKERS: '1',
      PORT: String(ports[i]),
      PUBLIC_PORT: String(balancer.port),
      DSTACK_SIMULATOR_ENDPOINT: agents[i]!.endpoint,
      STATE_DIR: join(world.folder, `state-${i}`),
      EVIDENCE_DIR: join(world.folder, `evidences-${i}`),
    });
  const serialsOf = async (some: readonly number[], ca: string) =>
    new Set(await Promise.all(some.map((port) => servedSerial({ port, servername: domain, ca }))));
  try {
    const running = [start(0), start(1), start(2)];
    await Promise.all(running.map((one) => one.waitFor('ready', undefined, 180_000)));
    const ca = await world.roots();
    const first = await serialsOf(ports.slice(0, 3), ca);
    assert.equal(first.size, 1, 'all serve one certificate');
    assert.equal(world.pebble.made('account'), 1);
    assert.equal(world.pebble.made('order'), 1);
    assert.equal((await get({ port: balancer.port, servername: domain, ca })).body, 'from one app');

    // Whoever waits for his turn to order takes the first certificate for what he was asked for.
    await Promise.all(running.map((one) => one.waitFor('renewal planned')));
    for (const one of running) one.kill('SIGUSR2');
    await Promise.all(
      running.map((one) =>
        one.waitFor('certificate obtained', ({ serial }) => !first.has(String(serial)), 180_000),
      ),
    );
    const second = await serialsOf(ports.slice(0, 3), ca);
    assert.equal(second.size, 1);
    assert.notDeepEqual(second, first);
    assert.equal(world.pebble.made('order'), 2, 'all were asked to renew, and one did');

    const fourth = start(3);
    await fourth.waitFor('ready', undefined, 90_000);
    assert.deepEqual(await serialsOf([ports[3]!], ca), second);
    assert.deepEqual([world.pebble.made('account'), world.pebble.made('order')], [1, 2]);
    const claims = api.contents().filter((record) => record.includes('dstack-ingress-order'));
    assert.ok(claims.length <= 1, 'a claim is taken away once the certificate can be found');
  } finally {
    await Promise.all(agents.map((agent) => agent.close()));
    await api.stop();
  }
});
