// Rosters and stream tables hold what a Set and a Map would, whatever comes and goes in whatever order.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createRoster, createStreamTable, type RosterMember } from '../../../proxy/socket/roster.ts';

interface Guest extends RosterMember {
  readonly name: number;
}

describe('a roster', () => {
  it('holds what a Set would', () => {
    const change = fc.tuple(fc.boolean(), fc.nat({ max: 20 }));
    fc.assert(
      fc.property(fc.array(change, { maxLength: 200 }), (changes) => {
        const guests = Array.from({ length: 21 }, (_, name): Guest => ({ name }));
        const [roster, set] = [createRoster<Guest>(), new Set<Guest>()];
        for (const [comes, name] of changes) {
          const guest = guests[name]!;
          if (comes) roster.add(guest);
          else roster.remove(guest);
          if (comes) set.add(guest);
          else set.delete(guest);
          assert.equal(roster.size, set.size);
        }
        assert.deepEqual(new Set(roster.list()), set);
      }),
    );
  });

  it('lets those it looks at leave, bring others along and send others away', () => {
    const [roster, seen] = [createRoster<Guest>(), [] as number[]];
    const guests = Array.from({ length: 10 }, (_, name): Guest => ({ name }));
    for (const guest of guests) roster.add(guest);
    roster.each((guest) => {
      seen.push(guest.name);
      roster.remove(guest);
      if (guest.name === 7) roster.remove(guests[2]!);
      if (guest.name === 5) roster.add({ name: 100 });
    });
    assert.deepEqual(
      seen.toSorted((a, b) => a - b),
      [0, 1, 3, 4, 5, 6, 7, 8, 9],
    );
    assert.deepEqual(
      roster.list().map(({ name }) => name),
      [100],
    );
  });

  it('does not take a member of another roster for its own after it has left', () => {
    const [one, other] = [createRoster<Guest>(), createRoster<Guest>()];
    const guest: Guest = { name: 1 };
    one.add(guest);
    one.remove(guest);
    other.add(guest);
    assert.deepEqual([one.size, other.size], [0, 1]);
  });
});

describe('a table of streams', () => {
  it('holds what a Map would, however the numbers collide', () => {
    // Numbers that fall into the same places, now and then far apart.
    const id = fc.oneof(
      fc.nat({ max: 60 }).map((n) => 2 * n + 1),
      fc.tuple(fc.nat({ max: 5 }), fc.nat({ max: 8 })).map(([n, lap]) => 2 * n + 1 + lap * 32),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), id), { maxLength: 300 }), (changes) => {
        const [table, map] = [createStreamTable<{ id: number }>(), new Map<number, { id: number }>()];
        for (const [begins, number] of changes) {
          if (begins && !map.has(number)) {
            const stream = { id: number };
            table.set(stream);
            map.set(number, stream);
          }
          if (!begins) {
            table.delete(number);
            map.delete(number);
          }
          assert.equal(table.size, map.size);
          assert.equal(table.get(number), map.get(number));
        }
        for (const [number, stream] of map) assert.equal(table.get(number), stream);
        assert.deepEqual(new Set(table.list()), new Set(map.values()));
      }),
      { numRuns: 1_000 },
    );
  });
});
