// When a worker collects what a burst has left.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectWhenIdle } from '../../../src/workers/idle-collection.ts';

const MiB = 1024 * 1024;

test('what a burst has left is collected once the process is quiet, and only if it is worth it', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  let now = { bytes: 20 * MiB, cpuUs: 0 };
  let collections = 0;
  const stop = collectWhenIdle({
    everyMs: 1_000,
    figures: () => now,
    collect: () => {
      collections++;
      now = { ...now, bytes: 25 * MiB };
    },
  });
  const look = (bytes: number, cpuUs: number) => {
    now = { bytes, cpuUs: now.cpuUs + cpuUs };
    t.mock.timers.tick(1_000);
    return collections;
  };
  assert.equal(look(35 * MiB, 0), 0, 'too little');
  assert.equal(look(90 * MiB, 600_000), 0, 'busy');
  assert.equal(look(90 * MiB, 1_000), 1, 'quiet');
  assert.equal(look(40 * MiB, 1_000), 1, 'what is left is alive');
  assert.equal(look(42 * MiB, 1_000), 2);
  stop();
});
