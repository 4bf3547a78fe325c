// How the store does: what is asked of it, whether it answers, and that a store which is away leaves the ingress ready.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Engine, StorageError } from '../../acme/storage.ts';
import { expose } from '../../src/admin/exposition.ts';
import { familiesOf } from '../../src/admin/figures.ts';
import { readinessOf } from '../../src/admin/readiness.ts';
import type { Sources } from '../../src/admin/sources.ts';
import { createTally } from '../../src/admin/tally.ts';
import { createStoreFigures } from '../../src/store-figures.ts';
import { layouts } from '../../src/workers/counters.ts';
import { createProcessFigures } from '../../src/workers/process-figures.ts';
import { createTotals } from '../../src/workers/totals.ts';
import { parseScrape } from '../support/scrape.ts';

/** Answers each call with what `answer` gives. */
function engineOf(answer: () => unknown): Engine {
  const call = async () => answer() as never;
  return {
    place: (name) => name,
    ...{ read: call, create: call, replace: call, remove: call, list: call, setAside: call, prove: call },
    lease: call,
    watch: () => () => {},
    close: async () => {},
  };
}

function setUp() {
  let answer: () => unknown = () => undefined;
  const figures = createStoreFigures('postgres');
  const engine = figures.watch(engineOf(() => answer()));
  const calls = (operation: string, result: string) =>
    figures.counts().find((one) => one.operation === operation && one.result === result)!.calls;
  return {
    figures,
    engine,
    calls,
    answers(next: () => unknown) {
      answer = next;
    },
  };
}

const away = () => {
  throw new StorageError('unavailable', 'postgres://db.example.net: no answer within 5000 ms');
};

function sourcesWith(store: Sources['store']): Sources {
  const totals = createTotals(layouts);
  return {
    version: 'under test',
    workers: {
      state: () => ({
        living: [{ ready: true, place: 1, counts: { process: { residentBytes: 0, lagMs: 0 } } }],
        count: 1,
        restarts: 0,
        totals: totals.all(),
      }),
      rows: totals.rows,
    } as never,
    domains: () => [],
    certificates: () => [],
    evidenceAt: () => undefined,
    tally: createTally(),
    store,
    figures: createProcessFigures(),
    stopping: () => false,
  };
}

test('every call is counted by how it ended, and timed', async () => {
  const { figures, engine, calls, answers } = setUp();
  await engine.read('a');
  answers(() => undefined);
  await engine.create('a', Buffer.alloc(1));
  answers(() => 'version');
  await engine.replace('a', Buffer.alloc(1), 'v');
  answers(() => false);
  await engine.remove('a', 'v');
  answers(away);
  await assert.rejects(engine.list('a'), { code: 'unavailable' });
  answers(() => {
    throw new StorageError('lease-lost', 'another has it');
  });
  await assert.rejects(engine.replace('a', Buffer.alloc(1), 'v'), { code: 'lease-lost' });
  answers(() => {
    throw new Error('given up by the caller');
  });
  await assert.rejects(engine.read('a'));
  assert.deepEqual(
    [calls('read', 'ok'), calls('read', 'failed'), calls('create', 'refused'), calls('replace', 'ok')],
    [1, 0, 1, 1],
  );
  assert.deepEqual(
    [calls('replace', 'refused'), calls('remove', 'refused'), calls('list', 'failed')],
    [1, 1, 1],
  );
  const timed = figures
    .durations()
    .map(({ operation, numbers }) => [operation, numbers.subarray(1).reduce((a, b) => a + b, 0)]);
  assert.deepEqual(Object.fromEntries(timed), {
    read: 1,
    create: 1,
    replace: 2,
    remove: 1,
    list: 1,
    prove: 0,
  });
});

test('whether it answers is known with why not, and since when', async () => {
  const { figures, engine, answers } = setUp();
  assert.deepEqual(figures.state(), {
    engine: 'postgres',
    answers: undefined,
    since: undefined,
    why: undefined,
  });
  await engine.read('a');
  assert.equal(figures.state().answers, true);
  answers(away);
  await assert.rejects(engine.read('a'));
  const { since, why } = figures.state();
  assert.match(why!, /no answer within/);
  await assert.rejects(engine.read('a'));
  assert.equal(figures.state().since, since);
});

test('a store that is away is told by /readyz and by the metrics, and the ingress is ready all the same', async () => {
  const { figures, engine, answers } = setUp();
  const sources = sourcesWith(figures);
  const shown = () => {
    const { ready, conditions } = readinessOf(sources);
    const store = conditions.find(({ name }) => name === 'store')!;
    const scrape = parseScrape(expose(familiesOf(sources), 'prometheus'));
    return { ready, holds: store.holds, why: store.why, up: scrape.sum('dstack_ingress_store_up'), scrape };
  };
  await engine.read('a');
  assert.deepEqual([shown().ready, shown().holds, shown().up], [true, true, 1]);
  answers(away);
  await assert.rejects(engine.read('a'));
  const { ready, holds, why, up, scrape } = shown();
  assert.deepEqual([ready, holds, up], [true, false, 0]);
  assert.match(why, /^does not answer since \d{4}-.*no answer within 5000 ms; what is served goes on$/);
  assert.equal(scrape.sum('dstack_ingress_store_calls_total', { operation: 'read', result: 'failed' }), 1);
  assert.equal(scrape.sum('dstack_ingress_store_call_duration_seconds_count', { operation: 'read' }), 2);
  // No alert of readiness for what is not needed.
  assert.equal(scrape.sum('dstack_ingress_ready', { condition: 'store' }), 0);
  assert.ok(!expose(familiesOf(sources), 'prometheus').includes('condition="store"'));
  sources.figures.close();
});

test('without a store nothing is said of one', () => {
  const sources = sourcesWith(undefined);
  assert.ok(readinessOf(sources).conditions.every(({ name }) => name !== 'store'));
  assert.equal(
    parseScrape(expose(familiesOf(sources), 'prometheus')).names.has('dstack_ingress_store_up'),
    false,
  );
  sources.figures.close();
});
