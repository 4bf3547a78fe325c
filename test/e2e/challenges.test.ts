// Challenges answered without any DNS credentials: several at once, through the listener that serves visitors meanwhile.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { request } from 'undici';
import { type DemoUpstream, startDemoUpstream } from '../../src/demo/upstream.ts';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import { startLoad } from '../support/load.ts';
import { createWorld, get, servedSerial, startApp } from '../support/world.ts';

const domain = 'app.example.com';
const newcomers = ['one.example.com', 'two.example.com', 'three.example.org'];

test('three domains are proven by tls-alpn-01 at once while another serves h1, h2, gRPC and WebSockets without a failure', async () => {
  await using world = await createWorld();
  await using app = await startApp('from the app');
  const apps = await startDemoUpstream();
  try {
    const file = join(world.folder, 'routes.yaml');
    await writeFile(file, routes([], apps, app.url));
    // The program's environment holds what is named here and in the world: no provider, and no credentials of any.
    const ingress = world.start({
      ROUTES_FILE: file,
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'print',
    });
    await ingress.waitFor('ready');
    const ca = await world.roots();
    const target = { port: world.port, servername: domain, ca };
    const before = await servedSerial(target);
    const load = startLoad({ ...target, expected: 'from the app' });
    await load.more(50);

    const known = ingress.log.length;
    await writeFile(file, routes(newcomers, apps, app.url));
    const obtained = await Promise.all(
      newcomers.map((name) => ingress.waitFor('certificate obtained', (line) => line.domain === name)),
    );
    await load.more(50);
    await load.stop();

    assert.deepEqual(load.failures, []);
    const placed = ingress.log.slice(known).filter((line) => line.msg === 'order placed');
    assert.deepEqual(placed.map((line) => line.domain).sort(), [...newcomers].sort());
    const firstObtained = Math.min(...obtained.map((line) => ingress.log.indexOf(line)));
    assert.ok(
      placed.every((line) => ingress.log.indexOf(line) < firstObtained),
      'every order was under way before the first was done',
    );
    for (const servername of newcomers) {
      assert.equal((await get({ port: world.port, servername, ca })).body, 'from the app');
    }
    assert.equal(await servedSerial(target), before, 'the domain that served keeps its certificate');
  } finally {
    await apps.stop();
  }
});

test('http-01 is answered in plain HTTP by whichever worker is asked, and visitors there are sent to https', async () => {
  await using world = await createWorld();
  await using app = await startApp('no token needed');
  const ingress = world.start({
    DOMAINS: `${domain} ${newcomers.join(' ')}`,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'http-01',
    HTTP_PORT: String(world.httpPort),
    DNS_SETUP_MODE: 'print',
  });
  await ingress.waitFor('ready');
  const ca = await world.roots();
  const target = { port: world.port, servername: domain, ca };
  assert.equal((await get(target)).body, 'no token needed');

  const plain = (path: string, host: string) =>
    request(`http://127.0.0.1:${world.httpPort}${path}`, { headers: { host } });
  const sent = await plain('/page?x=1', domain);
  assert.equal(sent.statusCode, 308);
  assert.equal(sent.headers.location, `https://${domain}:${world.port}/page?x=1`);
  assert.equal((await plain('/', 'other.example')).statusCode, 421);

  const before = await servedSerial(target);
  ingress.kill('SIGUSR2');
  await ingress.waitFor('certificate obtained', (line) => line.domain === domain && line.serial !== before);
  assert.notEqual(await servedSerial(target), before);
});

test('with http-01 the CAA records allow http-01 alone', async () => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const api = await startCloudflareDouble({ zones: { 'example.com': [] }, dns: world.pebble.dns });
  try {
    const ingress = world.start({
      DOMAIN: domain,
      TARGET_ENDPOINT: app.url,
      CHALLENGE_TYPE: 'http-01',
      HTTP_PORT: String(world.httpPort),
      DNS_SETUP_MODE: 'auto',
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
      SET_CAA: 'true',
    });
    await ingress.waitFor('ready');
    const pins = api.contents().filter((record) => record.startsWith(`CAA ${domain}`));
    assert.equal(pins.length, 1);
    assert.match(pins[0]!, /;accounturi=https:[^;]+;validationmethods=http-01"?$/);
  } finally {
    await api.stop();
  }
});

function routes(more: readonly string[], apps: DemoUpstream, url: string): string {
  const others = more.map((host) => `  - host: ${host}\n    upstream: ${url}\n`);
  return `routes:
  - host: ${domain}
    paths:
      - prefix: /demo.Echo/
        upstream: grpc://127.0.0.1:${apps.grpcPort}
      - prefix: /ws
        upstream: http://127.0.0.1:${apps.httpPort}
      - prefix: /
        upstream: ${url}
${others.join('')}`;
}
