// What Certificate Transparency shows for a host, by whoever indexes the logs: Cert Spotter's interface and crt.sh's.

import * as z from 'zod';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { CodedError } from '../../src/lib/coded-error.ts';
import { HttpError, type HttpReply, type HttpRequest, httpRequest } from '../../src/lib/fetch.ts';
import type { LoggedCertificate, SeenSource } from './seen.ts';

export interface CtSource {
  /** As the reader wrote it. */
  readonly name: string;
  /** All certificates for the host, and for the wildcard over it. Rejects unless it is told all. */
  find(host: string, signal: AbortSignal): Promise<LoggedCertificate[]>;
}

export class CtError extends CodedError<'unreachable' | 'limited' | 'unintelligible' | 'too-many'> {
  override readonly name = 'CtError';
}

export interface CtOptions {
  readonly request?: (request: HttpRequest) => Promise<HttpReply>;
  readonly clock?: Clock;
}

export const DEFAULT_CT_SOURCES = [
  'https://api.certspotter.com/v1/issuances',
  'crtsh+https://crt.sh/',
] as const;

const CRTSH = 'crtsh+';
const SOURCE_MS = 24_000;
const REQUEST_MS = 12_000;
const LARGEST_PAGE = 1024 * 1024;
const MOST_PAGES = 40;
const MOST_CERTIFICATES = 10_000;
const ATTEMPTS = 3;
const PATIENCE_MS = 1_000;
const LONGEST_PATIENCE_MS = 4_000;

/** Never rejects, and ends in time. */
export async function askSources(
  sources: readonly CtSource[],
  host: string,
  signal: AbortSignal,
): Promise<SeenSource[]> {
  return Promise.all(
    sources.map(async (source) => {
      const deadline = AbortSignal.any([signal, AbortSignal.timeout(SOURCE_MS)]);
      try {
        return { source: source.name, found: await source.find(host, deadline) };
      } catch (error) {
        const why = deadline.aborted ? 'no answer in time' : (error as Error).message;
        return { source: source.name, found: undefined, why };
      }
    }),
  );
}

/** `crtsh+URL` is read as crt.sh's interface, any other URL as Cert Spotter's list of issuances. */
export function createCtSource(text: string, options: CtOptions = {}): CtSource {
  const isCrtsh = text.startsWith(CRTSH);
  const url = new URL(isCrtsh ? text.slice(CRTSH.length) : text);
  const ask = createAsking(options);
  return { name: text, find: isCrtsh ? crtshAt(url, ask) : certSpotterAt(url, ask) };
}

type Ask = (url: URL, signal: AbortSignal) => Promise<unknown>;

/** Asks again while it may pass, a few times. */
function createAsking({ request = httpRequest, clock = systemClock }: CtOptions): Ask {
  return async (url, signal) => {
    for (let attempt = 1; ; attempt++) {
      const answer = await once(request, url, signal);
      if (!(answer instanceof Hindrance)) return answer;
      if (attempt === ATTEMPTS) throw answer.error;
      await clock.sleep(answer.patienceMs, signal);
    }
  };
}

/** What may pass. */
class Hindrance {
  readonly error: CtError;
  readonly patienceMs: number;
  constructor(error: CtError, retryAfter?: string) {
    const askedMs = /^\d{1,6}$/.test(retryAfter ?? '') ? Number(retryAfter) * 1000 : PATIENCE_MS;
    this.error = error;
    this.patienceMs = Math.min(askedMs, LONGEST_PATIENCE_MS);
  }
}

async function once(
  request: (request: HttpRequest) => Promise<HttpReply>,
  url: URL,
  signal: AbortSignal,
): Promise<unknown> {
  try {
    const { status, headers, body } = await request({
      url: url.href,
      headers: { accept: 'application/json', 'user-agent': 'dstack-ingress-verify' },
      timeoutMs: REQUEST_MS,
      maxBytes: LARGEST_PAGE,
      signal,
    });
    if (status === 200) return parsed(body);
    const error = new CtError(status === 429 ? 'limited' : 'unreachable', `HTTP status ${status}`);
    if (status === 429 || status >= 500) return new Hindrance(error, headers['retry-after']);
    throw error;
  } catch (cause) {
    if (!(cause instanceof HttpError)) throw cause;
    const error = new CtError('unreachable', cause.message, { cause });
    if (cause.code === 'broken' || cause.code === 'refused') return new Hindrance(error);
    throw error;
  }
}

