// A renewal under load: what is open lives on, what is new sees the new certificate, and nothing fails.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { startDemoUpstream } from '../../src/demo/upstream.ts';
import { startLoad } from '../support/load.ts';
import { startNginx } from '../support/nginx.ts';
import { freePort } from '../support/ports.ts';
import { createWorld, servedSerial } from '../support/world.ts';

const domain = 'app.example.com';

test('a renewed certificate serves the next handshake while h1, h2, gRPC and WebSockets go on without a failure', async () => {
  await using world = await createWorld();
  const apps = await startDemoUpstream();
  const nginx = await startNginx({
    port: await freePort(),
    server: 'location = / { return 200 "from nginx"; }',
  });
  try {
    const routes = join(world.folder, 'routes.yaml');
    await writeFile(
      routes,
      `routes:
  - host: ${domain}
    paths:
      - prefix: /demo.Echo/
        upstream: grpc://127.0.0.1:${apps.grpcPort}
      - prefix: /ws
        upstream: http://127.0.0.1:${apps.httpPort}
      - prefix: /
        upstream: http://127.0.0.1:${nginx.port}
`,
    );
    const ingress = world.start({
      ROUTES_FILE: routes,
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'print',
    });
    await ingress.waitFor('ready');
    const target = { port: world.port, servername: domain, ca: await world.roots() };
    const load = startLoad({ ...target, expected: 'from nginx' });
    await load.more(50);
    const serials = [await servedSerial(target)];
    for (let renewal = 0; renewal < 2; renewal++) {
      const known = ingress.log.length;
      ingress.kill('SIGUSR2');
      await ingress.waitFor('certificate obtained', (line) => ingress.log.indexOf(line) >= known);
      serials.push(await servedSerial(target));
      await load.more(50);
    }
    await load.stop();
    assert.deepEqual(load.failures, []);
    assert.equal(new Set(serials).size, 3, `a new serial after each renewal: ${serials}`);
    const ended = ingress.waitFor('workers have ended');
    ingress.kill('SIGTERM');
    const { handshakes, received } = (await ended).connections as Record<string, number>;
    assert.ok(handshakes! >= 3 && received! > 0, 'the end of the log says what the workers have served');
  } finally {
    await nginx.stop();
    await apps.stop();
  }
});
