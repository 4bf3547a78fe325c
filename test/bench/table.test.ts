// The table says what was measured, what was not, and how far to believe it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { replaceSection } from '../../bench/docs.ts';
import { median, spread } from '../../bench/statistics.ts';
import { type Cell, type Report, renderNotes, renderTable } from '../../bench/table.ts';

const report = (cells: readonly Cell[]): Report => ({
  startedAt: '2026-01-02T03:04:05.000Z',
  machine: { processor: 'a processor', cores: 2, kernel: '6', node: 'v26', stolen: 0.012, loadAtStart: 0.5 },
  runs: 3,
  warmUpMs: 2_000,
  windowMs: 3_000,
  rows: [{ id: 'h1', title: 'requests', unit: 'µs/request' }],
  peers: [
    { id: 'ours', title: 'dstack-ingress', version: '1' },
    { id: 'nginx', title: 'nginx', version: 'nginx/1.22.1' },
  ],
  cells,
  leftOut: ['Caddy: caddy is not installed: apt-get install caddy'],
});

test('the median is the middle one, or between the middle two, in any order', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([10, 1, 2, 3]), 2.5);
  assert.equal(median([5]), 5);
});

test('the spread is relative to the median', () => {
  assert.equal(spread([90, 100, 120]), 0.3);
  assert.equal(spread([7]), 0);
});

test('a cell shows the median, and of the runs how ours divided by theirs: a slow run slows both', () => {
  const table = renderTable(
    report([
      { row: 'h1', peer: 'ours', values: [50, 100, 60] },
      { row: 'h1', peer: 'nginx', values: [100, 200, 100] },
    ]),
  );
  assert.equal(table.split('\n')[2], '| requests, µs/request | 60.0 | 100 (0.50) | 20 % |');
});

test('a row beside another one is divided by it', () => {
  const both = {
    ...report([
      { row: 'h1', peer: 'ours', values: [50, 100] },
      { row: 'logged', peer: 'ours', values: [55, 120] },
    ]),
    rows: [
      { id: 'h1', title: 'requests', unit: 'µs/request' },
      { id: 'logged', title: 'with logs', unit: 'µs/request', beside: 'h1' },
    ],
  };
  assert.equal(renderTable(both).split('\n')[3], '| with logs, µs/request | 87.5 (1.15) | – | 8.7 % |');
});

test('a peer that takes no part has a dash, one that failed says so and why', () => {
  const absent = report([{ row: 'h1', peer: 'ours', values: [50] }]);
  assert.match(renderTable(absent), /\| 50\.0 \| – \|/);
  const failed = report([
    { row: 'h1', peer: 'ours', values: [50] },
    { row: 'h1', peer: 'nginx', values: [], failure: 'status 403 instead of 200' },
  ]);
  assert.match(renderTable(failed), /\| 50\.0 \| failed \|/);
  assert.match(renderNotes(failed), /FAILED: nginx, h1: status 403 instead of 200/);
});

test('without ours there are no ratios', () => {
  const table = renderTable(report([{ row: 'h1', peer: 'nginx', values: [100] }]));
  assert.match(table, /\| – \| 100 \|/);
});

test('the notes tell the noise, and what was left out', () => {
  const notes = renderNotes(report([{ row: 'h1', peer: 'ours', values: [90, 100, 120] }]));
  assert.match(notes, /30 % apart in the median and 30 % at worst/);
  assert.match(notes, /1\.2 % of the time stolen/);
  assert.match(notes, /left out: Caddy: .*apt-get install caddy/);
});

test('the noise of a single run is not claimed to be none', () => {
  assert.match(renderNotes(report([{ row: 'h1', peer: 'ours', values: [90] }])), /unknown from a single run/);
});

test('a new table replaces the old one and nothing else', () => {
  const page = 'before\n<!-- bench:table -->\nold\n<!-- /bench:table -->\nafter';
  const once = replaceSection(page, 'table', 'new');
  assert.equal(once, 'before\n<!-- bench:table -->\n\nnew\n\n<!-- /bench:table -->\nafter');
  assert.equal(replaceSection(once, 'table', 'new'), once);
});

test('a page without the markers is not written to', () => {
  assert.throws(() => replaceSection('text', 'table', 'new'), /has no <!-- bench:table -->/);
  assert.throws(
    () => replaceSection('<!-- /bench:table --><!-- bench:table -->', 'table', 'new'),
    /has no <!-- bench:table --> followed by/,
  );
});
