// The evidence over HTTP: whole or not at all, for everybody, and no way out of its folder.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { type Bundle, buildBundle, fileOf } from '../../evidence/bundle.ts';
import {
  createEvidenceEndpoint,
  type EvidenceEndpoint,
  type EvidenceRequest,
} from '../../evidence/endpoint.ts';
import type { EvidenceReply } from '../../evidence/reply.ts';
import { createRouteTable } from '../../proxy/rules/routes.ts';
import { makeCertificate } from '../support/certificates.ts';
import { localConnection } from '../support/local-connections.ts';

const certificates = [await makeCertificate('app.example.com'), await makeCertificate('*.example.com')];
const bundle: Bundle = await buildBundle({
  account: { uri: 'https://ca.test/acct/7' },
  certificates,
  quote: async (reportData) => ({
    quote: '00',
    event_log: '[]',
    report_data: Buffer.from(reportData).toString('hex'),
  }),
});

/** Not asked here, see attest.test.ts. */
const attester = { handle: () => assert.fail() };
const { signal } = new AbortController();
const connection = localConnection(certificates[0]!);

/** Whether a request for this path would come to the endpoint. */
function isAnswered({ path: own }: EvidenceEndpoint, path: string): boolean {
  const table = createRouteTable([], { localPaths: [{ path: own, answeredBy: 'evidence' }] });
  return table.find('app.example.com', path)?.answeredBy === 'evidence';
}

function served(of: Bundle | 'none' = bundle, prefix?: string) {
  const endpoint = createEvidenceEndpoint({ attester, ...(prefix !== undefined && { prefix }) });
  if (of !== 'none') endpoint.setBundle(of);
  return async (
    path: string,
    changes: Partial<EvidenceRequest> = {},
  ): Promise<EvidenceReply & { text: string }> => {
    assert.equal(isAnswered(endpoint, path), true, `${path} is its own`);
    const reply = (await endpoint.handle({
      method: 'GET',
      path,
      query: '',
      host: 'app.example.com',
      headers: {},
      connection,
      signal,
      ...changes,
    })) as EvidenceReply;
    return { ...reply, text: Buffer.from(reply.body).toString() };
  };
}

test('paths that lead out of the folder are refused', async () => {
  const ask = served();
  for (const name of [
    '../etc/passwd',
    '..%2fquote.json',
    '..%5cquote.json',
    '%2e%2e',
    '..',
    '.',
    '/quote.json',
    '%2fquote.json',
    'quote.json/',
    'a/../quote.json',
    'quote.json%00',
    'quote.json%0a',
    '%',
    '%zz',
    '%c0%ae',
  ]) {
    const { status, text } = await ask(`/evidences/${name}`);
    assert.equal(status, 400, name);
    assert.equal(typeof JSON.parse(text).error, 'string');
  }
});

test('names of what every object has are not files', async () => {
  const ask = served();
  for (const name of [
    'constructor',
    '__proto__',
    'toString',
    'cert-.pem',
    'quote.json%3Fx',
    '%252e',
    '.versions',
  ]) {
    assert.equal((await ask(`/evidences/${name}`)).status, 404, name);
  }
  for (const host of ['constructor', '__proto__', '', 'elsewhere.test', 'a.b.example.com', 'example.com']) {
    assert.equal((await ask('/evidences/cert.pem', { host })).status, 404, host);
  }
});

test('paths beside the prefix belong to the app', () => {
  const matches = (path: string) => isAnswered(createEvidenceEndpoint({ attester }), path);
  const beside = [
    '/evidencesXYZ',
    '/evidences.json',
    '/evidence',
    '/',
    '//evidences/',
    '/Evidences/',
    '/a/evidences/',
  ];
  for (const path of [...beside, '/evidences%2fquote.json', '/evidences?x', '/evidences;x']) {
    assert.equal(matches(path), false, path);
  }
  for (const path of ['/evidences', '/evidences/', '/evidences/quote.json'])
    assert.equal(matches(path), true, path);
});

