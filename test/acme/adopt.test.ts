// Volumes of the earlier images: taken over with their account and certificates, and left byte for byte as they were.

import assert from 'node:assert/strict';
import { createHash, createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { mkdir, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { openAccount, storedDocument } from '../../acme/account.ts';
import { type AdoptOptions, adoptEarlierState } from '../../acme/adopt.ts';
import { servable } from '../../acme/selection.ts';
import { type Certificate, splitChain } from '../../src/lib/certificate.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { connectionTo, freshFolder, recordedLog, storeFor } from './support.ts';

let pebble: Pebble;
before(async () => {
  pebble = await startPebble();
});
after(() => pebble?.stop());

const signal = () => AbortSignal.timeout(60_000);
const name = parseDomain('kept.example');

/** An account of an RSA key, as certbot makes it, with a certificate. */
async function earlier(t: TestContext, type: 'rsa' | 'ec') {
  const { privateKey } =
    type === 'rsa'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const store = await storeFor(pebble, await freshFolder(t));
  const acme = connectionTo(pebble, store, { accountKey: async () => key });
  t.after(acme.close);
  const { account, issuer } = await acme.connect(signal());
  return { url: account.url, key, certificate: await issuer.obtain([name], signal()) };
}

async function certbotAccount(stateDir: string, id: string, url: string, key: string): Promise<string> {
  const folder = join(stateDir, 'accounts', pebble.address, 'dir', id);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'regr.json'), JSON.stringify({ body: {}, uri: url }));
  await writeFile(
    join(folder, 'private_key.json'),
    JSON.stringify(createPrivateKey(key).export({ format: 'jwk' })),
  );
  await writeFile(join(folder, 'meta.json'), JSON.stringify({ creation_host: 'old' }));
  return folder;
}

async function certbotLineage(stateDir: string, account: string, { chain, key }: Certificate): Promise<void> {
  const [archive, live, renewal] = ['archive/kept.example', 'live/kept.example', 'renewal'].map((each) =>
    join(stateDir, each),
  ) as [string, string, string];
  for (const folder of [archive, live, renewal]) await mkdir(folder, { recursive: true });
  const [leaf, ...rest] = splitChain(chain);
  const parts = { cert: leaf!, chain: rest.join('\n'), fullchain: chain, privkey: key };
  for (const [part, pem] of Object.entries(parts)) {
    await writeFile(join(archive, `${part}3.pem`), pem, { mode: 0o600 });
    await symlink(`../../archive/kept.example/${part}3.pem`, join(live, `${part}.pem`));
  }
  const conf = `version = 2.1.0\n[renewalparams]\naccount = ${account}\nauthenticator = dns-cloudflare\n`;
  await writeFile(join(renewal, 'kept.example.conf'), `${conf}server = ${pebble.directoryUrl}\n`);
}

async function digestOf(folder: string): Promise<string> {
  const hash = createHash('sha256');
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const entry of entries.sort((a, b) =>
    `${a.parentPath}/${a.name}`.localeCompare(`${b.parentPath}/${b.name}`),
  )) {
    const path = join(entry.parentPath, entry.name);
    if (path.startsWith(join(folder, 'dstack-ingress'))) continue;
    hash.update(path);
    if (entry.isFile()) hash.update(await readFile(path));
    if (entry.isSymbolicLink()) hash.update(await readlink(path));
  }
  return hash.digest('hex');
}

async function adopt(t: TestContext, stateDir: string, options: Partial<AdoptOptions> = {}) {
  const { log, lines } = recordedLog();
  const store = await storeFor(pebble, stateDir, log);
  const { directoryUrl } = pebble;
  const refuseToRegister = await adoptEarlierState({
    stateDir,
    directoryUrl,
    wanted: [[name]],
    store,
    log,
    ...options,
  });
  const acme = connectionTo(pebble, store, { log, refuseToRegister });
  t.after(acme.close);
  return { store, acme, lines };
}

test('a certbot volume goes on under its account, without a new account or order, and stays as it was', async (t) => {
  const { url, key, certificate } = await earlier(t, 'rsa');
  const stateDir = await freshFolder(t);
  await certbotAccount(stateDir, '1'.repeat(32), url, key);
  await certbotLineage(stateDir, '1'.repeat(32), certificate);
  const before = await digestOf(stateDir);
  const made = [pebble.made('account'), pebble.made('order')];
  const { store, acme } = await adopt(t, stateDir);
  assert.equal((await store.readCertificates())[0]?.sha256, certificate.sha256);
  const offline = await storedDocument(store);
  const account = await openAccount({ store, transport: acme.transport }, signal());
  assert.equal(account.url, url);
  assert.deepEqual(account.document, offline);
  assert.deepEqual([pebble.made('account'), pebble.made('order')], made);
  const renewed = await (await acme.connect(signal())).issuer.obtain([name], signal());
  assert.notEqual(renewed.serial, certificate.serial);
  assert.equal(pebble.made('account'), made[0]);
  assert.equal(await digestOf(stateDir), before);
});

