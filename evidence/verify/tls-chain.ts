// Whether a chain of certificates leads from a host's name to a trusted root, at any time that one names.

import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { rootCertificates } from 'node:tls';
import { splitChain } from '../../src/lib/certificate.ts';
import type { SeenConnection } from './seen.ts';
import { fail, pass, type Verdict } from './verdict.ts';

export interface ChainQuestion {
  readonly host: string;
  readonly at: Date;
  /** PEM, in the place of the public roots. */
  readonly ca: string | undefined;
}

/** What OpenSSL says of dates is said of today. We judge them by the time that was asked for. */
const DATES = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID']);
const LONGEST = 10;
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';

/**
 * OpenSSL has judged the chain when the connection was made, and its objections count, but for dates. Since it keeps only
 * its last objection, and since a kept chain is judged again later, the way to the root is walked here as well.
 */
export function judgeChain(connection: SeenConnection, question: ChainQuestion): Verdict {
  const { distrust } = connection;
  const fault = walk(connection.chain, question);
  if (typeof fault === 'string') return fail(fault);
  if (distrust !== undefined && !DATES.has(distrust)) return fail(`TLS refuses the certificate: ${distrust}`);
  const [leaf] = fault;
  return pass(
    `a chain of ${fault.length} leads from ${question.host} to a trusted root; in force until ${leaf!.validToDate.toISOString()}`,
  );
}

/** The chain from the leaf to the root, or what is wrong with it. */
function walk(chain: readonly Buffer[], { host, at, ca }: ChainQuestion): X509Certificate[] | string {
  const [leaf, ...others] = read(chain) ?? [];
  if (leaf === undefined) return 'the certificate of the host cannot be read';
  if (!namesHost(leaf, host))
    return `the certificate is for ${leaf.subjectAltName ?? 'no name'}, not for ${host}`;
  // X509Certificate's keyUsage is the extended one; absent: any (RFC 5280 §4.2.1.12).
  if (leaf.keyUsage !== undefined && !leaf.keyUsage.includes(SERVER_AUTH))
    return 'the certificate is not one for servers';
  const anchors = ca === undefined ? publicRoots() : readPem(ca);
  const path = [leaf];
  while (path.length <= LONGEST) {
    const last = path.at(-1)!;
    const late = dateFault(last, at);
    if (late !== undefined) return late;
    if (anchors.some((anchor) => anchor.raw.equals(last.raw))) return path;
    const issuer = [...anchors, ...others].find((one) => issued(one, last) && !path.includes(one));
    if (issuer === undefined) return `nobody trusted has issued the certificate of ${nameOf(last)}`;
    path.push(issuer);
  }
  return `the chain has more than ${LONGEST} certificates`;
}

function issued(issuer: X509Certificate, subject: X509Certificate): boolean {
  try {
    return issuer.ca && subject.checkIssued(issuer) && subject.verify(issuer.publicKey);
  } catch {
    // A key of a kind that cannot have signed this.
    return false;
  }
}

function namesHost(leaf: X509Certificate, host: string): boolean {
  if (isIP(host) !== 0) return leaf.checkIP(host) !== undefined;
  return leaf.checkHost(host, { subject: 'never', partialWildcards: false }) !== undefined;
}

function dateFault(certificate: X509Certificate, at: Date): string | undefined {
  const { validFromDate: from, validToDate: to } = certificate;
  if (at < from)
    return `the certificate of ${nameOf(certificate)} is in force from ${from.toISOString()} only`;
  if (at > to) return `the certificate of ${nameOf(certificate)} has expired on ${to.toISOString()}`;
  return undefined;
}

function nameOf({ subject, subjectAltName }: X509Certificate): string {
  return (subject || subjectAltName || 'no name').replaceAll('\n', ', ').slice(0, 200);
}

function read(chain: readonly Buffer[]): X509Certificate[] | undefined {
  try {
    return chain.map((der) => new X509Certificate(der));
  } catch {
    return undefined;
  }
}

function readPem(pem: string): X509Certificate[] {
  return splitChain(pem).map((block) => new X509Certificate(block));
}

let roots: X509Certificate[] | undefined;

function publicRoots(): X509Certificate[] {
  roots ??= rootCertificates.map((pem) => new X509Certificate(pem));
  return roots;
}
