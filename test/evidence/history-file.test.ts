// The history on disk: killed at any moment, on a full disk, cut, damaged, moved away, full, and with a clock that is wrong.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { historyLine, readHistory } from '../../evidence/history.ts';
import { createHistoryFile } from '../../evidence/history-file.ts';
import type { Statement } from '../../evidence/statement.ts';
import { recordedLog } from '../acme/support.ts';
import { chainOf, sampleStatement } from '../support/statements.ts';

const loop = fileURLToPath(new URL('../support/history-loop.ts', import.meta.url));
const now = new Date('2026-04-01T00:00:00Z');

async function stage(t: TestContext, options: { longest?: number; folder?: string } = {}) {
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), 'history-')));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'state', 'history.jsonl');
  await mkdir(join(folder, 'state'), { recursive: true });
  const { log, lines } = recordedLog();
  const clock = { now: () => now, sleep: () => Promise.reject(new Error('nobody sleeps here')) };
  const { longest } = options;
  const file = createHistoryFile(path, { log, clock, ...(longest !== undefined && { longest }) });
  /** As the program does it. */
  const add = async (change: Partial<Statement> = {}): Promise<string> => {
    const bytes = Buffer.byteLength(historyLine(sampleStatement({ ...change, previous: '0'.repeat(64) })));
    return file.append(sampleStatement({ ...change, previous: await file.previous(bytes) }));
  };
  const read = async () => readHistory(await readFile(path, 'utf8'));
  const said = (level: string) => lines.filter((line) => line.level === level);
  return { path, folder, file, add, read, said };
}

for (const [what, longest] of [
  ['no line is lost that was there, and every link holds', 10_000_000],
  ['also while it begins anew every few lines every link holds', 20_000],
] as const) {
  test(`killed at any moment: ${what}`, async (t) => {
    const { path, folder, add } = await stage(t, { longest });
    const stated: string[] = [];
    let text = '';
    for (let round = 0; round < 4; round++) {
      const child = spawn(process.execPath, [loop, path, String(longest)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout, 'data');
      await setTimeout(5 + round * 21);
      child.kill('SIGKILL');
      await once(child, 'exit');
      stated.push(`after round ${round}`);
      text = await add({ revision: stated.at(-1)! });
      const { entries, faults } = readHistory(text);
      assert.deepEqual(faults, []);
      assert.equal(entries.at(-1)!.statement.revision, stated.at(-1));
      assert.ok(Buffer.byteLength(text) <= longest);
    }
    if (longest > 1_000_000) for (const one of stated) assert.ok(text.includes(`"${one}"`), one);
    const left = await readdir(join(folder, 'state'));
    assert.ok(
      left.every((name) => /^history\.jsonl(\.before)?$|\.tmp$/.test(name)),
      left.join(),
    );
  });
}

test('a last line that was cut off is dropped, and the next one takes its place', async (t) => {
  const { path, add, read, said } = await stage(t);
  for (const revision of ['one', 'two', 'three']) await add({ revision });
  const whole = await readFile(path);
  for (const missing of [1, 2, 100, 700]) {
    await writeFile(path, whole.subarray(0, whole.length - missing));
    await add({ revision: 'again' });
    const { entries, faults } = await read();
    assert.deepEqual(faults, []);
    assert.deepEqual(
      entries.map(({ statement }) => statement.revision),
      ['one', 'two', 'again'],
    );
  }
  assert.equal(said('warn').length, 4);
  await truncate(path, 10);
  assert.equal((await readHistory(await add())).entries[0]!.statement.previous, null);
});

test('on a full disk nothing is added, nothing is lost, and it goes on when there is room', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'full-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder], { stdio: 'pipe' });
  } catch {
    return t.skip('needs the right to mount');
  }
  try {
    const { path, add, read } = await stage(t, { folder });
    await add({ revision: 'first' });
    const ballast = join(folder, 'ballast');
    // All but a part of a page: some of the next lines still fit.
    await writeFile(ballast, Buffer.alloc(56 * 1024)).catch(() => {});
    await appendFile(ballast, Buffer.alloc(64 * 1024)).catch(() => {});
    let added = 1;
    const outcome = await (async () => {
      for (;;) {
        await add({ revision: `number ${added}` });
        added++;
      }
    })().catch((error: NodeJS.ErrnoException) => error.code);
    assert.equal(outcome, 'ENOSPC');
    assert.equal((await read()).entries.length, added);
    assert.deepEqual((await read()).faults, []);
    await rm(ballast);
    await add({ revision: 'last' });
    assert.deepEqual((await read()).faults, []);
    assert.equal((await read()).entries.length, added + 1);
    assert.ok((await stat(path)).size > 0);
  } finally {
    execFileSync('umount', ['--lazy', folder]);
  }
});

