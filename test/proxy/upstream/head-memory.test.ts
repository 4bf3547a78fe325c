// What is remembered of heads that ended sessions, and for how long.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createHeadMemory } from '../../../proxy/upstream/head-memory.ts';

describe('the size of heads over which an upstream has ended a session', () => {
  it('is remembered for ten minutes, rounded down, so that each octet less is not tried anew', () => {
    let now = 0;
    const memory = createHeadMemory(() => now);
    assert.ok(!memory.refuses(100_000));
    memory.refused(12_000);
    assert.deepEqual(
      [13_000, 12_000, 11_264, 11_263].map((size) => memory.refuses(size)),
      [true, true, true, false],
    );
    now = 600_001;
    assert.ok(!memory.refuses(12_000));
  });

  it('is not believed of one session that was lost without a word, nor of two with a large head answered in between', () => {
    const memory = createHeadMemory(() => 0);
    memory.suspected(8_192);
    assert.ok(!memory.refuses(8_192));
    memory.taken();
    memory.suspected(8_192);
    assert.ok(!memory.refuses(8_192));
    memory.suspected(8_192);
    assert.ok(memory.refuses(8_192));
  });
});
