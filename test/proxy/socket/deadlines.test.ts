// Deadlines on one timer: moved by signs of life, suspended, forgotten.

import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';

describe('a deadline', () => {
  it('expires once, when its time has come and not before', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    let time = 0;
    const deadlines = createDeadlines(() => time, 10);
    const expired = mock.fn();
    deadlines.watch({ at: 100, expired });
    const pass = (ms: number) => {
      time += ms;
      t.mock.timers.tick(ms);
    };
    pass(90);
    assert.equal(expired.mock.callCount(), 0);
    pass(10);
    pass(50);
    assert.equal(expired.mock.callCount(), 1);
  });

  it('that is moved waits for the later time, and one that is forgotten for ever', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    let time = 0;
    const deadlines = createDeadlines(() => time, 10);
    const moved = { at: 20, expired: mock.fn() };
    const forgotten = { at: 20, expired: mock.fn() };
    deadlines.watch(moved);
    deadlines.watch(forgotten);
    moved.at = 200;
    deadlines.forget(forgotten);
    time = 150;
    t.mock.timers.tick(150);
    assert.equal(moved.expired.mock.callCount(), 0);
    time = 200;
    t.mock.timers.tick(50);
    assert.equal(moved.expired.mock.callCount(), 1);
    assert.equal(forgotten.expired.mock.callCount(), 0);
  });

  it('may be watched again from its own expiry', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    let time = 0;
    const deadlines = createDeadlines(() => time, 10);
    const seen: number[] = [];
    const deadline = {
      at: 10,
      expired: () => {
        seen.push(time);
        deadline.at = time + 10;
        if (seen.length < 3) deadlines.watch(deadline);
      },
    };
    deadlines.watch(deadline);
    for (; time < 100; time += 10) t.mock.timers.tick(10);
    assert.equal(seen.length, 3);
  });

  it('what one read brings has one moment, and the next read has another', () => {
    let reads = 0;
    const deadlines = createDeadlines(() => ++reads);
    assert.equal(deadlines.instant(), 1);
    assert.equal(deadlines.instant(), 2, 'outside of a read the clock itself');
    deadlines.enter();
    assert.equal(deadlines.instant(), 3);
    deadlines.enter();
    assert.equal(deadlines.instant(), 3);
    deadlines.leave();
    assert.equal(deadlines.instant(), 3, 'still inside of the outer one');
    assert.equal(deadlines.now(), 4, 'now() is never of before');
    deadlines.leave();
    deadlines.enter();
    assert.equal(deadlines.instant(), 5);
    deadlines.leave();
  });
});
