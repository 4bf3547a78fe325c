// Files that settings name: read once, at the start, and refused with what to do about it.

import { X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { splitChain } from '../lib/certificate.ts';
import { unreadable } from './mistake.ts';
import { quote, ValueError } from './values.ts';

export type ReadFile = (path: string) => string;
export type ListFolder = (path: string) => readonly string[];

export function readNamedFile(path: string, readFile: ReadFile): string {
  try {
    return readFile(path);
  } catch (cause) {
    const { subject, cure } = unreadable(cause);
    throw new ValueError(`${quote(path)} ${subject}`, cure, { cause });
  }
}

/** PEM. */
export function readRoots(path: string, readFile: ReadFile): string {
  const pem = readNamedFile(path, readFile);
  const blocks = splitChain(pem);
  if (blocks.length > 0 && blocks.every(isCertificate)) return pem;
  throw new ValueError(`${quote(path)} does not hold certificates`, 'wants a PEM file of roots');
}

/** PEM of RFC 7468 §6, one list or several. */
export function isRevocationList(text: string): boolean {
  try {
    createSecureContext({ crl: text });
    return text.includes('-----BEGIN X509 CRL-----');
  } catch {
    return false;
  }
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    return false;
  }
}

export function parsePath(text: string): string {
  if (!text.includes('\0')) return text;
  throw new ValueError('is not a path', 'wants one without NUL characters');
}
