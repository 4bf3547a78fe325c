// The evidence folder changes as a whole: for readers, when the power fails, and over files of earlier images.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Bundle, buildBundle, EvidenceError } from '../../evidence/bundle.ts';
import { publishBundle } from '../../evidence/publish.ts';
import { makeCertificate } from '../support/certificates.ts';

const loop = fileURLToPath(new URL('../support/publish-loop.ts', import.meta.url));
const first = await makeBundle('one', 'app.example.com', 'old.example.com');
const second = await makeBundle('two', 'app.example.com', '*.new.example.com');

async function makeBundle(label: string, ...names: string[]): Promise<Bundle> {
  return buildBundle({
    account: { uri: `https://ca.test/acct/${label}` },
    certificates: await Promise.all(names.map((name) => makeCertificate(name))),
    quote: async (reportData) => ({
      quote: '00',
      event_log: `[${label}]`,
      report_data: Buffer.from(reportData).toString('hex'),
      padding: 'x'.repeat(100_000),
    }),
  });
}

async function evidenceFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'evidences-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** What is seen at one place, name -> text. */
async function seen(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(folder)).filter((name) => !name.startsWith('.')).sort();
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')));
  return Object.fromEntries(names.map((name, index) => [name, texts[index]!]));
}

function contentOf(bundle: Bundle): Record<string, string> {
  const entries = bundle.files.map(({ name, text }): [string, string] => [name, text]);
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function whichOf(content: Record<string, string>): 'first' | 'second' | 'mixture' {
  const text = JSON.stringify(content);
  if (text === JSON.stringify(contentOf(first))) return 'first';
  return text === JSON.stringify(contentOf(second)) ? 'second' : 'mixture';
}

async function versionsIn(folder: string): Promise<string[]> {
  return readdir(join(folder, '.versions'));
}

test('a folder that cannot be written is an error that says so, and the old bundle stands', async (t) => {
  const folder = await evidenceFolder(t);
  await publishBundle(folder, first);
  const unlinkable = { ...second, files: [...second.files, { ...second.files[0]!, name: 'not/a/name' }] };
  await assert.rejects(
    publishBundle(folder, unlinkable),
    (error) =>
      error instanceof EvidenceError && error.code === 'not-writable' && error.message.includes(folder),
  );
  assert.equal(whichOf(await seen(folder)), 'first');
  await writeFile(join(folder, 'file'), '');
  await assert.rejects(publishBundle(join(folder, 'file', 'evidences'), first), { code: 'not-writable' });
  await publishBundle(folder, second);
  assert.equal((await versionsIn(folder)).length, 2, 'and what the failure left is cleared away');
});

test('the files are there under their names, and a folder that was missing is made', async (t) => {
  const folder = join(await evidenceFolder(t), 'a', 'b');
  await publishBundle(folder, first);
  assert.deepEqual(await seen(folder), contentOf(first));
});

test('names that are no longer served vanish, new ones appear, and files of others stay', async (t) => {
  const folder = await evidenceFolder(t);
  await publishBundle(folder, first);
  await writeFile(join(folder, 'README'), 'mine');
  await publishBundle(folder, second);
  assert.deepEqual(await seen(folder), { README: 'mine', ...contentOf(second) });
});

test('the folder itself stays the same, since others have it mounted', async (t) => {
  const folder = await evidenceFolder(t);
  const before = await stat(folder);
  await publishBundle(folder, first);
  await publishBundle(folder, second);
  assert.equal((await stat(folder)).ino, before.ino);
});

test('it is readable where it is mounted under another path', async (t) => {
  const folder = await evidenceFolder(t);
  await publishBundle(join(folder, 'here'), first);
  await rename(join(folder, 'here'), join(folder, 'there'));
  assert.deepEqual(await seen(join(folder, 'there')), contentOf(first));
});

test('other users may read it, whatever the umask', async (t) => {
  const umask = process.umask(0o077);
  t.after(() => process.umask(umask));
  const folder = join(await evidenceFolder(t), 'evidences');
  await publishBundle(folder, first);
  for (const path of ['.', '.versions', '.current']) {
    assert.equal((await stat(join(folder, path))).mode & 0o777, 0o755, path);
  }
  for (const { name } of first.files)
    assert.equal((await stat(join(folder, name))).mode & 0o777, 0o644, name);
});

test('only the bundle before is kept beside the present one', async (t) => {
  const folder = await evidenceFolder(t);
  const leftByACrash = join(folder, '.versions', '20260101T000000000Z-0123abcd');
  await mkdir(leftByACrash, { recursive: true });
  await writeFile(join(leftByACrash, 'quote.json'), 'half of');
  await writeFile(join(folder, '.link-0123456789ab.tmp'), '');
  for (const bundle of [first, second, first, second]) await publishBundle(folder, bundle);
  assert.equal((await versionsIn(folder)).length, 2);
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.endsWith('.tmp')),
    [],
  );
});

