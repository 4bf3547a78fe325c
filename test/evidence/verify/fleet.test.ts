// fleet.json: every replica is judged by its own quote, and one that is not what it should be spoils the verdict.

import assert from 'node:assert/strict';
import type { X509Certificate } from 'node:crypto';
import { before, test } from 'node:test';
import { fleetFile, fleetSchema } from '../../../evidence/fleet.ts';
import { type Attestation, type Statement, statementReportData } from '../../../evidence/statement.ts';
import { readQuoteFields, sha256 } from '../../../evidence/verify/documents.ts';
import { readLog } from '../../../evidence/verify/identity.ts';
import { judgeFleet } from '../../../evidence/verify/judge-fleet.ts';
import { judgeQuotes } from '../../../evidence/verify/judge-quotes.ts';
import type { Seen } from '../../../evidence/verify/seen.ts';
import { createMachine, type MachineOptions } from '../../../src/demo/simulated-machine.ts';
import { createSimulatedProcessor, type SimulatedProcessor } from '../../../src/demo/simulated-quote.ts';
import { createTestCa, HOST, type Served } from '../../support/evidence-host.ts';

let processor: SimulatedProcessor;
let leaf: X509Certificate;
before(async () => {
  processor = await createSimulatedProcessor();
  leaf = ((await (await createTestCa()).issue([HOST])) as Served).leaf;
});

const spkiOf = (certificate: X509Certificate) =>
  certificate.publicKey.export({ type: 'spki', format: 'der' });

function replica(
  instance: string,
  change: Partial<Statement> = {},
  machineOptions: MachineOptions = {},
): Attestation {
  const machine = createMachine(
    { appId: 'ab'.repeat(20), instanceId: instance, eventLog: 'full', ...machineOptions },
    processor,
  );
  const statement: Statement = {
    type: 'dstack-ingress/statement/v1',
    time: '2026-01-01T00:00:00.000Z',
    domains: [HOST],
    certificates: [
      {
        names: [HOST],
        serial: '0a',
        issuer: 'CN=Test',
        spki: sha256(spkiOf(leaf)),
        sha256: '0'.repeat(64),
        notBefore: '2026-01-01T00:00:00.000Z',
        notAfter: '2026-03-01T00:00:00.000Z',
      },
    ],
    account: { uri: 'https://ca.example/acct/1', thumbprint: 'x' },
    caa: {},
    appId: machine.appId,
    instanceId: machine.instanceId,
    composeHash: machine.composeHash,
    bootId: 'boot',
    revision: '1',
    previous: null,
    ...change,
  };
  return { statement, ...machine.quote(statementReportData(statement)) } as Attestation;
}

async function judged(replicas: readonly Attestation[], answered = replicas[0]!, body?: Buffer) {
  const quotes = await judgeQuotes(
    answered.quote,
    processor.collateral,
    { root: processor.rootDer, at: new Date() },
    undefined,
  );
  const document = readQuoteFields(answered);
  assert.ok(typeof document !== 'string');
  const seen = {
    host: HOST,
    connections: [{ chain: [], spki: spkiOf(leaf), protocol: 'TLSv1.3', distrust: undefined }],
    bundle: { connection: 0 },
    fleet: { state: 'got', body: body ?? Buffer.from(fleetFile(replicas).text) },
  } as unknown as Seen;
  const { identity } = readLog(document);
  return judgeFleet(seen, {
    quotes,
    ownQuote: answered.quote,
    identity,
    statement: answered.statement,
    expected: {},
  });
}

const [a, b, c] = ['01', '02', '03'].map((one) => one.repeat(20)) as [string, string, string];

test('three replicas with the key that was met pass, and it is said which of them answered', async () => {
  const verdict = await judged([replica(b), replica(a), replica(c)]);
  assert.ok(verdict);
  assert.equal(verdict.verdict, 'pass', verdict.reason);
  assert.match(verdict.reason, new RegExp(`3 replicas of one compose file.*instance ${b} answered`));
});

test('a replica whose quote is for another statement, or whose statement names another instance, fails', async () => {
  const honest = replica(a);
  const changed = replica(b);
  const moved = { ...changed, statement: { ...changed.statement, domains: ['other.example'] } };
  assert.match((await judged([honest, moved]))!.reason, /for something else than its statement/);
  assert.equal((await judged([honest, moved]))!.verdict, 'fail');
  const posing = replica(b, { instanceId: c });
  assert.match((await judged([honest, posing]))!.reason, /which it does not say/);
});

test('a machine of another app among them fails, and so does a quote that no processor made', async () => {
  const honest = replica(a);
  const foreign = replica(b, {}, { appId: 'cd'.repeat(20) });
  assert.match((await judged([honest, foreign]))!.reason, /belongs to app cdcd/);
  const other = await createSimulatedProcessor();
  const forged = { ...replica(b) };
  const machine = createMachine({ appId: 'ab'.repeat(20), instanceId: b, eventLog: 'full' }, other);
  const quoted = { ...forged, ...machine.quote(statementReportData(forged.statement)) } as Attestation;
  assert.equal((await judged([honest, quoted]))!.verdict, 'fail');
});

test('a replica that states another key, and an answer of one that is not listed yet, are not proven', async () => {
  const honest = replica(a);
  const certificates = [{ ...honest.statement.certificates[0]!, spki: 'f'.repeat(64) }];
  assert.equal((await judged([honest, replica(b, { certificates })]))!.verdict, 'not-run');
  assert.match((await judged([replica(b)], honest))!.reason, /is not among them yet/);
});

test('two statements of one instance fail, and so does what is no list', async () => {
  assert.match(
    (await judged([replica(a), replica(a, { revision: '2' })]))!.reason,
    /two statements of instance/,
  );
  assert.equal((await judged([replica(a)], replica(a), Buffer.from('{}')))!.verdict, 'fail');
});

test('of more replicas than fit into a file that readers take, those that spoke last are published', () => {
  const { statement, ...fields } = replica(a);
  const many = Array.from({ length: 60 }, (_, i) => ({
    ...fields,
    event_log: ' '.repeat(30_000),
    statement: {
      ...statement,
      instanceId: i.toString(16).padStart(40, '0'),
      time: new Date(i).toISOString(),
    },
  }));
  const { text } = fleetFile(many);
  assert.ok(text.length < 1024 * 1024);
  const { replicas } = fleetSchema.parse(JSON.parse(text));
  assert.ok(replicas.length > 10);
  assert.equal(replicas.at(-1)!.statement.instanceId, many.at(-1)!.statement.instanceId);
});
