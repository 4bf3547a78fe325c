// When a certificate is due, by age and by the CA's word.

import 'reflect-metadata';

import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { test } from 'node:test';
import { AuthorityKeyIdentifierExtension, X509CertificateGenerator } from '@peculiar/x509';
import { chooseWithin, renewAt, renewalInfoId } from '../../acme/renewal.ts';

const DAY = 86_400_000;
const start = new Date('2026-01-01T00:00:00Z');
const living = (days: number, sha256 = '0'.repeat(64)) => ({
  notBefore: start,
  notAfter: new Date(start.getTime() + days * DAY),
  sha256,
});
const after = (days: number) => new Date(start.getTime() + days * DAY);

test('with a third of its life left a certificate is due', () => {
  assert.deepEqual(renewAt(living(90), undefined, start), {
    at: after(60),
    reason: 'a third of its life left',
  });
  assert.deepEqual(renewAt(living(45), undefined, start).at, after(30));
});

test('a certificate that lives under ten days is due when half is left', () => {
  assert.deepEqual(renewAt(living(6), undefined, start), { at: after(3), reason: 'half of its life left' });
});

test('certificates of one age are due at different moments, each always at the same', () => {
  const early = renewAt(living(90, 'f'.repeat(64)), undefined, start).at;
  assert.ok(early < after(60) && early > after(58));
  assert.deepEqual(renewAt(living(90, 'f'.repeat(64)), undefined, after(10)).at, early);
});

test('the moment does not move as time passes, so a late look finds it in the past', () => {
  assert.deepEqual(renewAt(living(90), undefined, after(70)).at, after(60));
});

test('an expired certificate and one in its last twentieth are due now, whatever the CA suggests', () => {
  const window = { start: after(200), end: after(201), chosen: after(200.5) };
  assert.deepEqual(renewAt(living(90), window, after(91)), { at: after(91), reason: 'expired' });
  assert.deepEqual(renewAt(living(90), window, after(86)), {
    at: after(86),
    reason: 'last twentieth of its life',
  });
});

test('the suggested moment overrides the age, early and late', () => {
  const early = { start: after(5), end: after(6), chosen: after(5.5) };
  const late = { start: after(75), end: after(76), chosen: after(75.5) };
  assert.deepEqual(renewAt(living(90), early, start), { at: after(5.5), reason: 'suggested by the ca' });
  assert.deepEqual(renewAt(living(90), late, start).at, after(75.5));
});

test('days before the end are obeyed, the earlier of it and the suggestion wins', () => {
  const window = { start: after(75), end: after(76), chosen: after(75.5) };
  assert.deepEqual(renewAt(living(90), undefined, start, { daysBefore: 10 }).at, after(80));
  assert.deepEqual(renewAt(living(90), window, start, { daysBefore: 10 }).at, after(75.5));
  assert.deepEqual(renewAt(living(90), window, start, { daysBefore: 30 }).at, after(60));
});

test('days before the end that would renew without end are not obeyed', () => {
  for (const daysBefore of [0, -1, 6, 30, 400]) {
    assert.deepEqual(renewAt(living(6), undefined, start, { daysBefore }).at, after(3), String(daysBefore));
  }
});

test('the chosen moment lies within the window', () => {
  assert.deepEqual(chooseWithin(after(1), after(2), 0), after(1));
  assert.deepEqual(chooseWithin(after(1), after(2), 0.5), after(1.5));
  assert.ok(chooseWithin(after(1), after(2), 0.9999999) < after(2));
});

test('a certificate is named as in the example of RFC 9773: its serial keeps the zero in front', async () => {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: '0087654321',
      name: 'CN=Example',
      keys,
      signingAlgorithm: algorithm,
      extensions: [new AuthorityKeyIdentifierExtension('69885b6b87464041e1b37b847ba0ae2cde01c8d4')],
    },
    webcrypto,
  );
  assert.equal(renewalInfoId({ chain: certificate.toString('pem') }), 'aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE');
});

test('a certificate without an authority key identifier has no name for the CA', async () => {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.createSelfSigned(
    { name: 'CN=Example', keys, signingAlgorithm: algorithm },
    webcrypto,
  );
  assert.equal(renewalInfoId({ chain: certificate.toString('pem') }), undefined);
});