test('calls at the same time take turns, and the last one stays', async (t) => {
  const folder = await evidenceFolder(t);
  await Promise.all([first, second, first, second, first].map((bundle) => publishBundle(folder, bundle)));
  assert.deepEqual(await seen(folder), contentOf(first));
});

test('no reader ever sees a mixture while bundles are replaced', async (t) => {
  const folder = await evidenceFolder(t);
  await publishBundle(folder, first);
  const stop = new AbortController();
  const views = { first: 0, second: 0, mixture: 0 };
  const reader = async () => {
    while (!stop.signal.aborted) {
      const version = await realpath(join(folder, '.current'));
      try {
        views[whichOf(await seen(version))]++;
      } catch (error) {
        // Two replacements while one view was read: it is gone, and that is seen.
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOENT');
      }
    }
  };
  const single = async () => {
    const either = [first, second].map((bundle) => contentOf(bundle)['quote.json']);
    while (!stop.signal.aborted) {
      assert.ok(
        either.includes(await readFile(join(folder, 'quote.json'), 'utf8')),
        'a file is whole and never missing',
      );
    }
  };
  const readers = [reader(), reader(), single()];
  for (let round = 0; round < 30; round++) await publishBundle(folder, round % 2 ? first : second);
  stop.abort();
  await Promise.all(readers);
  assert.equal(views.mixture, 0);
  assert.ok(views.first > 0 && views.second > 0, JSON.stringify(views));
});

test('kill -9 at any moment leaves one whole bundle, and the next start cleans up', async (t) => {
  const folder = await evidenceFolder(t);
  const bundles = join(await evidenceFolder(t), 'bundles.json');
  await writeFile(bundles, JSON.stringify([first, second]));
  await publishBundle(folder, first);
  for (let round = 0; round < 10; round++) {
    await killed(folder, bundles, round * 7);
    const version = await realpath(join(folder, '.current'));
    assert.notEqual(whichOf(await seen(version)), 'mixture', `round ${round}`);
    const names = await readdir(version);
    const shown = await readdir(folder);
    for (const name of names) assert.ok(shown.includes(name), `${name} is shown in round ${round}`);
  }
  await publishBundle(folder, second);
  assert.deepEqual(await seen(folder), contentOf(second));
  assert.equal((await versionsIn(folder)).length, 2);
});

test('kill -9 while the plain files of an older image are taken over leaves these or the new ones', async (t) => {
  const bundles = join(await evidenceFolder(t), 'bundles.json');
  await writeFile(bundles, JSON.stringify([second]));
  for (let round = 0; round < 8; round++) {
    const folder = await evidenceFolder(t);
    for (const [name, text] of Object.entries(contentOf(first))) await writeFile(join(folder, name), text);
    await killed(folder, bundles, round * 2);
    const isLinked = (await readdir(folder)).includes('.current');
    const place = isLinked ? await realpath(join(folder, '.current')) : folder;
    assert.notEqual(whichOf(await seen(place)), 'mixture', `round ${round}`);
    await publishBundle(folder, second);
    assert.deepEqual(await seen(folder), contentOf(second));
  }
});

test('what an older image left as plain files is taken over, certificates of former domains go', async (t) => {
  const folder = await evidenceFolder(t);
  for (const [name, text] of Object.entries(contentOf(first))) await writeFile(join(folder, name), text);
  await writeFile(join(folder, 'cert.pem'), 'of the first images');
  await writeFile(join(folder, 'notes.txt'), 'not evidence');
  await publishBundle(folder, second);
  assert.deepEqual(await seen(folder), { ...contentOf(second), 'notes.txt': 'not evidence' });
  const kept = await versionsIn(folder);
  const present = basename(await realpath(join(folder, '.current')));
  const before = kept.find((version) => version !== present)!;
  assert.equal((await seen(join(folder, '.versions', before)))['quote.json'], contentOf(first)['quote.json']);
});

/** Kills the publishing process some milliseconds after it has started its work. */
async function killed(folder: string, bundles: string, afterMs: number): Promise<void> {
  const child = spawn(process.execPath, [loop, folder, bundles], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  await once(child.stdout, 'data');
  await setTimeout(afterMs);
  child.kill('SIGKILL');
  const [, signal] = await exited;
  assert.equal(signal, 'SIGKILL', 'it was still at work');
}
