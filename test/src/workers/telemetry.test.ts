// What a worker tells of itself: how often, how much at once, and that nothing is told twice or forgotten.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { LONGEST_FROM_WORKER } from '../../../src/workers/channel.ts';
import type { Block } from '../../../src/workers/counters.ts';
import { FromWorkerSchema, type Telemetry, type WorkerEvent } from '../../../src/workers/messages.ts';
import { createTelemetrySender } from '../../../src/workers/telemetry.ts';
import { createTotals } from '../../../src/workers/totals.ts';

const block = (size: number): Block => ({
  layout: {
    id: 'numbers',
    version: 1,
    names: Array.from({ length: size }, (_, i) => `n${i}`),
    gauges: ['n1'],
  },
  numbers: new Float64Array(size),
});

const failing = (upstream: string): WorkerEvent => ({
  kind: 'upstream',
  upstream,
  state: 'failing',
  failed: 0,
});

function sending(t: TestContext, blocks: readonly Block[] = []) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let now = 0;
  const sent: { at: number; message: Telemetry }[] = [];
  const sender = createTelemetrySender({
    blocks,
    send: (message) => sent.push({ at: now, message: structuredClone(message) }),
    now: () => now,
  });
  const pass = (ms: number) => {
    for (let left = ms; left > 0; left--) {
      now++;
      t.mock.timers.tick(1);
    }
  };
  return { sender, sent, pass };
}

test('an event is told at once, and what follows it within a second is told together', (t) => {
  const { sender, sent, pass } = sending(t);
  pass(5_300);
  sender.report(failing('a'));
  pass(1);
  for (const name of ['b', 'c', 'd']) sender.report(failing(name));
  pass(3_000);
  assert.deepEqual(
    sent.map(({ at, message }) => [at, message.events.map(({ upstream }) => upstream).join('')]),
    [
      [5_301, 'a'],
      [6_301, 'bcd'],
    ],
  );
});

test('numbers are sent once a second, only those that changed, and nothing is sent where none did', (t) => {
  const counted = block(6);
  const { sent, pass } = sending(t, [counted]);
  pass(10_000);
  assert.equal(sent.length, 0);
  counted.numbers.set([5, 0, 0, 7, 8, 0]);
  pass(1_000);
  counted.numbers[4] = 9;
  pass(5_000);
  assert.deepEqual(
    sent.map(({ message }) => message.counters.map(({ ranges }) => ranges)),
    [
      [
        [
          [0, [5]],
          [3, [7, 8]],
        ],
      ],
      [[[4, [9]]]],
    ],
  );
});

test('however much there is to tell, each message fits, one leaves a second, and in the end all was told', (t) => {
  const counted = block(10_000);
  const { sender, sent, pass } = sending(t, [counted]);
  counted.numbers.forEach((_, at) => {
    // No two neighbours change: every number is a range of its own.
    if (at % 2 === 0) counted.numbers[at] = Number.MAX_SAFE_INTEGER / 3;
  });
  const longest = { reason: '\u0000'.repeat(2_000), code: 'x'.repeat(100) as never };
  for (let i = 0; i < 20; i++)
    sender.report({ ...failing('\u0000'.repeat(1_998) + String(i).padStart(2, '0')), ...longest });
  pass(60_000);
  const totals = createTotals([counted.layout]);
  const worker = {};
  for (const [i, { at, message }] of sent.entries()) {
    assert.ok(Buffer.byteLength(JSON.stringify({ telemetry: message })) <= LONGEST_FROM_WORKER);
    assert.ok(FromWorkerSchema.safeParse({ telemetry: message }).success);
    if (i > 0) assert.ok(at - sent[i - 1]!.at >= 1_000);
    for (const report of message.counters) assert.equal(totals.take(worker, report), undefined);
  }
  assert.equal(sent.flatMap(({ message }) => message.events).length, 20);
  assert.deepEqual(Object.values(totals.of(worker).numbers!), [...counted.numbers]);
});

test('events that find no room are counted, and the count is told', (t) => {
  const { sender, sent } = sending(t);
  for (let i = 0; i < 5_003; i++) sender.report(failing('a'));
  sender.flush();
  assert.equal(sent.flatMap(({ message }) => message.events).length, 5_000);
  assert.deepEqual(
    sent.map(({ message }) => message.lost).filter((lost) => lost > 0),
    [3],
  );
});

test('totals add up all workers; of one that has ended they keep what only rises', () => {
  const { layout } = block(3);
  const totals = createTotals([layout]);
  const [one, two] = [{}, {}];
  const take = (worker: object, ...numbers: number[]) =>
    assert.equal(totals.take(worker, { block: 'numbers', version: 1, ranges: [[0, numbers]] }), undefined);
  take(one, 10, 3, 1);
  take(two, 5, 2);
  take(one, 11, 1);
  assert.deepEqual(totals.all().numbers, { n0: 16, n1: 3, n2: 1 });
  totals.gone(one);
  assert.deepEqual(totals.all().numbers, { n0: 16, n1: 2, n2: 1 });
  assert.deepEqual(totals.of(one).numbers, { n0: 0, n1: 0, n2: 0 });
});
