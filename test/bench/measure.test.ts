// CPU time and memory are those of the whole process tree, whatever its members are called.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, test } from 'node:test';
import { cpuTimeUs, memoryKiB, parseStat, processTree } from '../../bench/measure.ts';

const children: ChildProcess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  }
});

/** Runs a program text in Node; resolves with its first line of output. */
async function run(text: string): Promise<{ pid: number; told: string }> {
  const child = spawn(process.execPath, ['-e', text], { stdio: ['pipe', 'pipe', 'inherit'] });
  children.push(child);
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return { pid: child.pid!, told: line.toString().trim() };
}

const BURN_THEN_STAY = `
  const burnt = () => { const { user, system } = process.cpuUsage(); return user + system; };
  while (burnt() < 300_000);
  console.log(burnt());
  process.stdin.resume();`;

test('a line of /proc/PID/stat is read to its parent and times', () => {
  const line = '77 (nginx) S 12 77 77 0 -1 4194560 1 2 3 4 150 25 7 3 20 0 1 0 123 456 789';
  assert.deepEqual(parseStat(line), { pid: 77, parent: 12, ticks: 150 + 25 + 7 + 3 });
});

test('a process that calls itself ") R 1 (" is still read to the right fields', () => {
  const line = '77 () R 1 (x) S 12 77 77 0 -1 4194560 1 2 3 4 150 25 7 3 20 0 1 0 123 456 789';
  assert.deepEqual(parseStat(line), { pid: 77, parent: 12, ticks: 185 });
});

test('what is not such a line is refused', () => {
  for (const line of ['', 'nonsense', '77 (nginx) S 12 77', '(nginx) S 12']) {
    assert.throws(() => parseStat(line), /not a line of/);
  }
});

test('a process has used at least the CPU time that it counted itself, to the tick', async () => {
  const { pid, told } = await run(BURN_THEN_STAY);
  // User and system time are each cut off to 10 ms.
  assert.ok(cpuTimeUs(pid) >= Number(told) - 20_000, `${cpuTimeUs(pid)} is less than ${told}`);
});

test('the CPU time of children counts while they live and after they have ended', async () => {
  const parent = (child: string) => `
    const { spawn } = require('node:child_process');
    const child = spawn(process.execPath, ['-e', ${JSON.stringify(child)}], { stdio: ['pipe', 'pipe', 'inherit'] });
    const told = [];
    child.stdout.on('data', (chunk) => told.push(chunk));
    ${child === BURN_THEN_STAY ? "child.stdout.on('data', (chunk) => console.log(String(chunk)));" : "child.on('close', () => console.log(Buffer.concat(told).toString()));"}
    process.stdin.resume();`;
  const living = await run(parent(BURN_THEN_STAY));
  assert.equal(processTree(living.pid).length, 2);
  assert.ok(cpuTimeUs(living.pid) >= Number(living.told) - 40_000);

  const ended = await run(parent(BURN_THEN_STAY.replace('process.stdin.resume();', '')));
  assert.equal(processTree(ended.pid).length, 1);
  assert.ok(cpuTimeUs(ended.pid) >= Number(ended.told) - 40_000);
});

test('memory that a process fills shows', async () => {
  const small = await run(`console.log('up'); process.stdin.resume();`);
  const large = await run(
    `globalThis.kept = Buffer.alloc(64 << 20, 1); console.log('up'); process.stdin.resume();`,
  );
  assert.ok(memoryKiB(large.pid) - memoryKiB(small.pid) > 48 * 1_024);
});

test('a process that has ended is not taken for one that costs nothing', async () => {
  const { pid } = await run(`console.log('up'); process.stdin.resume();`);
  const child = children.at(-1)!;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
  assert.throws(() => cpuTimeUs(pid), /has ended/);
});
