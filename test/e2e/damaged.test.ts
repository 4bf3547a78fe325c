// One certificate on disk that no TLS server loads: the others are served and renewed, it is told, and soon there is another.

import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { weakCertificate } from '../support/certificates.ts';
import { startIngressProcess } from '../support/ingress-process.ts';
import { createWorld, handshake, servedSerial, startApp } from '../support/world.ts';

const [good, glued, weak] = ['good.example.com', 'glued.example.com', 'weak.example.com'] as const;

test('certificates that do not load are set aside with the reason and renewed at once, and hold up no other', async () => {
  await using world = await createWorld();
  await using app = await startApp('app');
  const settings = {
    DOMAINS: [good, glued, weak].join('\n'),
    ROUTING_MAP: [good, glued, weak].map((name) => `${name}=${app.url}`).join('\n'),
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  };
  const before = world.start(settings);
  await before.waitFor('ready');
  await before.stop();
  const state = join(world.env.STATE_DIR!, 'dstack-ingress');
  const files = await readdir(state, { recursive: true });
  const fileOf = (name: string) =>
    join(state, files.find((file) => file.endsWith(`certificates/${name}.json`))!);
  const whole = JSON.parse(await readFile(fileOf(glued), 'utf8'));
  const gluedFile = JSON.stringify({
    ...whole,
    chain: whole.chain.replaceAll(/-----\n+-----/g, '----------'),
  });
  await writeFile(fileOf(glued), gluedFile);
  await writeFile(fileOf(weak), JSON.stringify({ name: weak, ...weakCertificate(weak) }));

  const offline = startIngressProcess({ ...world.env, ...settings }, ['status', '--offline']);
  assert.equal((await offline.exited).code, 1);
  const told = offline.log.map(({ msg }) => msg).join('\n');
  assert.match(told, new RegExp(`^${good}: valid$`, 'm'));
  assert.match(told, new RegExp(`^${weak}: NO VALID CERTIFICATE$`, 'm'));
  assert.match(told, / {2}damaged +.*weak\.example\.com\.json: .*ee key too small/);
  assert.match(told, / {2}damaged +.*glued\.example\.com\.json: .*bad end line/);

  const ingress = world.start(settings);
  await ingress.waitFor('serving');
  const ca = await world.roots();
  const at = (servername: string) => ({ port: world.port, servername, ca });
  (await handshake(at(good))).destroy();
  for (const [name, why] of [
    [glued, /bad end line/],
    [weak, /ee key too small/],
  ] as const) {
    const line = await ingress.waitFor('damaged state file set aside', ({ path }) => path === fileOf(name));
    assert.match(line.why as string, why);
    if (name === glued) assert.equal(await readFile(line.aside as string, 'utf8'), gluedFile);
    const fresh = await ingress.waitFor('certificate obtained', ({ domain }) => domain === name);
    assert.equal(await servedSerial(at(name)), fresh.serial);
  }
  await ingress.waitFor('ready');
});
