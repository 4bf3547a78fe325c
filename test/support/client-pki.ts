// Authorities of clients' certificates, and what they sign: with intermediates, expired, revoked.

import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  type X509Certificate,
  X509CertificateGenerator,
  X509CrlGenerator,
  X509CrlReason,
} from '@peculiar/x509';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY_MS = 86_400_000;

/** PEM, as tls.connect() takes them. */
export interface Identity {
  readonly cert: string;
  readonly key: string;
}

export interface Authority {
  readonly pem: string;
  /** Without `days` for a year; negative: it has expired so long ago. */
  sign(name: string, days?: number): Promise<Identity>;
  /** Another authority under this one. */
  intermediate(name: string): Promise<Authority>;
  /** A list of what is revoked. */
  revoke(...identities: readonly Identity[]): Promise<string>;
}

type Keys = webcrypto.CryptoKeyPair;
let serial = 0x1000;

const makeKeys = () => webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']) as Promise<Keys>;

export async function createAuthority(name: string): Promise<Authority> {
  const keys = await makeKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name,
    keys,
    signingAlgorithm: algorithm,
    extensions: [new BasicConstraintsExtension(true, undefined, true)],
  });
  return authorityOf(certificate, keys, []);
}

/** `above`: intermediates on the way to the root, this one included. */
function authorityOf(issuer: X509Certificate, issuerKeys: Keys, above: readonly string[]): Authority {
  const create = async (subject: string, days: number, isAuthority: boolean) => {
    const keys = await makeKeys();
    const now = Date.now();
    const certificate = await X509CertificateGenerator.create({
      serialNumber: (++serial).toString(16),
      subject,
      issuer: issuer.subject,
      notBefore: new Date(now - 400 * DAY_MS),
      notAfter: new Date(now + days * DAY_MS),
      publicKey: keys.publicKey,
      signingKey: issuerKeys.privateKey,
      signingAlgorithm: algorithm,
      extensions: [new BasicConstraintsExtension(isAuthority, undefined, true)],
    });
    return { certificate, keys };
  };
  return {
    pem: issuer.toString('pem'),
    async sign(name, days = 365) {
      const { certificate, keys } = await create(name, days, false);
      const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
      return {
        cert: [certificate.toString('pem'), ...above].join('\n'),
        key: `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n`,
      };
    },
    async intermediate(name) {
      const { certificate, keys } = await create(name, 365, true);
      return authorityOf(certificate, keys, [certificate.toString('pem'), ...above]);
    },
    async revoke(...identities) {
      const { X509Certificate } = await import('@peculiar/x509');
      const list = await X509CrlGenerator.create({
        issuer: issuer.subject,
        thisUpdate: new Date(Date.now() - DAY_MS),
        nextUpdate: new Date(Date.now() + DAY_MS),
        signingAlgorithm: algorithm,
        signingKey: issuerKeys.privateKey,
        entries: identities.map(({ cert }) => ({
          serialNumber: new X509Certificate(cert).serialNumber,
          revocationDate: new Date(Date.now() - DAY_MS),
          reason: X509CrlReason.keyCompromise,
        })),
      });
      // OpenSSL knows it under the name of RFC 7468 §6 alone.
      return list.toString('pem').replaceAll(/(BEGIN|END) CRL/g, '$1 X509 CRL');
    },
  };
}
