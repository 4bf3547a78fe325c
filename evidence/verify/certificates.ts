// The vendor's certificates and revocation lists: read, followed up to the root, dated, and asked who is revoked.

import 'reflect-metadata';
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  X509Certificate,
  X509Crl,
} from '@peculiar/x509';
import { CollateralError } from './collateral.ts';

/** Leaf first, without the root. */
export type Chain = readonly [X509Certificate, ...X509Certificate[]];

/** The vendor's are two or three long. */
const LONGEST_CHAIN = 5;

/** Takes DER, or the PEM of one certificate. Throws CollateralError. */
export function readRoot(given: Uint8Array | string): X509Certificate {
  const [certificate, ...others] =
    typeof given === 'string' ? readPem('the root', given) : [readCertificate('the root', given)];
  if (certificate === undefined || others.length > 0)
    throw new CollateralError('unintelligible', 'the root is not one PEM certificate');
  return certificate;
}

/** The certificates of a PEM text; the root, which often stands at its end, is left out. Throws CollateralError. */
export function readChain(subject: string, pem: string, root: X509Certificate): Chain {
  const certificates = readPem(subject, pem);
  if (certificates.length > LONGEST_CHAIN)
    throw new CollateralError('unintelligible', `${subject} has more than ${LONGEST_CHAIN} certificates`);
  if (certificates.at(-1)?.equal(root)) certificates.pop();
  const [leaf, ...issuers] = certificates;
  if (leaf === undefined)
    throw new CollateralError('unintelligible', `${subject} has no certificate below the root`);
  return [leaf, ...issuers];
}

