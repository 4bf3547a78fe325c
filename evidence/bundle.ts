// The evidence of what is served: the account, the certificates, their checksums, and a quote over the checksums.

import { createHash } from 'node:crypto';
import * as z from 'zod';
import { type Certificate, splitChain } from '../src/lib/certificate.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import type { Domain } from '../src/lib/domain.ts';
import type { QuoteAnswer } from './agent.ts';

/** One file as it is published: text, under a name that verifiers know. */
export interface BundleFile {
  readonly name: string;
  readonly contentType: string;
  readonly text: string;
  /** Of the text, lower-case hex. */
  readonly sha256: string;
  /** For the index: what it is, in a sentence. */
  readonly about: string;
}

/** Plain data: it crosses to the worker processes. */
export interface Bundle {
  /**
   * acme-account.json, the certificates in the order of their names, sha256sum.txt, quote.json. Then, once there is a
   * statement, attestation.json and history.jsonl, which vouch for themselves.
   */
  readonly files: readonly BundleFile[];
  /** Name -> file, as in `app.example.com` -> `cert-app.example.com.pem`. */
  readonly certificates: Readonly<Record<string, string>>;
  /** Of the leaf of each of these certificates, the SHA-256 of its DER, lower-case hex. */
  readonly leaves: readonly string[];
  /** The 64 bytes that the quote is for, hex. */
  readonly reportData: string;
  /** ISO 8601. */
  readonly builtAt: string;
}

export type EvidenceErrorCode = 'account-unreadable' | 'no-certificates' | 'not-writable';

export class EvidenceError extends CodedError<EvidenceErrorCode> {
  override readonly name = 'EvidenceError';
}

export interface BundleParts {
  /** An account document as certbot keeps it: `uri`, perhaps a `body`. Only its URL and status are published. */
  readonly account: unknown;
  readonly certificates: readonly Certificate[];
  /** Asks the agent. Rejects unless the answer is a quote for these bytes. */
  readonly quote: (reportData: Uint8Array) => Promise<QuoteAnswer>;
  readonly now?: () => Date;
}

/**
 * One certificate file for each name, so that a verifier who knows only a domain finds its file; a wildcard's has the
 * asterisk in its name (`cert-*.example.com.pem`). sha256sum.txt is what `sha256sum -c` reads and covers the account
 * and every certificate; the quote's report data is its SHA-256, then 32 zero bytes. Rejects with EvidenceError, or
 * with what `quote` rejects with.
 */
export async function buildBundle(parts: BundleParts): Promise<Bundle> {
  const account = accountFile(parts.account);
  const byName = certificatesByName(parts.certificates);
  const covered = [account, ...[...byName].map(([name, certificate]) => certificateFile(name, certificate))];
  const checksums = checksumFile(covered);
  const reportData = Buffer.alloc(64);
  reportData.set(Buffer.from(checksums.sha256, 'hex'));
  const answer = await parts.quote(reportData);
  return {
    files: [...covered, checksums, quoteFile(answer)],
    certificates: Object.fromEntries([...byName.keys()].map((name) => [name, certificateFileName(name)])),
    leaves: [...new Set([...byName.values()].map(({ sha256 }) => sha256))],
    reportData: reportData.toString('hex'),
    builtAt: (parts.now ?? (() => new Date()))().toISOString(),
  };
}

export function certificateFileName(name: string): string {
  return `cert-${name}.pem`;
}

/** Sorted by name. A name in two certificates belongs to the one stored under it, else to the one that lasts longer. */
function certificatesByName(certificates: readonly Certificate[]): Map<Domain, Certificate> {
  const chosen = new Map<Domain, Certificate>();
  for (const certificate of certificates) {
    for (const name of certificate.names) {
      const other = chosen.get(name);
      if (other === undefined || prefers(name, certificate, other)) chosen.set(name, certificate);
    }
  }
  if (chosen.size === 0) throw new EvidenceError('no-certificates', 'no evidence without a certificate');
  return new Map([...chosen].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function prefers(name: Domain, candidate: Certificate, other: Certificate): boolean {
  const isOwn = candidate.names[0] === name;
  if (isOwn !== (other.names[0] === name)) return isOwn;
  return candidate.notAfter > other.notAfter;
}

const accountSchema = z.object({
  uri: z.url({ protocol: /^https?$/ }),
  body: z.object({ status: z.string().optional() }).optional(),
});

/** Only the fields that existing verifiers read: no contact address, no public key. */
function accountFile(account: unknown): BundleFile {
  const read = accountSchema.safeParse(account);
  if (!read.success) {
    throw new EvidenceError(
      'account-unreadable',
      'the ACME account document has no uri, or one that is not a URL',
    );
  }
  const { uri, body } = read.data;
  return fileOf(
    'acme-account.json',
    'application/json',
    `${JSON.stringify({ body: body ?? {}, uri })}\n`,
    'the ACME account that orders the certificates; CAA records name it',
  );
}

function certificateFile(name: Domain, certificate: Certificate): BundleFile {
  return fileOf(
    certificateFileName(name),
    // RFC 8555 §9.1
    'application/pem-certificate-chain',
    // Split and joined again, so that nothing but certificates can be published.
    `${splitChain(certificate.chain).join('\n')}\n`,
    `the certificate chain served for ${name}`,
  );
}

/** The format of sha256sum(1) in text mode. Names here never need its escapes. */
function checksumFile(covered: readonly BundleFile[]): BundleFile {
  return fileOf(
    'sha256sum.txt',
    'text/plain; charset=utf-8',
    covered.map(({ sha256, name }) => `${sha256}  ${name}\n`).join(''),
    'the checksums of the account and the certificates: check them with sha256sum -c',
  );
}

function quoteFile(answer: QuoteAnswer): BundleFile {
  return fileOf(
    QUOTE_FILE,
    'application/json',
    `${JSON.stringify(answer)}\n`,
    'the TDX quote whose report data is the SHA-256 of sha256sum.txt',
  );
}

/** The quote of a bundle, hex; undefined: there is no bundle. */
export function quoteIn(bundle: Bundle | undefined): string | undefined {
  const file = bundle?.files.find(({ name }) => name === QUOTE_FILE);
  return file && (JSON.parse(file.text) as QuoteAnswer).quote;
}

const QUOTE_FILE = 'quote.json';

export function fileOf(name: string, contentType: string, text: string, about: string): BundleFile {
  return { name, contentType, text, sha256: createHash('sha256').update(text).digest('hex'), about };
}
