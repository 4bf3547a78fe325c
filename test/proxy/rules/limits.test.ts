// Limits hold to the request, with two workers too, and what a dead worker held is free again.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { compile } from '../../../proxy/rules/compile.ts';
import { type Charge, createBuckets, createRefusals, createSeats } from '../../../proxy/rules/limits.ts';
import { ask, limitsOf, prefix, siteOf, t, toUp } from './driver.ts';

const perSecond = (count: number) => [{ perThousandSeconds: count * 1000, maxKeys: 1_000 }];
const charge = (burst: number, delay = burst, key = 'ann'): Charge => ({ zone: 0, key, burst, delay });

describe('a limit of requests', () => {
  test('lets one and its burst through at once, then one for each that has leaked', () => {
    const buckets = createBuckets(perSecond(10));
    const passed = (now: number, tries: number) =>
      Array.from({ length: tries }, () => buckets.charge([charge(5)], now)).filter(({ passes }) => passes)
        .length;
    assert.equal(passed(0, 100), 6);
    assert.equal(passed(99, 100), 0);
    assert.equal(passed(100, 100), 1);
    assert.equal(passed(1_000, 100), 6);
  });

  test('makes the burst wait its turn where it may not pass at once', () => {
    const buckets = createBuckets(perSecond(10));
    const waits = Array.from({ length: 4 }, () => buckets.charge([charge(3, 1)], 0));
    assert.deepEqual(
      waits.map((verdict) => verdict.passes && verdict.waitMs),
      [0, 0, 100, 200],
    );
  });

  test('counts each key by itself, and nothing for what another limit refuses', () => {
    const buckets = createBuckets([...perSecond(1), ...perSecond(1)]);
    const both = [charge(0), { ...charge(5), zone: 1 }];
    assert.equal(buckets.charge(both, 0).passes, true);
    for (let i = 0; i < 10; i++) assert.equal(buckets.charge(both, 0).passes, false);
    const second = Array.from({ length: 10 }, () => buckets.charge([{ ...charge(5), zone: 1 }], 0));
    assert.equal(second.filter(({ passes }) => passes).length, 5);
    assert.equal(buckets.charge([charge(0, 0, 'bob')], 0).passes, true);
  });

  test('forgets the key that was unused for longest when there are too many', () => {
    const buckets = createBuckets([{ perThousandSeconds: 1, maxKeys: 2 }]);
    for (const key of ['a', 'b', 'a', 'c']) buckets.charge([charge(5, 5, key)], 0);
    assert.equal(buckets.charge([charge(0, 0, 'b')], 0).passes, true);
  });

  test('is the same with two workers that remember refusals as with one counter that is always asked', () => {
    const steps = fc.array(
      fc.record({
        worker: fc.constantFrom(0, 1),
        key: fc.constantFrom('a', 'b'),
        after: fc.constantFrom(0, 0, 0, 7, 40, 130),
      }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(steps, fc.integer({ min: 0, max: 4 }), (asked, burst) => {
        const [shared, alone] = [createBuckets(perSecond(10)), createBuckets(perSecond(10))];
        const workers = [createRefusals(), createRefusals()];
        let now = 0;
        for (const { worker, key, after } of asked) {
          now += after;
          const charges = [charge(burst, burst, key)];
          const expected = alone.charge(charges, now).passes;
          const memory = workers[worker]!;
          if (memory.has(charges, now)) {
            assert.equal(expected, false);
            continue;
          }
          const verdict = shared.charge(charges, now);
          memory.remember(charges, verdict, now);
          assert.equal(verdict.passes, expected);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test('answers with the status that the rules give, counts once whatever is redirected inside, and not an empty key', () => {
    const rules = compile(
      siteOf(
        [
          prefix('/', {
            content: toUp,
            policy: { requestLimits: [{ zone: 'z', burst: 1, delay: 1 }], requestLimitStatus: 429 },
          }),
        ],
        {},
        { requestZones: [{ name: 'z', key: t('$http_x_key'), perThousandSeconds: 1_000 }] },
      ),
    );
    const { charge: carry } = limitsOf(rules);
    const statuses = (key: string) =>
      Array.from(
        { length: 4 },
        () => ask(rules, '/', { headers: { 'X-Key': key } }, { charge: carry }).status,
      );
    assert.deepEqual(statuses('a'), [200, 200, 429, 429]);
    assert.deepEqual(statuses(''), [200, 200, 200, 200]);
  });
});

describe('a limit of what runs at once', () => {
  test('has a seat again when one is left, and all of a worker that died', () => {
    const seats = createSeats();
    const seat = { zone: 'z', key: 'ann', max: 2 };
    assert.equal(seats.take([seat], 1), true);
    assert.equal(seats.take([seat], 2), true);
    assert.equal(seats.take([seat], 2), false);
    seats.leave([seat], 1);
    assert.equal(seats.take([seat], 2), true);
    seats.forget(2);
    assert.equal(seats.take([seat], 1), true);
    assert.equal(seats.take([seat], 1), true);
    assert.equal(seats.take([seat], 1), false);
    // What the dead would still leave is nobody's.
    seats.leave([seat], 2);
    assert.equal(seats.take([seat], 1), false);
  });
});