/** Why the chain does not lead to the root; its dates are another question. */
export async function chainFault(chain: Chain, root: X509Certificate): Promise<string | undefined> {
  const issuers = [...chain.slice(1), root];
  for (const [below, certificate] of chain.entries()) {
    const fault = await issuerFault(certificate, issuers[below]!, below);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

/** RFC 5280 §6.1: the name, the right to issue with `below` authorities in between, and the signature. */
async function issuerFault(certificate: X509Certificate, issuer: X509Certificate, below: number) {
  const [name, by] = [nameOf(certificate), nameOf(issuer)];
  if (certificate.issuer !== issuer.subject) return `${name} was not issued by ${by}`;
  const limits = issuer.getExtension(BasicConstraintsExtension);
  if (limits?.ca !== true) return `${by} is not a certificate authority`;
  if (limits.pathLength !== undefined && limits.pathLength < below)
    return `${by} may not stand ${below + 1} above a leaf`;
  if (!may(issuer, KeyUsageFlags.keyCertSign)) return `${by} may not sign certificates`;
  if (!(await isSigned(certificate, issuer))) return `the signature of ${by} on ${name} does not verify`;
  return undefined;
}

export function isAuthority(certificate: X509Certificate): boolean {
  return certificate.getExtension(BasicConstraintsExtension)?.ca === true;
}

/** The first of the certificates that is not in force. */
export function certificateDateFault(certificates: readonly X509Certificate[], at: Date): string | undefined {
  for (const certificate of certificates) {
    const fault = dateFault(nameOf(certificate), certificate.notBefore, certificate.notAfter, at);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

export function dateFault(
  subject: string,
  from: Date,
  until: Date | undefined,
  at: Date,
): string | undefined {
  if (until === undefined) return `${subject} does not say how long it is in force`;
  if (at < from) return `${subject} is in force only from ${day(from)}`;
  if (at > until) return `${subject} was in force until ${day(until)}`;
  return undefined;
}

/** Takes hex. Throws CollateralError. */
export function readCrl(subject: string, hex: string): X509Crl {
  try {
    return new X509Crl(Buffer.from(hex, 'hex'));
  } catch (cause) {
    throw new CollateralError('unintelligible', `${subject} is not a revocation list`, { cause });
  }
}

/** Why this is not a list of this issuer; its dates are another question. */
export async function crlFault(crl: X509Crl, issuer: X509Certificate): Promise<string | undefined> {
  const by = nameOf(issuer);
  if (crl.issuer !== issuer.subject) return `it is of ${commonName(crl.issuer)}, not of ${by}`;
  if (!may(issuer, KeyUsageFlags.cRLSign)) return `${by} may not sign it`;
  // It could say that the list covers only some certificates (RFC 5280 §5.2).
  const critical = crl.extensions.find((extension) => extension.critical);
  if (critical !== undefined)
    return `it has the critical extension ${critical.type}, which is not understood`;
  return (await isSigned(crl, issuer)) ? undefined : `the signature of ${by} does not verify`;
}

export function isRevoked(crl: X509Crl, certificate: X509Certificate): boolean {
  return crl.issuer === certificate.issuer && crl.findRevoked(certificate.serialNumber) !== null;
}

/** The name as people know it: "Intel SGX PCK Platform CA". */
export function nameOf(certificate: X509Certificate): string {
  return commonName(certificate.subject);
}

function commonName(name: string): string {
  return /(?:^|, )CN=([^,]{1,100})/.exec(name)?.[1] ?? name.slice(0, 100);
}

/** ECDSA over P-256 alone: the vendor's certificates have nothing else. */
export async function isSigned(what: X509Certificate | X509Crl, issuer: X509Certificate): Promise<boolean> {
  const { name, hash } = what.signatureAlgorithm as { name?: string; hash?: { name?: string } };
  if (name !== 'ECDSA' || hash?.name !== 'SHA-256' || !isP256(issuer)) return false;
  try {
    return what instanceof X509Crl
      ? await what.verify({ publicKey: issuer.publicKey })
      : await what.verify({ publicKey: issuer.publicKey, signatureOnly: true });
  } catch {
    return false;
  }
}

/** Signature: r and s, 32 bytes each, as quotes and collateral have it. */
export async function isSignedRaw(
  data: Uint8Array,
  signature: Uint8Array,
  signer: X509Certificate | Uint8Array,
): Promise<boolean> {
  try {
    const key = signer instanceof Uint8Array ? await importPoint(signer) : await importKeyOf(signer);
    return await crypto.subtle.verify(ecdsa, key, exact(signature), exact(data));
  } catch {
    // The point is not on the curve, or the key is of another kind.
    return false;
  }
}

const p256 = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const ecdsa = { name: 'ECDSA', hash: 'SHA-256' } as const;

function importPoint(xy: Uint8Array) {
  return crypto.subtle.importKey('raw', Uint8Array.of(4, ...xy), p256, false, ['verify']);
}

function importKeyOf(certificate: X509Certificate) {
  return crypto.subtle.importKey('spki', certificate.publicKey.rawData, p256, false, ['verify']);
}

/** WebCrypto takes no view of memory that might be shared, as far as the types know. */
function exact(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

function isP256({ publicKey }: X509Certificate): boolean {
  const { name, namedCurve } = publicKey.algorithm as { name: string; namedCurve?: string };
  return name === 'ECDSA' && namedCurve === 'P-256';
}

function may(certificate: X509Certificate, usage: KeyUsageFlags): boolean {
  const given = certificate.getExtension(KeyUsagesExtension);
  return given === null || (given.usages & usage) !== 0;
}

const PEM = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----/g;

function readPem(subject: string, pem: string): X509Certificate[] {
  return [...pem.matchAll(PEM)].map(([, base64]) =>
    readCertificate(subject, Buffer.from(base64!.replace(/\s/g, ''), 'base64')),
  );
}

function readCertificate(subject: string, der: Uint8Array): X509Certificate {
  try {
    return new X509Certificate(exact(der));
  } catch (cause) {
    throw new CollateralError('unintelligible', `${subject} has a certificate that cannot be read`, {
      cause,
    });
  }
}

function day(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, 'Z');
}
