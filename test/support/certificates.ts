// Certificates for tests that need one and do not care who signed it.

import 'reflect-metadata';
import { execFileSync } from 'node:child_process';
import { webcrypto } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509';
import { type Certificate, readCertificate } from '../../src/lib/certificate.ts';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** Self-signed, valid for a year, for these names; the first is the one it is stored under. */
export async function makeCertificate(...names: [string, ...string[]]): Promise<Certificate> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: 'CN=test',
    keys,
    signingAlgorithm: algorithm,
    extensions: [new SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value })))],
  });
  const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  return readCertificate(
    certificate.toString('pem'),
    `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n`,
  );
}

/** Of an RSA key of 1024 bits: it parses, the key is its own, and no TLS server of today loads it. */
export function weakCertificate(name: string): { chain: string; key: string } {
  const folder = mkdtempSync(join(tmpdir(), 'weak-'));
  try {
    const files = ['-keyout', join(folder, 'key.pem'), '-out', join(folder, 'chain.pem')];
    const subject = ['-subj', '/CN=weak', '-addext', `subjectAltName=DNS:${name}`, '-days', '60'];
    execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:1024', '-nodes', ...files, ...subject], {
      stdio: 'ignore',
    });
    const read = (file: string) => readFileSync(join(folder, file), 'utf8');
    return { chain: read('chain.pem'), key: read('key.pem') };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
