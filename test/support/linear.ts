// Whether something takes time in proportion to its input: by CPU time, which others on the machine do not spend.

import assert from 'node:assert/strict';

/** More than this for twice the input is not linear; a square would be four. */
const MOST = 2.6;
const RUNS = 5;

/**
 * `run(n)` is called with `size` and twice that, several times; the quickest of each counts. Tries again if it fails: a busy
 * machine can make linear cost look worse, but it cannot make square cost look linear.
 */
export function assertLinear(run: (n: number) => void, size: number): void {
  run(Math.ceil(size / 8));
  let ratio = 0;
  for (let tries = 0; tries < 6; tries++) {
    ratio = quickest(run, 2 * size) / quickest(run, size);
    if (ratio <= MOST) return;
  }
  assert.fail(`twice the input took ${ratio.toFixed(2)} times the CPU time`);
}

function quickest(run: (n: number) => void, n: number): number {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < RUNS; i++) {
    const before = process.cpuUsage();
    run(n);
    const { user, system } = process.cpuUsage(before);
    best = Math.min(best, Math.max(1, user + system));
  }
  return best;
}
