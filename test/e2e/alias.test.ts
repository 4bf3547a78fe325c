// A domain and its alias: one certificate, one order, one app, and records for both.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import { createWorld, get, handshake, startApp } from '../support/world.ts';

const names = ['app.example.com', 'www.example.org'];

test('a domain and its alias share certificate and app, and each has its records', async () => {
  await using world = await createWorld();
  await using app = await startApp('the one app');
  const api = await startCloudflareDouble({
    zones: { 'example.com': [], 'example.org': [] },
    dns: world.pebble.dns,
  });
  try {
    const ingress = world.start({
      DOMAIN: names[0]!,
      ALIAS_DOMAIN: names[1]!,
      ROUTING_MAP: `${names[0]}=127.0.0.1:${app.port}`,
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
      SET_CAA: 'true',
    });
    await ingress.waitFor('ready');
    const ca = await world.roots();
    for (const servername of names) {
      const target = { port: world.port, servername, ca };
      assert.equal((await get(target)).body, 'the one app');
      const socket = await handshake(target);
      assert.deepEqual(
        socket.getPeerCertificate().subjectaltname?.split(', ').sort(),
        names.map((name) => `DNS:${name}`),
      );
      socket.destroy();
      const types = api
        .contents()
        .filter((record) => record.includes(` ${servername} `) || record.includes(`.${servername} `))
        .map((record) => record.split(' ')[0]);
      assert.deepEqual(types.sort(), ['CAA', 'CNAME', 'TXT'], servername);
    }
    assert.equal(world.pebble.made('order'), 1);
  } finally {
    await api.stop();
  }
});
