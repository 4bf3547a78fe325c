// State on disk: damage is set aside, never fatal, never deleted; one process at a time works on it.

import assert from 'node:assert/strict';
import { execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { generateKey } from '../../acme/account.ts';
import { createStore } from '../../acme/store.ts';
import { challengeCertificate } from '../../acme/tls-alpn01.ts';
import { type Certificate, readCertificate } from '../../src/lib/certificate.ts';
import { type Domain, parseDomain } from '../../src/lib/domain.ts';
import { weakCertificate } from '../support/certificates.ts';
import { freshFolder, recordedLog } from './support.ts';

const directoryUrl = 'https://ca.example/directory';

async function newCertificate(name: string): Promise<Certificate> {
  const { cert, key } = await challengeCertificate(name as Domain, 'x', new Date());
  return readCertificate(cert, key);
}

async function filled(t: TestContext) {
  const stateDir = await freshFolder(t);
  const { log, lines } = recordedLog();
  const store = await createStore({ stateDir, directoryUrl, log });
  const certificate = await newCertificate('a.example');
  await store.keepCertificate(certificate);
  await store.keepCertificate(await newCertificate('b.example'));
  const path = join(store.folder, 'certificates', 'a.example.json');
  return { store, lines, certificate, path, stateDir };
}

const damages: Record<string, (whole: string) => string> = {
  empty: () => '',
  'cut off in the middle': (whole) => whole.slice(0, whole.length / 2),
  'cut off at its last byte but one': (whole) => whole.slice(0, -3),
  'zeros, as after a power cut': (whole) => '\0'.repeat(whole.length),
  'of another form': () => '{"name": 1}',
  'an array': () => '[]',
  null: () => 'null',
  'with a broken intermediate': (whole) =>
    whole.replace(
      '-----END CERTIFICATE-----',
      '$&\\n-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----',
    ),
};
for (const [what, damage] of Object.entries(damages)) {
  test(`a certificate file that is ${what} is set aside and reported, and the others are read`, async (t) => {
    const { store, path, lines } = await filled(t);
    const broken = damage(await readFile(path, 'utf8'));
    await writeFile(path, broken);
    const names = (await store.readCertificates()).map((each) => each.names[0]);
    assert.deepEqual(names, ['b.example']);
    const report = lines.find((line) => line.msg === 'damaged state file set aside')!;
    assert.equal(await readFile(report.aside as string, 'utf8'), broken);
    assert.doesNotMatch(JSON.stringify(lines), /BEGIN PRIVATE|BEGIN EC/);
    await store.keepCertificate(await newCertificate('a.example'));
    assert.equal((await store.readCertificates()).length, 2);
  });
}

test('a certificate whose key is that of another is never given out', async (t) => {
  const { store, path, lines } = await filled(t);
  const stored = JSON.parse(await readFile(path, 'utf8'));
  await writeFile(path, JSON.stringify({ ...stored, key: generateKey() }));
  assert.deepEqual(
    (await store.readCertificates()).map((each) => each.names[0]),
    ['b.example'],
  );
  assert.match(JSON.stringify(lines), /key-mismatch/);
});

test('damaged orders, ledgers, windows and challenges are set aside and count as none', async (t) => {
  const { store } = await filled(t);
  const a = parseDomain('a.example');
  await store.writeOrder(a, {
    names: [a],
    url: 'https://x/',
    key: 'k',
    account: 'https://y/',
    createdAt: '',
  });
  for (const file of ['orders/a.example.json', 'ledger.json', 'windows.json', 'challenges.json']) {
    await writeFile(join(store.folder, file), '{"a": {"b":');
  }
  assert.equal(await store.readOrder(a), undefined);
  assert.deepEqual(await store.readLedger(), {});
  assert.deepEqual(await store.readWindows(), {});
  assert.deepEqual(await store.readChallenges(), []);
  const left = await readdir(store.folder, { recursive: true });
  assert.equal(left.filter((file) => file.endsWith('.damaged')).length, 4);
});

test('a file damaged twice loses neither', async (t) => {
  const { store, path } = await filled(t);
  for (const text of ['first', 'second']) {
    await writeFile(path, text);
    await store.readCertificates();
  }
  const aside = (await readdir(join(store.folder, 'certificates'))).filter((file) =>
    file.endsWith('.damaged'),
  );
  assert.equal(aside.length, 2);
});

test('a certificate that the disk will not read is reported and left where it is', async (t) => {
  const { store, lines } = await filled(t);
  const path = join(store.folder, 'certificates', 'c.example.json');
  await mkdir(path);
  assert.equal((await store.readCertificates()).length, 2);
  assert.match(JSON.stringify(lines), /cannot be read from disk/);
  assert.ok((await stat(path)).isDirectory());
});

test('keys are readable by their owner alone, in folders that others cannot enter', async (t) => {
  const { store, stateDir } = await filled(t);
  await store.writeAccount({ key: generateKey() });
  for (const entry of await readdir(join(stateDir, 'dstack-ingress'), {
    recursive: true,
    withFileTypes: true,
  })) {
    const { mode } = await stat(join(entry.parentPath, entry.name));
    assert.equal(mode & 0o077, 0, entry.name);
  }
});

test('a certbot tree beside the state is neither read nor changed', async (t) => {
  const stateDir = await freshFolder(t);
  const conf = join(stateDir, 'renewal', 'a.example.conf');
  await mkdir(join(stateDir, 'renewal'));
  await writeFile(conf, 'version = 1');
  const store = await createStore({ stateDir, directoryUrl });
  await store.keepCertificate(await newCertificate('a.example'));
  await store.sweep();
  assert.deepEqual((await readdir(stateDir)).sort(), ['dstack-ingress', 'renewal']);
  assert.equal(await readFile(conf, 'utf8'), 'version = 1');
});

test('directories of one host, or of hosts and ports alike, never share their state', async (t) => {
  const stateDir = await freshFolder(t);
  const urls = [
    'https://h/a',
    'https://h/a/b',
    'https://h/a_b',
    'https://h:1/a',
    'https://h/',
    'https://h/a?b',
    'https://i/a',
  ];
  const stores = await Promise.all(urls.map((url) => createStore({ stateDir, directoryUrl: url })));
  assert.equal(new Set(stores.map((store) => store.folder)).size, urls.length);
  await stores[0]!.keepCertificate(await newCertificate('a.example'));
  for (const other of stores.slice(1)) assert.deepEqual(await other.readCertificates(), []);
});

test('an apex and its wildcard, and names of any length, have each their own file', async (t) => {
  const { store } = await filled(t);
  const label = 'l'.repeat(60);
  const long = `${label}.${label}.${label}.${'m'.repeat(50)}.example`;
  const names = ['a.example', '*.a.example', long, `n${long.slice(1)}`, `*.${long.slice(3)}`];
  for (const name of names) await store.keepCertificate(await newCertificate(name));
  const found = (await store.readCertificates()).map((each) => String(each.names[0]));
  assert.deepEqual(found.sort(), [...names, 'b.example'].sort());
});

test('what a killed process left half written is swept away, and nothing else', async (t) => {
  const { store } = await filled(t);
  await writeFile(join(store.folder, 'certificates', '.a.example.json.0123456789ab.tmp'), 'half');
  await store.sweep();
  const left = await readdir(join(store.folder, 'certificates'));
  assert.deepEqual(left.sort(), ['a.example.json', 'b.example.json']);
});

test('on a full disk a write is refused and the old file stays whole', async (t) => {
  const mount = join(await freshFolder(t), 'small');
  await mkdir(mount);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', mount], { stdio: 'pipe' });
  } catch {
    return t.skip('a small file system cannot be mounted here');
  }
  try {
    await fillAndWrite(mount);
  } finally {
    execFileSync('umount', ['-l', mount]);
  }
});

