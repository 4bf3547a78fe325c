// The demo's certificate chain: a root and an intermediate made on the spot, and the leaves they sign.

import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

const DAY_MS = 86_400_000;
/** Short, so that a forgotten copy of the root's file is soon worth nothing. */
const CHAIN_LIFE_MS = 30 * DAY_MS;
const LEAF_LIFE_MS = 7 * DAY_MS;
/** Clocks of clients may lag. */
const BACKDATED_MS = 3_600_000;

const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

export interface DemoPki {
  /** PEM of the root alone. */
  readonly root: string;
  /** PEM chain, leaf first, then the intermediate. `names` are dNSNames; `addresses` iPAddresses. */
  issue(subject: LeafSubject): Promise<string>;
}

export interface LeafSubject {
  readonly publicKey: x509.PublicKey | webcrypto.CryptoKey;
  readonly names: readonly string[];
  readonly addresses?: readonly string[];
}

interface Authority {
  readonly certificate: x509.X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
}

/** Every name in it says that nobody trusts it; the private keys never leave this process. */
export async function createDemoPki(): Promise<DemoPki> {
  const root = await createAuthority('dstack-ingress demo root (not trusted by anyone)', undefined);
  const intermediate = await createAuthority(
    'dstack-ingress demo intermediate (not trusted by anyone)',
    root,
  );
  return {
    root: `${root.certificate.toString('pem')}\n`,
    async issue(subject) {
      const leaf = await signLeaf(subject, intermediate);
      return `${leaf.toString('pem')}\n${intermediate.certificate.toString('pem')}\n`;
    },
  };
}

export async function generateLeafKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ecdsa, true, ['sign', 'verify']);
}

async function createAuthority(commonName: string, parent: Authority | undefined): Promise<Authority> {
  const keys = await generateLeafKeys();
  const signer = parent?.keys ?? keys;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: nameOf(commonName),
    issuer: parent?.certificate.subject ?? nameOf(commonName),
    ...validity(CHAIN_LIFE_MS),
    publicKey: keys.publicKey,
    signingKey: signer.privateKey,
    signingAlgorithm: ecdsa,
    extensions: [
      // RFC 5280 §4.2.1.9: the intermediate signs leaves only.
      new x509.BasicConstraintsExtension(true, parent === undefined ? undefined : 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(signer.publicKey),
    ],
  });
  return { certificate, keys };
}

async function signLeaf(subject: LeafSubject, authority: Authority): Promise<x509.X509Certificate> {
  const names: x509.JsonGeneralNames = [
    ...subject.names.map((value) => ({ type: 'dns', value }) as const),
    ...(subject.addresses ?? []).map((value) => ({ type: 'ip', value }) as const),
  ];
  return x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    // The names are in the extension (RFC 6125); an empty subject makes that extension critical (RFC 5280 §4.2.1.6).
    subject: '',
    issuer: authority.certificate.subject,
    ...validity(LEAF_LIFE_MS),
    publicKey: subject.publicKey,
    signingKey: authority.keys.privateKey,
    signingAlgorithm: ecdsa,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(names, true),
      await x509.SubjectKeyIdentifierExtension.create(subject.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(authority.keys.publicKey),
    ],
  });
}

function nameOf(commonName: string): string {
  return `CN=${commonName}`;
}

function validity(lifeMs: number) {
  const now = Date.now();
  return { notBefore: new Date(now - BACKDATED_MS), notAfter: new Date(now + lifeMs) };
}

/** RFC 5280 §4.1.2.2: positive; the CA/B rules ask for 64 random bits or more. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x3f) | 0x40;
  return bytes.toString('hex');
}
