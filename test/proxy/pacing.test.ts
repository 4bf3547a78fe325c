// Few requests begin in one turn of the event loop; the others follow in the order in which they came.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { createPacer } from '../../proxy/pacing.ts';

/** A pacer, and what happened turn by turn: the items that began, and 'begun'. */
function paced() {
  let turn: (number | 'begun')[] = [];
  const pacer = createPacer<number>(
    (item) => turn.push(item),
    () => turn.push('begun'),
  );
  return {
    ask(item: number) {
      if (pacer.admits(item)) turn.push(item);
    },
    /** What has happened since it was last asked. */
    take() {
      const taken = turn;
      turn = [];
      return taken;
    },
  };
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);

test('sixteen begin at once, and the others in the turns that follow, in order', async () => {
  const line = paced();
  for (const item of range(0, 40)) line.ask(item);
  assert.deepEqual(line.take(), range(0, 16));
  // This turn has had its sixteen.
  await nextTurn();
  assert.deepEqual(line.take(), []);
  await nextTurn();
  assert.deepEqual(line.take(), [...range(16, 32), 'begun']);
  await nextTurn();
  assert.deepEqual(line.take(), [...range(32, 40), 'begun']);
  await nextTurn();
  assert.deepEqual(line.take(), []);
});

test('a few are never kept waiting, however many turns they come in', async () => {
  const line = paced();
  for (const turn of range(0, 10)) {
    for (const item of range(0, 16)) line.ask(turn * 16 + item);
    assert.deepEqual(line.take(), range(turn * 16, turn * 16 + 16));
    await nextTurn();
    assert.deepEqual(line.take(), []);
  }
});

test('who comes later does not pass those in line', async () => {
  const line = paced();
  for (const item of range(0, 18)) line.ask(item);
  await nextTurn();
  line.take();
  line.ask(18);
  assert.deepEqual(line.take(), []);
  await nextTurn();
  assert.deepEqual(line.take(), [16, 17, 18, 'begun']);
});

test('of a crowd eight begin in a turn, and all do in the end', async () => {
  const line = paced();
  for (const item of range(0, 5_000)) line.ask(item);
  const began: number[] = line.take() as number[];
  const turns: number[] = [];
  while (began.length < 5_000) {
    await nextTurn();
    const turn = line.take().filter((item) => item !== 'begun');
    turns.push(turn.length);
    began.push(...turn);
  }
  assert.deepEqual(began, range(0, 5_000));
  assert.ok(
    turns.slice(1, 600).every((count) => count === 8),
    `turns of ${new Set(turns.slice(1, 600))}`,
  );
  assert.equal(Math.max(...turns), 16);
});

test('who begins in turn may stand in line again, behind the others', async () => {
  const began: number[] = [];
  const pacer = createPacer<number>(
    (item) => {
      began.push(item);
      if (item < 100) assert.equal(pacer.admits(item + 100), false);
    },
    () => {},
  );
  for (const item of range(0, 48)) pacer.admits(item);
  for (let turn = 0; turn < 10; turn++) await nextTurn();
  assert.deepEqual(began, [...range(16, 48), ...range(116, 148)]);
});
