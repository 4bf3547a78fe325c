// A name's zone is the longest one that the account has, whatever the public suffix.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createZoneCache } from '../../dns/providers/zone-cache.ts';
import { longestZone, nameInZone, possibleZones } from '../../dns/zone.ts';

const zones = (...names: string[]) => names.map((name) => ({ name }));

test('the longest zone wins over its parents', () => {
  assert.equal(longestZone('a.b.example.com', zones('example.com', 'b.example.com'))?.name, 'b.example.com');
});

test('a zone under a two-label public suffix is found', () => {
  assert.equal(longestZone('app.example.co.uk', zones('example.co.uk'))?.name, 'example.co.uk');
});

test('a zone whose name merely ends alike is not taken', () => {
  assert.equal(longestZone('app.badexample.com', zones('example.com')), undefined);
});

test('a wildcard belongs to the zone of its base', () => {
  assert.deepEqual(possibleZones('*.example.com'), ['example.com', 'com']);
  assert.equal(nameInZone('*.app.example.com', 'example.com'), '*.app');
  assert.equal(nameInZone('example.com', 'example.com'), '');
});

test('a zone found while the clock was ahead is looked up again as soon as any other', async () => {
  let nowMs = 20 * 86_400_000;
  let passedMs = 0;
  const clock = { now: () => new Date(nowMs), monotonicMs: () => passedMs, sleep: async () => {} };
  let lookups = 0;
  const cache = createZoneCache(async () => {
    lookups += 1;
    return 'zone';
  }, clock);
  const use = () => cache.within('a.example', async (zone) => zone);
  await use();
  nowMs = 0;
  await use();
  assert.equal(lookups, 1);
  passedMs = 5 * 60_000 + 1;
  await use();
  assert.equal(lookups, 2);
});
