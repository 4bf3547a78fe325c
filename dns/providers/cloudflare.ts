// Cloudflare: zones and records through the vendor's own package, carried by our own HTTP.

import type { BaseRecords } from 'cloudflare/resources/dns/records';
import * as z from 'zod';
import type { HttpReply } from '../../src/lib/fetch.ts';
import { DnsError } from '../error.ts';
import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import {
  formatCaa,
  normalizeName,
  parseCaa,
  quoteTxt,
  sameRecord,
  unquoteTxt,
} from '../wire/presentation.ts';
import { possibleZones } from '../zone.ts';
import { type Api, createApi, type Page, readAllPages, readBaseUrl } from './api.ts';
import { createByRecord, type Held } from './by-record.ts';

const DEFAULT_BASE_URL = 'https://api.cloudflare.com/client/v4';

export const cloudflareKind: ProviderKind = {
  name: 'cloudflare',
  variables: [
    {
      name: 'CLOUDFLARE_API_TOKEN',
      aliases: ['CF_DNS_API_TOKEN', 'CLOUDFLARE_DNS_API_TOKEN', 'CF_API_TOKEN'],
      required: true,
      secret: true,
      meaning: 'an API token with the permissions Zone: Read and DNS: Edit on the zone',
    },
    {
      name: 'CLOUDFLARE_BASE_URL',
      aliases: ['CF_BASE_URL'],
      required: false,
      secret: false,
      meaning: `where the API is, if not at ${DEFAULT_BASE_URL}`,
    },
  ],
  create: createCloudflare,
};

/** Shorter is refused outside enterprise zones. */
const SHORTEST_TTL_SECONDS = 60;
/** "An identical record already exists", in two wordings. */
const ALREADY_THERE = [81057, 81058];
/** The token is malformed or unknown; also sent with status 400. */
const BAD_CREDENTIALS = [1000, 1001, 6003, 6111, 6112, 9103, 9106, 9109, 10001];
/**
 * "Authentication error" is the answer to unknown tokens, and to known ones that may not do this. "Unauthorized to access
 * requested resource" is the answer to known ones only.
 */
const AUTHENTICATION_ERROR = 10000;
const CONFLICTING_RECORD = [81053, 81054, 81056];

const answerSchema = z.object({ success: z.literal(true), result: z.unknown() });
/** The package takes `null` for an empty list and a missing count for the end; here both are errors. */
const listSchema = z.object({
  success: z.literal(true),
  result: z.array(z.unknown()),
  result_info: z.object({
    total_pages: z.number().int().nonnegative(),
    total_count: z.number().int().optional(),
  }),
});
const refusalSchema = z.object({ errors: z.array(z.object({ code: z.number(), message: z.string() })) });
const zoneSchema = z.object({
  id: z.string().min(1),
  name: z.string().min(1),
  status: z.string().optional(),
});
const recordSchema = z.object({
  id: z.string().min(1),
  name: z.string(),
  type: z.string(),
  content: z.string().nullish(),
  proxied: z.boolean().nullish(),
  data: z
    .object({ flags: z.number().optional(), tag: z.string().optional(), value: z.string().optional() })
    .nullish(),
});

type Zone = z.infer<typeof zoneSchema>;

function createCloudflare(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const token = credentials.CLOUDFLARE_API_TOKEN ?? '';
  const baseUrl = readBaseUrl('CLOUDFLARE_BASE_URL', credentials.CLOUDFLARE_BASE_URL ?? DEFAULT_BASE_URL);
  const { timeoutMs = 30_000, patience } = options;
  const api = createApi({ provider: 'cloudflare', secrets: [token], timeoutMs });
  let client: Promise<Client> | undefined;
  const calls = createCalls(api, () => {
    client ??= openClient(api, token, baseUrl, timeoutMs);
    return client;
  });
  return createByRecord(calls, {
    name: 'cloudflare',
    caaBesideCname: true,
    shortestTtlSeconds: SHORTEST_TTL_SECONDS,
    patience,
  });
}

type Client = Awaited<ReturnType<typeof openClient>>;