function parsed(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (cause) {
    throw new CtError('unintelligible', 'the answer is not JSON', { cause });
  }
}

function understood<T extends z.ZodType>(schema: T, answer: unknown): z.output<T> {
  const read = schema.safeParse(answer);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  throw new CtError(
    'unintelligible',
    `the answer is not understood: ${issue?.path.join('.') || 'answer'}: ${issue?.message ?? ''}`,
  );
}

const digest = z
  .string()
  .regex(/^[0-9a-f]{64}$/i)
  .transform((text) => text.toLowerCase());
const time = z.string().refine((text) => !Number.isNaN(Date.parse(text)), 'must be a time');

const issuances = z.array(
  z.object({
    id: z.union([z.string(), z.number()]).transform(String),
    dns_names: z.array(z.string()).optional(),
    pubkey_sha256: digest,
    cert_sha256: digest.nullish(),
    not_before: time.nullish(),
    not_after: time,
  }),
);

function certSpotterAt(base: URL, ask: Ask): CtSource['find'] {
  return async (host, signal) => {
    const found = new Map<string, LoggedCertificate>();
    let after: string | undefined;
    for (let page = 0; page < MOST_PAGES && found.size <= MOST_CERTIFICATES; page++) {
      const list = understood(issuances, await ask(pageAfter(base, host, after), signal));
      if (list.length === 0) return [...found.values()];
      for (const issuance of list) {
        // One that begins anew would never end.
        if (found.has(issuance.id))
          throw new CtError('unintelligible', `it lists ${issuance.id} a second time`);
        found.set(issuance.id, ofCertSpotter(issuance, host));
      }
      after = list.at(-1)!.id;
    }
    throw new CtError('too-many', `it has more than ${found.size} certificates`);
  };
}

function pageAfter(base: URL, host: string, after: string | undefined): URL {
  const url = new URL(base);
  url.searchParams.set('domain', host);
  url.searchParams.set('match_wildcards', 'true');
  url.searchParams.set('expand', 'dns_names');
  if (after !== undefined) url.searchParams.set('after', after);
  return url;
}

function ofCertSpotter(issuance: z.infer<typeof issuances>[number], host: string): LoggedCertificate {
  return {
    id: issuance.id,
    names: issuance.dns_names ?? [host],
    spki: issuance.pubkey_sha256,
    sha256: issuance.cert_sha256 ?? undefined,
    notBefore: issuance.not_before ?? undefined,
    notAfter: issuance.not_after,
  };
}

/** crt.sh gives dates in UTC and does not say so. */
const undated = z
  .string()
  .transform((text) => (/[Zz]$|[+-]\d\d:?\d\d$/.test(text) ? text : `${text}Z`))
  .pipe(time);

const entries = z.array(
  z.object({
    id: z.union([z.string(), z.number()]).transform(String),
    issuer_name: z.string().optional(),
    name_value: z.string(),
    common_name: z.string().nullish(),
    serial_number: z.string().regex(/^[0-9a-f]+$/i),
    not_before: undated.nullish(),
    not_after: undated,
  }),
);

/** It finds whole names only, so the wildcard over the host is asked for by itself. */
function crtshAt(base: URL, ask: Ask): CtSource['find'] {
  return async (host, signal) => {
    const parent = host.slice(host.indexOf('.') + 1);
    const names = parent.includes('.') ? [host, `*.${parent}`] : [host];
    const found = new Map<string, LoggedCertificate>();
    for (const name of names) {
      const url = new URL(base);
      url.searchParams.set('q', name);
      url.searchParams.set('output', 'json');
      for (const entry of understood(entries, await ask(url, signal))) found.set(entry.id, ofCrtsh(entry));
    }
    if (found.size > MOST_CERTIFICATES)
      throw new CtError('too-many', `it has more than ${MOST_CERTIFICATES} certificates`);
    return [...found.values()];
  };
}

function ofCrtsh(entry: z.infer<typeof entries>[number]): LoggedCertificate {
  return {
    id: entry.id,
    names: [...entry.name_value.split('\n'), ...(entry.common_name ? [entry.common_name] : [])],
    serial: plainSerial(entry.serial_number),
    issuer: entry.issuer_name,
    notBefore: entry.not_before ?? undefined,
    notAfter: entry.not_after,
  };
}

/** Lower case, without the zeros that stand in front in some notations and not in others. */
export function plainSerial(serial: string): string {
  return serial.toLowerCase().replace(/^0+(?=.)/, '');
}
