// The files and addresses that the flags of verify name: each read and checked before anybody is asked.

import { createHash, X509Certificate } from 'node:crypto';
import { createResolver } from '../../dns/resolver.ts';
import { type CtSource, createCtSource } from '../../evidence/verify/ask-ct.ts';
import type { DnsSources } from '../../evidence/verify/ask-dns.ts';
import { createLogSource, type LogSource } from '../../evidence/verify/ask-logs.ts';
import { parseCollateral } from '../../evidence/verify/collateral.ts';
import type { CollateralSource } from '../../evidence/verify/gather.ts';
import { parseRoot } from '../../evidence/verify/quote-rules.ts';
import { parseTarget } from '../../evidence/verify/verify.ts';
import { splitChain } from '../lib/certificate.ts';
import { readNamedBytes, readNamedFile } from './named-file.ts';

export { readPolicyFile } from './verify-policy.ts';

export function checkUrl(text: string): string {
  parseTarget(text);
  return text;
}

export function readQuoteRoot(path: string): Uint8Array {
  const pem = readNamedFile('--root', path);
  try {
    return parseRoot(pem);
  } catch (cause) {
    throw new Error(`--root: ${path} is not the PEM of one certificate`, { cause });
  }
}

export function readRoots(path: string): string {
  const pem = readNamedFile('--ca', path);
  const blocks = splitChain(pem);
  try {
    if (blocks.length === 0) throw new Error('no certificate');
    for (const block of blocks) new X509Certificate(block);
    return pem;
  } catch (cause) {
    throw new Error(`--ca: ${path} does not hold certificates in PEM`, { cause });
  }
}

/** 64 digits are the hash itself. */
export function readCompose(text: string): string {
  if (/^[0-9a-f]{64}$/i.test(text)) return text.toLowerCase();
  return createHash('sha256').update(readNamedBytes('--compose', text)).digest('hex');
}

export function readCollateral(path: string): CollateralSource {
  const text = readNamedFile('--collateral', path);
  try {
    const collateral = parseCollateral(text);
    return async () => collateral;
  } catch (cause) {
    throw new Error(`--collateral: ${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Undefined: the usual ones. */
export function resolversAt(urls: readonly string[] | undefined): DnsSources | undefined {
  if (urls === undefined) return undefined;
  const { views = [], authority } = createResolver({ doh: urls, authoritative: true });
  return { views, authority };
}

export function ctSourceAt(text: string): CtSource {
  const url = text.replace(/^crtsh\+/, '');
  readServiceUrl('--ct', url);
  return createCtSource(text);
}

/** `logs+URL`: a list of the logs themselves. */
export function isLogList(text: string): boolean {
  return text.startsWith(LOGS);
}

const LOGS = 'logs+';

export function logSourceAt(text: string): LogSource {
  return createLogSource(readServiceUrl('--ct', text.slice(LOGS.length)));
}

/** Without TLS anyone on the path could answer; the loopback has no path. */
export function readServiceUrl(flag: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const local = url?.protocol === 'http:' && ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
  if (url?.protocol === 'https:' || local) return text;
  throw new Error(`${flag} ${JSON.stringify(text)} is not an https:// address`);
}
