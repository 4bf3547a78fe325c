// A certificate with its chain and key, as it is stored, served and put into evidence.

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { CodedError } from './coded-error.ts';
import { type Domain, parseDomain } from './domain.ts';

export interface Certificate {
  /** The names it is valid for (its dNSName entries), the first is the one it is stored under. */
  readonly names: readonly Domain[];
  /** PEM, leaf first, then the intermediates. */
  readonly chain: string;
  /** PEM, PKCS#8. Secret. */
  readonly key: string;
  /** Upper-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly issuer: string;
  /** SHA-256 of the leaf's DER, lower-case hex. */
  readonly sha256: string;
}

/** What a tls-alpn-01 validation is shown (RFC 8737 §3), PEM. Its key answers one challenge and is worth nothing else. */
export interface ChallengeCertificate {
  readonly cert: string;
  readonly key: string;
}

export type CertificateErrorCode =
  | 'certificate-unreadable'
  | 'key-unreadable'
  | 'key-mismatch'
  | 'no-names'
  | 'name-not-covered'
  | 'does-not-load';

export class CertificateError extends CodedError<CertificateErrorCode> {
  override readonly name = 'CertificateError';
}

/**
 * Parses, and proves that the key belongs to the leaf and that a TLS server can load both. Whoever reads a certificate,
 * from disk, from an earlier image or from the CA, reads it here, so that none that cannot be served is taken for one that
 * can. `name` is one that it must cover. Throws CertificateError; never puts the key into its text.
 */
export function readCertificate(chain: string, key: string, name?: Domain): Certificate {
  const leaf = readLeaf(chain);
  const privateKey = readKey(key);
  if (!leaf.checkPrivateKey(privateKey)) {
    throw new CertificateError('key-mismatch', `the key is not that of certificate ${leaf.serialNumber}`);
  }
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const why = loadFault({ chain, key: pem });
  if (why !== undefined) {
    throw new CertificateError('does-not-load', `certificate ${leaf.serialNumber} cannot be served: ${why}`);
  }
  const names = namesOf(leaf);
  if (name !== undefined && !names.includes(name)) {
    throw new CertificateError('name-not-covered', `it is for ${names.join(', ')}, not for ${name}`);
  }
  return {
    names,
    chain,
    key: pem,
    serial: leaf.serialNumber,
    notBefore: leaf.validFromDate,
    notAfter: leaf.validToDate,
    issuer: leaf.issuer.split('\n').reverse().join(', '),
    sha256: leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
  };
}

/** Why the OpenSSL that we run on would not serve this; undefined if it would. What one loads another may refuse. */
export function loadFault({ chain, key }: Pick<Certificate, 'chain' | 'key'>): string | undefined {
  try {
    createSecureContext({ cert: chain, key });
    return undefined;
  } catch (error) {
    // "error:0A00018F:SSL routines::ee key too small"
    return (error as Error).message.replace(/^error:[0-9A-F]+:/, '').replace('::', ': ');
  }
}

/** The certificates of a PEM text, each as its own PEM block. */
export function splitChain(chain: string): string[] {
  return chain.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
}

function readLeaf(chain: string): X509Certificate {
  const blocks = splitChain(chain);
  if (blocks.length === 0) throw new CertificateError('certificate-unreadable', 'no PEM certificate found');
  try {
    // Every link must parse: a chain with a damaged intermediate would fail only at the visitor's.
    const parsed = blocks.map((block) => new X509Certificate(block));
    return parsed[0]!;
  } catch (cause) {
    throw new CertificateError('certificate-unreadable', 'the certificate chain cannot be parsed', { cause });
  }
}

function readKey(key: string) {
  try {
    return createPrivateKey(key);
  } catch {
    // The cause may quote the input: it is dropped on purpose.
    throw new CertificateError('key-unreadable', 'the private key cannot be parsed');
  }
}

function namesOf(leaf: X509Certificate): Domain[] {
  const names = (leaf.subjectAltName ?? '')
    .split(', ')
    .filter((entry) => entry.startsWith('DNS:'))
    .map((entry) => parseDomain(entry.slice(4)));
  if (names.length === 0)
    throw new CertificateError('no-names', `certificate ${leaf.serialNumber} has no DNS name`);
  return names;
}
