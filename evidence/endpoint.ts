// Serves the bundle under /evidences/: its files, the certificate of the host asked, and an index.

import { createHash } from 'node:crypto';
import type { LocalHandler, LocalReply, LocalRequest } from '../src/lib/local-handler.ts';
import type { Bundle, BundleFile } from './bundle.ts';

/** What it needs of a request. */
export type EvidenceRequest = Pick<LocalRequest, 'method' | 'path' | 'query' | 'host' | 'headers'>;

export interface EvidenceReply extends LocalReply {
  readonly body: Uint8Array;
}

export interface EvidenceEndpoint extends LocalHandler {
  /** It answers for this path and everything below it. */
  readonly path: string;
  /** Undefined: there is none yet, and the answer is 503. */
  setBundle(bundle: Bundle | undefined): void;
  handle(request: EvidenceRequest): EvidenceReply;
}

/** Where verifiers look for it. */
export const EVIDENCE_PATH = '/evidences';

const METHODS = 'GET, HEAD, OPTIONS';
const RETRY_AFTER_SECONDS = 10;
const NOTHING = new Uint8Array();

/** In every reply. Any page may read evidence, because it is public, and must ask for it anew, because it changes. */
const COMMON_HEADERS = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers': 'etag, retry-after',
  'cache-control': 'no-cache',
  'x-content-type-options': 'nosniff',
};

/** `prefix` starts with a slash and does not end with one. */
export function createEvidenceEndpoint({
  prefix = EVIDENCE_PATH,
}: {
  prefix?: string;
} = {}): EvidenceEndpoint {
  let served: Served | undefined;
  return {
    path: prefix,
    setBundle(bundle) {
      served = bundle && prepare(bundle);
    },
    handle(request) {
      if (request.method === 'OPTIONS') return preflight();
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        return problem(405, `${request.method} is not possible here`, { allow: METHODS });
      }
      if (request.path === prefix) return redirect(`${prefix}/`, request.query);
      if (served === undefined) return notYet();
      const name = fileNameOf(request.path.slice(prefix.length + 1));
      if (name === undefined) return problem(400, 'that is not the name of a file');
      return answer(served, name, request);
    },
  };
}

interface Served {
  readonly bundle: Bundle;
  readonly files: ReadonlyMap<string, Document>;
}

interface Document {
  readonly contentType: string;
  readonly body: Uint8Array;
  readonly etag: string;
}

function prepare(bundle: Bundle): Served {
  return {
    bundle,
    files: new Map(bundle.files.map((file) => [file.name, documentOf(file.contentType, file.text)])),
  };
}

function documentOf(contentType: string, text: string): Document {
  const body = Buffer.from(text);
  const etag = `"${createHash('sha256').update(body).digest('hex').slice(0, 32)}"`;
  return { contentType, body, etag };
}

/** Decoded once. Undefined for separators, dot segments and bad escapes, which a less careful reader could misread. */
function fileNameOf(encoded: string): string | undefined {
  try {
    const name = decodeURIComponent(encoded);
    return /[/\\\p{Cc}]/u.test(name) || name === '.' || name === '..' ? undefined : name;
  } catch {
    return undefined;
  }
}

function answer({ bundle, files }: Served, name: string, request: EvidenceRequest): EvidenceReply {
  if (name === '') return index(bundle, request);
  const file = files.get(name === 'cert.pem' ? (certificateOf(bundle, request.host) ?? '') : name);
  if (file === undefined) return problem(404, `there is no ${name} among the evidence`);
  return conditional(file, request);
}

/** The file of the host asked: under its own name, else that of the wildcard over it. */
function certificateOf({ certificates }: Bundle, host: string): string | undefined {
  const dot = host.indexOf('.');
  for (const name of [host, `*${host.slice(dot)}`]) {
    if (Object.hasOwn(certificates, name)) return certificates[name];
  }
  return undefined;
}