async function fillAndWrite(mount: string): Promise<void> {
  const store = await createStore({ stateDir: mount, directoryUrl });
  const old = await newCertificate('a.example');
  await store.keepCertificate(old);
  await writeFile(join(mount, 'filler'), Buffer.alloc(1 << 20)).catch(() => {});
  await assert.rejects(store.keepCertificate(await newCertificate('a.example')), { code: 'ENOSPC' });
  await assert.rejects(store.writeAccount({ key: generateKey() }), { code: 'ENOSPC' });
  const [kept, ...more] = await store.readCertificates();
  assert.equal(kept?.sha256, old.sha256);
  assert.equal(more.length, 0);
  const left = (await readdir(store.folder, { recursive: true })).filter((file) => file.endsWith('.tmp'));
  assert.deepEqual(left, []);
}

test('a state folder that cannot be made is named in the error', async (t) => {
  const folder = await freshFolder(t);
  await writeFile(join(folder, 'file'), '');
  await assert.rejects(createStore({ stateDir: join(folder, 'file'), directoryUrl }), {
    code: 'state-unwritable',
    message: /file\/dstack-ingress/,
  });
});

function holder(stateDir: string) {
  const child = fork(join(import.meta.dirname, 'lock-child.ts'), [stateDir, directoryUrl]);
  return { child, held: once(child, 'message') };
}

