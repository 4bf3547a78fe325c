// The files of a bundle as a stranger publishes them: read strictly, or a sentence that says what is wrong with them.

import { X509Certificate } from 'node:crypto';
import * as z from 'zod';
import { splitChain } from '../../src/lib/certificate.ts';
import { covers } from '../../src/lib/domain.ts';
import { certificateFileName } from '../bundle.ts';
import { FLEET_FILE } from '../fleet.ts';
import { bundleReportData, jsonIn, readQuoteDocument, sha256 } from './documents.ts';
import type { Fetched, SeenBundle } from './seen.ts';

export interface SumLine {
  /** Lower-case hex. */
  readonly sha256: string;
  readonly name: string;
}

export const ACCOUNT_FILE = 'acme-account.json';

/** These are made after the sums, and vouch for more than them. */
const APART = new Set(['sha256sum.txt', 'quote.json', 'attestation.json', 'history.jsonl', FLEET_FILE]);
const MOST_FILES = 500;
const PLAIN_NAME = /^[\w*-][\w.*-]{0,299}$/;

/** The format of sha256sum(1): `hex  name` or `hex *name`. A text instead says what is wrong. */
export function parseSums(body: Uint8Array): readonly SumLine[] | string {
  const text = Buffer.from(body).toString('latin1');
  if (!text.endsWith('\n')) return 'sha256sum.txt does not end with a line';
  const lines = text.slice(0, -1).split('\n');
  if (lines.length > MOST_FILES) return `sha256sum.txt has more than ${MOST_FILES} lines`;
  const found: SumLine[] = [];
  const names = new Set<string>();
  for (const [index, line] of lines.entries()) {
    const [, sha256, name] = /^([0-9a-fA-F]{64}) [ *](.+)$/.exec(line) ?? [];
    if (sha256 === undefined || name === undefined)
      return `line ${index + 1} of sha256sum.txt is not "digest  name"`;
    if (!PLAIN_NAME.test(name)) return `line ${index + 1} of sha256sum.txt does not name a plain file`;
    if (names.has(name)) return `sha256sum.txt lists ${name} twice`;
    if (APART.has(name)) return `sha256sum.txt lists ${name}, which is no file of a bundle's sums`;
    names.add(name);
    found.push({ sha256: sha256.toLowerCase(), name });
  }
  return found;
}

/** The file that holds the certificate of a host: under its own name, or else of the wildcard over it. */
export function ownCertificateName(sums: readonly SumLine[], host: string): string | undefined {
  const own = certificateFileName(host);
  if (sums.some(({ name }) => name === own)) return own;
  const wildcard = `*${host.slice(host.indexOf('.'))}`;
  const shared = certificateFileName(wildcard);
  return covers(wildcard, host) && sums.some(({ name }) => name === shared) ? shared : undefined;
}

/** The first certificate of a PEM file; undefined if there is none to be read. */
export function leafIn(body: Uint8Array): X509Certificate | undefined {
  const [first] = splitChain(Buffer.from(body).toString('latin1'));
  try {
    return first === undefined ? undefined : new X509Certificate(first);
  } catch {
    return undefined;
  }
}

const accountSchema = z.looseObject({ uri: z.url({ protocol: /^https?$/ }) });

/** The account's URL; undefined if the document is none. */
export function accountIn(body: Uint8Array): string | undefined {
  const read = accountSchema.safeParse(jsonIn(body));
  return read.success ? read.data.uri : undefined;
}

/**
 * Whether leaf, sums and quote are of one moment. Only what a change of certificates can explain counts against it: files
 * that are not there or are not what they should be will not be better on the next visit.
 */
export function bundleFits({ sums, quote, files }: SeenBundle, leaf: X509Certificate, host: string): boolean {
  if (sums.state !== 'got' || quote.state !== 'got') return true;
  const lines = parseSums(sums.body);
  const document = readQuoteDocument(quote.body);
  if (typeof lines === 'string' || typeof document === 'string') return true;
  if (document.parsed.reportData !== bundleReportData(sums.body)) return false;
  const whole = lines.every(({ name, sha256: sum }) => fileFits(files.get(name), sum));
  const name = ownCertificateName(lines, host);
  const own = name === undefined ? undefined : files.get(name);
  if (own?.state !== 'got') return whole;
  return whole && leafIn(own.body)?.raw.equals(leaf.raw) !== false;
}

function fileFits(file: Fetched | undefined, sum: string): boolean {
  return file?.state !== 'got' || sha256(file.body) === sum;
}
