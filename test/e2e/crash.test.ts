// kill -9 in the middle of an issuance: in the end a certificate, no unreadable file, and no order more than needed.

import assert from 'node:assert/strict';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import { createWorld, get, startApp } from '../support/world.ts';

const domain = 'app.example.com';

/** Log lines of an issuance in their order; after each the program is killed at once. */
const moments = [
  'serving',
  'account ready',
  'wrote a DNS record',
  'DNS records are in place',
  'certificate due',
  'challenge record set',
  'certificate obtained',
];

for (const moment of moments) {
  test(`killed at "${moment}", the next start ends with a certificate and one order`, async () => {
    await using world = await createWorld();
    await using app = await startApp('hello');
    const api = await startCloudflareDouble({ zones: { 'example.com': [] }, dns: world.pebble.dns });
    try {
      const settings = {
        CLOUDFLARE_API_TOKEN: api.token,
        CLOUDFLARE_BASE_URL: api.url,
        DOMAIN: domain,
        TARGET_ENDPOINT: app.url,
        SET_CAA: 'true',
      };
      const killed = world.start(settings);
      await killed.waitFor(moment);
      killed.kill('SIGKILL');
      await killed.exited;
      await assertIntact(world.env.STATE_DIR!);

      const next = world.start(settings);
      await next.waitFor('ready');
      const reply = await get({ port: world.port, servername: domain, ca: await world.roots() });
      assert.equal(reply.body, 'hello');
      assert.equal(world.pebble.made('order'), 1, 'one order in all');
      assert.equal(world.pebble.made('account'), 1, 'one account in all');
      assert.deepEqual(
        next.log.filter((line) => line.msg === 'damaged state file set aside'),
        [],
      );
      await next.waitFor('DNS records are in place');
      assert.deepEqual(
        api.contents().filter((record) => record.includes('_acme-challenge')),
        [],
        'no challenge record is left',
      );
      await assertIntact(world.env.STATE_DIR!);
    } finally {
      await api.stop();
    }
  });
}

/** Every state file parses, and nobody but the owner may read it. */
async function assertIntact(stateDir: string): Promise<void> {
  const entries = await readdir(stateDir, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    assert.equal((await stat(path)).mode & 0o077, 0, `${path} is private`);
    if (path.endsWith('.json')) JSON.parse(await readFile(path, 'utf8'));
  }
}
