// Records that cannot be made: a first order waits for them, a renewal does not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import { createWorld, servedSerial, startApp } from '../support/world.ts';

const domain = 'app.example.com';
const foreign = { id: '1', name: `_dstack-app-address.${domain}`, type: 'TXT', value: 'of somebody else' };

test('a foreign text where the gateway looks stops the first order, and no renewal', async () => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const api = await startCloudflareDouble({
    zones: { 'example.com': [foreign] },
    dns: world.pebble.dns,
  });
  try {
    const settings = {
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
      DOMAIN: domain,
      TARGET_ENDPOINT: app.url,
    };
    const first = world.start(settings);
    const { err } = await first.waitFor('certificate cannot be ordered yet');
    assert.match(JSON.stringify(err), /TXT records that are not ours/);
    await first.stop();
    assert.equal(world.pebble.made('order'), 0);

    const zone = api.zones.get('example.com')!;
    zone.records = zone.records.filter(({ value }) => value !== foreign.value);
    await world.pebble.dns.clearTxt(foreign.name);
    const second = world.start(settings);
    await second.waitFor('ready');
    const ca = await world.roots();
    const before = await servedSerial({ port: world.port, servername: domain, ca });

    zone.records.push(foreign);
    second.kill('SIGUSR2');
    const told = await second.waitFor('DNS records are not in place, renewing all the same');
    assert.equal(told.level, 'error');
    await second.waitFor('certificate obtained', ({ serial }) => serial !== before);
    assert.notEqual(await servedSerial({ port: world.port, servername: domain, ca }), before);
    assert.ok(
      api.contents().includes(`TXT ${foreign.name} ${foreign.value}`),
      'what is foreign is left alone',
    );
  } finally {
    await api.stop();
  }
});

test('a wrong token is an error with the setting and the cure while nothing is in force, and a warning once something is', async () => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const wrong = 'a-token-that-the-api-does-not-know';
  const api = await startCloudflareDouble({ zones: { 'example.com': [] }, dns: world.pebble.dns });
  try {
    const settings = {
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
      DOMAIN: domain,
      TARGET_ENDPOINT: app.url,
    };
    const assertSaid = ({ level, err }: { level: string; err?: unknown }, as: string) => {
      const { message, code } = err as { message: string; code: string };
      assert.deepEqual([level, code], [as, 'credentials-refused']);
      assert.match(
        message,
        /CLOUDFLARE_API_TOKEN is wrong, expired or revoked: make it anew at https:\/\/dash\./,
      );
      assert.match(message, /Zone: DNS: Edit/);
    };
    const first = world.start({ ...settings, CLOUDFLARE_API_TOKEN: wrong });
    assertSaid(await first.waitFor('certificate cannot be ordered yet'), 'error');
    await first.stop();
    const second = world.start(settings);
    await second.waitFor('ready');
    await second.stop();
    const third = world.start({ ...settings, CLOUDFLARE_API_TOKEN: wrong });
    assertSaid(await third.waitFor('DNS records cannot be checked'), 'warn');
    await third.stop();
    for (const { log } of [first, second, third]) assert.ok(!JSON.stringify(log).includes(wrong));
  } finally {
    await api.stop();
  }
});
