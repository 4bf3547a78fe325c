// The command line of the benchmark means one thing or is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { choose, parseOptions, UsageError } from '../../bench/options.ts';

const items = [{ id: 'h1' }, { id: 'h1-logged' }, { id: 'nginx-1.x' }, { id: 'nginx-tuned' }];
const chosen = (...names: string[]) => choose(items, names, 'row').map(({ id }) => id);

test('without options everything is measured three times', () => {
  const options = parseOptions([]);
  assert.equal(options.mode, 'table');
  assert.equal(options.runs, 3);
  assert.equal(options.only, undefined);
  assert.equal(options.peers, undefined);
});

test('rows and peers are lists, seconds become milliseconds', () => {
  const options = parseOptions([
    '--only',
    'h1,h2',
    '--peers',
    'nginx, ours',
    '--runs',
    '5',
    '--seconds',
    '0.5',
  ]);
  assert.deepEqual(options.only, ['h1', 'h2']);
  assert.deepEqual(options.peers, ['nginx', 'ours']);
  assert.equal(options.runs, 5);
  assert.equal(options.windowMs, 500);
});

test('what makes no sense is refused', () => {
  const senseless = [
    ['--runs', '0'],
    ['--runs', '1.5'],
    ['--runs', 'many'],
    ['--seconds', '-1'],
    ['--seconds', ''],
    ['--only', 'h1,,h2'],
    ['--unknown'],
    ['h1'],
    ['--connections', '--memory'],
  ];
  for (const args of senseless) assert.throws(() => parseOptions(args), UsageError, args.join(' '));
});

test('a name stands for itself, and for all that begin with it if it is nobody else’s', () => {
  assert.deepEqual(chosen('h1'), ['h1']);
  assert.deepEqual(chosen('nginx'), ['nginx-1.x', 'nginx-tuned']);
  assert.deepEqual(chosen('nginx-tuned', 'h1-logged'), ['h1-logged', 'nginx-tuned']);
});

test('a name that nothing has is refused with those that there are', () => {
  assert.throws(() => chosen('ngin'), /no row ngin; there are h1, h1-logged/);
});
