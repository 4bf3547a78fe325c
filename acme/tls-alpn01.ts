// Answers tls-alpn-01 challenges (RFC 8737) with a certificate that the listener serves under ALPN acme-tls/1.

import 'reflect-metadata';

import { createHash, webcrypto } from 'node:crypto';
import {
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import type { ChallengeCertificate } from '../src/lib/certificate.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import type { Domain } from '../src/lib/domain.ts';
import { isThere, untilNobodyRemembers } from './fleet-challenge.ts';
import type { Challenge, Solver } from './issuer.ts';
import type { Store } from './store.ts';

export interface TlsAlpn01Options {
  /** Serves this to handshakes that ask for `domain` with ALPN acme-tls/1, or stops serving it (undefined). */
  serve(domain: Domain, certificate: ChallengeCertificate | undefined): void | Promise<void>;
  /** Shares the challenge with other instances, because the CA may connect to any of them. */
  store?: Pick<Store, 'shareChallenge' | 'unshareChallenge' | 'sharedChallenge' | 'shared'>;
  clock?: Clock;
}

const DAY_MS = 86_400_000;
/** RFC 8737 §6.1 */
const ACME_IDENTIFIER = '1.3.6.1.5.5.7.1.31';

export function createTlsAlpn01Solver({ serve, store, clock = systemClock }: TlsAlpn01Options): Solver {
  return {
    type: 'tls-alpn-01',
    async present({ domain, keyAuthorization }: Challenge) {
      await store?.shareChallenge(domain, keyAuthorization);
      if (store?.shared === true) await isThere(store, domain, keyAuthorization);
      await serve(domain, await challengeCertificate(domain, keyAuthorization, clock.now()));
    },
    // The listener answers as soon as `serve` has returned.
    wait: async (_, signal) => {
      if (store?.shared === true) await untilNobodyRemembers(clock, signal);
    },
    async cleanUp({ domain }) {
      await serve(domain, undefined);
      await store?.unshareChallenge(domain);
    },
  };
}

/** RFC 8737 §3: self-signed, one dNSName, and the digest of the key authorization in a critical extension. */
export async function challengeCertificate(
  domain: Domain,
  keyAuthorization: string,
  now: Date,
): Promise<ChallengeCertificate> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const digest = createHash('sha256').update(keyAuthorization).digest();
  const certificate = await X509CertificateGenerator.createSelfSigned(
    {
      name: 'CN=ACME challenge',
      // Some days on both sides, for clocks that differ.
      notBefore: new Date(now.getTime() - 2 * DAY_MS),
      notAfter: new Date(now.getTime() + 5 * DAY_MS),
      keys,
      signingAlgorithm: algorithm,
      extensions: [
        new SubjectAlternativeNameExtension([{ type: 'dns', value: domain }]),
        // An OCTET STRING of 32 bytes, DER: its tag and its length come first.
        new Extension(ACME_IDENTIFIER, true, Buffer.concat([Buffer.from([0x04, 0x20]), digest])),
        // With TLS 1.2, OpenSSL clients refuse a key that may not sign.
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      ],
    },
    webcrypto,
  );
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const key = `-----BEGIN PRIVATE KEY-----\n${der.replace(/.{64}/g, '$&\n')}\n-----END PRIVATE KEY-----\n`;
  return { cert: certificate.toString('pem'), key };
}
