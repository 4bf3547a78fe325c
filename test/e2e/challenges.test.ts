// Challenges answered without any DNS credentials: several at once, through the listener that serves visitors meanwhile.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { type DemoUpstream, startDemoUpstream } from '../../src/demo/upstream.ts';
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