test('until the first bundle is complete, and when it is taken back, the answer is 503', async () => {
  const endpoint = createEvidenceEndpoint({ attester });
  const ask = async () => {
    const request = {
      method: 'GET',
      path: '/evidences/quote.json',
      query: '',
      host: 'app.example.com',
      headers: {},
      connection,
      signal,
    };
    return endpoint.handle(request);
  };
  const { status, headers } = await ask();
  assert.equal(status, 503);
  assert.match(headers['retry-after']!, /^\d+$/);
  assert.equal(headers['access-control-allow-origin'], '*');
  endpoint.setBundle(bundle);
  assert.equal((await ask()).status, 200);
  endpoint.setBundle(undefined);
  assert.equal((await ask()).status, 503);
});

test('a statement that is not there yet is 503, and what is never there is 404', async () => {
  const ask = served();
  for (const name of ['attestation.json', 'history.jsonl']) {
    const { status, headers } = await ask(`/evidences/${name}`);
    assert.equal(status, 503, name);
    assert.match(headers['retry-after']!, /^\d+$/);
  }
  assert.equal((await ask('/evidences/statement.json')).status, 404);
  const file = fileOf('attestation.json', 'application/json', '{}\n', 'a statement');
  const whole = served({ ...bundle, files: [...bundle.files, file] });
  assert.equal((await whole('/evidences/attestation.json')).text, '{}\n');
});

test('names that only the generation before had are answered for a minute, to whoever has its checksums', async () => {
  let time = 0;
  const endpoint = createEvidenceEndpoint({ attester, now: () => time });
  const names = [await makeCertificate('app.example.com'), await makeCertificate('gone.example.com')];
  const build = (list: typeof names) =>
    buildBundle({
      account: { uri: 'https://ca.test/acct/7' },
      certificates: list,
      quote: async (reportData) => ({
        quote: '00',
        event_log: '[]',
        report_data: Buffer.from(reportData).toString('hex'),
      }),
    });
  const [before, after] = [await build(names), await build(names.slice(0, 1))];
  const ask = async (name: string) => {
    const path = `/evidences/${name}`;
    // Each on a connection of its own.
    const request = { method: 'GET', path, query: '', host: 'app.example.com', headers: {}, signal };
    return (await endpoint.handle({ ...request, connection: localConnection(names[0]!) })).status;
  };
  endpoint.setBundle(before);
  endpoint.setBundle(after);
  assert.equal(await ask('cert-gone.example.com.pem'), 200);
  time = 60_001;
  assert.equal(await ask('cert-gone.example.com.pem'), 404);
  assert.equal(await ask('cert-app.example.com.pem'), 200);
});

test('what would change something is 405 and says what is possible', async () => {
  const ask = served();
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'get', 'TRACE']) {
    const { status, headers } = await ask('/evidences/quote.json', { method });
    assert.equal(status, 405);
    assert.equal(headers.allow, 'GET, HEAD, OPTIONS');
  }
});

test('each file is served byte for byte, for any origin, to be asked for anew', async () => {
  const ask = served();
  const types: Record<string, string> = {
    'acme-account.json': 'application/json',
    'cert-*.example.com.pem': 'application/pem-certificate-chain',
    'cert-app.example.com.pem': 'application/pem-certificate-chain',
    'sha256sum.txt': 'text/plain; charset=utf-8',
    'quote.json': 'application/json',
  };
  for (const [name, type] of Object.entries(types)) {
    const { status, headers, text } = await ask(`/evidences/${name}`);
    assert.equal(status, 200);
    assert.equal(createHash('sha256').update(text).digest('hex'), fileNamed(name).sha256);
    assert.equal(headers['content-type'], type);
    assert.equal(headers['cache-control'], 'no-cache');
    assert.equal(headers['access-control-allow-origin'], '*');
    assert.equal(headers['x-content-type-options'], 'nosniff');
    for (const framing of ['content-length', 'transfer-encoding', 'connection'])
      assert.equal(headers[framing], undefined);
  }
});

