// Another container that may write in the evidence folder gets nothing removed, nothing read and nothing held up by it.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Bundle, buildBundle } from '../../evidence/bundle.ts';
import { publishBundle } from '../../evidence/publish.ts';
import { openFolder } from '../../src/lib/anchored-folder.ts';
import { makeCertificate } from '../support/certificates.ts';

const swapper = fileURLToPath(new URL('../support/link-swapper.ts', import.meta.url));
const SECRET = 'the account key';
const OUR_NAME = '20260101T000000000Z-0123abcd';
const bundle = await makeBundle('one');
const next = await makeBundle('two');

async function makeBundle(label: string): Promise<Bundle> {
  return buildBundle({
    account: { uri: `https://ca.test/acct/${label}` },
    certificates: [await makeCertificate('app.example.com')],
    quote: async (reportData) => ({
      quote: '00',
      event_log: '[]',
      report_data: Buffer.from(reportData).toString('hex'),
    }),
  });
}

interface Place {
  readonly folder: string;
  /** Stands for the state folder. */
  readonly state: string;
}

async function place(t: TestContext): Promise<Place> {
  const root = await mkdtemp(join(tmpdir(), 'attacked-'));
  t.after(() => rm(root, { recursive: true, force: true }));
  const [folder, state] = [join(root, 'evidences'), join(root, 'state')];
  await mkdir(folder);
  await mkdir(join(state, 'orders'), { recursive: true });
  await writeFile(join(state, 'account.json'), SECRET);
  await writeFile(join(state, 'quote.json'), SECRET);
  await writeFile(join(state, 'orders', 'one.json'), SECRET);
  return { folder, state };
}

async function unharmed({ folder, state }: Place): Promise<void> {
  assert.deepEqual((await readdir(state, { recursive: true })).sort(), [
    'account.json',
    'orders',
    'orders/one.json',
    'quote.json',
  ]);
  for (const path of await filesBelow(folder))
    assert.ok(!(await readFile(path, 'utf8')).includes(SECRET), `${path} holds what was to stay inside`);
}

/** A link that the other container has made is its own, and not walked: what we wrote are files. */
async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const found = await Promise.all(
    entries.map((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return filesBelow(path);
      return entry.isFile() ? [path] : [];
    }),
  );
  return found.flat();
}

async function published({ folder }: Place, expected: Bundle): Promise<void> {
  for (const { name, text } of expected.files)
    assert.equal(await readFile(join(folder, name), 'utf8'), text, name);
}

test('.versions as a link to the state folder: nothing there is removed, and the bundle is published', async (t) => {
  const here = await place(t);
  await symlink(here.state, join(here.folder, '.versions'));
  await publishBundle(here.folder, bundle);
  await publishBundle(here.folder, next);
  await unharmed(here);
  await published(here, next);
  assert.ok((await lstat(join(here.folder, '.versions'))).isDirectory());
});

test('a version that is a link to the state folder, or has folders in it: nothing there is removed', async (t) => {
  const here = await place(t);
  await publishBundle(here.folder, bundle);
  const versions = join(here.folder, '.versions');
  await symlink(here.state, join(versions, OUR_NAME));
  await mkdir(join(versions, OUR_NAME.replace('a', 'b'), 'deep'), { recursive: true });
  await symlink(here.state, join(versions, OUR_NAME.replace('a', 'b'), 'a-link'));
  await publishBundle(here.folder, next);
  await unharmed(here);
  await published(here, next);
});

test('.current that leads into the state folder is replaced, and nothing it led to is kept or removed for it', async (t) => {
  const here = await place(t);
  await symlink(here.state, join(here.folder, '.current'));
  await symlink('.current/account.json', join(here.folder, 'account.json'));
  await publishBundle(here.folder, bundle);
  await unharmed(here);
  await published(here, bundle);
});

test('only what bears a name of ours is removed', async (t) => {
  const here = await place(t);
  await publishBundle(here.folder, bundle);
  const foreign = [join('.versions', 'photos'), join('.versions', `${OUR_NAME}.bak`)];
  for (const name of foreign) await mkdir(join(here.folder, name));
  await writeFile(join(here.folder, '.link-mine.tmp'), '');
  await publishBundle(here.folder, next);
  for (const name of [...foreign, '.link-mine.tmp']) await lstat(join(here.folder, name));
});

test('a link or a second name in the place of a plain file of an older image is not taken over', async (t) => {
  const here = await place(t);
  await symlink(join(here.state, 'account.json'), join(here.folder, 'quote.json'));
  await link(join(here.state, 'account.json'), join(here.folder, 'cert-other.example.com.pem'));
  await writeFile(join(here.folder, 'acme-account.json'), 'of an older image');
  await publishBundle(here.folder, bundle);
  await rm(join(here.folder, 'cert-other.example.com.pem'));
  await unharmed(here);
  await published(here, bundle);
});

test('a pipe, a device or a folder in the place of a file holds nothing up', async (t) => {
  const here = await place(t);
  for (const name of ['quote.json', '.versions', '.current', `.link-${'0'.repeat(12)}.tmp`])
    execFileSync('mkfifo', [join(here.folder, name)]);
  await mkdir(join(here.folder, 'cert-folder.pem'));
  await mkdir(join(here.folder, `.link-${'1'.repeat(12)}.tmp`));
  await publishBundle(here.folder, bundle);
  await published(here, bundle);
});

test('a huge file under the name of evidence is not read', async (t) => {
  const here = await place(t);
  const huge = join(here.folder, 'cert-huge.example.com.pem');
  await writeFile(huge, '');
  await truncate(huge, 8 * 1024 ** 3);
  await publishBundle(here.folder, bundle);
  await published(here, bundle);
  assert.equal((await lstat(huge)).size, 8 * 1024 ** 3);
});

test('an evidence folder that is itself a link is refused', async (t) => {
  const here = await place(t);
  await rm(here.folder, { recursive: true });
  await symlink(here.state, here.folder);
  await assert.rejects(publishBundle(here.folder, bundle), { code: 'not-writable' });
  assert.ok(!(await readdir(here.state)).includes('.versions'));
});

test('what is done in an opened folder is done there, though its path leads elsewhere by then', async (t) => {
  const here = await place(t);
  const opened = await openFolder(here.folder);
  t.after(() => opened.close());
  const moved = `${here.folder}-moved`;
  await rename(here.folder, moved);
  await symlink(here.state, here.folder);
  await opened.write('new.json', 'public', 0o644);
  await assert.rejects(opened.remove('account.json'), { code: 'ENOENT' });
  assert.deepEqual(await opened.names(), ['new.json']);
  for (const path of ['../state/account.json', '..', '.', '', 'a/b', 'a\0b'])
    await assert.rejects(async () => opened.read(path), /is not the name of a file/);
  await unharmed({ ...here, folder: moved });
});

test('links swapped in by another process during a loop of publishes: nothing is removed or read through them', async (t) => {
  const here = await place(t);
  await publishBundle(here.folder, bundle);
  const attacker = spawn(process.execPath, [swapper, here.folder, here.state], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => attacker.kill('SIGKILL'));
  await once(attacker.stdout, 'data');
  for (let round = 0; round < 60; round++) {
    // It may be refused while the folder is being turned over: never with harm.
    await publishBundle(here.folder, round % 2 ? bundle : next).catch(() => {});
  }
  attacker.kill('SIGKILL');
  await once(attacker, 'exit');
  await unharmed(here);
});