test('two processes on one folder take turns, and the waiting one says so', async (t) => {
  const { store, stateDir, lines } = await filled(t);
  const { child, held } = holder(stateDir);
  t.after(() => child.kill('SIGKILL'));
  await held;
  let entered = false;
  const turn = store.hold(AbortSignal.timeout(20_000), async () => {
    entered = true;
  });
  const waiting = () => /another process works on the state folder/.test(JSON.stringify(lines));
  while (!waiting() && !entered) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(entered, false);
  assert.match(JSON.stringify(lines), /another process works on the state folder/);
  child.send('release');
  await turn;
  assert.equal(entered, true);
});

test('the lock of a process killed with kill -9 is taken over', async (t) => {
  const { store, stateDir } = await filled(t);
  const { child, held } = holder(stateDir);
  await held;
  child.kill('SIGKILL');
  await once(child, 'close');
  await store.hold(AbortSignal.timeout(20_000), async () => {});
  assert.deepEqual(
    (await readdir(store.folder)).filter((file) => file.startsWith('lock')),
    [],
  );
});

test('the lock of another machine is respected while it beats and taken over when it stops', async (t) => {
  const stateDir = await freshFolder(t);
  const store = await createStore({ stateDir, directoryUrl, lockPollMs: 5, lockStaleMs: 2000 });
  const path = join(store.folder, 'lock');
  const owner = { token: 'theirs', pid: process.pid, started: '1', realm: 'elsewhere' };
  await writeFile(path, JSON.stringify(owner));
  const beat = () => void utimes(path, new Date(), new Date());
  const beats = setInterval(beat, 20);
  t.after(() => clearInterval(beats));
  await assert.rejects(
    store.hold(AbortSignal.timeout(3000), async () => {}),
    { name: 'TimeoutError' },
  );
  clearInterval(beats);
  await store.hold(AbortSignal.timeout(30_000), async () => {});
});

test('an unreadable lock file does not stop us for ever', async (t) => {
  const stateDir = await freshFolder(t);
  const store = await createStore({ stateDir, directoryUrl, lockPollMs: 5, lockStaleMs: 50 });
  await writeFile(join(store.folder, 'lock'), '');
  await store.hold(AbortSignal.timeout(20_000), async () => {});
});

test('work whose lock was taken away is told to stop', async (t) => {
  const stateDir = await freshFolder(t);
  const store = await createStore({ stateDir, directoryUrl, lockPollMs: 5, lockStaleMs: 60 });
  await store.hold(AbortSignal.timeout(20_000), async (signal) => {
    await writeFile(
      join(store.folder, 'lock'),
      JSON.stringify({ token: 'theirs', pid: 1, started: '', realm: '' }),
    );
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    assert.match(String(signal.reason), /lock on .* was lost/);
  });
  assert.match(await readFile(join(store.folder, 'lock'), 'utf8'), /theirs/);
});

