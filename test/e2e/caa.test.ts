// CAA in real DNS before a real order: account first, then the records, then the look, then the order.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createWorld, startApp } from '../support/world.ts';

const domain = 'app.example.com';

test('records that forbid the order keep it from being placed, and a leftover beside the pin is told', async () => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const { pebble } = world;
  const forbidding = {
    'another account': '127.0.0.1;accounturi=https://127.0.0.1/other;validationmethods=tls-alpn-01',
    'an unreadable pin': '127.0.0.1;validationmethods=tls-alpn-01;',
    'another method': '127.0.0.1;validationmethods=dns-01',
  };
  await pebble.dns.addCaa(
    domain,
    Object.values(forbidding).map((value) => ({ tag: 'issue', value })),
  );
  const ingress = world.start({
    DOMAIN: domain,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
    SET_CAA: 'true',
  });
  const refusal = JSON.stringify(await ingress.waitFor('certificate cannot be ordered yet'));
  for (const part of ['its account is not', 'it has an empty parameter', 'its methods leave out']) {
    assert.ok(refusal.includes(part), `${part}: ${refusal}`);
  }
  assert.equal(pebble.made('account'), 1);
  assert.equal(pebble.count('newOrder'), 0);

  const account = ingress.log.find((line) => line.msg === 'account ready')?.account;
  await pebble.dns.clearCaa(domain);
  await pebble.dns.addCaa(domain, [
    { tag: 'issue', value: `127.0.0.1;accounturi=${account};validationmethods=tls-alpn-01` },
    { tag: 'issue', value: '127.0.0.1' },
  ]);
  ingress.kill('SIGUSR2');
  const warning = await ingress.waitFor('CAA lets others issue as well');
  assert.match(JSON.stringify(warning.findings), /lets every account of the CA issue/);
  await ingress.waitFor('ready');
});
