// The evidence over HTTP: whole or not at all, for everybody, and no way out of its folder.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
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

const MARKUP = '"><script>alert(1)</script><img src=x onerror=alert(1)>\'';

test('markup in a host, a statement, a history or the name of a file does not get into the page', async () => {
  const certificate = {
    names: [MARKUP],
    serial: '0a',
    issuer: MARKUP,
    spki: 'ab'.repeat(32),
    sha256: 'cd'.repeat(32),
    notBefore: '2026-01-01T00:00:00Z',
    notAfter: '2026-03-01T00:00:00Z',
  };
  const statement = {
    type: 'dstack-ingress/statement/v1',
    time: '2026-01-02T03:04:05Z',
    domains: [MARKUP],
    certificates: [certificate],
    account: { uri: 'https://ca.test/acct/7', thumbprint: MARKUP },
    caa: { [MARKUP]: [MARKUP] },
    appId: '',
    instanceId: '',
    composeHash: 'ef'.repeat(32),
    bootId: MARKUP,
    revision: MARKUP,
    previous: null,
  };
  const attestation = { statement, quote: '00', event_log: '[]', report_data: '00'.repeat(64) };
  const line = { time: MARKUP, account: { uri: MARKUP } };
  const files = [
    fileOf('attestation.json', 'application/json', JSON.stringify(attestation), MARKUP),
    fileOf('history.jsonl', 'application/jsonl', `${JSON.stringify(line)}\n`, MARKUP),
    fileOf(MARKUP, 'text/plain', MARKUP, MARKUP),
  ];
  const ask = served({ ...bundle, files: [...bundle.files, ...files], builtAt: MARKUP });
  const { text } = await ask('/evidences/', { host: MARKUP });
  assert.ok(text.includes('2 Jan 2026, 03:04 UTC'), 'the statement is told');
  assert.ok(text.split('&#60;script&#62;alert').length > 8, 'all of it is told');
  assert.doesNotMatch(text, /<script>|<img|alert\(1\)>/);
});

test('a statement that cannot be read, and a quote that is none, leave the rest of the page', async () => {
  const file = fileOf('attestation.json', 'application/json', '{"statement":{}}', 'a statement');
  const { status, text } = await served({ ...bundle, files: [...bundle.files, file] })('/evidences/');
  assert.equal(status, 200);
  assert.match(text, /There is no statement yet/);
  assert.ok(text.includes('href="attestation.json"'));
});

test('long lists end, and say how much more there is', async () => {
  const many = Array.from({ length: 1_000 }, (_, index) => fileOf(`cert-${index}.pem`, 'text/plain', '', ''));
  const { text } = await served({ ...bundle, files: [...bundle.files, ...many] })('/evidences/');
  assert.match(text, /and 955 more files/);
  assert.ok(text.length < 50_000);
});

test('what the page loads is there before any bundle, in the encoding that is accepted', async () => {
  const ask = served('none');
  const { status, headers, text } = await ask('/evidences/page.css');
  assert.deepEqual([status, headers['content-type']], [200, 'text/css; charset=utf-8']);
  assert.match(text, /:focus-visible/);
  assert.equal(headers['content-encoding'], undefined, 'from source nothing is compressed');
  const { etag } = headers;
  const again = await ask('/evidences/page.css', { headers: { 'if-none-match': etag! } });
  assert.equal(again.status, 304);
});

test('the page is compressed for who accepts that, and forbids itself everything that is not its own', async () => {
  const ask = served();
  const plain = await ask('/evidences/', { headers: { 'accept-encoding': 'br, gzip;q=0' } });
  assert.equal(plain.headers['content-encoding'], undefined);
  const packed = await ask('/evidences/', { headers: { 'accept-encoding': 'gzip, br' } });
  assert.equal(packed.headers['content-encoding'], 'gzip');
  assert.equal(gunzipSync(packed.body).toString(), plain.text);
  assert.notEqual(packed.headers.etag, plain.headers.etag);
  assert.equal(packed.headers.vary, 'accept, accept-encoding');
  const policy = packed.headers['content-security-policy']!;
  assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self';/);
  assert.doesNotMatch(policy, /unsafe|data:|https?:|\*/);
  assert.doesNotMatch(plain.text, /\bstyle=|\bon\w+=|<style|<script>/, 'nothing is inline');
});

test('another prefix is served in the same way', async () => {
  const ask = served(bundle, '/.well-known/evidence');
  assert.equal((await ask('/.well-known/evidence/quote.json')).status, 200);
  assert.equal((await ask('/.well-known/evidence')).headers.location, '/.well-known/evidence/');
});

function fileNamed(name: string) {
  return bundle.files.find((file) => file.name === name)!;
}