/** Loads the large package on demand: a start that writes no records serves sooner without it. */
async function openClient(api: Api, token: string, baseURL: string, timeout: number) {
  const { createClient, BaseZones, BaseRecords } = await import('./cloudflare-package.ts');
  return createClient({
    resources: [BaseZones, BaseRecords],
    apiToken: token,
    // Given as null so that the package does not take them from the environment.
    apiKey: null,
    apiEmail: null,
    userServiceKey: null,
    baseURL,
    timeout,
    // The package's own retries wait without a bound, and repeat what must not be repeated.
    maxRetries: 0,
    logLevel: 'off',
    fetch: (url, init) => carry(api, String(url), init),
  });
}

/** Turns refusals into DnsError while the reply is still complete. Resolves only to a success. */
async function carry(api: Api, url: string, init: RequestInit = {}): Promise<Response> {
  const { pathname } = new URL(url);
  const method = (init.method ?? 'GET').toUpperCase();
  const reply = await api.send({
    url,
    method,
    headers: Object.fromEntries(new Headers(init.headers).entries()),
    ...(typeof init.body === 'string' ? { body: init.body } : {}),
    ...(init.signal ? { signal: init.signal } : {}),
  });
  if (reply.status < 200 || reply.status > 299) throw refused(api, reply, `${method} ${pathname}`);
  api.expect(method === 'GET' ? listSchema : answerSchema, api.json(reply), `${method} ${pathname}`);
  return new Response(new Uint8Array(reply.body), {
    status: reply.status,
    headers: { 'content-type': 'application/json' },
  });
}

class Refusal extends DnsError {
  readonly codes: readonly number[];
  constructor({ code, subject, ...more }: DnsError, codes: readonly number[]) {
    super(code, subject, more);
    this.codes = codes;
  }
}

function codeOf(status: number, errors: readonly { code: number; message: string }[]) {
  const told = (codes: readonly number[]) => errors.some(({ code }) => codes.includes(code));
  const words = errors.map(({ message }) => message).join(' ');
  // The token is good, but not from this address or not for this zone.
  if (told([9109]) && /location|unauthorized to access/i.test(words)) return 'permission-missing';
  if (told(BAD_CREDENTIALS)) return 'credentials-refused';
  if (told([AUTHENTICATION_ERROR])) return status === 403 ? 'permission-missing' : 'credentials-refused';
  return told(CONFLICTING_RECORD) ? 'conflict' : undefined;
}

function refused(api: Api, reply: HttpReply, subject: string): Refusal {
  const parsed = refusalSchema.safeParse(jsonOrNothing(reply));
  const errors = parsed.success ? parsed.data.errors : [];
  const said = errors.map((error) => `${error.message} (${error.code})`).join('; ');
  return new Refusal(
    api.refusal(reply, subject, said, codeOf(reply.status, errors)),
    errors.map((error) => error.code),
  );
}

function jsonOrNothing(reply: HttpReply): unknown {
  try {
    return JSON.parse(reply.body.toString('utf8'));
  } catch {
    return undefined;
  }
}

