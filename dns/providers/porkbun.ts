// Porkbun: its JSON API, which gives records ids and wants the keys in every body.

import * as z from 'zod';
import type { HttpReply } from '../../src/lib/fetch.ts';
import { DnsError, type DnsErrorCode } from '../error.ts';
import type { DnsProvider, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { normalizeName, normalizeValue, unquoteTxt } from '../wire/presentation.ts';
import { longestZone, nameInZone } from '../zone.ts';
import { type Api, createApi, readBaseUrl, wordsIn } from './api.ts';
import { createByRecord, type Held, type RecordCalls } from './by-record.ts';

const DEFAULT_BASE_URL = 'https://api.porkbun.com/api/json/v3';

export const porkbunKind: ProviderKind = {
  name: 'porkbun',
  variables: [
    {
      name: 'PORKBUN_API_KEY',
      required: true,
      secret: true,
      meaning: 'an API key; the domain must have API access switched on',
    },
    {
      name: 'PORKBUN_SECRET_API_KEY',
      required: true,
      secret: true,
      meaning: 'the secret key that goes with it',
    },
    {
      name: 'PORKBUN_API_URL',
      required: false,
      secret: false,
      meaning: `where the API is, if not at ${DEFAULT_BASE_URL}`,
    },
  ],
  create: createPorkbun,
};

const SHORTEST_TTL_SECONDS = 600;
/** No account has more pages of domains: an API that sends more is not believed. */
const MOST_PAGES = 100;

const doneSchema = z.object({ status: z.literal('SUCCESS') });
const createdSchema = doneSchema.extend({ id: z.union([z.number(), z.string().min(1)]) });
const domainsSchema = doneSchema.extend({ domains: z.array(z.object({ domain: z.string().min(1) })) });
const recordsSchema = doneSchema.extend({
  records: z.array(
    z.object({
      id: z.union([z.number(), z.string().min(1)]).transform(String),
      name: z.string().min(1),
      type: z.string(),
      content: z.string(),
    }),
  ),
});
const refusalSchema = z.object({ message: z.string() });
const said = wordsIn(refusalSchema, (refusal) => refusal.message);

interface Zone {
  readonly name: string;
}

function createPorkbun(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience } = options;
  const keys = {
    apikey: credentials.PORKBUN_API_KEY ?? '',
    secretapikey: credentials.PORKBUN_SECRET_API_KEY ?? '',
  };
  const base = readBaseUrl('PORKBUN_API_URL', credentials.PORKBUN_API_URL ?? DEFAULT_BASE_URL);
  const api = createApi({ provider: 'porkbun', secrets: Object.values(keys), timeoutMs });
  return createByRecord(createCalls(api, createCall(api, base, keys)), {
    name: 'porkbun',
    caaBesideCname: false,
    shortestTtlSeconds: SHORTEST_TTL_SECONDS,
    patience,
  });
}

type Call = (path: string, body?: Readonly<Record<string, unknown>>) => Promise<HttpReply>;

function createCall(api: Api, base: string, keys: Readonly<Record<string, string>>): Call {
  return async (path, body = {}) => {
    const reply = await api.send({
      method: 'POST',
      url: `${base}${path}`,
      headers: { accept: 'application/json', 'content-type': 'application/json' },
      body: JSON.stringify({ ...body, ...keys }),
    });
    if (reply.status >= 200 && reply.status <= 299) return reply;
    const words = said(reply);
    throw api.refusal(reply, `POST ${path}`, words, codeOf(words));
  };
}

/** The API answers bad keys and foreign domains alike with status 400; only the words differ. */
function codeOf(words: string): DnsErrorCode | undefined {
  if (/invalid (secret )?api ?key/i.test(words)) return 'credentials-refused';
  if (/not opted in to api access/i.test(words)) return 'permission-missing';
  return /invalid domain/i.test(words) ? 'zone-not-found' : undefined;
}

function createCalls(api: Api, call: Call): RecordCalls<Zone, string> {
  return {
    async findZone(name) {
      const zone = longestZone(name, await allZones(api, call));
      if (zone === undefined) throw api.error('zone-not-found', `no domain of this account holds ${name}`);
      return zone;
    },
    async held(zone, name, type) {
      const path = ['/dns/retrieveByNameType', zone.name, type, nameInZone(name, zone.name)].join('/');
      const reply = await call(path.replace(/\/$/, ''));
      const { records } = api.expect(recordsSchema, api.json(reply), `records ${type} of ${name}`);
      // An API may ignore the filter, so the answer is filtered again.
      const here = records.filter((record) => record.type === type && normalizeName(record.name) === name);
      return here.map(
        ({ id, content }): Held<string> => ({ id, record: { name, type, value: toValue(type, content) } }),
      );
    },
    async create(zone, { name, type, value }, ttl) {
      const body = { name: nameInZone(name, zone.name), type, content: value, ttl: String(ttl) };
      const reply = await call(`/dns/create/${zone.name}`, body);
      api.expect(createdSchema, api.json(reply), `adding ${type} ${name}`);
    },
    async delete(zone, id, { name, type }) {
      const reply = await call(`/dns/delete/${zone.name}/${id}`).catch((error: unknown) => {
        // Somebody else has removed it already.
        if (error instanceof DnsError && /invalid record id/i.test(error.message)) return undefined;
        throw error;
      });
      if (reply !== undefined) api.expect(doneSchema, api.json(reply), `removing ${type} ${name}`);
    },
  };
}

/** Each page begins where the one before ended; an empty page is the last. */
async function allZones(api: Api, call: Call): Promise<Zone[]> {
  const names = new Set<string>();
  for (let page = 0; page < MOST_PAGES; page++) {
    const before = names.size;
    const reply = await call('/domain/listAll', { start: String(before) });
    const { domains } = api.expect(domainsSchema, api.json(reply), 'list of domains');
    if (domains.length === 0) return [...names].map((name) => ({ name }));
    for (const { domain } of domains) names.add(normalizeName(domain));
    if (names.size < before + domains.length) break;
  }
  throw api.error('unintelligible', 'list of domains: the API repeats itself or never ends');
}

function toValue(type: RecordType, content: string): string {
  return type === 'TXT' ? unquoteTxt(content) : normalizeValue(type, content);
}
