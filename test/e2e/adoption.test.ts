// An upgrade in place: the volume of an earlier image, made by the very programs it used, goes on under its account.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { readCertificate } from '../../src/lib/certificate.ts';
import { createWorld, get, servedSerial, startApp, type World } from '../support/world.ts';

const run = promisify(execFile);
const domain = 'app.example.com';

interface Volume {
  readonly account: string;
  readonly serial: string;
}

async function certbotVolume(world: World, stateDir: string): Promise<Volume> {
  const hook = join(world.folder, 'hook');
  const { management } = world.pebble.dns;
  await writeFile(
    hook,
    `#!/bin/sh
exec curl -fsS ${management}/set-txt -d "{\\"host\\":\\"_acme-challenge.$CERTBOT_DOMAIN.\\",\\"value\\":\\"$CERTBOT_VALIDATION\\"}"
`,
  );
  await chmod(hook, 0o755);
  const scratch = join(world.folder, 'certbot');
  await run(
    'certbot',
    [
      ...['certonly', '--non-interactive', '--agree-tos', '--email', 'ops@example.com', '-d', domain],
      ...['--manual', '--preferred-challenges', 'dns', '--manual-auth-hook', hook],
      ...['--server', world.pebble.directoryUrl, '--config-dir', stateDir],
      ...['--work-dir', scratch, '--logs-dir', scratch],
    ],
    { env: { PATH: process.env.PATH, REQUESTS_CA_BUNDLE: world.pebble.caFile } },
  );
  await world.pebble.dns.clearTxt(`_acme-challenge.${domain}`);
  const accounts = join(stateDir, 'accounts', world.pebble.address, 'dir');
  const [id] = await readdir(accounts);
  const { uri } = JSON.parse(await readFile(join(accounts, id!, 'regr.json'), 'utf8')) as { uri: string };
  const live = join(stateDir, 'live', domain);
  return { account: uri, serial: await serialOf(join(live, 'fullchain.pem'), join(live, 'privkey.pem')) };
}

async function legoVolume(world: World, stateDir: string): Promise<Volume> {
  const folder = join(stateDir, 'lego');
  await run(
    'lego',
    [
      ...['--accept-tos', '--email', 'ops@example.com', '--domains', domain],
      ...['--server', world.pebble.directoryUrl, '--path', folder],
      ...['--tls', '--tls.port', `127.0.0.1:${world.port}`, 'run'],
    ],
    { env: { PATH: process.env.PATH, LEGO_CA_CERTIFICATES: world.pebble.caFile } },
  );
  const [host] = await readdir(join(folder, 'accounts'));
  const path = join(folder, 'accounts', host!, 'ops@example.com', 'account.json');
  const { registration } = JSON.parse(await readFile(path, 'utf8')) as { registration: { uri: string } };
  const certificate = join(folder, 'certificates', domain);
  return { account: registration.uri, serial: await serialOf(`${certificate}.crt`, `${certificate}.key`) };
}

async function serialOf(chain: string, key: string): Promise<string> {
  return readCertificate(await readFile(chain, 'utf8'), await readFile(key, 'utf8')).serial;
}

for (const [program, makeVolume] of Object.entries({ certbot: certbotVolume, lego: legoVolume })) {
  test(`a volume of ${program} serves at once without account or order, renews under its account, and stays byte for byte`, async () => {
    await using world = await createWorld({ nonceRejectPercent: 0 });
    await using app = await startApp('still here');
    const stateDir = join(world.folder, 'volume');
    await mkdir(stateDir);
    const volume = await makeVolume(world, stateDir);
    const before = await digestOf(stateDir);
    const ca = await world.roots();
    const { pebble } = world;
    const known = { orders: pebble.count('newOrder'), accounts: pebble.count('newAccount') };
    const made = pebble.made('account');

    const settings = {
      STATE_DIR: stateDir,
      DOMAIN: domain,
      TARGET_ENDPOINT: app.url,
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'print',
    };
    const ingress = world.start(settings);
    await ingress.waitFor('serving');
    const target = { port: world.port, servername: domain, ca };
    assert.equal((await get(target)).body, 'still here');
    assert.equal(await servedSerial(target), volume.serial);
    await ingress.waitFor('ready');
    const evidence = JSON.parse((await get({ ...target, path: '/evidences/acme-account.json' })).body);
    assert.equal(evidence.uri, volume.account);
    assert.deepEqual(
      { orders: pebble.count('newOrder'), accounts: pebble.count('newAccount') },
      known,
      'the CA was not asked for anything',
    );

    ingress.kill('SIGUSR2');
    await ingress.waitFor('certificate obtained');
    assert.notEqual(await servedSerial(target), volume.serial);
    assert.equal(pebble.made('account'), made, 'no account was made for the renewal');
    const renewed = JSON.parse((await get({ ...target, path: '/evidences/acme-account.json' })).body);
    assert.equal(renewed.uri, volume.account);

    const serial = await servedSerial(target);
    await ingress.stop();
    const again = world.start(settings);
    await again.waitFor('serving');
    assert.equal(
      await servedSerial(target),
      serial,
      'the older certificate of the volume does not come back',
    );
    await again.stop();
    assert.equal(await digestOf(stateDir), before);
  });
}

test('a volume whose account cannot be told still serves, and no account is made', async () => {
  await using world = await createWorld({ nonceRejectPercent: 0 });
  await using app = await startApp('still here');
  const stateDir = join(world.folder, 'volume');
  await mkdir(stateDir);
  const volume = await certbotVolume(world, stateDir);
  const accounts = join(stateDir, 'accounts', world.pebble.address, 'dir');
  const [id] = await readdir(accounts);
  await writeFile(join(accounts, id!, 'regr.json'), '{"body":{}');
  const known = world.pebble.count('newAccount');

  const ingress = world.start({
    STATE_DIR: stateDir,
    DOMAIN: domain,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  });
  await ingress.waitFor('serving');
  const target = { port: world.port, servername: domain, ca: await world.roots() };
  assert.equal(await servedSerial(target), volume.serial);
  await ingress.waitFor('renewal planned');
  ingress.kill('SIGUSR2');
  const line = await ingress.waitFor('certificates cannot be renewed');
  assert.match(JSON.stringify(line), /no new account is made: the certbot account in/);
  assert.equal(await servedSerial(target), volume.serial);
  assert.equal(world.pebble.count('newAccount'), known);
});

/** Of all but what is ours: paths, kinds, contents. */
async function digestOf(folder: string): Promise<string> {
  const hash = createHash('sha256');
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries
    .map((entry) => ({ entry, path: join(entry.parentPath, entry.name) }))
    .filter(({ path }) => !path.startsWith(join(folder, 'dstack-ingress')))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
  assert.ok(paths.length > 5);
  for (const { entry, path } of paths) {
    hash.update(`\n${path} `);
    if (entry.isFile()) hash.update(await readFile(path));
    if (entry.isSymbolicLink()) hash.update(await readlink(path));
  }
  return hash.digest('hex');
}