function createCalls(api: Api, open: () => Promise<Client>) {
  const call = <T>(subject: string, run: (client: Client) => PromiseLike<T>) =>
    unwrapped(api, subject, async () => run(await open()));
  const held = async (zone: Zone, name: string, type: RecordType): Promise<Held<string>[]> => {
    const subject = `records ${type} of ${name}`;
    const found = await readAllPages(api, subject, async (page) =>
      asPage(
        api,
        recordSchema,
        subject,
        await call(subject, (client) =>
          client.dns.records.list({ zone_id: zone.id, name: { exact: name }, type, page, per_page: 100 }),
        ),
      ),
    );
    // An API may ignore the filter, so the answer is filtered again.
    const here = found.filter((record) => record.type === type && normalizeName(record.name) === name);
    return here.map((record) => ({ id: record.id, record: toRecord(record, name, type) }));
  };
  return {
    held,
    async findZone(name: string): Promise<Zone> {
      // Zones here are registrable names or below, so neither `com` nor `_acme-challenge.example.com`.
      const candidates = possibleZones(name).filter((zone) => zone.includes('.') && !zone.startsWith('_'));
      for (const candidate of candidates) {
        const subject = `zone ${candidate}`;
        const found = await readAllPages(api, subject, async (page) =>
          asPage(
            api,
            zoneSchema,
            subject,
            await call(subject, (client) => client.zones.list({ name: candidate, page, per_page: 50 })),
          ),
        );
        const named = found.filter((zone) => normalizeName(zone.name) === candidate);
        const zone = named.find(({ status }) => status === 'active') ?? named[0];
        if (zone !== undefined) return zone;
      }
      throw api.error('zone-not-found', `no zone of this token holds ${name}`);
    },
    async create(zone: Zone, record: DnsRecord, ttl: number): Promise<void> {
      const subject = `adding ${record.type} ${record.name}`;
      const body = { zone_id: zone.id, name: record.name, ttl, ...toFields(api, record) };
      try {
        const created = await call(subject, (client) =>
          client.dns.records.create(body as Parameters<BaseRecords['create']>[0]),
        );
        confirm(api, subject, created, record);
      } catch (error) {
        if (!(error instanceof Refusal && error.codes.some((code) => ALREADY_THERE.includes(code))))
          throw error;
      }
    },
    async unproxy(zone: Zone, { id, record }: Held<string>, ttl: number): Promise<void> {
      const subject = `making ${record.type} ${record.name} DNS only`;
      const body = { zone_id: zone.id, name: record.name, ttl, ...toFields(api, record) };
      const edited = await call(subject, (client) =>
        client.dns.records.edit(id, body as Parameters<BaseRecords['edit']>[1]),
      );
      confirm(api, subject, edited, record);
    },
    async delete(zone: Zone, id: string, record: DnsRecord): Promise<void> {
      try {
        await call(`removing ${record.type} ${record.name}`, (client) =>
          client.dns.records.delete(id, { zone_id: zone.id }),
        );
      } catch (error) {
        // Somebody else has removed it already.
        if (!(error instanceof DnsError && error.code === 'zone-not-found')) throw error;
      }
    },
  };
}

/** The package wraps our errors, and sometimes loses them. */
async function unwrapped<T>(api: Api, subject: string, run: () => PromiseLike<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof DnsError) throw error;
    const cause = (error as { cause?: unknown }).cause;
    if (cause instanceof DnsError) throw cause;
    throw api.error('unreachable', `${subject}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function asPage<T>(
  api: Api,
  schema: z.ZodType<T>,
  subject: string,
  page: { result: unknown; result_info: unknown },
): Page<T> {
  const items = api.expect(z.array(schema), page.result, subject);
  const info = listSchema.shape.result_info.parse(page.result_info);
  return { items, pages: info.total_pages, total: info.total_count };
}

/** A success must describe the record that was asked for. */
function confirm(api: Api, subject: string, answer: unknown, record: DnsRecord): void {
  const made = api.expect(recordSchema, answer, subject);
  const claimed = toRecord(made, normalizeName(made.name), record.type);
  if (made.type !== record.type || !sameRecord(claimed, record) || claimed.proxied) {
    throw api.error('unintelligible', `${subject}: the API reports success but describes another record`);
  }
}

function toFields(api: Api, record: DnsRecord): Record<string, unknown> {
  const { type, value } = record;
  if (type === 'TXT') return { type, content: quoteTxt(value) };
  if (type !== 'CAA') return { type, content: value, proxied: false };
  const data = parseCaa(value);
  if (data === undefined) throw api.error('unsupported', `${value} is not a CAA value`);
  return { type, data };
}

function toRecord(held: z.infer<typeof recordSchema>, name: string, type: RecordType): DnsRecord {
  const record = { name, type, value: toValue(held, type) };
  return held.proxied ? { ...record, proxied: true } : record;
}

function toValue(held: z.infer<typeof recordSchema>, type: RecordType): string {
  const content = held.content ?? '';
  if (type === 'TXT') return unquoteTxt(content);
  if (type === 'CNAME') return normalizeName(content);
  if (type !== 'CAA') return content;
  const { flags = 0, tag, value } = held.data ?? {};
  if (tag !== undefined && value !== undefined) return formatCaa({ flags, tag, value });
  const parsed = parseCaa(content);
  return parsed === undefined ? content : formatCaa(parsed);
}
