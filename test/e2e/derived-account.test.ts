// ACME_ACCOUNT_KEY=kms: the account belongs to the app, not to a volume.

import assert from 'node:assert/strict';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { type SimulatedAgentOptions, startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import type { IngressProcess } from '../support/ingress-process.ts';
import { createWorld, startApp, type World } from '../support/world.ts';

const domain = 'app.example.com';
const app: SimulatedAgentOptions = { appId: 'ab'.repeat(20), kmsSeed: Buffer.alloc(32, 7) };

/** One of a machine whose keys come from a key service that lasts, as the real one says. */
function startAgent(world: World, name: string, options: SimulatedAgentOptions) {
  return startSimulatedAgent({
    socketPath: join(world.folder, `${name}.sock`),
    intercept: (_method, reply) => ({ ...reply, body: reply.body.replaceAll('simulated-kms', 'kms') }),
    ...options,
  });
}

async function accountOf(ingress: IngressProcess): Promise<string> {
  return String((await ingress.waitFor('account ready')).account);
}

/** The account as it is stored, as text. */
async function storedAccount(stateDir: string): Promise<string> {
  const file = (await readdir(stateDir, { recursive: true })).find((path) => path.endsWith('account.json'));
  return readFile(join(stateDir, file!), 'utf8');
}

test('two replicas with empty volumes have one account, and a wiped volume leaves its CAA record valid', async () => {
  await using world = await createWorld();
  await using upstream = await startApp('hello');
  const api = await startCloudflareDouble({ zones: { 'example.com': [] }, dns: world.pebble.dns });
  const agents = [
    await startAgent(world, 'one', { ...app, instanceId: '01'.repeat(20) }),
    await startAgent(world, 'two', { ...app, instanceId: '02'.repeat(20) }),
    await startAgent(world, 'other', { ...app, appId: 'cd'.repeat(20) }),
  ] as const;
  try {
    const settings = (replica: string, agent: { endpoint: string }) => ({
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
      DOMAIN: domain,
      TARGET_ENDPOINT: upstream.url,
      SET_CAA: 'true',
      ACME_ACCOUNT_KEY: 'kms',
      DSTACK_SIMULATOR_ENDPOINT: agent.endpoint,
      STATE_DIR: join(world.folder, replica),
      EVIDENCE_DIR: join(world.folder, `${replica}-evidences`),
    });
    const first = world.start(settings('one', agents[0]));
    const account = await accountOf(first);
    await first.waitFor('ready');
    await first.stop();
    const pins = () => api.contents().filter((record) => record.startsWith('CAA'));
    const pin = pins();
    assert.equal(pin.length, 1);
    assert.ok(pin[0]!.includes(`accounturi=${account};`));

    const second = world.start(settings('two', agents[1]));
    assert.equal(await accountOf(second), account, 'another machine of the same app');
    await second.waitFor('ready');
    await second.stop();

    const stored = await storedAccount(join(world.folder, 'one'));
    assert.ok(stored.includes(account));
    assert.doesNotMatch(stored, /PRIVATE|"d"/, 'the key is on no disk');
    await rm(join(world.folder, 'one'), { recursive: true });
    const again = world.start(settings('one', agents[0]));
    assert.equal(await accountOf(again), account, 'the same app after its volume was lost');
    await again.waitFor('ready');
    await again.stop();
    assert.deepEqual(pins(), pin);
    assert.equal(world.pebble.made('account'), 1);

    const other = world.start(settings('other', agents[2]));
    assert.notEqual(await accountOf(other), account, 'another app');
    await other.stop();
  } finally {
    await Promise.all(agents.map((agent) => agent.close()));
    await api.stop();
  }
});

test('where keys do not last nothing is ordered, and the log says why', async () => {
  await using world = await createWorld();
  await using upstream = await startApp('hello');
  const ingress = world.start({
    DOMAIN: domain,
    TARGET_ENDPOINT: upstream.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
    ACME_ACCOUNT_KEY: 'kms',
  });
  const line = await ingress.waitFor('certificates cannot be renewed');
  assert.equal(line.level, 'error');
  assert.match(JSON.stringify(line), /key provider is \\+"simulated-kms/);
  assert.equal(world.pebble.count('newAccount'), 0);
});
