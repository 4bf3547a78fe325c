// How much more a request costs with many connections: told of each run by itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONNECTIONS, type Costs, renderConnections, seriesOf } from '../../bench/connections.ts';

/** Costs of 10 µs but for 64 and 4,096 connections. */
function costs(few: number[], many: number[]): Costs {
  const other = few.map(() => 10);
  const runsOf = (connections: number) => (connections === 64 ? few : connections === 4_096 ? many : other);
  return {
    title: 'ours',
    points: CONNECTIONS.map((connections) => ({ connections, runs: runsOf(connections) })),
  };
}

test('the growth is the median of what each run says, not that of the medians', () => {
  // The second run was slow as a whole, the third at its beginning.
  const text = renderConnections([costs([40, 80, 60], [44, 96, 60])]);
  assert.equal(
    text.split('\n').at(-1),
    '| ours | 10.0 | 10.0 | 10.0 | 60.0 | 10.0 | 10.0 | 60.0 | +10 % (+0 % to +20 %) |',
  );
});

test('a single run has no range, and a cost may shrink', () => {
  assert.match(renderConnections([costs([50], [40])]), /\| 50\.0 .*\| 40\.0 \| −20 % \|$/);
});

test('the plot shows medians', () => {
  const [series] = seriesOf([costs([40, 80, 60], [44, 96, 61])]);
  assert.deepEqual(series?.points.at(-1), { x: 4_096, y: 61 });
  assert.equal(series?.points.length, CONNECTIONS.length);
});