test('a certificate that this OpenSSL does not load is set aside with the reason, and told as long as there is no other', async (t) => {
  const { store, path, lines } = await filled(t);
  const a = parseDomain('a.example');
  const weak = weakCertificate(a);
  const whole = JSON.parse(await readFile(path, 'utf8'));
  const glued = { ...whole, chain: `${whole.chain.trim()}${whole.chain}` };
  for (const [stored, reason] of [
    [glued, /bad end line/],
    [{ name: a, ...weak }, /ee key too small/],
    [{ ...whole, name: 'c.example' }, /it is for a\.example, not for c\.example/],
  ] as const) {
    await writeFile(path, JSON.stringify(stored));
    assert.deepEqual(
      (await store.readCertificates()).map((each) => each.names[0]),
      ['b.example'],
    );
    const report = lines.findLast((line) => line.msg === 'damaged state file set aside')!;
    assert.match(report.why as string, reason);
    const [newest] = await store.damagedCertificates(a);
    assert.equal(newest!.path, report.aside);
    assert.match(newest!.why, reason);
  }
  assert.equal((await store.damagedCertificates(a)).length, 3);
  assert.deepEqual(await store.damagedCertificates(parseDomain('b.example')), []);
});

test('a damaged certificate on a disk that takes no change counts as none, and is told', async (t) => {
  const mount = join(await freshFolder(t), 'fixed');
  await mkdir(mount);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', mount], { stdio: 'pipe' });
  } catch {
    return t.skip('a file system cannot be mounted here');
  }
  try {
    const { log, lines } = recordedLog();
    const store = await createStore({ stateDir: mount, directoryUrl, log });
    for (const name of ['a.example', 'b.example']) await store.keepCertificate(await newCertificate(name));
    for (const file of ['certificates/a.example.json', 'account.json'])
      await writeFile(join(store.folder, file), 'x');
    execFileSync('mount', ['-o', 'remount,ro', mount]);
    assert.deepEqual(
      (await store.readCertificates()).map((each) => each.names[0]),
      ['b.example'],
    );
    assert.match(JSON.stringify(lines), /damaged state file cannot be set aside/);
    // Where it lies does not matter: an account that cannot be read is never taken for none.
    await assert.rejects(store.readAccount(), { code: 'account-damaged' });
  } finally {
    execFileSync('umount', ['-l', mount]);
  }
});

test('an order without a sound key or URL is set aside, so that it cannot block another', async (t) => {
  const { store } = await filled(t);
  const a = parseDomain('a.example');
  const createdAt = new Date().toISOString();
  const sound = { names: [a], url: 'https://x/', key: generateKey(), account: 'https://y/', createdAt };
  for (const odd of [{ key: 'k' }, { url: 'x' }, { createdAt: 'yesterday' }]) {
    await store.writeOrder(a, { ...sound, ...odd });
    assert.equal(await store.readOrder(a), undefined);
  }
  await store.writeOrder(a, sound);
  assert.deepEqual(await store.readOrder(a), sound);
});

test('a window whose chosen moment lies outside of it is not believed', async (t) => {
  const { store } = await filled(t);
  const [start, end] = ['2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z'];
  const window = { certificate: 'x', start, end, chosen: '2046-01-01T00:00:00Z' };
  await store.writeWindows({ 'a.example': window });
  assert.deepEqual(await store.readWindows(), {});
  await store.writeWindows({ 'a.example': { ...window, chosen: start } });
  assert.deepEqual(Object.keys(await store.readWindows()), ['a.example']);
});

test('a challenge shared by an instance whose clock was ahead is not answered for as long', async (t) => {
  const { store } = await filled(t);
  const a = parseDomain('a.example');
  await store.shareChallenge(a, 'token.thumbprint');
  assert.equal(await store.sharedChallenge(a), 'token.thumbprint');
  const ahead = new Date(Date.now() + 20 * 86_400_000).toISOString();
  const path = join(store.folder, 'validations', 'a.example.json');
  await writeFile(path, JSON.stringify({ keyAuthorization: 'token.thumbprint', at: ahead }));
  assert.equal(await store.sharedChallenge(a), undefined);
});
