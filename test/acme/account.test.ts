// The account is found before it is made, and never changed silently.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { generateKey, openAccount, rollOver, storedDocument } from '../../acme/account.ts';
import { createTransport } from '../../acme/transport.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { freshFolder, recordedLog, storeFor } from './support.ts';

let pebble: Pebble;
before(async () => {
  pebble = await startPebble();
});
after(() => pebble?.stop());

const signal = () => AbortSignal.timeout(30_000);

async function setting(t: Parameters<typeof freshFolder>[0] & { after(fn: () => Promise<void>): void }) {
  const store = await storeFor(pebble, await freshFolder(t));
  const transport = createTransport({ directoryUrl: pebble.directoryUrl, caPem: pebble.caPem });
  t.after(transport.close);
  return { store, transport };
}

test('a CA that has forgotten the account stops us loudly: no new account, the disk unchanged', async (t) => {
  const { store, transport } = await setting(t);
  await openAccount({ store, transport }, signal());
  const path = join(store.folder, 'account.json');
  const stored = await readFile(path);
  await pebble.restart();
  const made = pebble.made('account');
  await assert.rejects(openAccount({ store, transport }, signal()), { code: 'account-gone' });
  assert.equal(pebble.made('account'), made);
  assert.deepEqual(await readFile(path), stored);
});

test('a damaged account file is set aside and no other account is made until the operator has decided', async (t) => {
  const { log, lines } = recordedLog();
  const store = await storeFor(pebble, await freshFolder(t), log);
  const transport = createTransport({ directoryUrl: pebble.directoryUrl, caPem: pebble.caPem });
  t.after(transport.close);
  await openAccount({ store, transport }, signal());
  const path = join(store.folder, 'account.json');
  const whole = await readFile(path, 'utf8');
  await writeFile(path, whole.slice(0, whole.length / 2));
  const made = pebble.made('account');
  for (const _ of [1, 2]) {
    await assert.rejects(openAccount({ store, transport }, signal()), { code: 'account-damaged' });
  }
  assert.equal(pebble.made('account'), made);
  const aside = lines.find((line) => line.msg === 'damaged state file set aside')?.aside as string;
  assert.equal(await readFile(aside, 'utf8'), whole.slice(0, whole.length / 2));
  assert.ok(!JSON.stringify(lines).includes('BEGIN PRIVATE KEY'));
  await rm(aside);
  await openAccount({ store, transport }, signal());
  assert.equal(pebble.made('account'), made + 1);
});

test('an account without contact is made once and found ever after; its file is private', async (t) => {
  const { store, transport } = await setting(t);
  const made = pebble.made('account');
  const first = await openAccount({ store, transport }, signal());
  const second = await openAccount({ store, transport }, signal());
  assert.equal(first.url, second.url);
  assert.equal(pebble.made('account'), made + 1);
  assert.equal((await stat(join(store.folder, 'account.json'))).mode & 0o777, 0o600);
});

test('killed after the key was written and the account was made: the same account is found by its key', async (t) => {
  const { store, transport } = await setting(t);
  const first = await openAccount({ store, transport }, signal());
  const { key } = (await store.readAccount())!;
  await store.writeAccount({ key });
  const made = pebble.made('account');
  const second = await openAccount({ store, transport }, signal());
  assert.equal(second.url, first.url);
  assert.equal(pebble.made('account'), made);
});

test('the public document has the URL and the public key, and neither e-mail nor private key', async (t) => {
  const { store, transport } = await setting(t);
  const { document, url } = await openAccount({ store, transport, email: 'someone@mail.example' }, signal());
  assert.equal(document.uri, url);
  assert.deepEqual(Object.keys(document), ['body', 'uri']);
  assert.deepEqual(Object.keys(document.body.key!).sort(), ['crv', 'kty', 'x', 'y']);
  assert.doesNotMatch(JSON.stringify(document), /someone/);
  assert.deepEqual(await storedDocument(store), document);
});

test('a derived key finds its account from an empty folder, and never touches the disk', async (t) => {
  const key = generateKey();
  const one = await setting(t);
  const two = await setting(t);
  const first = await openAccount({ ...one, key }, signal());
  const second = await openAccount({ ...two, key }, signal());
  assert.equal(first.url, second.url);
  assert.doesNotMatch(await readFile(join(two.store.folder, 'account.json'), 'utf8'), /PRIVATE/);
  await assert.rejects(openAccount(two, signal()), { code: 'account-key-differs' });
  await assert.rejects(openAccount({ ...two, key: generateKey() }, signal()), { code: 'account-gone' });
});

test('a new key keeps the account and its URL, and the old key is forgotten everywhere', async (t) => {
  const setup = await setting(t);
  const first = await openAccount(setup, signal());
  const old = (await setup.store.readAccount())!;
  const second = await rollOver(setup, first, signal());
  assert.equal(second.url, first.url);
  assert.notEqual(second.session.thumbprint, first.session.thumbprint);
  assert.equal((await openAccount(setup, signal())).url, first.url);
  assert.doesNotMatch(JSON.stringify(await setup.store.readAccount()), /nextKey/);
  await setup.store.writeAccount(old);
  await assert.rejects(openAccount(setup, signal()), { code: 'account-gone' });
});

test('killed after the CA took the new key, or before it did: the account is found either way', async (t) => {
  const setup = await setting(t);
  const first = await openAccount(setup, signal());
  const old = (await setup.store.readAccount())!;
  await setup.store.writeAccount({ ...old, nextKey: generateKey() });
  assert.equal((await openAccount(setup, signal())).url, first.url);
  await rollOver(setup, first, signal());
  const { key: nextKey } = (await setup.store.readAccount())!;
  await setup.store.writeAccount({ ...old, nextKey });
  assert.equal((await openAccount(setup, signal())).url, first.url);
  assert.equal((await setup.store.readAccount())!.key, nextKey);
});

test('a key on disk is not replaced by a configured one that differs', async (t) => {
  const { store, transport } = await setting(t);
  await openAccount({ store, transport }, signal());
  await assert.rejects(openAccount({ store, transport, key: generateKey() }, signal()), {
    code: 'account-key-differs',
  });
});

test('a CA that wants an external account gets its binding, or says what is missing', async (t) => {
  const hmacKey = randomBytes(32).toString('base64url');
  const bound = await startPebble({ externalAccounts: { 'kid-1': hmacKey } });
  t.after(bound.stop);
  const store = await storeFor(bound, await freshFolder(t));
  const transport = createTransport({ directoryUrl: bound.directoryUrl, caPem: bound.caPem });
  t.after(transport.close);
  await assert.rejects(openAccount({ store, transport }, signal()), (error: Error & { code: string }) => {
    assert.match(`${error.code} ${error.message}`, /external/i);
    return true;
  });
  const externalAccount = { kid: 'kid-1', hmacKey };
  const { url } = await openAccount({ store, transport, externalAccount }, signal());
  assert.equal((await openAccount({ store, transport }, signal())).url, url);
});
