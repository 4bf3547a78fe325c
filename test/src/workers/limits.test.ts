// Limits are held to the request by all workers together, whatever becomes of a worker or of the supervisor.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { on } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Admission, LimitZones, Passage } from '../../../proxy/rules/limits.ts';
import { createLog } from '../../../src/lib/log.ts';
import { LONGEST_FROM_WORKER } from '../../../src/workers/channel.ts';
import { createLimitCounting, type LimitCounting } from '../../../src/workers/limit-counting.ts';
import { createLimitQuestions } from '../../../src/workers/limit-questions.ts';
import { FromWorkerSchema, type LimitQuestions } from '../../../src/workers/messages.ts';
import { WorkerLink } from '../../../src/workers/worker-link.ts';
import type { Asked, Asking } from '../../support/limit-worker.ts';

/** One request in a thousand seconds: beyond the burst nothing passes while a test runs. */
const zones: LimitZones = {
  requestZones: [{ name: 'login', perThousandSeconds: 1, maxKeys: 1_000 }],
  connectionZones: [{ name: 'downloads' }],
};
const secret = new Uint8Array(32).fill(7);
const PROGRAM = fileURLToPath(new URL('../../support/limit-worker.ts', import.meta.url));

interface Worker {
  readonly child: ChildProcess;
  readonly link: WorkerLink;
  say(what: Asking | 'leave'): Promise<Asked>;
  serve(generation: number, zones: LimitZones): Promise<void>;
}

