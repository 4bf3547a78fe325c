// The protocol of replicas under everything that can go wrong, in every order, within bounds; and two mistakes that it must find.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Behaviour } from './replica.ts';
import { search } from './search.ts';
import type { Faults, Scene } from './world.ts';

/**
 * It is the program that is searched, not a description of it: manager, renewer, issuer, account, store and sealing run as
 * they are. What they wait for (the store, the lease, the CA, time) is answered by the search. A process cannot be copied,
 * but its next step depends on its history alone, so a state is the store, the CA, and the history of each replica. The
 * lease excludes nobody who may lose it at any moment and be told later or never, which is more than a stopped process, a
 * wrong clock or a lying store can do.
 */
const none: Faults = { crashes: 0, losses: 0, silences: 0, stragglers: 0, wakes: 0, switches: 0 };

function scene(faults: Partial<Faults>, more: Partial<Omit<Scene, 'faults'>> = {}): Scene {
  const faultsOfAll = { ...none, ...faults };
  return { replicas: 3, begins: 'empty', guards: false, validates: false, ...more, faults: faultsOfAll };
}

const sound: Behaviour['writing'] = 'by version';

test('three replicas to which nothing happens order once', async () => {
  for (const begins of ['empty', 'due'] as const) {
    const found = await search(scene({ switches: 3 }, { begins }), { writing: sound });
    assert.equal(found.violation, undefined);
    assert.equal(found.mostOrders, 1);
  }
});

const bounded: Record<string, Scene> = {
  'is killed at any step, and another after it': scene({ crashes: 2 }),
  'loses its lease at any step, and goes on beside the next one': scene({ losses: 1, switches: 1 }),
  'loses it in a renewal whose challenge is answered from the store': scene(
    { losses: 1, switches: 1 },
    { replicas: 2, begins: 'due', validates: true },
  ),
  'gets no answer to any request, which may have happened': scene({ silences: 1, switches: 1 }),
  'asks for something that happens long after it has given up': scene({ stragglers: 1 }, { begins: 'due' }),
  'loses its lease, and the store refuses what it writes': scene(
    { losses: 1, switches: 1 },
    { replicas: 2, begins: 'due', guards: true },
  ),
};
for (const [what, each] of Object.entries(bounded))
  test(`of three replicas one ${what}: one key, one account, no lost update, no unexplained order`, async () => {
    const found = await search(each, { writing: sound });
    assert.equal(found.violation, undefined, JSON.stringify(found.violation, null, 1));
    assert.ok(found.ends > 1 && found.states > 100, JSON.stringify(found));
  });

test('a storage that looks whether a record is still the same, and then puts, is found to lose updates', async () => {
  const { violation } = await search(scene({ losses: 1, switches: 2 }, { begins: 'due' }), {
    writing: 'look, then put',
  });
  assert.match(String(violation?.why), /lost update|two keys/);
});

test('a storage that trusts the lease, and writes over whatever is there, is found to lose updates', async () => {
  const { violation } = await search(scene({ losses: 1, switches: 1 }, { begins: 'due' }), {
    writing: 'unfenced',
  });
  assert.match(String(violation?.why), /lost update|two keys/);
});

const mistakes: Record<string, [Partial<Faults>, NonNullable<Behaviour['mistake']>]> = {
  'that stores an order over that of whoever else means to order': [
    { losses: 1, switches: 2 },
    (store) => ({
      ...store,
      writeOrder: async (name, order) => store.intendOrder(name, order, await store.readOrder(name)),
    }),
  ],
  'that does not look for a certificate once the intent is noted': [
    { losses: 1, switches: 1 },
    (store) => ({ ...store, hasNewer: async () => false }),
  ],
};
for (const [what, [faults, mistake]] of Object.entries(mistakes))
  test(`a protocol ${what} is found to order twice`, async () => {
    const { violation } = await search(scene(faults, { replicas: 2 }), { writing: sound, mistake });
    assert.ok(violation !== undefined);
  });
