// Atomic files: readers and crashes see the old or the new, and private means private.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { readFileIfPresent, writeFileAtomic } from '../../../src/lib/atomic-file.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'atomic-'));
});
after(() => rm(folder, { recursive: true }));

test('a writer killed at any moment leaves a whole file', async () => {
  const path = join(folder, 'killed');
  const writer = `
    import { writeFileAtomic } from ${JSON.stringify(new URL('../../../src/lib/atomic-file.ts', import.meta.url).href)};
    for (let i = 0; ; i++) await writeFileAtomic(${JSON.stringify(path)}, String(i % 10).repeat(100_000));
  `;
  for (let round = 0; round < 5; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', writer], { stdio: 'ignore' });
    const ended = once(child, 'exit');
    await new Promise((resolve) => setTimeout(resolve, 250 + 37 * round));
    child.kill('SIGKILL');
    await ended;
    const text = (await readFileIfPresent(path))?.toString() ?? '0'.repeat(100_000);
    assert.equal(text, text[0]!.repeat(100_000), 'all of one writing');
  }
});

test('a file is private unless said otherwise, whatever the umask', async () => {
  const old = process.umask(0o777);
  try {
    await writeFileAtomic(join(folder, 'private'), 'x');
    await writeFileAtomic(join(folder, 'public'), 'x', 0o644);
  } finally {
    process.umask(old);
  }
  assert.equal((await stat(join(folder, 'private'))).mode & 0o777, 0o600);
  assert.equal((await stat(join(folder, 'public'))).mode & 0o777, 0o644);
});

test('a write that fails leaves the old file and nothing beside it', async () => {
  const target = join(folder, 'occupied');
  await writeFileAtomic(join(folder, 'plain'), 'old');
  // A folder cannot be replaced by a file: the rename fails after all was written.
  await import('node:fs/promises').then(({ mkdir }) => mkdir(join(target, 'inside'), { recursive: true }));
  await assert.rejects(writeFileAtomic(target, 'new'));
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.endsWith('.tmp') && name.includes('occupied')),
    [],
  );
  assert.equal(await readFile(join(folder, 'plain'), 'utf8'), 'old');
});

test('a file that is not there is undefined, and one that cannot be read is an error', async () => {
  assert.equal(await readFileIfPresent(join(folder, 'nothing')), undefined);
  await assert.rejects(readFileIfPresent(folder), { code: 'EISDIR' });
});
