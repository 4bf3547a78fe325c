// The rollover command beside a running ingress: another key, the same account, and renewals go on.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { startIngressProcess } from '../support/ingress-process.ts';
import { createWorld, startApp } from '../support/world.ts';

test('the account gets a new key while the ingress runs, and the next renewal is ordered with it', async () => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const settings = {
    DOMAIN: 'app.example.com',
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  };
  const early = startIngressProcess({ ...world.env, ...settings }, ['rollover']);
  assert.equal((await early.exited).code, 1);
  assert.match(early.stderr(), /^rollover: there is no account at /);

  const ingress = world.start(settings);
  await ingress.waitFor('ready');
  const before = await accountIn(world.env.STATE_DIR!);
  const command = startIngressProcess({ ...world.env, ...settings }, ['rollover']);
  assert.equal((await command.exited).code, 0, command.stderr());
  const after = await accountIn(world.env.STATE_DIR!);
  assert.equal(after.url, before.url);
  assert.notEqual(after.key, before.key);
  assert.ok(!command.stderr().includes('PRIVATE KEY'));

  const known = ingress.log.length;
  ingress.kill('SIGUSR2');
  await ingress.waitFor('certificate obtained', (line) => ingress.log.indexOf(line) >= known);
  assert.equal(world.pebble.made('account'), 1);
});

async function accountIn(stateDir: string): Promise<{ url: string; key: string }> {
  const files = await readdir(stateDir, { recursive: true });
  const path = files.find((file) => file.endsWith('account.json'));
  return JSON.parse(await readFile(join(stateDir, path!), 'utf8')) as { url: string; key: string };
}
