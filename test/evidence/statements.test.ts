// Statements of an instance: what they say, where they are kept, and when there is none.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { AgentInfo } from '../../evidence/agent.ts';
import { readHistory } from '../../evidence/history.ts';
import { statementReportData } from '../../evidence/statement.ts';
import { createStatements, type StatementsOptions } from '../../evidence/statements.ts';
import { silentLog } from '../../src/lib/log.ts';
import { makeCertificate } from '../support/certificates.ts';

const uri = 'https://ca.test/acct/7';
const certificates = [
  await makeCertificate('b.example.com', 'a.example.com'),
  await makeCertificate('*.example.com', 'a.example.com'),
];
const machine: AgentInfo = {
  appId: 'AA'.repeat(20),
  instanceId: 'BB'.repeat(20),
  appName: 'app',
  composeHash: 'CC'.repeat(32),
};

async function stage(t: TestContext, info: Partial<AgentInfo> = {}, change: Partial<StatementsOptions> = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'statements-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const quoted: Uint8Array[] = [];
  const statements = createStatements({
    agent: {
      info: async () => ({ ...machine, ...info }),
      quote: async (reportData) => {
        quoted.push(reportData);
        return { quote: '00', event_log: '[]', report_data: Buffer.from(reportData).toString('hex') };
      },
    },
    folder: join(folder, 'state'),
    account: async (account) => ({ account: { uri: account, thumbprint: 'x' }, caa: {} }),
    bootId: 'a boot',
    revision: '1.0.0',
    log: silentLog,
    ...change,
  });
  return { folder: join(folder, 'state'), statements, quoted };
}

test('a statement names every name once, each certificate, and the machine in lower case; its quote is over it', async (t) => {
  const { statements, quoted } = await stage(t);
  const { statement, report_data } = await statements.draft({ uri }, certificates);
  assert.deepEqual(statement.domains, ['*.example.com', 'a.example.com', 'b.example.com']);
  assert.deepEqual(
    statement.certificates.map(({ sha256 }) => sha256),
    certificates.map(({ sha256 }) => sha256),
  );
  assert.equal(statement.appId, 'aa'.repeat(20));
  assert.equal(report_data, statementReportData(statement).toString('hex'));
  assert.deepEqual(quoted, [statementReportData(statement)]);
});

test('a draft leaves nothing behind; what is kept is linked to what was kept, of this instance alone', async (t) => {
  const { folder, statements } = await stage(t);
  const [one, two] = [
    await statements.draft({ uri }, certificates),
    await statements.draft({ uri }, certificates.slice(0, 1)),
  ];
  assert.equal(two.statement.previous, null);
  const files = await statements.commit(one);
  assert.deepEqual(
    files.map(({ name }) => name),
    ['attestation.json', 'history.jsonl'],
  );
  assert.deepEqual(JSON.parse(files[0]!.text), one);
  await assert.rejects(statements.commit(two), { code: 'moved-on' });
  const three = await statements.draft({ uri }, certificates);
  const [, history] = await statements.commit(three);
  const { entries, faults } = readHistory(history!.text);
  assert.deepEqual([entries.length, faults], [2, []]);
  assert.deepEqual(await readdir(folder), [`history-${'bb'.repeat(20)}.jsonl`]);
});

test('an instance without an id, of an old agent, makes statements that can be read', async (t) => {
  const { composeHash: _, ...old } = machine;
  const { folder, statements } = await stage(
    t,
    {},
    {
      agent: {
        info: async () => ({ ...old, instanceId: '' }),
        quote: async (reportData) => ({
          quote: '00',
          event_log: '',
          report_data: Buffer.from(reportData).toString('hex'),
        }),
      },
    },
  );
  const [, history] = await statements.commit(await statements.draft({ uri }, certificates));
  const { entries, faults } = readHistory(history!.text);
  assert.deepEqual(faults, []);
  assert.deepEqual([entries[0]!.statement.instanceId, entries[0]!.statement.composeHash], ['', '']);
  assert.deepEqual(await readdir(folder), ['history.jsonl']);
});

test('there is none for a date that cannot be written, an account that is none, or an agent that does not answer', async (t) => {
  const clock = { now: () => new Date(8.64e15), sleep: () => Promise.reject(new Error('not here')) };
  const refused = new Error('the agent says no');
  const stages = [
    await stage(t, {}, { clock }),
    await stage(t, {}, { account: async () => ({ account: { uri: 'no url', thumbprint: '' }, caa: {} }) }),
    await stage(t, {}, { agent: { info: () => Promise.reject(refused), quote: () => assert.fail() } }),
    await stage(t, {}, { agent: { info: async () => machine, quote: () => Promise.reject(refused) } }),
  ];
  for (const { statements, folder } of stages) {
    await assert.rejects(statements.draft({ uri }, certificates));
    assert.deepEqual(await readdir(folder).catch(() => []), []);
  }
});
