// Replicas that share a state folder behind a balancer: whichever the CA reaches answers its challenge.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { startBalancer } from '../support/balancer.ts';
import { freePort } from '../support/ports.ts';
import { createWorld, get, startApp } from '../support/world.ts';

const domain = 'app.example.com';

test('tls-alpn-01 is answered by any replica, and all serve the one certificate that came of it', async () => {
  await using world = await createWorld();
  await using app = await startApp('from one app');
  const ports = [await freePort(), await freePort()];
  // The CA comes to the port of the world: each of its checks meets another replica.
  await using balancer = await startBalancer(world.port, ports);
  const replicas = ports.map((port) =>
    world.start({
      DOMAIN: domain,
      TARGET_ENDPOINT: app.url,
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'print',
      PORT: String(port),
      EVIDENCE_DIR: join(world.folder, `evidences-${port}`),
      RENEW_INTERVAL: '60',
    }),
  );
  await Promise.all(replicas.map((replica) => replica.waitFor('ready', undefined, 90_000)));
  const ca = await world.roots();
  for (const port of [...ports, balancer.port]) {
    assert.equal((await get({ port, servername: domain, ca })).body, 'from one app');
  }
  for (const [port, connections] of balancer.served) {
    assert.ok(connections > 0, `the CA or a visitor met the replica on port ${port}`);
  }
  assert.equal(world.pebble.made('order'), 1, 'one order for all');
  assert.equal(world.pebble.made('account'), 1, 'one account for all');
});

test('a name that no replica is proving gets an alert under acme-tls/1, and its visitors are served', async () => {
  await using world = await createWorld();
  await using app = await startApp('served');
  const ingress = world.start({
    DOMAIN: domain,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  });
  await ingress.waitFor('ready');
  const ca = await world.roots();
  const { handshake } = await import('../support/world.ts');
  for (const servername of [domain, 'foreign.example.com', '..%2f..%2fx']) {
    await assert.rejects(handshake({ port: world.port, servername, ca, alpn: ['acme-tls/1'] }), servername);
  }
  assert.equal((await get({ port: world.port, servername: domain, ca })).body, 'served');
});
