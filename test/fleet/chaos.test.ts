// A short chaos over a real server: kills, cut links and a restart of the store while visitors come; the long ones are run by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chaos, flawsIn, plan } from './chaos-run.ts';

test('a seed decides what happens, and when', () => {
  const options = { engine: 's3', seconds: 600, replicas: 4 };
  assert.deepEqual(plan({ ...options, seed: 3 }), plan({ ...options, seed: 3 }));
  assert.notDeepEqual(plan({ ...options, seed: 3 }), plan({ ...options, seed: 4 }));
  assert.equal(
    new Set(plan({ ...options, seed: 3 }).map(({ fault }) => fault)).size,
    12,
    'each kind comes up',
  );
});

test('a history in which one replica has written over another, or gone back, is found out', () => {
  const of = (...counters: number[]) =>
    flawsIn(counters.map((counter) => ({ name: 'd/ledger.json', counter, text: '{}' })));
  assert.deepEqual(of(1, 2, 3), []);
  assert.match(String(of(1, 2, 2)), /lost update/);
  assert.match(String(of(1, 2, 1)), /lost update/);
  const order = (counter: number, key: string) => ({
    name: 'd/orders/a.json',
    counter,
    text: JSON.stringify({ url: 'https://ca.example/1', key }),
  });
  assert.match(String(flawsIn([order(1, 'one'), order(2, 'other')])), /two keys/);
});

test('replicas that are killed and cut off lose no update, order no more than is explained, and fail no visitor but their own', async () => {
  const outcome = await chaos({
    engine: 'redis',
    seed: 11,
    seconds: 8,
    replicas: 2,
    faults: ['kill', 'closed link', 'store restarts', 'slow link'],
  });
  assert.deepEqual(outcome.wrong, []);
  assert.ok(outcome.visits.done > 0 && outcome.written > 5 && outcome.operations > 0);
});
