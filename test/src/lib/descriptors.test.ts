// The limit of file descriptors, as the system tells it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { descriptorLimit } from '../../../src/lib/descriptors.ts';

test('what cannot be read, says nothing, or sets no limit is not known', () => {
  const unreadable = () => {
    throw new Error('no such file');
  };
  assert.equal(descriptorLimit(unreadable), 0);
  assert.equal(
    descriptorLimit(() => ''),
    0,
  );
  assert.equal(
    descriptorLimit(() => 'Max open files            unlimited            unlimited            files\n'),
    0,
  );
});

test('the soft limit counts', () => {
  assert.equal(
    descriptorLimit(() => 'Max open files            1024                 4096                 files\n'),
    1024,
  );
  assert.ok(descriptorLimit() > 0);
});
