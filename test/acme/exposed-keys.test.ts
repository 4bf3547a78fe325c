// Private keys that others can read: each is told with path, mode and cure, and none is touched.

import assert from 'node:assert/strict';
import { chmod, mkdir, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { generateKey } from '../../acme/account.ts';
import { adoptEarlierState } from '../../acme/adopt.ts';
import { tellExposedKeys } from '../../acme/exposed-keys.ts';
import { createStore } from '../../acme/store.ts';
import { freshFolder, recordedLog } from './support.ts';

const jwk = JSON.stringify({ kty: 'RSA', n: 'AQAB', e: 'AQAB', d: 'AQAB' });

async function put(path: string, text: string, mode: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  await chmod(path, mode);
}

test('keys of lego, of certbot and of our own that others can read are told, and keep their modes', async (t) => {
  const stateDir = await freshFolder(t);
  const account = 'lego/accounts/ca.example/you@your-domain.com/keys/you@your-domain.com.key';
  const exposed: [string, string, number][] = [
    [account, generateKey(), 0o644],
    ['lego/certificates/a.example.key', generateKey(), 0o640],
    ['accounts/ca.example/dir/id/private_key.json', jwk, 0o604],
    ['archive/a.example/privkey1.pem', generateKey(), 0o664],
    ['dstack-ingress/ca.example/dir/account.json', JSON.stringify({ key: generateKey() }), 0o644],
  ];
  const fine: [string, string, number][] = [
    ['accounts/ca.example/dir/id2/private_key.json', jwk, 0o400],
    ['archive/a.example/privkey2.pem', generateKey(), 0o600],
    ['archive/a.example/fullchain1.pem', '-----BEGIN CERTIFICATE-----', 0o644],
    ['renewal/a.example.conf', 'version = 1', 0o644],
  ];
  for (const [path, text, mode] of [...exposed, ...fine]) await put(join(stateDir, path), text, mode);
  await mkdir(join(stateDir, 'live/a.example'), { recursive: true });
  await symlink('../../archive/a.example/privkey1.pem', join(stateDir, 'live/a.example/privkey.pem'));
  const { log, lines } = recordedLog();
  await tellExposedKeys(stateDir, log);
  const told = lines.map(({ path, mode, cure }) => [path, mode, cure]).toSorted();
  assert.deepEqual(
    told,
    exposed
      .map(([path, , mode]) => [
        join(stateDir, path),
        `0${mode.toString(8)}`,
        `chmod 600 ${join(stateDir, path)}`,
      ])
      .toSorted(),
  );
  for (const [path, , mode] of exposed) assert.equal((await stat(join(stateDir, path))).mode & 0o777, mode);
  assert.doesNotMatch(JSON.stringify(lines), /BEGIN|AQAB/);
});

test('a start says so for an adopted volume, and one without state or with odd files says nothing', async (t) => {
  const stateDir = await freshFolder(t);
  const directoryUrl = 'https://ca.example/dir';
  const { log, lines } = recordedLog();
  const store = await createStore({ stateDir, directoryUrl, log });
  const adopt = () => adoptEarlierState({ stateDir, directoryUrl, wanted: [], store, log });
  await symlink('/etc/passwd', join(stateDir, 'link.key'));
  await symlink('nowhere', join(stateDir, 'dangling.key'));
  await put(join(stateDir, 'large.key'), `${generateKey()}${' '.repeat(1 << 20)}`, 0o644);
  await adopt();
  assert.equal(lines.length, 0);
  const path = join(stateDir, 'lego/accounts/ca.example/x/keys/x.key');
  await put(path, generateKey(), 0o644);
  await put(
    join(dirname(dirname(path)), 'account.json'),
    JSON.stringify({ registration: { uri: 'https://ca.example/1' } }),
    0o600,
  );
  for (const _ of ['the first start, which adopts', 'the next']) {
    const before: number = lines.length;
    await adopt();
    const line = lines
      .slice(before)
      .find(({ msg }) => msg === 'private key is readable by others than its owner');
    assert.deepEqual([line?.path, line?.mode, line?.level], [path, '0644', 'warn']);
  }
});
