// A domain in, a certificate out: the real program against a real CA that refuses three nonces in ten.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ApiDouble } from '../support/api-double.ts';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import type { LogLine } from '../support/ingress-process.ts';
import { startLinodeDouble } from '../support/linode-double.ts';
import { createWorld, get, handshake, servedSerial, startApp, type World } from '../support/world.ts';

const zone = 'example.com';
const base = 'app.example.com';
const wildcard = `*.${base}`;

async function cloudflare(world: World): Promise<{ api: ApiDouble; env: Record<string, string> }> {
  const api = await startCloudflareDouble({ zones: { [zone]: [] }, dns: world.pebble.dns });
  return { api, env: { CLOUDFLARE_API_TOKEN: api.token, CLOUDFLARE_BASE_URL: api.url } };
}

async function linode(world: World): Promise<{ api: ApiDouble; env: Record<string, string> }> {
  const api = await startLinodeDouble({ zones: { [zone]: [] }, dns: world.pebble.dns });
  return { api, env: { LINODE_API_TOKEN: api.token, LINODE_API_URL: api.url } };
}

for (const [name, start] of Object.entries({ cloudflare, linode })) {
  test(`dns-01 through ${name} ends with apex and wildcard on the wire, under the CA's own root`, async () => {
    await using world = await createWorld();
    await using app = await startApp('hello');
    const { api, env } = await start(world);
    try {
      const ingress = world.start({
        ...env,
        DOMAINS: `${base}\n${wildcard}`,
        ROUTING_MAP: `${base}=127.0.0.1:${app.port}\n${wildcard}=127.0.0.1:${app.port}`,
      });
      await ingress.waitFor('ready');
      const ca = await world.roots();
      const direct = await handshake({ port: world.port, servername: base, ca });
      assert.match(direct.getPeerCertificate().subjectaltname ?? '', /DNS:\*\.app\.example\.com/);
      direct.destroy();
      for (const servername of [base, `any.${base}`]) {
        const reply = await get({ port: world.port, servername, ca });
        assert.equal(reply.status, 200);
        assert.equal(reply.body, 'hello');
      }
      assert.deepEqual(
        api.contents().filter((record) => record.startsWith('TXT _acme-challenge')),
        [],
        'the challenge records are gone',
      );
      assertNoSecrets(ingress.log, [api.token]);
    } finally {
      await api.stop();
    }
  });
}

test('tls-alpn-01 is answered by the listener that serves, without any DNS credentials', async () => {
  await using world = await createWorld();
  await using app = await startApp('no token needed');
  const ingress = world.start({
    DOMAIN: base,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  });
  await ingress.waitFor('ready');
  const ca = await world.roots();
  const reply = await get({ port: world.port, servername: base, ca });
  assert.equal(reply.body, 'no token needed');
  // While it serves: a second certificate is obtained through a listener that has one already.
  const before = await servedSerial({ port: world.port, servername: base, ca });
  ingress.kill('SIGUSR2');
  await ingress.waitFor('certificate obtained', (line) => line.serial !== before);
  assert.notEqual(await servedSerial({ port: world.port, servername: base, ca }), before);
});

test('CNAME, TXT and CAA with the account stand before the first order, and a second start writes nothing', async () => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const { api, env } = await cloudflare(world);
  try {
    const settings = { ...env, DOMAIN: base, TARGET_ENDPOINT: app.url, SET_CAA: 'true' };
    // As long as one record cannot be seen the ingress stands where all are written and nothing is ordered.
    await world.pebble.dns.setServfail(`_dstack-app-address.${base}`);
    const first = world.start(settings);
    await first.waitFor('wrote a DNS record', (line) => line.type === 'CAA');
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    const account = first.log.find((line) => line.msg === 'account ready')?.account;
    assert.match(String(account), /^https:\/\//);
    assert.deepEqual(
      api.contents().map((record) => record.replace(/^CAA (.*)"(.*)"$/, 'CAA $1$2')),
      [
        `CAA ${base} 0 issue 127.0.0.1;accounturi=${account};validationmethods=dns-01`,
        `CNAME ${base} _.gateway.example.net`,
        `TXT _dstack-app-address.${base} ${world.agent.appId}:${world.port}`,
      ],
    );
    assert.equal(world.pebble.made('order'), 0);
    await world.pebble.dns.clearServfail(`_dstack-app-address.${base}`);
    await first.waitFor('ready');
    await first.stop();

    const [writes, orders, accounts] = [
      api.writes().length,
      world.pebble.made('order'),
      world.pebble.made('account'),
    ];
    assert.equal(orders, 1);
    const second = world.start(settings);
    await second.waitFor('ready');
    await second.waitFor('DNS records are in place');
    assert.equal(api.writes().length, writes);
    assert.equal(world.pebble.made('order'), orders);
    assert.equal(world.pebble.made('account'), accounts);
  } finally {
    await api.stop();
  }
});

function assertNoSecrets(log: readonly LogLine[], secrets: readonly string[]): void {
  const text = log.map((line) => JSON.stringify(line)).join('\n');
  assert.doesNotMatch(text, /PRIVATE KEY/);
  for (const secret of secrets) assert.ok(!text.includes(secret), 'a token is in the log');
}