test('of several certbot accounts the one that the renewal conf names is taken', async (t) => {
  const [right, wrong] = [await earlier(t, 'rsa'), await earlier(t, 'ec')];
  const stateDir = await freshFolder(t);
  await certbotAccount(stateDir, 'a', wrong.url, wrong.key);
  await certbotAccount(stateDir, 'b', right.url, right.key);
  await certbotLineage(stateDir, 'b', right.certificate);
  const { store } = await adopt(t, stateDir);
  assert.equal((await store.readAccount())?.url, right.url);
});

test('of several certbot accounts none is guessed, and no other is made', async (t) => {
  const [one, two] = [await earlier(t, 'rsa'), await earlier(t, 'ec')];
  const stateDir = await freshFolder(t);
  await certbotAccount(stateDir, 'a', one.url, one.key);
  await certbotAccount(stateDir, 'b', two.url, two.key);
  const made = pebble.made('account');
  for (const _ of ['first start', 'second start']) {
    const { acme } = await adopt(t, stateDir);
    await assert.rejects(acme.connect(signal()), { code: 'account-unclear' });
  }
  assert.equal(pebble.made('account'), made);
});

test('a renewal conf that cannot be read is set aside with its reason, and the others are adopted', async (t) => {
  const { url, key, certificate } = await earlier(t, 'ec');
  const stateDir = await freshFolder(t);
  await certbotAccount(stateDir, '1'.repeat(32), url, key);
  await certbotLineage(stateDir, '1'.repeat(32), certificate);
  const renewal = join(stateDir, 'renewal');
  await mkdir(join(renewal, 'folder.example.conf'));
  await symlink('/etc/hostname', join(renewal, 'outside.example.conf'));
  await symlink('nowhere', join(renewal, 'dangling.example.conf'));
  const { store, lines } = await adopt(t, stateDir);
  assert.equal((await store.readCertificates())[0]?.sha256, certificate.sha256);
  assert.equal((await store.readAccount())?.url, url);
  const told = lines.filter(({ msg }) => msg === 'certbot renewal file set aside, the others are adopted');
  assert.deepEqual(told.map(({ file }) => file).sort(), [
    join(renewal, 'dangling.example.conf'),
    join(renewal, 'folder.example.conf'),
    join(renewal, 'outside.example.conf'),
  ]);
  for (const { err } of told) assert.match(JSON.stringify(err), /ENOENT|folder|leads out/);
});

test('where the renewal conf that names the account cannot be read, none of several is guessed, and the file is named', async (t) => {
  const { url, key } = await earlier(t, 'ec');
  const stateDir = await freshFolder(t);
  await certbotAccount(stateDir, '1'.repeat(32), url, key);
  await certbotAccount(stateDir, '2'.repeat(32), `${url}0`, key);
  const conf = join(stateDir, 'renewal', 'kept.example.conf');
  await mkdir(conf, { recursive: true });
  const { acme } = await adopt(t, stateDir);
  await assert.rejects(acme.connect(signal()), (error: Error) => {
    assert.match(error.message, /several certbot accounts/);
    assert.ok(error.message.includes(`${conf} cannot be read`), error.message);
    return true;
  });
});

test('a folder of accounts that cannot be listed does not stop the start, and no other account is made', async (t) => {
  const { key, certificate, url } = await earlier(t, 'ec');
  const stateDir = await freshFolder(t);
  await certbotAccount(stateDir, '1'.repeat(32), url, key);
  await certbotLineage(stateDir, '1'.repeat(32), certificate);
  const folder = join(stateDir, 'accounts', pebble.address, 'dir');
  await rm(folder, { recursive: true });
  await symlink('dir', folder);
  const { store, acme } = await adopt(t, stateDir);
  assert.equal((await store.readCertificates())[0]?.sha256, certificate.sha256);
  await assert.rejects(acme.connect(signal()), { code: 'account-unclear', message: /cannot be read/ });
});

