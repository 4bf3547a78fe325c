// What all providers' HTTP APIs have in common: how a call is made, and what a refusal means.

import type * as z from 'zod';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { HttpError, type HttpReply, type HttpRequest, httpRequest } from '../../src/lib/fetch.ts';
import { DnsError, type DnsErrorCode, type DnsErrorOptions, dnsCodeOf } from '../error.ts';
import { cureOf } from './cures.ts';
import { readRetryAfter } from './patience.ts';

export interface ApiOptions {
  /** The provider's name, as errors say it. */
  readonly provider: string;
  /** Never to appear in an error, even if the API repeats them. */
  readonly secrets: readonly string[];
  /** For one call. Default 30 s. */
  readonly timeoutMs: number | undefined;
  readonly clock?: Clock;
}

export interface Api {
  /** Resolves to any reply, also a refusal. Rejects with DnsError `unreachable`, `unintelligible` or `unsupported`. */
  send(request: Omit<HttpRequest, 'timeoutMs' | 'maxBytes'>): Promise<HttpReply>;
  /** The reply's JSON, or DnsError `unintelligible`. */
  json(reply: HttpReply): unknown;
  /** The error for a reply that is a refusal. `said` is what the API gave as its reason; `code` if that says more than the status. */
  refusal(reply: HttpReply, subject: string, said: string, code?: DnsErrorCode): DnsError;
  /** `value` read with the schema. Throws DnsError `unintelligible` if it does not fit. */
  expect<T>(schema: z.ZodType<T>, value: unknown, subject: string): T;
  /** Makes text from outside fit for an error: one short line without secrets. */
  clean(text: string): string;
  /** An error with the provider's cure, if an operator can do something. */
  error(code: DnsErrorCode, message: string, options?: DnsErrorOptions): DnsError;
}

export function createApi(options: ApiOptions): Api {
  const { provider, secrets, timeoutMs = 30_000, clock = systemClock } = options;
  const clean = (text: string) => {
    const hidden = secrets
      .filter((secret) => secret !== '')
      .reduce((rest, secret) => rest.replaceAll(secret, '***'), text);
    return hidden
      .replace(/[^\x20-\x7e]+/g, ' ')
      .trim()
      .slice(0, 300);
  };
  const error = (code: DnsErrorCode, message: string, more?: DnsErrorOptions) =>
    new DnsError(code, `${provider}: ${clean(message)}`, { provider, ...cureOf(provider, code), ...more });
  return {
    clean,
    error,
    async send(request) {
      try {
        return await httpRequest({ ...request, timeoutMs });
      } catch (failure) {
        if (!(failure instanceof HttpError)) throw failure;
        const { message, cure } = failure;
        throw error(dnsCodeOf(failure), message, { cure });
      }
    },
    json(reply) {
      try {
        return JSON.parse(reply.body.toString('utf8'));
      } catch {
        throw error('unintelligible', `the API answered with what is not JSON (HTTP status ${reply.status})`);
      }
    },
    refusal(reply, subject, said, code = refusalCode(reply.status)) {
      const retryAfterMs = readRetryAfter(reply.headers['retry-after'], clock.now());
      const words = clean(said);
      const message = `${subject}: HTTP status ${reply.status}${words === '' ? '' : `: ${words}`}`;
      return error(code, message, { retryAfterMs });
    },
    expect(schema, value, subject) {
      const parsed = schema.safeParse(value);
      if (parsed.success) return parsed.data;
      const where = parsed.error.issues
        .map((issue) => `${issue.path.join('.') || 'answer'}: ${issue.message}`)
        .join('; ');
      throw error('unintelligible', `${subject}: the API's answer has not the documented shape: ${where}`);
    },
  };
}

/**
 * The API's address without a slash at its end. Throws DnsError `unsupported` if it is no URL, and for plain HTTP except
 * to the loopback, because anyone on the way could read the credentials.
 */
export function readBaseUrl(variable: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const local = url?.protocol === 'http:' && ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
  if (
    url === undefined ||
    !(url.protocol === 'https:' || local) ||
    url.username !== '' ||
    url.search !== ''
  ) {
    throw new DnsError('unsupported', 'is not the address of an API', {
      variable,
      cure: 'give an https:// URL',
    });
  }
  return url.href.replace(/\/+$/, '');
}

/** One call to a JSON API. Resolves only to a reply of success; rejects with DnsError. */
export type JsonCall = (method: string, path: string, body?: unknown) => Promise<HttpReply>;

export interface JsonCallOptions {
  /** What every path is appended to. */
  readonly base: string;
  /** The value of the authorization header. Secret. */
  readonly authorization: string;
  /** The API's own words in a refusal; empty if it has none. */
  readonly said: (reply: HttpReply) => string;
  /** What its words mean, if the status does not say. */
  readonly codeOf?: (reply: HttpReply, said: string) => DnsErrorCode | undefined;
}

export function createJsonCall(api: Api, options: JsonCallOptions): JsonCall {
  const { base, authorization, said, codeOf } = options;
  return async (method, path, body) => {
    const reply = await api.send({
      method,
      url: `${base}${path}`,
      headers: { authorization, accept: 'application/json', 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (reply.status >= 200 && reply.status <= 299) return reply;
    const words = said(reply);
    throw api.refusal(reply, `${method} ${path.split('?')[0]}`, words, codeOf?.(reply, words));
  };
}

/** Reads the API's own words from the JSON of a refusal; empty if it does not have this shape. */
export function wordsIn<T>(
  schema: z.ZodType<T>,
  words: (refusal: T) => string,
): (reply: HttpReply) => string {
  return (reply) => {
    try {
      const parsed = schema.safeParse(JSON.parse(reply.body.toString('utf8')));
      return parsed.success ? words(parsed.data) : '';
    } catch {
      return '';
    }
  };
}

/** For `catch`: "not found" becomes undefined. A record that somebody else has removed is removed. */
export function unlessNotFound(error: unknown): undefined {
  if (error instanceof DnsError && error.code === 'zone-not-found') return undefined;
  throw error;
}

/** One page of a list: `last` as far as the API knows. */
export interface Page<T> {
  readonly items: readonly T[];
  readonly pages: number;
  /** Of the whole list, if the API says. */
  readonly total?: number | undefined;
}

/** No list is this long: an API that says so is not believed. */
const MOST_PAGES = 1_000;

/** Reads every page. Throws DnsError if any part is missing. */
export async function readAllPages<T>(
  api: Api,
  subject: string,
  read: (page: number) => Promise<Page<T>>,
): Promise<T[]> {
  const items: T[] = [];
  for (let number = 1; ; number++) {
    const page = await read(number);
    items.push(...page.items);
    if (page.pages > MOST_PAGES)
      throw api.error('unintelligible', `${subject}: the API speaks of ${page.pages} pages`);
    if (number < page.pages) continue;
    if (page.total !== undefined && items.length < page.total) {
      throw api.error('unintelligible', `${subject}: the API sent ${items.length} of ${page.total} entries`);
    }
    return items;
  }
}

function refusalCode(status: number): DnsErrorCode {
  if (status === 401) return 'credentials-refused';
  if (status === 403) return 'permission-missing';
  if (status === 404) return 'zone-not-found';
  if (status === 409) return 'conflict';
  if (status === 429) return 'rate-limited';
  return status >= 500 || status === 408 ? 'unreachable' : 'refused';
}