function index(bundle: Bundle, request: EvidenceRequest): EvidenceReply {
  const list = { ...describe(bundle), hostCertificate: certificateOf(bundle, request.host) ?? null };
  const asJson = prefersJson(request.headers.accept ?? '');
  const document = asJson
    ? documentOf('application/json', `${JSON.stringify(list, undefined, 2)}\n`)
    : documentOf('text/html; charset=utf-8', page(bundle, request.host));
  return conditional(document, request, {
    vary: 'accept',
    ...(!asJson && { 'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'" }),
  });
}

function describe({ builtAt, reportData, files }: Bundle) {
  return {
    builtAt,
    reportData,
    files: files.map(({ name, sha256, contentType, about }) => ({ name, sha256, contentType, about })),
  };
}

/** JSON only for a client that names JSON and not HTML: browsers name HTML, curl names neither. */
function prefersJson(accept: string): boolean {
  return /\bapplication\/json\b/i.test(accept) && !/\btext\/html\b/i.test(accept);
}

function page(bundle: Bundle, host: string): string {
  const rows = bundle.files.map(row).join('');
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Evidence of ${escaped(host)}</title>
<style>body{font:1rem/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code{font-size:.85em;word-break:break-all}td{vertical-align:top;padding:.2rem 1rem .2rem 0}</style>
<h1>Evidence of ${escaped(host)}</h1>
<p>These files show that the TLS keys of this site live in a confidential machine. The quote, signed by its processor,
is over the checksums; the checksums are over the account and the certificates.</p>
<table>${rows}
<tr><td><a href="cert.pem">cert.pem</a></td><td>the certificate chain served for the host that you asked</td></tr>
</table>
<p>Built ${escaped(bundle.builtAt)}. The report data of the quote is <code>${escaped(bundle.reportData)}</code>.</p>
<p>A page cannot prove its own connection: compare the certificate that you were given with the file here, from a
program that sees both.</p>
</html>
`;
}

function row({ name, about, sha256 }: BundleFile): string {
  const link = `<a href="${escaped(encodeURIComponent(name))}">${escaped(name)}</a>`;
  return `\n<tr><td>${link}</td><td>${escaped(about)}<br><code>sha256 ${sha256}</code></td></tr>`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** RFC 9110 §13.1.2: If-None-Match compares weakly; 304 carries the headers that 200 would, §15.4.5. */
function conditional(
  file: Document,
  request: EvidenceRequest,
  more: Record<string, string> = {},
): EvidenceReply {
  const headers = { ...COMMON_HEADERS, ...more, etag: file.etag };
  const known = request.headers['if-none-match'];
  if (known !== undefined && names(known, file.etag)) return { status: 304, headers, body: NOTHING };
  return { status: 200, headers: { ...headers, 'content-type': file.contentType }, body: file.body };
}

function names(ifNoneMatch: string, etag: string): boolean {
  const tags = ifNoneMatch.split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  return tags.includes('*') || tags.includes(etag);
}

function redirect(to: string, query: string): EvidenceReply {
  const location = query === '' ? to : `${to}?${query}`;
  return { status: 308, headers: { ...COMMON_HEADERS, location }, body: NOTHING };
}

function preflight(): EvidenceReply {
  return {
    status: 204,
    headers: {
      ...COMMON_HEADERS,
      allow: METHODS,
      'access-control-allow-methods': METHODS,
      'access-control-allow-headers': '*',
      'access-control-max-age': '86400',
    },
    body: NOTHING,
  };
}

function notYet(): EvidenceReply {
  return problem(503, 'the evidence is not complete yet', { 'retry-after': String(RETRY_AFTER_SECONDS) });
}

function problem(status: number, error: string, more: Record<string, string> = {}): EvidenceReply {
  return {
    status,
    headers: { ...COMMON_HEADERS, ...more, 'content-type': 'application/json' },
    body: Buffer.from(`${JSON.stringify({ error })}\n`),
  };
}
