// Every parser that reads bytes of strangers keeps its promises, for some seconds of generated input each; run.ts takes longer.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fuzz, growth } from './fuzz.ts';
import { targets } from './targets/all.ts';

const SECONDS = Number(process.env.FUZZ_SECONDS ?? 1);
/** What is linear grows by 4, what is quadratic by 16. */
const MOST_GROWTH = 9;

for (const target of targets) {
  describe(target.name, () => {
    it('keeps its promises whatever it is given', async (t) => {
      const seed = Date.now() & 0x7fffffff;
      const { runs, failure } = await fuzz(target, SECONDS * 1_000, seed);
      t.diagnostic(`${runs} inputs, seed ${seed}`);
      assert.equal(failure, undefined);
      assert.ok(runs > 30, `only ${runs} inputs`);
    });
    for (const family of Object.keys(target.growing)) {
      it(`costs four times as much for four times as much: ${family}`, async () => {
        let times = Number.POSITIVE_INFINITY;
        // A busy machine can make linear cost look worse. It cannot make quadratic cost look linear.
        for (let attempt = 0; attempt < 6 && times >= MOST_GROWTH; attempt++)
          times = Math.min(times, await growth(target, family));
        assert.ok(times < MOST_GROWTH, `${times.toFixed(1)} times`);
      });
    }
  });
}
