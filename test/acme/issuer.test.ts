// Certificates from a real CA that refuses a third of the nonces.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { after, before, test } from 'node:test';
import { splitChain } from '../../src/lib/certificate.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { connectionTo, freshFolder, storeFor } from './support.ts';

let pebble: Pebble;
before(async () => {
  pebble = await startPebble();
});
after(() => pebble?.stop());

test('an apex and its wildcard are proven together by dns-01, and nothing stays in DNS', async (t) => {
  const store = await storeFor(pebble, await freshFolder(t));
  const acme = connectionTo(pebble, store);
  t.after(acme.close);
  const signal = AbortSignal.timeout(60_000);
  const { issuer } = await acme.connect(signal);
  const names = [parseDomain('apex.example'), parseDomain('*.apex.example')];
  const certificate = await issuer.obtain(names, signal);
  assert.deepEqual(certificate.names, names);
  const [leaf, ...rest] = splitChain(certificate.chain).map((pem) => new X509Certificate(pem));
  const root = new X509Certificate(await pebble.issuerRoots());
  assert.ok(leaf!.verify(rest[0]!.publicKey));
  assert.ok(rest.at(-1)!.verify(root.publicKey));
  assert.deepEqual(pebble.dns.txt('_acme-challenge.apex.example'), []);
  assert.deepEqual(await store.readChallenges(), []);
});
