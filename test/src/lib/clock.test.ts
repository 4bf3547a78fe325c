// The clock: a sleep may be longer than a timer can be, and ends when it is told to.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';

test('a sleep of a month does not end at once', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let ended = false;
  const sleep = systemClock.sleep(31 * 86_400_000).then(() => {
    ended = true;
  });
  t.mock.timers.tick(2 ** 31 - 1);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(ended, false, '24.8 days are not a month');
  t.mock.timers.tick(31 * 86_400_000 - (2 ** 31 - 1));
  await sleep;
  assert.equal(ended, true);
});

test('an aborted sleep rejects with the reason and leaves no timer behind', async () => {
  const stop = new AbortController();
  const sleep = systemClock.sleep(3_600_000, stop.signal);
  stop.abort(new Error('enough'));
  await assert.rejects(sleep, /enough/);
  await assert.rejects(systemClock.sleep(1, stop.signal), /enough/);
});
