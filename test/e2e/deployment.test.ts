// Routes that change in the middle of renewals: what was asked for last is what is served in the end.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createWorld, get, handshake, servedSerial, startApp } from '../support/world.ts';

test('however often routes change while certificates are renewed, the newest of both are served in the end', async () => {
  await using world = await createWorld();
  await using app = await startApp('app');
  const path = join(world.folder, 'routes.yaml');
  const routesFor = (...hosts: string[]) =>
    `routes:\n${hosts.map((host) => `  - host: ${host}.example.com\n    upstream: ${app.url}\n`).join('')}`;
  await writeFile(path, routesFor('one', 'two'));
  const ingress = world.start({ ROUTES_FILE: path, CHALLENGE_TYPE: 'tls-alpn-01', DNS_SETUP_MODE: 'print' });
  await ingress.waitFor('ready');
  const first = ingress.log.length;
  for (const hosts of [
    ['one'],
    ['two', 'one'],
    ['one', 'three'],
    ['one', 'two', 'three'],
    ['two', 'three'],
  ]) {
    const known = ingress.log.length;
    const isNew = (line: object) => ingress.log.indexOf(line as never) >= known;
    ingress.kill('SIGUSR2');
    await ingress.waitFor('certificate due', isNew);
    await writeFile(path, routesFor(...hosts));
    ingress.kill('SIGHUP');
    await ingress.waitFor('routes replaced', (line) => isNew(line) && line.hosts === hosts.length);
  }
  // Asked for before the last change, and not lost by it.
  for (const domain of ['two.example.com', 'three.example.com']) {
    await ingress.waitFor(
      'certificate obtained',
      (line) => line.domain === domain && ingress.log.indexOf(line) >= first,
      // One that is interrupted and then refused is tried again after a minute.
      150_000,
    );
  }
  const ca = await world.roots();
  const at = (servername: string) => ({ port: world.port, servername, ca });
  const settled = async () => {
    for (const host of ['two', 'three']) {
      const newest = ingress.log.findLast(
        ({ msg, domain }) => msg === 'certificate obtained' && domain === `${host}.example.com`,
      );
      if ((await servedSerial(at(`${host}.example.com`))) !== newest?.serial) return false;
    }
    return true;
  };
  // Once is enough: a renewal that is still under way makes the next one newest.
  let agreed = await settled();
  for (let tries = 0; tries < 100 && !agreed; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    agreed = await settled();
  }
  assert.ok(agreed);
  assert.equal((await get(at('three.example.com'))).body, 'app');
  await assert.rejects(handshake(at('one.example.com')), /alert/i);
  assert.ok(!ingress.log.some(({ msg }) => msg === 'new routes cannot be followed'));
});
