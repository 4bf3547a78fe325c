// The bundle: an outsider can check it with sha256sum and the quote, and it holds nothing private.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { AgentError, createAgent, type QuoteAnswer } from '../../evidence/agent.ts';
import { type Bundle, buildBundle, EvidenceError } from '../../evidence/bundle.ts';
import { parseQuote } from '../../evidence/quote.ts';
import { socketFolder, startAgentDouble } from '../support/agent-double.ts';
import { makeCertificate } from '../support/certificates.ts';

const run = promisify(execFile);
const account = {
  body: { status: 'valid', contact: ['mailto:ops@example.com'], key: { kty: 'EC', d: 'secret' } },
  uri: 'https://ca.test/acct/7',
  email: 'ops@example.com',
};

/** A quote that says nothing, for tests that do not look at it. */
const quote = async (reportData: Uint8Array): Promise<QuoteAnswer> => ({
  quote: '00',
  event_log: '[]',
  report_data: Buffer.from(reportData).toString('hex'),
});

function textOf(bundle: Bundle, name: string): string {
  const file = bundle.files.find((candidate) => candidate.name === name);
  assert.ok(file, `${name} is missing`);
  return file.text;
}

async function written(t: TestContext, bundle: Bundle): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bundle-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  for (const { name, text } of bundle.files) await writeFile(join(folder, name), text);
  return folder;
}

test("an agent's refusal never becomes a quote.json: there is no bundle at all", async (t) => {
  const double = await startAgentDouble(t, { socketPath: join(await socketFolder(t), 'dstack.sock') });
  const agent = createAgent({ endpoint: double.endpoint });
  const certificates = [await makeCertificate('app.example.com')];
  for (const how of ['refuse', 'error-in-200', 'garbage', 'truncated-quote', 'other-report-data'] as const) {
    double.misbehave(how);
    await assert.rejects(buildBundle({ account, certificates, quote: agent.quote }), AgentError);
  }
});

test('without an account URL or a certificate there is no bundle, and the agent is not asked', async () => {
  const certificates = [await makeCertificate('app.example.com')];
  const unasked = () => assert.fail('asked for a quote');
  for (const bad of [
    undefined,
    null,
    {},
    'https://ca.test/acct/7',
    { uri: 7 },
    { uri: 'javascript:alert(1)' },
  ]) {
    await assert.rejects(
      buildBundle({ account: bad, certificates, quote: unasked }),
      (error) => error instanceof EvidenceError && error.code === 'account-unreadable',
    );
  }
  await assert.rejects(
    buildBundle({ account, certificates: [], quote: unasked }),
    (error) => error instanceof EvidenceError && error.code === 'no-certificates',
  );
});

test('neither keys nor addresses of people are in it', async () => {
  const certificate = await makeCertificate('app.example.com');
  const chain = `${certificate.chain}\n${certificate.key}`;
  const bundle = await buildBundle({ account, certificates: [{ ...certificate, chain }], quote });
  const all = JSON.stringify(bundle);
  assert.doesNotMatch(all, /PRIVATE KEY/);
  assert.doesNotMatch(all, /mailto|ops@example|secret/);
  assert.equal(all.includes(certificate.key.split('\n')[1]!), false);
  assert.deepEqual(JSON.parse(textOf(bundle, 'acme-account.json')), {
    body: { status: 'valid' },
    uri: account.uri,
  });
});

test('sha256sum -c is satisfied, and finds one changed byte in any file', async (t) => {
  const certificates = [await makeCertificate('b.example.com'), await makeCertificate('*.a.example.com')];
  const bundle = await buildBundle({ account, certificates, quote });
  const folder = await written(t, bundle);
  const { stdout } = await run('sha256sum', ['-c', '--strict', 'sha256sum.txt'], { cwd: folder });
  const checked = ['acme-account.json', 'cert-*.a.example.com.pem', 'cert-b.example.com.pem'];
  assert.deepEqual(
    stdout.trim().split('\n'),
    checked.map((name) => `${name}: OK`),
  );
  for (const name of checked) {
    const text = textOf(bundle, name);
    await writeFile(join(folder, name), `${text.slice(0, -2)}!\n`);
    await assert.rejects(run('sha256sum', ['-c', 'sha256sum.txt'], { cwd: folder }));
    await writeFile(join(folder, name), text);
  }
});

test('sha256sum.txt is what sha256sum itself would write', async (t) => {
  const certificates = [await makeCertificate('app.example.com'), await makeCertificate('*.example.com')];
  const bundle = await buildBundle({ account, certificates, quote });
  const folder = await written(t, bundle);
  const { stdout } = await run('bash', ['-c', 'LC_ALL=C; sha256sum acme-account.json cert-*.pem'], {
    cwd: folder,
  });
  assert.equal(textOf(bundle, 'sha256sum.txt'), stdout);
});

test('the quote is for the digest of sha256sum.txt, padded with zeros', async (t) => {
  const double = await startAgentDouble(t, { socketPath: join(await socketFolder(t), 'dstack.sock') });
  const agent = createAgent({ endpoint: double.endpoint });
  const certificates = [await makeCertificate('app.example.com')];
  const bundle = await buildBundle({ account, certificates, quote: agent.quote });
  const digest = createHash('sha256').update(textOf(bundle, 'sha256sum.txt')).digest('hex');
  const answer = JSON.parse(textOf(bundle, 'quote.json'));
  assert.deepEqual(Object.keys(answer), ['quote', 'event_log', 'report_data', 'vm_config']);
  assert.equal(answer.report_data, digest.padEnd(128, '0'));
  assert.equal(parseQuote(answer.quote).reportData, digest.padEnd(128, '0'));
  assert.equal(bundle.reportData, digest.padEnd(128, '0'));
});

test('each name of a certificate has a file, and a name in two certificates the one stored under it', async () => {
  const both = await makeCertificate('*.example.com', 'example.com');
  const own = await makeCertificate('example.com');
  const bundle = await buildBundle({ account, certificates: [own, both], quote });
  assert.deepEqual(bundle.certificates, {
    '*.example.com': 'cert-*.example.com.pem',
    'example.com': 'cert-example.com.pem',
  });
  const serial = (name: string) => new X509Certificate(textOf(bundle, name)).serialNumber;
  assert.equal(serial('cert-*.example.com.pem'), both.serial);
  assert.equal(serial('cert-example.com.pem'), own.serial);
  const reversed = await buildBundle({ account, certificates: [both, own], quote });
  assert.deepEqual(reversed.files, bundle.files, 'whatever the order');
});

test('it is plain data, equal after the way to another process', async () => {
  const bundle = await buildBundle({
    account,
    certificates: [await makeCertificate('app.example.com')],
    quote,
  });
  assert.deepEqual(JSON.parse(JSON.stringify(bundle)), bundle);
  assert.deepEqual(structuredClone(bundle), bundle);
});