function startWorker(t: TestContext, counting: LimitCounting): Worker {
  const child = spawn(process.execPath, [PROGRAM], { stdio: ['pipe', 'pipe', 'inherit', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  const link: WorkerLink = new WorkerLink(child, {
    log: createLog({ level: 'silent' }),
    stopping: new AbortController().signal,
    takeTelemetry: () => 'telemetry',
    findChallenge: async () => undefined,
    comparePassword: async () => undefined,
    countLimits: counting.count,
    onGone: counting.gone,
  });
  const lines = on(createInterface({ input: child.stdout! }), 'line', { close: ['close'] });
  return {
    child,
    link,
    async say(what) {
      child.stdin!.write(`${what === 'leave' ? what : JSON.stringify(what)}\n`);
      const line = await lines.next();
      assert.ok(line.done !== true, 'the worker is gone');
      return JSON.parse(line.value[0]) as Asked;
    },
    serve: (generation, served) =>
      link.serve({ kind: 'limits', generation, value: { zones: served, secret } }),
  };
}

async function twoWorkers(t: TestContext) {
  const counting = createLimitCounting();
  counting.setZones(1, zones);
  const workers = [startWorker(t, counting), startWorker(t, counting)] as const;
  await Promise.all(workers.map((worker) => worker.serve(1, zones)));
  return { counting, workers };
}

describe('two workers', () => {
  test('together let exactly as many requests through as the limit says, however many come', async (t) => {
    const { workers } = await twoWorkers(t);
    for (const [key, burst] of [
      ['ann', 99],
      ['bob', 0],
      ['cid', 1_500],
    ] as const) {
      const both = await Promise.all(
        workers.map((worker) => worker.say({ times: 2_000, charges: [{ key, burst }] })),
      );
      assert.equal(both[0]!.passed + both[1]!.passed, burst + 1);
      assert.equal(both[0]!.requests + both[1]!.requests, 4_000 - burst - 1);
    }
  });

  test('share the seats, and those of one that dies are free', async (t) => {
    const { workers } = await twoWorkers(t);
    const [one, other] = workers;
    const seats = [{ key: 'ann', max: 10 }];
    assert.deepEqual(await one.say({ times: 6, seats }), { passed: 6, requests: 0, seats: 0 });
    assert.deepEqual(await other.say({ times: 6, seats }), { passed: 4, requests: 0, seats: 2 });
    one.child.kill('SIGKILL');
    await one.link.ended();
    assert.deepEqual(await other.say({ times: 20, seats }), { passed: 6, requests: 0, seats: 14 });
    await other.say('leave');
    assert.deepEqual(await other.say({ times: 20, seats }), { passed: 10, requests: 0, seats: 10 });
  });

  test('go on where they were after a reload, with the zone in another place', async (t) => {
    const { counting, workers } = await twoWorkers(t);
    const [one, other] = workers;
    assert.equal((await one.say({ times: 3, charges: [{ key: 'ann', burst: 4 }] })).passed, 3);
    await one.say({ times: 1, seats: [{ key: 'ann', max: 1 }] });
    const fresh = { name: 'fresh', perThousandSeconds: 1, maxKeys: 10 };
    const moved: LimitZones = {
      requestZones: [fresh, ...zones.requestZones],
      connectionZones: [{ name: 'fresh' }, ...zones.connectionZones],
    };
    counting.setZones(2, moved);
    // One has not heard of it yet.
    await other.serve(2, moved);
    const charges = [
      { key: 'ann', burst: 100 },
      { key: 'ann', burst: 4 },
    ];
    assert.equal((await other.say({ times: 9, charges })).passed, 2);
    assert.equal((await one.say({ times: 9, charges: [{ key: 'ann', burst: 4 }] })).passed, 0);
    const seats = [
      { key: 'ann', max: 9 },
      { key: 'ann', max: 1 },
    ];
    assert.equal((await other.say({ times: 1, seats })).seats, 1);
    await one.say('leave');
    assert.equal((await other.say({ times: 1, seats })).passed, 1);
  });
});

/** Questions that the test answers, and what it holds of them. */
function heldQuestions(patienceMs = 60_000) {
  const sent: LimitQuestions[] = [];
  const limits = createLimitQuestions({ send: (asked) => sent.push(asked), patienceMs });
  limits.set(1, { zones, secret });
  const charge = (key: string, burst: number) =>
    limits.charge(zones, [{ zone: 0, key, burst, delay: 0 }], []);
  const sit = (key: string, max: number) => limits.charge(zones, [], [{ zone: 0, key, max }]);
  return { sent, limits, charge, sit };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));
const isPassage = (admission: Admission): admission is Passage => typeof admission === 'object';

describe('a worker', () => {
  test('asks all of one turn at once, and what comes meanwhile after the answer, in messages of bounded length', async () => {
    const { sent, limits, charge } = heldQuestions();
    for (let i = 0; i < 5_000; i++) void charge(`key ${i}`, 999_999_999);
    await turn();
    await turn();
    assert.equal(sent.length, 1);
    let questions = 0;
    while (questions < 5_000) {
      const asked = sent.at(-1)!;
      assert.ok(JSON.stringify({ limits: asked }).length < LONGEST_FROM_WORKER);
      assert.ok(FromWorkerSchema.safeParse({ limits: asked }).success);
      questions += asked.questions.length;
      limits.counted(
        asked.questions.map(({ question }) => ({ question, passes: true, waitMs: 0, ticket: question })),
      );
      await turn();
    }
    assert.equal(questions, 5_000);
  });

  test('never sends a key as it stands', async () => {
    const { sent, charge, sit } = heldQuestions();
    void charge('192.0.2.1', 5);
    void sit('192.0.2.1', 5);
    await turn();
    assert.doesNotMatch(JSON.stringify(sent), /192/);
    assert.equal(sent[0]!.questions.length, 2);
    assert.equal(sent[0]!.questions[0]!.charges[0]![1], sent[0]!.questions[1]!.seats[0]![1]);
  });

  test('does not ask again what was refused and stays so', async () => {
    const { sent, limits, charge } = heldQuestions();
    const first = charge('ann', 0);
    await turn();
    const { question } = sent[0]!.questions[0]!;
    limits.counted([{ question, passes: false, by: 'requests', which: 0, sameForMs: 1e9 }]);
    assert.equal(await first, 'requests');
    for (let i = 0; i < 1_000; i++) assert.equal(charge('ann', 0), 'requests');
    void charge('bob', 0);
    await turn();
    assert.equal(sent.length, 2);
    assert.equal(sent[1]!.questions.length, 1);
  });

  test('counts by itself while its supervisor is silent, and gives back what it is granted too late', async () => {
    const { sent, limits, charge, sit } = heldQuestions(1);
    const early = await Promise.all(Array.from({ length: 10 }, () => charge('ann', 3)));
    assert.equal(early.filter(isPassage).length, 4);
    const seats = Array.from({ length: 5 }, () => sit('ann', 2));
    // Nothing is waited for any more.
    assert.ok(seats.every((admission) => !(admission instanceof Promise)));
    assert.equal((seats as Admission[]).filter(isPassage).length, 2);
    assert.equal(sent.length, 1);
    limits.counted(
      sent[0]!.questions.map(({ question }) => ({ question, passes: true, waitMs: 0, ticket: question })),
    );
    await turn();
    assert.deepEqual(
      [...sent[1]!.left].sort((a, b) => a - b),
      sent[0]!.questions.map(({ question }) => question),
    );
  });

  test('gives each seat back once, and does not count in zones that are gone', async () => {
    const { sent, limits, sit, charge } = heldQuestions();
    const seat = sit('ann', 1);
    await turn();
    limits.counted([{ question: sent[0]!.questions[0]!.question, passes: true, waitMs: 0, ticket: 5 }]);
    const passage = (await seat) as Passage;
    passage.leave();
    passage.leave();
    await turn();
    assert.deepEqual(sent[1]!.left, [5]);
    limits.set(2, { zones: { requestZones: [], connectionZones: [] }, secret });
    assert.ok(isPassage(charge('ann', 0) as Admission));
    assert.ok(isPassage(sit('ann', 0) as Admission));
  });
});
