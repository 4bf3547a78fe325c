// tls-alpn-01 answered by a TLS server that goes on serving its own certificate.

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { connect, createSecureContext, createServer, type SecureContext, type TLSSocket } from 'node:tls';
import { challengeCertificate, createTlsAlpn01Solver } from '../../acme/tls-alpn01.ts';
import type { ChallengeCertificate } from '../../src/lib/certificate.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { startPebble } from '../support/pebble.ts';
import { connectionTo, freshFolder, storeFor } from './support.ts';

/** Serves challenges under ALPN acme-tls/1 as the listener does: the context is chosen once ALPN is known. */
async function challengeServer(t: { after(fn: () => void): void }) {
  const challenges = new Map<string, SecureContext>();
  const pending = new WeakMap<object, SecureContext>();
  const server = createServer({
    ALPNCallback(this: TLSSocket, { servername, protocols }) {
      const context = challenges.get(servername);
      if (context === undefined || !protocols.includes('acme-tls/1')) return undefined;
      pending.set(this, context);
      return 'acme-tls/1';
    },
    SNICallback(this: TLSSocket, name: string, done: (error: Error | null, context?: SecureContext) => void) {
      done(null, pending.get(this) ?? challenges.get(name));
    },
  } as Parameters<typeof createServer>[0]);
  server.on('secureConnection', (socket) => socket.on('error', () => {}).end());
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const serve = (domain: string, certificate: ChallengeCertificate | undefined) => {
    if (certificate === undefined) challenges.delete(domain);
    else challenges.set(domain, createSecureContext(certificate));
  };
  return { port: (server.address() as AddressInfo).port, serve, challenges };
}

test('three names of one certificate are proven by handshakes alone, and nothing is served afterwards', async (t) => {
  const { port, serve, challenges } = await challengeServer(t);
  const pebble = await startPebble({ tlsPort: port });
  t.after(pebble.stop);
  const store = await storeFor(pebble, await freshFolder(t));
  const acme = connectionTo(pebble, store, { solver: createTlsAlpn01Solver({ serve }) });
  t.after(acme.close);
  const signal = AbortSignal.timeout(30_000);
  const { issuer } = await acme.connect(signal);
  const names = ['a.alpn.example', 'b.alpn.example', 'c.alpn.example'].map(parseDomain);
  const certificate = await issuer.obtain(names, signal);
  assert.deepEqual(certificate.names, names);
  assert.equal(challenges.size, 0);
});

test('a failed validation is reported in the words of the CA, and the challenge is taken down', async (t) => {
  const { port, serve, challenges } = await challengeServer(t);
  const pebble = await startPebble({ tlsPort: port });
  t.after(pebble.stop);
  const wrong = await challengeCertificate(parseDomain('wrong.example'), 'not.this', new Date());
  const solver = createTlsAlpn01Solver({ serve: (domain, cert) => serve(domain, cert && wrong) });
  const acme = connectionTo(pebble, await storeFor(pebble, await freshFolder(t)), { solver });
  t.after(acme.close);
  const signal = AbortSignal.timeout(30_000);
  const { issuer } = await acme.connect(signal);
  await assert.rejects(
    issuer.obtain([parseDomain('wrong.example')], signal),
    (error: Error & { code?: string }) => {
      assert.equal(error.code, 'authorization-failed');
      assert.match((error.cause as Error).message, /acmeValidationV1|extension|digest|unauthorized/i);
      return true;
    },
  );
  assert.equal(challenges.size, 0);
});

test('a wildcard cannot be proven by a handshake: the error says which challenges there are', async (t) => {
  const pebble = await startPebble();
  t.after(pebble.stop);
  const solver = createTlsAlpn01Solver({ serve: () => {} });
  const acme = connectionTo(pebble, await storeFor(pebble, await freshFolder(t)), { solver });
  t.after(acme.close);
  const signal = AbortSignal.timeout(30_000);
  const { issuer } = await acme.connect(signal);
  await assert.rejects(issuer.obtain([parseDomain('*.wild.example')], signal), {
    code: 'no-challenge',
    message: /no tls-alpn-01 for .*wild\.example, but dns-01/,
  });
});

test('the challenge certificate is self-signed for one name, in force, and lets OpenSSL finish a TLS 1.2 handshake', async (t) => {
  const domain = parseDomain('one.example');
  const { cert, key } = await challengeCertificate(domain, 'token.thumbprint', new Date());
  const parsed = new X509Certificate(cert);
  assert.equal(parsed.subjectAltName, 'DNS:one.example');
  assert.ok(parsed.verify(parsed.publicKey));
  assert.ok(parsed.validFromDate < new Date() && parsed.validToDate > new Date());
  const digest = createHash('sha256').update('token.thumbprint').digest('hex');
  // id-pe-acmeIdentifier, critical, an octet string within an octet string (RFC 8737 §3).
  assert.ok(parsed.raw.toString('hex').includes(`06082b0601050507011f0101ff04220420${digest}`));
  const { port, serve } = await challengeServer(t);
  serve(domain, { cert, key });
  const socket = connect({
    port,
    host: '127.0.0.1',
    servername: domain,
    ALPNProtocols: ['acme-tls/1'],
    ca: cert,
    maxVersion: 'TLSv1.2',
    // The critical extension is unknown to every ordinary client.
    rejectUnauthorized: false,
  });
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  assert.equal(socket.alpnProtocol, 'acme-tls/1');
  assert.equal(socket.getPeerX509Certificate()?.fingerprint256, parsed.fingerprint256);
  socket.destroy();
});
