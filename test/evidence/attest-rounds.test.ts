// Rounds of fresh quotes: how often the agent is asked, and what becomes of those who wait when it fails or is silent.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { AgentError, type QuoteAnswer } from '../../evidence/agent.ts';
import { attestReportData, foldPath } from '../../evidence/attest-claims.ts';
import { createAttestRounds, type RoundAnswer } from '../../evidence/attest-rounds.ts';
import { attestTree } from '../../evidence/attest-tree.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { recordedLog } from '../acme/support.ts';

/** Time passes only where somebody sleeps. */
function fastClock(): Clock & { time: number } {
  const clock = {
    time: 0,
    now: () => new Date(clock.time),
    monotonicMs: () => clock.time,
    sleep: async (ms: number) => {
      await new Promise((resolve) => setImmediate(resolve));
      clock.time += ms;
    },
  };
  return clock;
}

const answerTo = (reportData: Uint8Array): QuoteAnswer => ({
  quote: '00',
  event_log: '[]',
  report_data: Buffer.from(reportData).toString('hex'),
});

function holds(hash: Buffer, answer: RoundAnswer | undefined): void {
  assert.ok(answer);
  const root = foldPath(hash, answer.path);
  assert.equal(answer.root, root.toString('hex'));
  assert.equal(answer.reportData, attestReportData(root).toString('hex'));
}

test('every path of a tree of any size leads to its root, and is as short as it can be', () => {
  for (const size of [1, 2, 3, 4, 5, 7, 8, 9, 100, 257]) {
    const leaves = Array.from({ length: size }, () => randomBytes(32));
    const { root, paths } = attestTree(leaves);
    for (const [index, leaf] of leaves.entries()) {
      assert.deepEqual(foldPath(leaf, paths[index]!), root);
      assert.ok(paths[index]!.length <= Math.ceil(Math.log2(size)));
    }
  }
});

test('an agent that fails is asked again a second later for all that wait, and said to fail once', async () => {
  const clock = fastClock();
  const { log, lines } = recordedLog();
  const askedAt: number[] = [];
  const rounds = createAttestRounds({
    quote: async (reportData) => {
      askedAt.push(clock.time);
      if (askedAt.length <= 3) throw new AgentError('unreachable', 'nobody there');
      return answerTo(reportData);
    },
    log,
    clock,
  });
  const hashes = [randomBytes(32), randomBytes(32)];
  const answers = await Promise.all(hashes.map((hash) => rounds.ask(hash)));
  for (const [index, hash] of hashes.entries()) holds(hash, answers[index]);
  assert.deepEqual(askedAt, [0, 1_000, 2_000, 3_000]);
  assert.deepEqual(
    lines.map(({ msg }) => msg),
    ['no fresh quotes for now', 'fresh quotes again'],
  );
});

test('who has waited for as long as he may is told that there is none, and then nobody asks the agent any more', async () => {
  const clock = fastClock();
  const { log } = recordedLog();
  let asked = 0;
  const rounds = createAttestRounds({
    quote: async () => {
      asked++;
      throw new AgentError('unreachable', 'nobody there');
    },
    log,
    clock,
    patienceMs: 5_000,
  });
  assert.equal(await rounds.ask(randomBytes(32)), undefined);
  const before = asked;
  assert.ok(before <= 7);
  await clock.sleep(60_000);
  assert.equal(asked, before);
});

test('a silent agent is asked once, whoever comes meanwhile, and they share the next quote', async () => {
  const clock = fastClock();
  const { log } = recordedLog();
  const silence = Promise.withResolvers<void>();
  let asked = 0;
  const rounds = createAttestRounds({
    quote: async (reportData) => {
      asked++;
      if (asked === 1) await silence.promise;
      return answerTo(reportData);
    },
    log,
    clock,
  });
  const first = randomBytes(32);
  const one = rounds.ask(first);
  await clock.sleep(0);
  const hashes = Array.from({ length: 50 }, () => randomBytes(32));
  const others = hashes.map((hash) => rounds.ask(hash));
  await clock.sleep(10_000);
  assert.equal(asked, 1);
  silence.resolve();
  holds(first, await one);
  const answers = await Promise.all(others);
  for (const [index, hash] of hashes.entries()) holds(hash, answers[index]);
  assert.equal(asked, 2);
});

test('however many ask, the agent is asked once a second at most', async () => {
  const clock = fastClock();
  const { log } = recordedLog();
  const askedAt: number[] = [];
  const rounds = createAttestRounds({
    quote: async (reportData) => {
      askedAt.push(clock.time);
      return answerTo(reportData);
    },
    log,
    clock,
  });
  for (let turn = 0; turn < 20; turn++) {
    const hash = randomBytes(32);
    holds(hash, await rounds.ask(hash));
    if (turn % 3 === 0) await clock.sleep(400);
  }
  for (const [index, at] of askedAt.entries()) {
    if (index > 0) assert.ok(at - askedAt[index - 1]! >= 1_000, askedAt.join());
  }
});
