// Comparing passwords in a process of its own: the process that serves goes on, whatever is asked and whatever becomes of it.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { createPasswords } from '../../../proxy/exchange/passwords.ts';
import { createLog } from '../../../src/lib/log.ts';
import { createPasswordProcess, type PasswordProcessOptions } from '../../../src/workers/password-process.ts';
import { forkPasswordChecker } from '../../../src/workers/process.ts';

const log = createLog({ level: 'silent' });
const HASH = '$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a';

function started(options: Partial<PasswordProcessOptions> = {}) {
  const children: ChildProcess[] = [];
  const fork = () => {
    const child = options.fork?.() ?? forkPasswordChecker();
    children.push(child);
    return child;
  };
  return { children, ...createPasswordProcess({ log, ...options, fork }) };
}

test('ten thousand wrong passwords do not stop the clock of the process that asks', async (t) => {
  const { compare, close, children } = started();
  t.after(close);
  const passwords = createPasswords(undefined, compare);
  assert.equal(await passwords.check(HASH, 'secret'), 'right');
  let turns = 0;
  let flooding = true;
  const turn = () => {
    turns++;
    if (flooding) setImmediate(turn);
  };
  setImmediate(turn);
  const answers = { wrong: 0, busy: 0 };
  for (let i = 0; i < 10_000; i++) {
    void passwords.check(HASH, `wrong ${i}`).then((outcome) => {
      assert.notEqual(outcome, 'right');
      answers[outcome as 'wrong' | 'busy']++;
    });
    if (i % 100 === 99) await new Promise((resolve) => setTimeout(resolve, 1));
    // Who has been here before comes in meanwhile.
    if (i % 100 === 99) assert.equal(await passwords.check(HASH, 'secret'), 'right');
  }
  assert.ok(answers.busy > 8_000, `${answers.busy} refused`);
  while (answers.wrong + answers.busy < 10_000) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(answers.wrong >= 64);
  const before = turns;
  assert.equal(await passwords.check(HASH, 'wrong'), 'wrong');
  flooding = false;
  // Computed here, it would be done within one turn of the loop.
  assert.ok(turns - before > 10, `${turns - before} turns`);
  assert.equal(children.length, 1);
});

test('the process starts with the first question, ends when idle, and is there again for the next', async (t) => {
  const { compare, close, children } = started({ idleMs: 1 });
  t.after(close);
  assert.equal(children.length, 0);
  assert.equal(await compare(HASH, 'secret'), true);
  if (children[0]!.signalCode === null) await once(children[0]!, 'exit');
  assert.equal(await compare(HASH, 'wrong'), false);
  assert.equal(children.length, 2);
});

test('a process that dies lets nobody through, and the next question starts another', async (t) => {
  const { compare, close, children } = started();
  t.after(close);
  assert.equal(await compare(HASH, 'secret'), true);
  children[0]!.kill('SIGSTOP');
  const answer = compare(HASH, 'secret');
  children[0]!.kill('SIGKILL');
  assert.equal(await answer, undefined);
  assert.equal(await compare(HASH, 'secret'), true);
});

test('one that does not answer, or answers what was not asked, is ended', async (t) => {
  const liar = `
    const { Socket } = require('node:net');
    const pipe = new Socket({ fd: 3, readable: true, writable: true });
    pipe.once('data', () => {
      const body = Buffer.from('{"question":99,"right":true}');
      const head = Buffer.alloc(4);
      head.writeUInt32BE(body.length);
      pipe.write(Buffer.concat([head, body]));
    });`;
  for (const program of [liar, 'setInterval(() => {}, 1000)', 'nothing is this']) {
    const { compare, close, children } = started({
      patienceMs: 2_000,
      fork: () => spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] }),
    });
    t.after(close);
    assert.equal(await compare(HASH, 'secret'), undefined);
    if (children[0]!.exitCode === null && children[0]!.signalCode === null) await once(children[0]!, 'exit');
  }
});

test('after the end nothing is compared', async () => {
  const { compare, close, children } = started();
  const asked = compare(HASH, 'secret');
  close();
  assert.equal(await asked, undefined);
  assert.equal(await compare(HASH, 'secret'), undefined);
  assert.equal(children.length, 1);
});

test('the process reads no file, and starts none', { skip: process.platform !== 'linux' }, async (t) => {
  const { compare, close, children } = started();
  t.after(close);
  assert.equal(await compare(HASH, 'secret'), true);
  const { spawnargs } = children[0]!;
  assert.ok(spawnargs.includes('--permission'), spawnargs.join(' '));
  assert.ok(!spawnargs.some((flag) => /--allow-(worker|child-process|fs-write|addons)/.test(flag)));
});