test('damage in the middle is said once as an error with its cure, stays where it is, and stops nothing', async (t) => {
  const { path, add, read, said } = await stage(t);
  for (const revision of ['one', 'two', 'three']) await add({ revision });
  const text = await readFile(path, 'utf8');
  const damaged = text.replace('"two"', '"too"');
  await writeFile(path, damaged);
  await add({ revision: 'four' });
  await add({ revision: 'five' });
  const after = await readFile(path, 'utf8');
  assert.ok(after.startsWith(damaged));
  assert.deepEqual(
    (await read()).faults.map(({ code, line }) => [code, line]),
    [['not-linked', 3]],
  );
  const errors = said('error');
  assert.equal(errors.length, 1);
  assert.match(String(errors[0]!.msg), /move the file away/);
  assert.match(JSON.stringify(errors[0]), /line 3/);
});

test('whatever stands in its last line, the next statement names the last that can be read', async (t) => {
  const { path, add, read } = await stage(t);
  await add({ revision: 'one' });
  await appendFile(path, Buffer.from('\0\0\0\xff\xfe\n', 'latin1'));
  await add({ revision: 'two' });
  const { entries, faults } = await read();
  assert.deepEqual(
    faults.map(({ code, line }) => [code, line]),
    [['not-a-statement', 2]],
  );
  assert.equal(entries[1]!.statement.previous, entries[0]!.digest);
});

test('moved away it begins anew; a link, a folder or a file that cannot be read in its place is an error', async (t) => {
  const { path, add, read } = await stage(t);
  await add();
  await rm(path);
  await add({ revision: 'anew' });
  assert.equal((await read()).entries[0]!.statement.previous, null);
  await rm(path);
  await symlink('/etc/passwd', path);
  await assert.rejects(add(), { code: 'ELOOP' });
  await rm(path);
  await mkdir(path);
  await assert.rejects(add(), { code: 'EISDIR' });
});

test('a statement that another one has overtaken is refused', async (t) => {
  const { file, read } = await stage(t);
  const previous = await file.previous(1_000);
  await file.append(sampleStatement({ previous, revision: 'faster' }));
  const late = file.append(sampleStatement({ previous, revision: 'late' }));
  await assert.rejects(late, { code: 'moved-on' });
  assert.equal((await read()).entries.length, 1);
});

test('a clock that was set back breaks no link: the order is that of the lines', async (t) => {
  const { add } = await stage(t);
  await add({ time: '2038-01-01T00:00:00.000Z' });
  const text = await add({ time: '1970-01-01T00:00:00.000Z' });
  assert.deepEqual(readHistory(text).faults, []);
});

test('it is for its owner alone', async (t) => {
  const { path, add } = await stage(t);
  await add();
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});

test('full, it begins anew from null with the first statement about every certificate that is still valid', async (t) => {
  const longest = 12_000;
  const { path, add, read, said } = await stage(t, { longest });
  const about = (letter: string, notAfter: string) => ({
    certificates: [{ ...sampleStatement().certificates[0]!, sha256: letter.repeat(64), notAfter }],
  });
  const expired = about('a', '2026-03-31T00:00:00.000Z');
  const [b, c] = [about('b', '2026-05-01T00:00:00.000Z'), about('c', '2026-06-01T00:00:00.000Z')];
  const all: string[] = [];
  for (const [revision, change] of [
    ['1', expired],
    ['2', b],
    ['3', b],
    ['4', c],
  ] as const) {
    all.push(revision);
    await add({ ...change, revision });
  }
  for (let more = 5; !said('info').some(({ msg }) => /begins anew/.test(String(msg))); more++) {
    all.push(String(more));
    await add({ ...c, revision: String(more) });
    assert.ok((await stat(path)).size <= longest);
  }
  const { entries, faults } = await read();
  assert.deepEqual(faults, []);
  assert.equal(entries[0]!.statement.previous, null);
  assert.deepEqual(
    entries.map(({ statement }) => statement.revision),
    ['2', '4', all.at(-1)],
  );
  const before = readHistory(await readFile(`${path}.before`, 'utf8'));
  assert.deepEqual(
    before.entries.map(({ statement }) => statement.revision),
    all.slice(0, -1),
    'what was there is kept beside it',
  );
});

test('more certificates than there is room for: the newest are carried over, and the log says what is missing', async (t) => {
  const longest = 6_000;
  const { add, read, said, path } = await stage(t, { longest });
  for (let number = 10; number < 40; number++) {
    const [certificate] = sampleStatement().certificates;
    await add({ certificates: [{ ...certificate!, sha256: String(number).repeat(32) }] });
    assert.ok((await stat(path)).size <= longest);
  }
  assert.deepEqual((await read()).faults, []);
  assert.ok(said('warn').some(({ lost }) => Number(lost) > 0));
});

test('one statement that is longer than all the room is kept all the same', async (t) => {
  const { add, read } = await stage(t, { longest: 500 });
  await add({ revision: 'one' });
  await add({ revision: 'two' });
  const { entries, faults } = await read();
  assert.deepEqual(faults, []);
  assert.equal(entries.at(-1)!.statement.revision, 'two');
});

test('what chainOf makes is what the file would hold', async (t) => {
  const { path, file } = await stage(t);
  for (const statement of chainOf(3)) await file.append(statement);
  assert.equal(await readFile(path, 'utf8'), chainOf(3).map(historyLine).join(''));
});
