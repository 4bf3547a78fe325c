// The checker of histories is checked: what no order explains is found, and what one explains is let pass.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Storage, StorageError, type Stored } from '../../acme/storage.ts';
import { countOn, firstFlaw, type Operation, recorded } from './history.ts';

type Short = readonly [string, 'read' | 'write', string?, string?, number?, number?, Operation['outcome']?];
const history = (...all: Short[]): Operation[] =>
  all.map(([client, kind, from, to, began = 0, ended = 0, outcome = 'done']) => ({
    client,
    record: 'r',
    kind,
    from: from === '' ? undefined : from,
    to: to === '' ? undefined : to,
    began,
    ended: outcome === 'unknown' ? Number.POSITIVE_INFINITY : ended,
    outcome,
  }));

const sound: Record<string, Operation[]> = {
  'one after the other': history(
    ['a', 'write', '', '1', 0, 1],
    ['b', 'read', '', '1', 2, 3],
    ['b', 'write', '1', '2', 4, 5],
  ),
  'a read at the same time as a write, of either state': history(
    ['a', 'write', '', '1', 0, 10],
    ['b', 'read', '', '', 1, 2],
    ['c', 'read', '', '1', 3, 4],
  ),
  'of two rivals the second was refused': history(
    ['a', 'write', '', '1', 0, 10],
    ['b', 'write', '', '2', 1, 9, 'refused'],
  ),
  'a write without an answer that took effect late': history(
    ['a', 'write', '', '1', 0, 1],
    ['b', 'write', '1', '2', 2, 0, 'unknown'],
    ['a', 'read', '', '1', 3, 4],
    ['a', 'read', '', '2', 5, 6],
  ),
  'a write without an answer that never took effect': history(
    ['b', 'write', '', '2', 0, 0, 'unknown'],
    ['a', 'write', '', '1', 3, 4],
    ['a', 'read', '', '1', 5, 6],
  ),
};
const flawed: Record<string, Operation[]> = {
  'two writes over the same state': history(
    ['a', 'write', '', '1', 0, 1],
    ['a', 'write', '1', '2', 2, 5],
    ['b', 'write', '1', '3', 3, 6],
  ),
  'a read of a state that is over': history(
    ['a', 'write', '', '1', 0, 1],
    ['a', 'write', '1', '2', 2, 3],
    ['b', 'read', '', '1', 4, 5],
  ),
  'two reads that see a write come and go': history(
    ['a', 'write', '', '1', 0, 10],
    ['b', 'read', '', '1', 1, 2],
    ['c', 'read', '', '', 3, 4],
  ),
  'a write that was told it was done and is not there': history(
    ['a', 'write', '', '1', 0, 1],
    ['b', 'read', '', '', 2, 3],
  ),
  'a refusal for which there is no reason': history(
    ['a', 'write', '', '1', 0, 1],
    ['b', 'write', '1', '2', 2, 3, 'refused'],
  ),
};
for (const [what, operations] of Object.entries(sound))
  test(`explained: ${what}`, () => assert.equal(firstFlaw(operations), undefined));
for (const [what, operations] of Object.entries(flawed))
  test(`found: ${what}`, () => assert.equal(firstFlaw(operations)?.record, 'r'));

/** In memory, with a lease that anyone can have after so many turns; `flaws` are what storages for certificates do. */
function storageWith(flaws: { fences?: false; fresh?: false; versions?: false } = {}) {
  const records = new Map<string, Stored>();
  let versions = 0;
  let holder = '';
  const step = () => new Promise<void>((resolve) => setImmediate(resolve));
  async function put(name: string, bytes: Uint8Array, version: string | undefined) {
    const look = () => records.get(name)?.version === version;
    const fits = look();
    // Looking and putting are two steps where nothing fences them.
    await step();
    if (flaws.versions !== false && !(flaws.fences === false ? fits : look())) return undefined;
    versions += 1;
    records.set(name, { bytes: Buffer.from(bytes), version: String(versions) });
    return String(versions);
  }
  const client = (name: string): Storage => {
    const known = new Map<string, Stored | undefined>();
    return {
      place: (record) => record,
      async read(record) {
        await step();
        if (flaws.fresh !== false || !known.has(record) || Math.random() < 0.2)
          known.set(record, records.get(record));
        return known.get(record);
      },
      create: (record, bytes) => put(record, bytes, undefined),
      replace: (record, bytes, version) => put(record, bytes, version),
      remove: async () => false,
      list: async () => [],
      async lease(lease, signal, work) {
        await step();
        holder = name;
        return work({ name: lease, token: name, signal, isHeld: () => holder === name });
      },
      watch: () => () => {},
      setAside: async () => {
        throw new StorageError('unreadable', 'nothing is unreadable here');
      },
    };
  };
  return client;
}

async function played(client: (name: string) => Storage): Promise<Operation[]> {
  const operations: Operation[] = [];
  const stop = new AbortController();
  const random = () => Math.random() * 0.5 + 0.2;
  const clients = ['a', 'b', 'c', 'd'].map((name) => ({
    name,
    storage: recorded(client(name), name, operations),
  }));
  const counting = clients.map((each) => countOn(each, 'count/record', stop.signal, random));
  while (operations.length < 400) await new Promise((resolve) => setImmediate(resolve));
  stop.abort();
  await Promise.all(counting);
  return operations;
}

test('clients of a sound storage leave a history that is explained', async () => {
  assert.equal(firstFlaw(await played(storageWith())), undefined);
});

for (const [what, flaws] of Object.entries({
  'whose fences are removed: it looks, and then puts': { fences: false },
  'that takes no notice of versions': { versions: false },
  'that answers with what it knew before': { fresh: false },
} as const))
  test(`a storage ${what}, is caught by its history`, async () => {
    assert.notEqual(firstFlaw(await played(storageWith(flaws))), undefined);
  });
