// Collateral is fetched whole from one service or not at all, in bounded time and size, whatever the services answer.

import 'reflect-metadata';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CRLDistributionPointsExtension, X509CertificateGenerator } from '@peculiar/x509';
import {
  FetchCollateralError,
  type FetchCollateralErrorCode,
  type FetchCollateralOptions,
  fetchCollateral,
} from '../../../evidence/verify/fetch-collateral.ts';
import { judgeQuote } from '../../../evidence/verify/quote-rules.ts';
import { createSimulatedProcessor } from '../../../src/demo/simulated-quote.ts';
import { type PccsOptions, startPccsDouble } from '../../support/pccs-double.ts';

const processor = await createSimulatedProcessor();
const register = '00'.repeat(48);
const quote = processor.quote(
  { mrTd: register, mrConfigId: register, rtmrs: [register, register, register, register] },
  Buffer.alloc(64),
);
const impatient = { now: () => new Date(), sleep: async () => {} };

function fetchFrom(services: readonly string[], more: Partial<FetchCollateralOptions> = {}) {
  return fetchCollateral(quote, { services, root: processor.rootDer, clock: impatient, ...more });
}

async function rejectsWith(code: FetchCollateralErrorCode, message: RegExp, call: Promise<unknown>) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof FetchCollateralError, String(error));
    assert.match(error.message, message);
    assert.equal(error.code, code);
    return true;
  });
}

const failing: readonly (readonly [what: string, PccsOptions['intercept'], RegExp])[] = [
  [
    '404',
    () => ({ status: 404 }),
    /^no service has the collateral: 127\.0\.0\.1:\d+ answers \/\S+ with 404$/,
  ],
  ['a redirect', () => ({ status: 302, headers: { location: 'http://127.0.0.1:1/' } }), /with 302/],
  ['more than a megabyte', () => ({ body: 'x'.repeat(1024 * 1024 + 1) }), /more than 1048576 bytes/],
  ['no header with a chain', () => ({ body: '{}' }), /has no header/],
  [
    'a chain that is not URL-encoded',
    (path) => (path.includes('pckcrl') ? { headers: { 'sgx-pck-crl-issuer-chain': '%zz' } } : undefined),
    /not URL-encoded/,
  ],
  [
    'no JSON',
    (path) => (path.includes('/tcb') ? { headers: chain, body: '<html>' } : undefined),
    /tcbInfo is not JSON/,
  ],
  [
    'null',
    (path) => (path.includes('/tcb') ? { headers: chain, body: 'null' } : undefined),
    /no signed object/,
  ],
  [
    'no signature',
    (path) => (path.includes('/tcb') ? { headers: chain, body: '{"tcbInfo":{}}' } : undefined),
    /no signed object/,
  ],
];
const chain = { 'tcb-info-issuer-chain': 'x' };

for (const [what, intercept, message] of failing) {
  test(`a service that answers ${what} is left, and the next one is asked`, async (t) => {
    const bad = await startPccsDouble(t, processor.collateral, { intercept: intercept! });
    await rejectsWith('unavailable', message, fetchFrom([bad.url]));
    const good = await startPccsDouble(t, processor.collateral);
    assert.deepEqual(await fetchFrom([bad.url, good.url]), processor.collateral);
  });
}

test('a service that nobody runs is left after three attempts', async () => {
  await rejectsWith('unavailable', /no connection to 127\.0\.0\.1:1/, fetchFrom(['http://127.0.0.1:1']));
});

test('a service that hangs is left when its time is over, and says so', async (t) => {
  const hanging = await startPccsDouble(t, processor.collateral, { intercept: () => 'hang' });
  await rejectsWith(
    'unavailable',
    /did not answer within 0\.2 s/,
    fetchFrom([hanging.url], { timeoutMs: 200 }),
  );
});

test('whoever gives up is obeyed at once', async (t) => {
  const hanging = await startPccsDouble(t, processor.collateral, { intercept: () => 'hang' });
  const given = new AbortController();
  const call = fetchFrom([hanging.url, hanging.url], { signal: given.signal });
  given.abort();
  await rejectsWith('aborted', /given up/, call);
});

test('an overloaded service is asked again, three times in all', async (t) => {
  const twice = await startPccsDouble(t, processor.collateral, {
    intercept: (_path, attempt) => (attempt < 3 ? { status: attempt === 1 ? 503 : 429 } : undefined),
  });
  assert.deepEqual(await fetchFrom([twice.url]), processor.collateral);
  const always = await startPccsDouble(t, processor.collateral, { intercept: () => ({ status: 503 }) });
  await rejectsWith('unavailable', /with 503/, fetchFrom([always.url]));
  assert.equal(Math.max(...countsOf(always.asked)), 3);
});

function countsOf(paths: readonly string[]): number[] {
  return [...new Set(paths)].map((path) => paths.filter((one) => one === path).length);
}

test('a quote that names no platform is refused before anyone is asked', async (t) => {
  const service = await startPccsDouble(t, processor.collateral);
  const options = { services: [service.url], root: processor.rootDer };
  await rejectsWith('unintelligible', /not hexadecimal/, fetchCollateral('xyz', options));
  await rejectsWith('unintelligible', /ends within/, fetchCollateral(quote.subarray(0, 700), options));
  assert.deepEqual(service.asked, []);
});

test('what is fetched is for the platform of the quote, and verifies', async (t) => {
  const service = await startPccsDouble(t, processor.collateral);
  const collateral = await fetchFrom([`${service.url}/sgx/certification/v4/`]);
  assert.deepEqual([...service.asked].sort(), [
    '/sgx/certification/v4/pckcrl?ca=platform&encoding=der',
    '/sgx/certification/v4/rootcacrl',
    '/tdx/certification/v4/qe/identity?update=standard',
    '/tdx/certification/v4/tcb?fmspc=53494D554C41',
  ]);
  const verdicts = await judgeQuote(quote, collateral, { root: processor.rootDer, at: new Date() });
  assert.deepEqual(
    Object.values(verdicts).filter(({ verdict }) => verdict !== 'pass'),
    [],
  );
});

test('revocation lists are taken as DER, hex and PEM', async (t) => {
  for (const pckCrl of ['der', 'hex', 'pem'] as const) {
    const service = await startPccsDouble(t, processor.collateral, { pckCrl });
    assert.equal((await fetchFrom([service.url])).pck_crl, processor.collateral.pck_crl, pckCrl);
  }
});

test('the list of revoked authorities is fetched where the trusted root says, if the service has none', async (t) => {
  const list = Buffer.from(processor.collateral.root_ca_crl, 'hex');
  const service = await startPccsDouble(t, processor.collateral, {
    rootCrl: 'none',
    intercept: (path) => (path === '/root.crl' ? { body: list } : undefined),
  });
  const collateral = await fetchFrom([service.url], { root: await rootWithList(`${service.url}/root.crl`) });
  assert.equal(collateral.root_ca_crl, processor.collateral.root_ca_crl);
  // The simulated root does not say where its list is, and whatever root the service sends is not read.
  await rejectsWith('unavailable', /rootcacrl with 404/, fetchFrom([service.url]));
});

async function rootWithList(url: string): Promise<Uint8Array> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: 'CN=a root that says where its list is',
    keys: await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']),
    signingAlgorithm: algorithm,
    extensions: [new CRLDistributionPointsExtension([url])],
  });
  return new Uint8Array(certificate.rawData);
}
