// ACCESS_LOG_FILE: rotation by rename and by signal, a disk that is full, what stands in its place, and lines that come in pieces.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createAccessLogFile } from '../../src/access-log-file.ts';
import { createLog } from '../../src/lib/log.ts';
import { eventually } from '../support/proxy.ts';

function setUp(
  t: TestContext,
  name = 'access.log',
  folder = mkdtempSync(join(tmpdir(), 'access-log-file-')),
) {
  const path = join(folder, name);
  const lines: Record<string, unknown>[] = [];
  let now = 0;
  const open = () =>
    createAccessLogFile({
      path,
      now: () => now,
      log: createLog({
        readable: false,
        stream: { write: (line: string) => void lines.push(JSON.parse(line)) } as never,
      }),
    });
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return {
    path,
    folder,
    open,
    said: () => lines.map(({ msg }) => msg),
    read: (file = path) => readFileSync(file, 'utf8'),
    later: () => {
      now += 2_000;
    },
  };
}

const worker = {};
const LOST = 'lines of the access log cannot be written to their file, and are lost';
const AGAIN = 'the access log is written again';

test('lines are added to what is there, in order, and the file is nobody else’s', async (t) => {
  const { path, open, read } = setUp(t);
  const file = open();
  for (let i = 0; i < 1_000; i++) file.take(worker, Buffer.from(`line ${i}\n`));
  await eventually(() => file.counts().written === 1_000);
  await file.close(5_000);
  assert.equal(read(), Array.from({ length: 1_000 }, (_, i) => `line ${i}\n`).join(''));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const next = open();
  next.take(worker, Buffer.from('more\n'));
  await eventually(() => next.counts().written === 1);
  await next.close(5_000);
  assert.match(read(), /line 999\nmore\n$/);
});

test('lines of several workers never run into each other, in whatever pieces they come', async (t) => {
  const { open, read } = setUp(t);
  const file = open();
  const workers = [{}, {}, {}];
  const texts = workers.map((_, w) =>
    Array.from({ length: 200 }, (_, i) => `${'abc'[w]!.repeat(30)} ${i}\n`).join(''),
  );
  for (let at = 0; at < texts[0]!.length; at += 17)
    for (const [w, one] of workers.entries()) file.take(one, Buffer.from(texts[w]!.slice(at, at + 17)));
  await eventually(() => file.counts().written === 600);
  await file.close(5_000);
  const lines = read().trimEnd().split('\n');
  assert.ok(lines.every((line) => /^(a{30}|b{30}|c{30}) \d+$/.test(line)));
  assert.equal(new Set(lines).size, 600);
});

test('half a line of a worker that died is no line, and one without end is not kept', async (t) => {
  const { open, read } = setUp(t);
  const file = open();
  file.take(worker, Buffer.from('whole\nhalf'));
  file.gone(worker);
  file.take(worker, Buffer.from('next\n'));
  for (let i = 0; i < 100; i++) file.take({}, Buffer.alloc(20_000, 'x'));
  await eventually(() => file.counts().written === 2);
  await file.close(5_000);
  assert.equal(read(), 'whole\nnext\n');
});

test('a file that was moved away is left, and another one is begun: without a signal, and at once with one', async (t) => {
  const { path, open, read, later } = setUp(t);
  const file = open();
  const write = async (text: string, so: number) => {
    file.take(worker, Buffer.from(`${text}\n`));
    await eventually(() => file.counts().written === so);
  };
  await write('one', 1);
  renameSync(path, `${path}.1`);
  await write('two', 2);
  later();
  await write('three', 3);
  renameSync(path, `${path}.2`);
  file.reopen();
  await write('four', 4);
  rmSync(path);
  later();
  await write('five', 5);
  await file.close(5_000);
  assert.deepEqual([read(`${path}.1`), read(`${path}.2`), read()], ['one\ntwo\n', 'three\n', 'five\n']);
});

test('what stands in its place is not written to: lines are lost and counted, said once, until it is gone', async (t) => {
  for (const place of [
    (path: string) => symlinkSync('/dev/null', path),
    (path: string) => void execFileSync('mkfifo', [path]),
    (path: string) => mkdirSync(path),
  ]) {
    const { path, open, read, said, later } = setUp(t);
    place(path);
    const file = open();
    file.take(worker, Buffer.from('one\ntwo\n'));
    await eventually(() => file.counts().lost === 2);
    later();
    file.take(worker, Buffer.from('three\n'));
    await eventually(() => file.counts().lost === 3);
    rmSync(path, { recursive: true });
    later();
    file.take(worker, Buffer.from('four\n'));
    await eventually(() => file.counts().written === 1);
    await file.close(5_000);
    assert.equal(read(), 'four\n');
    assert.deepEqual(said(), [LOST, AGAIN]);
  }
});

test('a folder that is not there is told at the start', async (t) => {
  const { open, said } = setUp(t, 'missing/access.log');
  const file = open();
  await eventually(() => said().length === 1);
  assert.deepEqual(said(), [LOST]);
  await file.close(5_000);
});

test('a full disk loses lines, counts them, and tears none', {
  skip: process.getuid?.() !== 0,
}, async (t) => {
  const mount = mkdtempSync(join(tmpdir(), 'full-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', mount], { stdio: 'pipe' });
  } catch {
    return t.skip('no file system can be mounted here');
  }
  t.after(() => execFileSync('umount', [mount]));
  const { open, read, said } = setUp(t, 'access.log', mount);
  writeFileSync(join(mount, 'filler'), Buffer.alloc(50_000));
  const file = open();
  const line = (i: number) => `${String(i).padStart(5, '0')} ${'x'.repeat(93)}\n`;
  for (let i = 0; i < 500; i++) file.take(worker, Buffer.from(line(i)));
  await eventually(() => file.counts().written + file.counts().lost === 500);
  assert.ok(file.counts().lost > 0, 'the disk was not full');
  rmSync(join(mount, 'filler'));
  file.take(worker, Buffer.from(line(500)));
  await eventually(() => said().length === 2);
  await file.close(5_000);
  assert.deepEqual(said(), [LOST, AGAIN]);
  const lines = read().trimEnd().split('\n');
  const torn = lines.filter((one) => !/^\d{5} x{93}$/.test(one));
  assert.ok(torn.length <= 1, 'at most the one in whose middle the disk was full');
  assert.equal(lines.at(-1), line(500).trimEnd());
  assert.equal(lines.length - torn.length, file.counts().written);
});
