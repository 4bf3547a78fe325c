// Several domains behind one listener: each name its own certificate and upstream, and nobody else's.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import http2 from 'node:http2';
import { join } from 'node:path';
import { test } from 'node:test';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import { createWorld, get, handshake, startApp } from '../support/world.ts';

test('two domains and a wildcard reach three upstreams; a foreign name gets an alert, a foreign Host 421', async () => {
  await using world = await createWorld();
  await using one = await startApp('app one');
  await using two = await startApp('app two');
  await using three = await startApp('app three');
  const api = await startCloudflareDouble({ zones: { 'example.com': [] }, dns: world.pebble.dns });
  try {
    const ingress = world.start({
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
      DOMAINS: 'one.example.com\ntwo.example.com\n*.three.example.com',
      ROUTING_MAP: [
        `one.example.com=http://127.0.0.1:${one.port}`,
        `two.example.com=http://127.0.0.1:${two.port}`,
        `*.three.example.com=http://127.0.0.1:${three.port}`,
      ].join('\n'),
    });
    await ingress.waitFor('ready');
    const ca = await world.roots();
    const at = (servername: string) => ({ port: world.port, servername, ca });
    assert.equal((await get(at('one.example.com'))).body, 'app one');
    assert.equal((await get(at('two.example.com'))).body, 'app two');
    assert.equal((await get(at('a.three.example.com'))).body, 'app three');
    assert.equal((await get(at('b.three.example.com'))).body, 'app three');

    for (const stranger of ['four.example.com', 'three.example.com', 'a.b.three.example.com']) {
      await assert.rejects(handshake(at(stranger)), /alert/i, stranger);
    }
    const misdirected = await get({ ...at('one.example.com'), host: 'two.example.com' });
    assert.equal(misdirected.status, 421);
    assert.doesNotMatch(misdirected.body, /app two/);
    assert.equal(await http2Status(at('one.example.com'), 'two.example.com'), 421);
    assert.equal(await http2Status(at('one.example.com'), 'one.example.com'), 200);
  } finally {
    await api.stop();
  }
});

test('a changed routes file is followed, and a broken one is refused with its line while the old routes go on', async () => {
  await using world = await createWorld();
  await using first = await startApp('first');
  await using second = await startApp('second');
  const path = join(world.folder, 'routes.yaml');
  const routesTo = (url: string) => `routes:\n  - host: app.example.com\n    upstream: ${url}\n`;
  await writeFile(path, routesTo(first.url));
  const ingress = world.start({ ROUTES_FILE: path, CHALLENGE_TYPE: 'tls-alpn-01', DNS_SETUP_MODE: 'print' });
  await ingress.waitFor('ready');
  const at = { port: world.port, servername: 'app.example.com', ca: await world.roots() };
  assert.equal((await get(at)).body, 'first');

  await writeFile(path, routesTo(second.url));
  await ingress.waitFor('routes replaced');
  assert.equal((await get(at)).body, 'second');

  await writeFile(path, 'routes:\n  - host: app.example.com\n    upsteam: http://127.0.0.1:1\n');
  ingress.kill('SIGHUP');
  const refused = await ingress.waitFor('routes file refused, the old routes go on');
  assert.match(JSON.stringify(refused.err), /routes\.yaml:\d+:\d+/);
  assert.equal((await get(at)).body, 'second');

  await writeFile(path, `${routesTo(first.url)}  - host: new.example.com\n    upstream: ${second.url}\n`);
  await ingress.waitFor('certificate obtained', (line) => line.domain === 'new.example.com');
  assert.equal((await get({ ...at, servername: 'new.example.com' })).body, 'second');
  assert.equal((await get(at)).body, 'first');
});

async function http2Status(target: { port: number; servername: string; ca: string }, authority: string) {
  const session = http2.connect(`https://127.0.0.1:${target.port}`, {
    ca: target.ca,
    servername: target.servername,
  });
  try {
    return await new Promise<number | undefined>((resolve, reject) => {
      session.on('error', reject);
      const stream = session.request({ ':path': '/', ':authority': authority });
      stream.on('response', (headers) => resolve(headers[':status']));
      stream.on('error', reject);
      stream.resume();
      stream.end();
    });
  } finally {
    session.destroy();
  }
}