test('an asterisk may be escaped, and a query to get past caches is no harm', async () => {
  const ask = served();
  const { status, text } = await ask('/evidences/cert-%2A.example.com.pem', { query: 't=1' });
  assert.equal(status, 200);
  assert.equal(text, fileNamed('cert-*.example.com.pem').text);
});

test('cert.pem is the certificate of the host asked: its own, else that of the wildcard', async () => {
  const ask = served();
  const pem = async (host: string) => (await ask('/evidences/cert.pem', { host })).text;
  assert.equal(await pem('app.example.com'), fileNamed('cert-app.example.com.pem').text);
  assert.equal(await pem('other.example.com'), fileNamed('cert-*.example.com.pem').text);
});

test('who has the file already is told so, and a new bundle has new tags', async () => {
  const ask = served();
  const { headers } = await ask('/evidences/quote.json');
  const etag = headers.etag!;
  assert.match(etag, /^"[0-9a-f]+"$/);
  for (const known of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
    const reply = await ask('/evidences/quote.json', { headers: { 'if-none-match': known } });
    assert.deepEqual([reply.status, reply.text, reply.headers.etag], [304, '', etag]);
    assert.equal(reply.headers['cache-control'], 'no-cache');
  }
  assert.equal((await ask('/evidences/quote.json', { headers: { 'if-none-match': '"x"' } })).status, 200);
  const changed = { ...bundle, files: bundle.files.map((file) => ({ ...file, text: `${file.text} ` })) };
  const after = await served(changed)('/evidences/quote.json', { headers: { 'if-none-match': etag } });
  assert.equal(after.status, 200);
  assert.notEqual(after.headers.etag, etag);
});

test('the folder without its slash leads to the folder, so that relative links work', async () => {
  const ask = served();
  const { status, headers } = await ask('/evidences', { query: 'a=1' });
  assert.deepEqual([status, headers.location], [308, '/evidences/?a=1']);
});

test('a preflight is answered, also before there is a bundle', async () => {
  const { status, headers, text } = await served('none')('/evidences/quote.json', { method: 'OPTIONS' });
  assert.deepEqual([status, text, headers['access-control-allow-origin']], [204, '', '*']);
  assert.equal(headers['access-control-allow-methods'], 'GET, HEAD, OPTIONS');
});

test('the index lists every file with its checksum, as a page or as JSON', async () => {
  const ask = served();
  const page = await ask('/evidences/', { headers: { accept: 'text/html,application/json;q=0.9' } });
  assert.equal(page.headers['content-type'], 'text/html; charset=utf-8');
  for (const { name, sha256 } of bundle.files) {
    assert.ok(page.text.includes(sha256));
    assert.ok(page.text.includes(`href="${encodeURIComponent(name)}"`));
  }
  const json = await ask('/evidences/', { headers: { accept: 'application/json' } });
  const list = JSON.parse(json.text);
  assert.deepEqual(
    list.files.map(({ name }: { name: string }) => name),
    bundle.files.map(({ name }) => name),
  );
  assert.equal(list.reportData, bundle.reportData);
  assert.equal(list.hostCertificate, 'cert-app.example.com.pem');
  assert.equal(json.headers.vary, 'accept');
});

test('a host with markup in it does not get into the page', async () => {
  const { text } = await served()('/evidences/', { host: '"><script>alert(1)</script>' });
  assert.doesNotMatch(text, /<script/);
});

test('another prefix is served in the same way', async () => {
  const ask = served(bundle, '/.well-known/evidence');
  assert.equal((await ask('/.well-known/evidence/quote.json')).status, 200);
  assert.equal((await ask('/.well-known/evidence')).headers.location, '/.well-known/evidence/');
});

function fileNamed(name: string) {
  return bundle.files.find((file) => file.name === name)!;
}
