// 300 generated files before nginx and before the ingress. `node test/side-by-side/run.ts SEED COUNT` compares as many as you like.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BATCH, compareGenerated } from './generated.ts';

const SEED = 20_261_201;

for (let batch = 0; batch < 300 / BATCH; batch++)
  test(`files made at random are served alike by nginx and by the ingress: batch ${batch + 1}`, async () => {
    const found = await compareGenerated(SEED + batch, BATCH, 6);
    assert.deepEqual(
      found.map(({ conf, message }) => `${message}\n${conf}`),
      [],
    );
  });
