// Keep serving: with a certificate on disk, nothing that is unreachable keeps the first request waiting.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createWorld, get, startApp } from '../support/world.ts';

const domain = 'app.example.com';

test('with CA, DNS and agent all unreachable, a restart serves the certificate on disk', async (t) => {
  await using world = await createWorld();
  await using app = await startApp('still here');
  const settings = {
    DOMAIN: domain,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  };
  const first = world.start(settings);
  await first.waitFor('ready');
  const ca = await world.roots();
  await first.stop();
  await world.pebble.kill();
  await world.agent.close();

  const startedAt = performance.now();
  const second = world.start({ ...settings, WORKERS: '1', DNS_RESOLVERS: '127.0.0.1:9' });
  const target = { port: world.port, servername: domain, ca };
  let reply: Awaited<ReturnType<typeof get>> | undefined;
  while (reply === undefined) {
    reply = await get(target).catch(() => undefined);
    if (reply === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
  }
  t.diagnostic(`first request served ${Math.round(performance.now() - startedAt)} ms after the start`);
  assert.equal(reply.status, 200);
  assert.equal(reply.body, 'still here');
  const evidence = await get({ ...target, path: '/evidences/quote.json' });
  assert.equal(evidence.status, 503, 'an agent that does not answer makes no evidence');
  await second.waitFor('evidence cannot be made');
  assert.deepEqual(
    second.log.filter((line) => line.msg === 'certificate due'),
    [],
    'nothing was due, nothing was ordered',
  );
});
