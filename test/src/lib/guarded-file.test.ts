// Whatever stands in the place of a file that is read: a link, a pipe, a device, a giant. It is refused, and never waited for.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { link, mkdir, mkdtemp, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readCertbot } from '../../../acme/certbot.ts';
import { readLego } from '../../../acme/lego.ts';
import { createStateLock } from '../../../acme/storage/state-lock.ts';
import { createStore } from '../../../acme/store.ts';
import { readConfig } from '../../../src/config/config.ts';
import type { Mistake } from '../../../src/config/mistake.ts';
import { readFileIfPresent } from '../../../src/lib/atomic-file.ts';
import { readGuardedFile } from '../../../src/lib/guarded-file.ts';
import type { Log } from '../../../src/lib/log.ts';
import { watchRoutesFile } from '../../../src/routes/watch.ts';
import { makeCertificate } from '../../support/certificates.ts';

const directoryUrl = 'https://ca.example/directory';
const SECRET = 'what lies outside';

async function place(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'guarded-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

function pipeAt(path: string): void {
  execFileSync('mkfifo', [path]);
}

function listening(): { log: Log; said: string[] } {
  const said: string[] = [];
  const note = (fields: { err?: Error }, msg: string) => void said.push(`${msg}: ${fields.err?.message}`);
  return { said, log: { error: note, warn: note, info: note, debug: note, trace: note } as unknown as Log };
}

test('a pipe, a device, a folder and a giant are refused, with links followed or not', async (t) => {
  const folder = await place(t);
  pipeAt(join(folder, 'pipe'));
  await writeFile(join(folder, 'giant'), '');
  await truncate(join(folder, 'giant'), 1024 ** 4);
  for (const path of [join(folder, 'pipe'), '/dev/zero', join(folder, 'giant')]) {
    for (const links of ['refused', 'followed', { within: folder }] as const)
      await assert.rejects(readGuardedFile(path, { links }), { name: 'GuardedFileError' }, path);
  }
  for (const links of ['refused', 'followed', { within: folder }] as const)
    await assert.rejects(readGuardedFile(folder, { links }), { code: 'EISDIR' });
});

test('a link is followed only where that is allowed, and out of a tree nowhere', async (t) => {
  const folder = await place(t);
  const tree = join(folder, 'tree');
  await mkdir(join(tree, 'archive'), { recursive: true });
  await mkdir(join(folder, 'tree-beside'));
  await writeFile(join(tree, 'archive', 'file'), 'inside');
  await writeFile(join(folder, 'secret'), SECRET);
  await writeFile(join(folder, 'tree-beside', 'secret'), SECRET);
  await symlink('archive/file', join(tree, 'good'));
  await symlink('../secret', join(tree, 'out'));
  await symlink('../tree-beside/secret', join(tree, 'beside'));
  await symlink('..', join(tree, 'up'));
  const inside = { links: { within: tree } };
  assert.equal(String(await readGuardedFile(join(tree, 'good'), inside)), 'inside');
  for (const name of ['out', 'beside', 'up/secret'])
    await assert.rejects(readGuardedFile(join(tree, name), inside), { code: 'outside' }, name);
  assert.equal(String(await readGuardedFile(join(tree, 'out'), { links: 'followed' })), SECRET);
  await assert.rejects(readGuardedFile(join(tree, 'good')), { code: 'ELOOP' });
  await assert.rejects(readFileIfPresent(join(tree, 'good')), { code: 'ELOOP' });
});

test('a tree that is reached through a link is one all the same', async (t) => {
  const folder = await place(t);
  await mkdir(join(folder, 'tree'));
  await writeFile(join(folder, 'tree', 'file'), 'inside');
  await symlink('tree', join(folder, 'by-link'));
  const tree = join(folder, 'by-link');
  assert.equal(String(await readGuardedFile(join(tree, 'file'), { links: { within: tree } })), 'inside');
});

test('a file with a second name is refused where its only name is asked for', async (t) => {
  const folder = await place(t);
  await writeFile(join(folder, 'secret'), SECRET);
  await link(join(folder, 'secret'), join(folder, 'evidence'));
  await assert.rejects(readGuardedFile(join(folder, 'evidence'), { onlyName: true }), { code: 'not-a-file' });
});

test('a certbot volume is read through its own links, and not through one that leads out of it', async (t) => {
  const folder = await place(t);
  const outside = join(folder, 'outside');
  const tree = join(folder, 'letsencrypt');
  const certificate = await makeCertificate('a.example');
  for (const each of ['live/a.example', 'live/b.example', 'archive/a.example', 'renewal'])
    await mkdir(join(tree, each), { recursive: true });
  await mkdir(outside);
  for (const [name, pem] of [
    ['fullchain', certificate.chain],
    ['privkey', certificate.key],
  ] as const) {
    await writeFile(join(tree, 'archive/a.example', `${name}1.pem`), pem);
    await symlink(`../../archive/a.example/${name}1.pem`, join(tree, 'live/a.example', `${name}.pem`));
    await writeFile(join(outside, `${name}.pem`), pem);
    await symlink(join(outside, `${name}.pem`), join(tree, 'live/b.example', `${name}.pem`));
  }
  for (const name of ['a.example', 'b.example'])
    await writeFile(join(tree, 'renewal', `${name}.conf`), `server = ${directoryUrl}\n`);
  pipeAt(join(tree, 'renewal', 'c.example.conf'));
  const account = join(tree, 'accounts', 'ca.example', 'directory', 'one');
  await mkdir(account, { recursive: true });
  pipeAt(join(account, 'regr.json'));
  const { log, said } = listening();
  const found = await readCertbot(tree, directoryUrl, log);
  assert.deepEqual(
    found.certificates.map(({ names }) => names),
    [['a.example']],
  );
  assert.equal(found.account, undefined);
  assert.match(found.unclear ?? '', /cannot be read/);
  assert.equal(said.filter((line) => /leads out of/.test(line)).length, 1);
});

test('a lego volume with a key that leads out of it has no account that can be taken', async (t) => {
  const folder = await place(t);
  const account = join(folder, 'lego', 'accounts', 'ca.example', 'ops@a.example');
  await mkdir(join(account, 'keys'), { recursive: true });
  const { key } = await makeCertificate('a.example');
  await writeFile(join(folder, 'key.pem'), key);
  await writeFile(
    join(account, 'account.json'),
    JSON.stringify({ registration: { uri: 'https://ca.example/1' } }),
  );
  await symlink(join(folder, 'key.pem'), join(account, 'keys', 'ops@a.example.key'));
  const found = await readLego(join(folder, 'lego'), directoryUrl);
  assert.equal(found.account, undefined);
  assert.match(found.unclear ?? '', /cannot be read/);
});

test('a pipe or a link in the place of a state file is an error at once, and what it leads to stays', async (t) => {
  const stateDir = await place(t);
  const { log } = listening();
  const store = await createStore({ stateDir, directoryUrl, log });
  pipeAt(join(store.folder, 'account.json'));
  await assert.rejects(store.readAccount());
  await writeFile(join(stateDir, 'elsewhere'), SECRET);
  await symlink(join(stateDir, 'elsewhere'), join(store.folder, 'certificates', 'a.example.json'));
  await symlink(join(stateDir, 'elsewhere'), join(store.folder, '.staged.tmp'));
  assert.deepEqual(await store.readCertificates(), []);
  await store.sweep();
  assert.equal(String(await readFileIfPresent(join(stateDir, 'elsewhere'))), SECRET);
});

test('a pipe or a link in the place of the lock belongs to nobody, and is removed by its age', async (t) => {
  for (const plant of [pipeAt, (path: string) => symlink('/dev/zero', path)]) {
    const folder = await place(t);
    await plant(join(folder, 'lock'));
    const lock = createStateLock({ path: join(folder, 'lock'), pollMs: 5, staleMs: 30 });
    assert.equal(await lock.hold(AbortSignal.timeout(30_000), async () => 'held'), 'held');
  }
});

test('a pipe in the place of a file that a setting names is a mistake, not a wait', async (t) => {
  const folder = await place(t);
  const pipe = join(folder, 'pipe');
  pipeAt(pipe);
  for (const variable of ['ROUTES_FILE', 'ACME_CA_FILE', 'UPSTREAM_CA_FILE'])
    assert.throws(
      () => readConfig({ [variable]: pipe }),
      (error: { mistakes?: readonly Mistake[] }) =>
        error.mistakes?.some(
          ({ place, subject }) => place.variable === variable && /cannot be read: not a file/.test(subject),
        ) === true,
    );
});

test('a routes file that becomes a pipe is told, and taken when it is a file again', async (t) => {
  const folder = await place(t);
  const path = join(folder, 'routes.yaml');
  await writeFile(path, 'one');
  const taken: string[] = [];
  const problems: string[] = [];
  const watch = watchRoutesFile({
    path,
    current: 'one',
    parse: (text) => text,
    onRoutes: (text) => taken.push(text),
    onProblem: (error) => problems.push(String(error)),
    intervalMs: 5,
  });
  t.after(() => watch.close());
  pipeAt(join(folder, 'pipe'));
  await rename(join(folder, 'pipe'), path);
  await watch.reload();
  assert.match(problems[0] ?? '', /not a file/);
  await writeFile(join(folder, 'new'), 'two');
  await rename(join(folder, 'new'), path);
  await watch.reload();
  assert.deepEqual(taken, ['two']);
});
