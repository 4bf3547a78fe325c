// Serves the bundle under /evidences/: its files, the certificate of the host asked, an index for programs, and a page for people.

import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import type { LocalHandler, LocalReply, LocalRequest } from '../src/lib/local-handler.ts';
import type { Attester } from './attest.ts';
import type { Bundle } from './bundle.ts';
import { createGenerations, type Generation } from './generations.ts';
import { type Asset, assetNamed, type Encoding } from './page/assets.ts';
import { createDocument, type Document } from './page/document.ts';
import { type Facts, factsOf } from './page/facts.ts';
import { evidencePage } from './page.ts';
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

/** Where verifiers look for it. */
export const EVIDENCE_PATH = '/evidences';

const METHODS = 'GET, HEAD, OPTIONS';
const RETRY_AFTER_SECONDS = 10;
const NOTHING = new Uint8Array();

export function createEvidenceEndpoint(options: EvidenceEndpointOptions): EvidenceEndpoint {
  const { prefix = EVIDENCE_PATH, attester } = options;
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
      const name = fileNameOf(request.path.slice(prefix.length + 1));
      const asset = name === undefined ? undefined : assetNamed(name);
      if (asset !== undefined) return encodedFor(request, asset);
      const served = generations.of(request.connection);
      if (served === undefined) return notYet('the evidence is not complete yet');
      if (name === undefined) return problem(400, 'that is not the name of a file');
      return answer(served, name, request, generations.before());
    },
  };
}

interface Served extends Generation {
  readonly bundle: Bundle;
  readonly files: ReadonlyMap<string, Document>;
  /** Read when the first person looks. */
  readonly facts: () => Facts;
}

function prepare(bundle: Bundle): Served {
  return {
    bundle,
    id: identityOf(bundle),
    leaves: new Set(bundle.leaves),
    files: new Map(bundle.files.map((file) => [file.name, createDocument(file.contentType, file.text)])),
    facts: once(() => factsOf(bundle)),
  };
}

function once<T extends object>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

function identityOf({ files }: Bundle): string {
  const list = files.map(({ name, sha256 }) => `${sha256}  ${name}\n`);
  return createHash('sha256').update(list.join('')).digest('hex');
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
  served: Served,
  name: string,
  request: EvidenceRequest,
  before: readonly Served[],
): EvidenceReply {
  const { bundle, files } = served;
  if (name === '') return index(served, request);
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

function index(served: Served, request: EvidenceRequest): EvidenceReply {
  const certificateFile = certificateOf(served.bundle, request.host);
  if (prefersJson(request.headers.accept ?? '')) {
    const list = { ...describe(served.bundle), hostCertificate: certificateFile ?? null };
    const json = createDocument('application/json', `${JSON.stringify(list, undefined, 2)}\n`);
    return conditional(json, request, { vary: 'accept' });
  }
  const page = evidencePage(served.facts(), { host: request.host, certificateFile });
  const isGzip = accepts(request.headers['accept-encoding'] ?? '', 'gzip');
  const document = createDocument('text/html; charset=utf-8', isGzip ? gzipSync(page) : page);
  return conditional(document, request, {
    vary: 'accept, accept-encoding',
    ...pageHeaders,
    ...(isGzip && { 'content-encoding': 'gzip' }),
  });
}

/** Nothing from elsewhere, nothing inline, in no frame; what the page links to does not learn where from. */
const pageHeaders = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
};

/** In the order in which we would rather send them. */
const encodings: readonly Encoding[] = ['br', 'gzip'];

function encodedFor(request: EvidenceRequest, { plain, encoded }: Asset): EvidenceReply {
  const accepted = request.headers['accept-encoding'] ?? '';
  const encoding = encodings.find((each) => encoded[each] !== undefined && accepts(accepted, each));
  const document = encoding === undefined ? plain : encoded[encoding]!;
  return conditional(document, request, {
    vary: 'accept-encoding',
    ...(encoding !== undefined && { 'content-encoding': encoding }),
  });
}

/** RFC 9110 §12.5.3, save for the asterisk: a client that names nothing gets it plain. */
function accepts(acceptEncoding: string, encoding: Encoding): boolean {
  return acceptEncoding.split(',').some((part) => {
    const [name = '', ...parameters] = part.split(';').map((each) => each.trim().toLowerCase());
    return name === encoding && !parameters.some((each) => /^q=0(\.0*)?$/.test(each));
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
