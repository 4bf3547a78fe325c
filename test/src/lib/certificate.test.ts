// Certificates as they are read: the key is theirs, every link parses, and no error shows a key.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CertificateError, loadFault, readCertificate, splitChain } from '../../../src/lib/certificate.ts';
import { parseDomain } from '../../../src/lib/domain.ts';
import { makeCertificate, weakCertificate } from '../../support/certificates.ts';

function refusal(chain: string, key: string): CertificateError {
  try {
    readCertificate(chain, key);
  } catch (error) {
    assert.ok(error instanceof CertificateError);
    const told = `${error.message} ${String(error.cause ?? '')} ${error.stack}`;
    assert.doesNotMatch(told, /PRIVATE KEY|BEGIN/);
    return error;
  }
  assert.fail('it was read');
}

test('a key of another certificate is refused', async () => {
  const [one, other] = [await makeCertificate('a.example.com'), await makeCertificate('a.example.com')];
  assert.equal(refusal(one.chain, other.key).code, 'key-mismatch');
});

test('a chain with a damaged link is refused as a whole', async () => {
  const { chain, key } = await makeCertificate('a.example.com');
  const damaged = chain.replace(/\n(.{20})/, '\nAAAAAAAAAAAAAAAAAAAA');
  assert.equal(refusal(`${chain}\n${damaged}`, key).code, 'certificate-unreadable');
  assert.equal(refusal(damaged, key).code, 'certificate-unreadable');
  assert.equal(refusal(chain.slice(0, chain.length / 2), key).code, 'certificate-unreadable');
  assert.equal(refusal('', key).code, 'certificate-unreadable');
});

test('a damaged key is refused without showing it', async () => {
  const { chain, key } = await makeCertificate('a.example.com');
  assert.equal(refusal(chain, key.slice(0, key.length / 2)).code, 'key-unreadable');
  assert.equal(refusal(chain, 'not a key').code, 'key-unreadable');
});

test('names, times and fingerprint are those of the leaf', async () => {
  const made = await makeCertificate('a.example.com', '*.b.example.com');
  const read = readCertificate(`${made.chain}\n${(await makeCertificate('c.example.com')).chain}`, made.key);
  assert.deepEqual(read.names, ['a.example.com', '*.b.example.com']);
  assert.equal(read.sha256, made.sha256);
  assert.ok(read.notBefore < read.notAfter);
  assert.equal(splitChain(read.chain).length, 2);
});

test('what this OpenSSL would not serve is refused with its reason, however well it parses', async () => {
  const { chain, key } = await makeCertificate('a.example.com');
  const glued = `${chain.trim()}${chain}`;
  assert.equal(splitChain(glued).length, 2);
  for (const unloadable of [glued, `${chain}${chain.slice(0, 200)}`]) {
    const { code, message } = refusal(unloadable, key);
    assert.equal(code, 'does-not-load');
    assert.match(message, /PEM routines: bad end line/);
  }
  const weak = weakCertificate('a.example.com');
  const { code, message } = refusal(weak.chain, weak.key);
  assert.equal(code, 'does-not-load');
  assert.match(message, /ee key too small/);
  assert.equal(loadFault({ chain, key }), undefined);
});

test('a certificate for other names than the one asked for is refused', async () => {
  const { chain, key } = await makeCertificate('a.example.com');
  assert.throws(() => readCertificate(chain, key, parseDomain('b.example.com')), {
    code: 'name-not-covered',
    message: /for a\.example\.com, not for b\.example\.com/,
  });
});
