// The simulated processor's quotes verify under its own root, and under no other.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { QuoteVerifier, type Collateral as QvlCollateral } from '@phala/dcap-qvl';
import { parseQuote } from '../../../evidence/quote.ts';
import { createSimulatedProcessor, type Measurements } from '../../../src/demo/simulated-quote.ts';

const now = new Date('2026-05-04T03:02:01Z');
const nowSecs = now.getTime() / 1000;
const measurements: Measurements = {
  mrTd: '11'.repeat(48),
  mrConfigId: '22'.repeat(48),
  rtmrs: ['a0'.repeat(48), 'a1'.repeat(48), 'a2'.repeat(48), 'a3'.repeat(48)],
};
const reportData = Buffer.from(Array.from({ length: 64 }, (_, index) => index));
const processor = await createSimulatedProcessor({ now });
const quote = processor.quote(measurements, reportData);
const collateral = processor.collateral as QvlCollateral;
const verifier = QuoteVerifier.newWithRootCa(processor.rootDer);

test('the production root refuses a simulated quote', () => {
  assert.throws(() => QuoteVerifier.newProd().verify(quote, collateral, nowSecs));
});

test("another simulated processor's root refuses it", async () => {
  const other = await createSimulatedProcessor({ now });
  assert.throws(() => QuoteVerifier.newWithRootCa(other.rootDer).verify(quote, collateral, nowSecs));
});

test('one changed byte in what is signed is found', () => {
  for (const offset of [200, 380, 520, 568, 631]) {
    const forged = Buffer.from(quote);
    forged[offset]! ^= 1;
    assert.throws(() => verifier.verify(forged, collateral, nowSecs), /signature is invalid/);
  }
});

test('collateral that was altered is refused', () => {
  const forged = { ...collateral, tcb_info: collateral.tcb_info.replace('"UpToDate"', '"OutOfDate"') };
  assert.throws(() => verifier.verify(quote, forged, nowSecs), /Signature is invalid for tcb_info/);
});

test('collateral expires after its month', () => {
  assert.throws(() => verifier.verify(quote, collateral, nowSecs + 31 * 86_400), /expired/);
});

test('its quotes verify as up to date under its own root', () => {
  const verified = verifier.verify(quote, collateral, nowSecs);
  assert.equal(verified.status, 'UpToDate');
  assert.deepEqual(verified.advisory_ids, []);
  assert.equal(Buffer.from(verified.report.asTd10()!.reportData).toString('hex'), reportData.toString('hex'));
});

test('its quotes carry the measurements that they were made for', () => {
  const parsed = parseQuote(quote);
  assert.equal(parsed.mrTd, measurements.mrTd);
  assert.equal(parsed.mrConfigId, measurements.mrConfigId);
  assert.deepEqual(parsed.rtmrs, measurements.rtmrs);
  assert.equal(parsed.reportData, reportData.toString('hex'));
  assert.equal(parsed.debug, false);
});

test('each of its certificates says that it is simulated', () => {
  const chain = quote
    .toString('latin1')
    .match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g)!;
  assert.equal(chain.length, 3);
  for (const pem of chain) {
    const certificate = new X509Certificate(pem);
    assert.match(certificate.subject, /CN=SIMULATED /);
    assert.match(certificate.issuer, /CN=SIMULATED /);
  }
  assert.match(new X509Certificate(processor.rootDer).subject, /CN=SIMULATED /);
});
