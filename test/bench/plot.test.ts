// The plot begins at zero, stays in its frame and is well-formed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { niceSteps, renderPlot } from '../../bench/plot.ts';

const text = { title: 'a < b & c', x: 'connections', y: 'µs' };

test('steps are round, begin at 0 and reach the largest value', () => {
  assert.deepEqual(niceSteps(47), [0, 10, 20, 30, 40, 50]);
  assert.deepEqual(niceSteps(100), [0, 20, 40, 60, 80, 100]);
  assert.deepEqual(niceSteps(101), [0, 50, 100, 150]);
  assert.deepEqual(niceSteps(0.4), [0, 0.1, 0.2, 0.30000000000000004, 0.4]);
});

test('every point lies inside the picture, equal values at one height', () => {
  const points = [1, 64, 4_096].map((x) => ({ x, y: 50 }));
  const svg = renderPlot([{ title: 'ours', points }], text);
  const line = /polyline points="([^"]+)"/.exec(svg)?.[1] ?? '';
  const at = line.split(' ').map((pair) => pair.split(',').map(Number));
  assert.equal(at.length, 3);
  assert.equal(new Set(at.map(([, y]) => y)).size, 1);
  // 64 is half of the way from 1 to 4,096 on a logarithmic axis.
  assert.ok(Math.abs(at[1]![0]! - (at[0]![0]! + at[2]![0]!) / 2) < 0.2);
  for (const [x, y] of at) assert.ok(x! > 0 && x! < 760 && y! > 0 && y! < 420);
});

test('titles cannot break the markup', () => {
  const svg = renderPlot([{ title: '<script>', points: [{ x: 1, y: 1 }] }], text);
  assert.match(svg, /a &lt; b &amp; c/);
  assert.doesNotMatch(svg, /<script>/);
});
