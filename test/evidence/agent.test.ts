// What the guest agent says is checked, and what it refuses is an error that says so.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { QuoteVerifier } from '@phala/dcap-qvl';
import { AgentError, type AgentErrorCode, createAgent } from '../../evidence/agent.ts';
import { parseEventLog, replay, systemEvent } from '../../evidence/event-log.ts';
import { parseQuote } from '../../evidence/quote.ts';
import { startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { createLog } from '../../src/lib/log.ts';
import {
  type Misbehaviour,
  sharedProcessor,
  socketFolder,
  startAgentDouble,
} from '../support/agent-double.ts';
import { readFixture, withoutFixtures } from '../support/attestation-fixtures.ts';

const reportData = Buffer.from('5ca1ab1e'.repeat(8), 'hex');
const paddedHex = reportData.toString('hex').padEnd(128, '0');

async function startPair(t: TestContext, style: 'dstack' | 'tappd' = 'dstack') {
  const socketPath = join(await socketFolder(t), `${style}.sock`);
  const double = await startAgentDouble(t, { socketPath, style });
  return { double, agent: createAgent({ socketPaths: [socketPath], timeoutMs: 5_000 }) };
}

async function rejectsWith(
  code: AgentErrorCode,
  message: RegExp,
  call: Promise<unknown>,
): Promise<AgentError> {
  let caught: unknown;
  await assert.rejects(call, (error) => {
    caught = error;
    assert.ok(error instanceof AgentError, String(error));
    assert.match(error.message, message);
    assert.equal(error.code, code);
    return true;
  });
  return caught as AgentError;
}

const refusedQuotes: [Misbehaviour, AgentErrorCode, RegExp][] = [
  ['refuse', 'refused', /GetQuote: refused with status 400: Failed to get quote: device or resource busy/],
  ['error-in-200', 'refused', /refused with status 200: quote generation failed/],
  ['proxy-error', 'refused', /status 502: <html>Bad Gateway/],
  ['garbage', 'unintelligible', /not JSON.*this is not JSON/],
  ['empty-object', 'unintelligible', /quote: .*it said \{\}/],
  ['truncated-quote', 'unintelligible', /1000 bytes and ends within its signature/],
  ['no-quote', 'unintelligible', /holds no TDX quote/],
  ['other-report-data', 'report-data-mismatch', /is for report data (ab){64}, asked was 5ca1ab1e/],
  ['lies-about-report-data', 'report-data-mismatch', /is for report data (cd){64}/],
  ['close', 'unreachable', /broke before the answer/],
  ['close-midway', 'unreachable', /broke before the answer/],
];

for (const [how, code, message] of refusedQuotes) {
  test(`an agent that misbehaves (${how}) yields an error and no quote`, async (t) => {
    const { double, agent } = await startPair(t);
    double.misbehave(how);
    const error = await rejectsWith(code, message, agent.quote(reportData));
    assert.match(error.message, /dstack\.sock/);
    double.misbehave(undefined);
    assert.equal((await agent.quote(reportData)).report_data, paddedHex, 'and the next call works again');
  });
}

test('an agent that hangs is given up after the time limit, and the next call is not blocked', async (t) => {
  const { double } = await startPair(t);
  const agent = createAgent({ socketPaths: [double.endpoint], timeoutMs: 100 });
  double.misbehave('hang');
  const hanging = agent.quote(reportData);
  const next = agent.info();
  await rejectsWith('timeout', /no answer within 100 ms/, hanging);
  await rejectsWith('timeout', /Info/, next);
  double.misbehave(undefined);
  assert.equal((await createAgent({ endpoint: double.endpoint }).info()).appId, double.appId);
});

test('report data that does not fit is refused before the agent is asked', async (t) => {
  const { double, agent } = await startPair(t);
  await assert.rejects(agent.quote(Buffer.alloc(65)), RangeError);
  assert.deepEqual(double.calls, []);
});

test('without any agent the error names every socket that was tried and why it failed', async (t) => {
  const folder = await socketFolder(t);
  const [absent, file, directory] = ['dstack.sock', 'file.sock', 'tappd.sock'].map((name) =>
    join(folder, name),
  );
  await writeFile(file!, '');
  // What Docker makes of a bind mount whose source does not exist.
  await mkdir(directory!);
  const agent = createAgent({ socketPaths: [absent!, file!, directory!] });
  const error = await rejectsWith('unreachable', /no guest agent found/, agent.info());
  assert.match(
    error.message,
    /dstack\.sock \(ENOENT\).*file\.sock \(ECONNREFUSED\).*tappd\.sock \(E[A-Z]+\)/,
  );
});

test('an agent that appears later is found, and one that moved to a new socket is found again', async (t) => {
  const folder = await socketFolder(t);
  const socketPath = join(folder, 'dstack.sock');
  const agent = createAgent({ socketPaths: [socketPath] });
  await rejectsWith('unreachable', /ENOENT/, agent.info());
  const first = await startAgentDouble(t, { socketPath });
  assert.equal((await agent.info()).appId, first.appId, 'the failure was not remembered');
  await agent.quote(reportData);
  await rm(socketPath);
  const second = await startAgentDouble(t, { socketPath });
  await agent.quote(reportData);
  assert.deepEqual(second.calls, ['GetQuote']);
});

test('a stale socket does not hide the one that is alive', async (t) => {
  const folder = await socketFolder(t);
  const stale = await startAgentDouble(t, { socketPath: join(folder, 'dstack.sock') });
  await stale.close();
  await writeFile(stale.endpoint, '');
  const alive = await startAgentDouble(t, { socketPath: join(folder, 'tappd.sock'), style: 'tappd' });
  const agent = createAgent({ socketPaths: [stale.endpoint, alive.endpoint] });
  assert.equal((await agent.quote(reportData)).report_data, paddedHex);
  assert.deepEqual(alive.calls, ['Tappd.RawQuote']);
});

test('the present interface is preferred where both exist', async (t) => {
  const folder = await socketFolder(t);
  const old = await startAgentDouble(t, { socketPath: join(folder, 'tappd.sock'), style: 'tappd' });
  const present = await startAgentDouble(t, { socketPath: join(folder, 'dstack.sock') });
  const agent = createAgent({ socketPaths: [present.endpoint, old.endpoint] });
  await agent.quote(reportData);
  assert.deepEqual([present.calls, old.calls], [['GetQuote'], []]);
});

test('a quote is for the padded report data, verifies under the root, and its log replays', async (t) => {
  const { double, agent } = await startPair(t);
  const answer = await agent.quote(reportData);
  assert.deepEqual(Object.keys(answer), ['quote', 'event_log', 'report_data', 'vm_config']);
  assert.equal(answer.report_data, paddedHex);
  const quote = parseQuote(answer.quote);
  assert.equal(quote.reportData, paddedHex);
  const log = parseEventLog(answer.event_log);
  assert.deepEqual(replay(log), quote.rtmrs);
  assert.equal(systemEvent(log, 'app-id'), double.appId);
  assert.equal(systemEvent(log, 'compose-hash'), double.composeHash);
  assert.equal(systemEvent(log, 'instance-id'), double.instanceId);
  const verifier = QuoteVerifier.newWithRootCa(double.rootDer);
  const verified = verifier.verify(
    Buffer.from(answer.quote, 'hex'),
    double.collateral as never,
    Date.now() / 1000,
  );
  assert.equal(verified.status, 'UpToDate');
});

test("the old agent's quote is completed with the report data and says that vm_config is missing", async (t) => {
  const { double } = await startPair(t, 'tappd');
  const lines: string[] = [];
  const stream = { write: (line: string) => lines.push(line) > 0 } as never;
  const agent = createAgent({ socketPaths: [double.endpoint], log: createLog({ stream, readable: false }) });
  const answer = await agent.quote(reportData);
  assert.deepEqual(Object.keys(answer), ['quote', 'event_log', 'report_data', 'hash_algorithm', 'prefix']);
  assert.equal(answer.report_data, paddedHex);
  assert.match(lines.join(''), /without vm_config/);
  assert.equal((await agent.info()).appId, double.appId);
  await agent.info();
  assert.deepEqual(double.calls, ['Tappd.RawQuote', 'Tappd.Info'], 'and Info was asked once');
});

test('Info is asked once, however many ask at the same time', async (t) => {
  const { double, agent } = await startPair(t);
  const [info] = await Promise.all([agent.info(), agent.info(), agent.info()]);
  await agent.info();
  assert.deepEqual(double.calls, ['Info']);
  assert.equal(info.appId, double.appId);
  assert.equal(info.instanceId, double.instanceId);
  assert.equal(info.composeHash, double.composeHash);
  assert.equal(info.keyProvider?.name, 'simulated-kms');
  assert.match(info.appName, /SIMULATED/);
});

test('a refused Info is asked again', async (t) => {
  const { double, agent } = await startPair(t);
  double.misbehave('refuse');
  await rejectsWith('refused', /Info: refused/, agent.info());
  double.misbehave(undefined);
  assert.equal((await agent.info()).appId, double.appId);
});

test('calls reach the agent one at a time', async (t) => {
  const running = { now: 0, most: 0 };
  const double = await startSimulatedAgent({
    socketPath: join(await socketFolder(t), 'dstack.sock'),
    processor: await sharedProcessor(),
    async intercept(_method, reply) {
      running.most = Math.max(running.most, ++running.now);
      await setTimeout(5);
      running.now--;
      return reply;
    },
  });
  t.after(() => double.close());
  const agent = createAgent({ endpoint: double.endpoint });
  const quotes = [1, 2, 3].map((byte) => agent.quote(Buffer.from([byte])));
  await Promise.all([...quotes, agent.info(), agent.deriveKey('a', ''), agent.deriveKey('b', '')]);
  assert.equal(double.calls.length, 6);
  assert.equal(running.most, 1);
});

test('an http endpoint works like a socket', async (t) => {
  const double = await startAgentDouble(t, { port: 0 });
  const agent = createAgent({ endpoint: double.endpoint });
  assert.equal((await agent.info()).appId, double.appId);
  assert.equal((await agent.quote(reportData)).report_data, paddedHex);
});

test('an http endpoint where nobody listens is an error that says so', async (t) => {
  const double = await startAgentDouble(t, { port: 0 });
  await double.close();
  const { port } = new URL(double.endpoint);
  for (const host of ['127.0.0.1', 'localhost']) {
    await rejectsWith(
      'unreachable',
      /ECONNREFUSED/,
      createAgent({ endpoint: `http://${host}:${port}` }).info(),
    );
  }
});

test('derived keys depend on the path, and not on machine or interface', async (t) => {
  const folder = await socketFolder(t);
  const shared = { appId: '0a'.repeat(20), kmsSeed: Buffer.alloc(32, 7) };
  const one = await startAgentDouble(t, { ...shared, socketPath: join(folder, 'dstack.sock') });
  const other = {
    ...shared,
    socketPath: join(folder, 'tappd.sock'),
    style: 'tappd',
    instanceId: '0b'.repeat(20),
  } as const;
  const two = await startAgentDouble(t, other);
  const [a, b] = [one, two].map(({ endpoint }) => createAgent({ endpoint }));
  const { key, signatureChain } = await a!.deriveKey('acme/account', 'signing');
  assert.equal(key.length, 32);
  assert.deepEqual(
    signatureChain.map((signature) => signature.length),
    [65, 65],
  );
  assert.deepEqual((await b!.deriveKey('acme/account', 'other purpose')).key, key);
  assert.notDeepEqual((await a!.deriveKey('acme/other', 'signing')).key, key);
});

test('an answer that should hold a key and is not understood is never quoted', async (t) => {
  const folder = await socketFolder(t);
  const secret = 'f00dfeedbeef'.repeat(5);
  for (const [index, body] of [`{"key":"${secret}"}`, `${secret}`, `{"keys":["${secret}"]}`].entries()) {
    const socketPath = join(folder, `${index}.sock`);
    const double = await startSimulatedAgent({
      socketPath,
      processor: await sharedProcessor(),
      intercept: () => ({ status: 200, body }),
    });
    t.after(() => double.close());
    const error = await rejectsWith(
      'unintelligible',
      /GetKey/,
      createAgent({ endpoint: socketPath }).deriveKey('p', ''),
    );
    assert.doesNotMatch(`${error.message} ${error.cause}`, /f00dfeed/);
  }
});

for (const name of ['quote-report.json', 'tdx-lite-getquote.json'] as const) {
  test(`a real agent's answer is accepted and passed on, with the digests that it leaves out (${name})`, {
    skip: withoutFixtures(name),
  }, async (t) => {
    const real = readFixture<{ quote: string; event_log: string; report_data: string }>(name);
    const double = await startSimulatedAgent({
      socketPath: join(await socketFolder(t), 'dstack.sock'),
      processor: await sharedProcessor(),
      intercept: () => ({ status: 200, body: JSON.stringify(real) }),
    });
    t.after(() => double.close());
    const agent = createAgent({ endpoint: double.endpoint });
    const { event_log, ...others } = await agent.quote(Buffer.from(real.report_data, 'hex'));
    const { event_log: asGiven, ...othersAsGiven } = real;
    assert.deepEqual(others, othersAsGiven);
    const events = JSON.parse(event_log) as { imr: number; digest: string }[];
    const withoutDigests = (text: string) =>
      (JSON.parse(text) as object[]).map((event) => ({ ...event, digest: undefined }));
    assert.deepEqual(withoutDigests(event_log), withoutDigests(asGiven));
    // As a reader does it who takes the digests as they stand.
    const replayed = events
      .filter(({ imr }) => imr === 3)
      .reduce<Buffer>(
        (value, { digest }) => createHash('sha384').update(value).update(digest, 'hex').digest(),
        Buffer.alloc(48),
      );
    assert.equal(replayed.toString('hex'), parseQuote(real.quote).rtmrs[3]);
    await rejectsWith('report-data-mismatch', /asked was 00/, agent.quote(Buffer.alloc(64)));
  });
}