test('a damaged certbot account is reported without its key, its certificate serves, and no other account is made', async (t) => {
  const { url, key, certificate } = await earlier(t, 'rsa');
  const stateDir = await freshFolder(t);
  const folder = await certbotAccount(stateDir, 'a', url, key);
  await certbotLineage(stateDir, 'a', certificate);
  const jwk = await readFile(join(folder, 'private_key.json'), 'utf8');
  await writeFile(join(folder, 'private_key.json'), jwk.slice(0, -40));
  const { store, lines, acme } = await adopt(t, stateDir);
  assert.equal(await store.readAccount(), undefined);
  assert.ok(lines.some((line) => line.msg === 'certbot account cannot be read'));
  const { d } = JSON.parse(jwk) as { d: string };
  assert.ok(!JSON.stringify(lines).includes(d.slice(0, 20)));
  assert.equal((await store.readCertificates()).length, 1);
  const made = pebble.made('account');
  await assert.rejects(acme.connect(signal()), {
    code: 'account-unclear',
    message: /certbot account in .*cannot be read/,
  });
  assert.equal(pebble.made('account'), made);
});

test('certbot state of another directory is not ours', async (t) => {
  const { url, key, certificate } = await earlier(t, 'ec');
  const stateDir = await freshFolder(t);
  await certbotAccount(stateDir, 'a', url, key);
  await certbotLineage(stateDir, 'a', certificate);
  const conf = join(stateDir, 'renewal', 'kept.example.conf');
  await writeFile(
    conf,
    (await readFile(conf, 'utf8')).replace(pebble.directoryUrl, 'https://other.example/dir'),
  );
  const { store } = await adopt(t, stateDir);
  assert.deepEqual(await store.readCertificates(), []);
});

for (const version of [4, 5]) {
  test(`a volume of lego ${version} goes on under its account, and stays as it was`, async (t) => {
    const { url, key, certificate } = await earlier(t, 'ec');
    const stateDir = await freshFolder(t);
    const id = version === 4 ? 'noemail@example.com' : 'abcdef';
    const account = join(stateDir, 'lego', 'accounts', pebble.address.replace(':', '_'), id);
    const certificates = join(stateDir, 'lego', 'certificates');
    await mkdir(join(account, 'keys'), { recursive: true });
    await mkdir(certificates, { recursive: true });
    const registration = version === 4 ? { body: {}, uri: url } : { accountURL: url };
    await writeFile(join(account, 'account.json'), JSON.stringify({ email: 'x@y.example', registration }));
    const sec1 = createPrivateKey(key).export({ type: 'sec1', format: 'pem' });
    await writeFile(join(account, version === 4 ? 'keys' : '', `${id}.key`), sec1);
    await writeFile(join(certificates, `${name}.crt`), certificate.chain);
    await writeFile(join(certificates, `${name}.key`), certificate.key);
    const about = { domain: name, certUrl: `https://${pebble.address}/certZ/1` };
    await writeFile(join(certificates, `${name}.json`), JSON.stringify(about));
    const before = await digestOf(stateDir);
    const made = [pebble.made('account'), pebble.made('order')];
    const { store, acme } = await adopt(t, stateDir);
    assert.equal((await store.readCertificates())[0]?.sha256, certificate.sha256);
    assert.equal((await openAccount({ store, transport: acme.transport }, signal())).url, url);
    assert.deepEqual([pebble.made('account'), pebble.made('order')], made);
    assert.equal(await digestOf(stateDir), before);
  });
}

test('an account that is ours already is never replaced by an earlier one', async (t) => {
  const { url, key, certificate } = await earlier(t, 'rsa');
  const stateDir = await freshFolder(t);
  const { store, acme } = await adopt(t, stateDir);
  const own = await openAccount({ store, transport: acme.transport }, signal());
  await certbotAccount(stateDir, 'a', url, key);
  await certbotLineage(stateDir, 'a', certificate);
  const again = await adopt(t, stateDir);
  assert.equal((await again.store.readAccount())?.url, own.url);
});

test('a certificate for fewer names serves the first of them until there is one for all', async (t) => {
  const { url, key, certificate } = await earlier(t, 'ec');
  const stateDir = await freshFolder(t);
  await certbotAccount(stateDir, 'a', url, key);
  await certbotLineage(stateDir, 'a', certificate);
  const wanted = [[name, parseDomain('*.kept.example')]];
  const { store } = await adopt(t, stateDir, { wanted });
  const served = servable(await store.readCertificates(), wanted);
  assert.deepEqual(
    served.map((each) => each.sha256),
    [certificate.sha256],
  );
});

test('where the account key is derived, an earlier account is left alone, its certificate serves, and a line says so', async (t) => {
  const { url, key, certificate } = await earlier(t, 'ec');
  const stateDir = await freshFolder(t);
  await certbotAccount(stateDir, 'a', url, key);
  await certbotLineage(stateDir, 'a', certificate);
  const { store, lines } = await adopt(t, stateDir, { derivedKey: true });
  assert.equal(await store.readAccount(), undefined);
  assert.equal((await store.readCertificates()).length, 1);
  const line = lines.find((each) => each.msg?.toString().startsWith('account of an earlier image is left'));
  assert.equal(line?.account, url);
});
