// Limits that one process counts for all: when it does not answer, and when rules are read again with their zones moved.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Charged } from '../../../proxy/rules/limits.ts';
import type { RuleSet } from '../../../proxy/rules/model.ts';
import { createLimitCounts, zonesOf } from '../../../src/workers/limit-counts.ts';
import { createAskingLimiter } from '../../../src/workers/limit-questions.ts';
import type { LimitQuestions } from '../../../src/workers/messages.ts';

const rulesOf = (...zones: readonly string[]): RuleSet => ({
  sites: [],
  requestZones: zones.map((name) => ({ name, key: [{ name: 'host' }], perThousandSeconds: 1 })),
});
const seat = (zone: string, max = 1) => ({ zone, key: 'ann', max });
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A worker's limiter and its supervisor's counts, joined by a channel that can be blocked. */
function setUp(silenceMs: number) {
  const counts = createLimitCounts();
  const told: boolean[] = [];
  const blocked: LimitQuestions[] = [];
  let open = true;
  const answer = (questions: LimitQuestions) => limiter.answered(counts.answer(1, questions)!);
  const limiter = createAskingLimiter({
    silenceMs,
    onSilence: (silent) => told.push(silent),
    send: (questions) => void (open ? setImmediate(answer, questions) : blocked.push(questions)),
  });
  return {
    limiter,
    told,
    counts,
    block() {
      open = false;
    },
    unblock() {
      open = true;
      for (const questions of blocked.splice(0)) answer(questions);
    },
    serve(rules: RuleSet) {
      counts.setRules(rules);
      limiter.setZones(zonesOf(rules));
    },
    ask: (seats: readonly ReturnType<typeof seat>[], zone?: number) =>
      new Promise<Charged>((resolve) =>
        limiter.charge(zone === undefined ? [] : [{ zone, key: 'ann', burst: 0, delay: 0 }], seats, resolve),
      ),
  };
}

describe('a supervisor that does not answer', () => {
  test('keeps nobody waiting: the worker counts by itself until it is back', async () => {
    const world = setUp(20);
    world.serve(rulesOf('a'));
    assert.deepEqual(await world.ask([], 0), { waitMs: 0 });
    world.block();
    const mine = seat('c');
    assert.deepEqual(await world.ask([mine], 0), { waitMs: 0 }, 'its own count begins anew');
    assert.deepEqual(world.told, [true]);
    assert.equal(await world.ask([], 0), 'requests');
    assert.equal(await world.ask([seat('c')]), 'seats');
    world.limiter.leave([mine]);
    const next = seat('c');
    assert.deepEqual(await world.ask([next]), { waitMs: 0 });
    world.unblock();
    assert.deepEqual(world.told, [true, false]);
    assert.equal(await world.ask([], 0), 'requests', 'what it counted before the silence counts');
    world.limiter.leave([next]);
  });

  test('holds no seat for a question that was decided without it', async () => {
    const world = setUp(20);
    world.block();
    const mine = seat('c');
    assert.deepEqual(await world.ask([mine]), { waitMs: 0 });
    world.limiter.leave([mine]);
    world.unblock();
    // The seat that was granted too late is given back.
    for (let i = 0; i < 5; i++) await turn();
    assert.deepEqual(await world.ask([seat('c')]), { waitMs: 0 });
  });

  test('is asked about no more than may wait, and nobody is told of a silence without a question', async () => {
    const world = setUp(20);
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.deepEqual(world.told, []);
    assert.deepEqual(await world.ask([seat('c')]), { waitMs: 0 });
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.deepEqual(world.told, []);
  });
});

describe('rules that are read again', () => {
  test('with their zones in another order leave the seats that were taken before', async () => {
    const world = setUp(60_000);
    const [x, y] = [seat('x'), seat('y')];
    assert.deepEqual(await world.ask([x]), { waitMs: 0 });
    assert.deepEqual(await world.ask([y]), { waitMs: 0 });
    world.serve(rulesOf('before', 'them'));
    world.limiter.leave([x]);
    assert.deepEqual(await world.ask([seat('x')]), { waitMs: 0 });
    assert.equal(await world.ask([seat('y')]), 'seats', 'that one is still taken');
    world.limiter.leave([y]);
    assert.deepEqual(await world.ask([seat('y')]), { waitMs: 0 });
  });

  test('with their zones in another order refuse nobody for what was counted under the other', async () => {
    const world = setUp(60_000);
    world.serve(rulesOf('a', 'b'));
    assert.deepEqual(await world.ask([], 0), { waitMs: 0 });
    assert.equal(await world.ask([], 0), 'requests');
    world.serve(rulesOf('b', 'a'));
    assert.deepEqual(await world.ask([], 0), { waitMs: 0 });
    world.serve(rulesOf('b', 'a'));
    assert.equal(await world.ask([], 0), 'requests', 'the same rules again change nothing');
  });
});
