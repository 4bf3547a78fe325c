// Serves the bundle under /evidences/: its files, the certificate of the host asked, and an index.

import { createHash } from 'node:crypto';
import type { LocalHandler, LocalReply, LocalRequest } from '../src/lib/local-handler.ts';
import type { Attester } from './attest.ts';
import type { Bundle, BundleFile } from './bundle.ts';
import { createGenerations, type Generation } from './generations.ts';
import { type EvidenceReply, problem, publicHeaders } from './reply.ts';

/** What it needs of a request. */
export type EvidenceRequest = Pick<
  LocalRequest,
  'method' | 'path' | 'query' | 'host' | 'headers' | 'connection' | 'signal'
>;

export interface EvidenceEndpoint extends LocalHandler {
  /** It answers for this path and everything below it. */
  readonly path: string;
  /**
   * Undefined: there is none yet, and the answer is 503. `next` will follow in a moment: until then it is for those who
   * were served a certificate that only it is about.
   */
  setBundle(bundle: Bundle | undefined, next?: Bundle): void;
  handle(request: EvidenceRequest): EvidenceReply | Promise<LocalReply>;
}

export interface EvidenceEndpointOptions {
  /** Starts with a slash and does not end with one. */
  readonly prefix?: string;
  /** Answers for `attest` below it. */
  readonly attester: Attester;
  /** Milliseconds that only rise. */
  readonly now?: () => number;
}

const METHODS = 'GET, HEAD, OPTIONS';
const RETRY_AFTER_SECONDS = 10;
const NOTHING = new Uint8Array();

export function createEvidenceEndpoint(options: EvidenceEndpointOptions): EvidenceEndpoint {
  const { prefix = '/evidences', attester } = options;
  const generations = createGenerations<Served>(options.now);
  return {
    path: prefix,
    setBundle(bundle, next) {
      generations.set(bundle && prepare(bundle), next && prepare(next));
    },
    handle(request) {
      if (request.method === 'OPTIONS') return preflight();
      if (request.path === `${prefix}/attest`) return attester.handle(request);
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        return problem(405, `${request.method} is not possible here`, { allow: METHODS });
      }
      if (request.path === prefix) return redirect(`${prefix}/`, request.query);
      const served = generations.of(request.connection);
      if (served === undefined) return notYet('the evidence is not complete yet');
      const name = fileNameOf(request.path.slice(prefix.length + 1));
      if (name === undefined) return problem(400, 'that is not the name of a file');
      return answer(served, name, request, generations.before());
    },
  };
}

interface Served extends Generation {
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
    id: identityOf(bundle),
    leaves: new Set(bundle.leaves),
    files: new Map(bundle.files.map((file) => [file.name, documentOf(file.contentType, file.text)])),
  };
}

function identityOf({ files }: Bundle): string {
  const list = files.map(({ name, sha256 }) => `${sha256}  ${name}\n`);
  return createHash('sha256').update(list.join('')).digest('hex');
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

function answer(
  { bundle, files }: Served,
  name: string,
  request: EvidenceRequest,
  before: readonly Served[],
): EvidenceReply {
  if (name === '') return index(bundle, request);
  const own = name === 'cert.pem' ? (certificateOf(bundle, request.host) ?? '') : name;
  // A reader may have the checksums of the generation before, and ask for what only those list.
  const file = files.get(own) ?? before.find((each) => each.files.has(own))?.files.get(own);
  if (file !== undefined) return conditional(file, request);
  if (LATER.has(name)) return notYet('there is no statement yet');
  return problem(404, `there is no ${name} among the evidence`);
}

/** Files that a complete publication has. */
const LATER = new Set(['attestation.json', 'history.jsonl']);

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
  const headers = { ...publicHeaders, ...more, etag: file.etag };
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
  return { status: 308, headers: { ...publicHeaders, location }, body: NOTHING };
}

function preflight(): EvidenceReply {
  return {
    status: 204,
    headers: {
      ...publicHeaders,
      allow: METHODS,
      'access-control-allow-methods': METHODS,
      'access-control-allow-headers': '*',
      'access-control-max-age': '86400',
    },
    body: NOTHING,
  };
}

function notYet(why: string): EvidenceReply {
  return problem(503, why, { 'retry-after': String(RETRY_AFTER_SECONDS) });
}
