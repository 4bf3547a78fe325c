// DigitalOcean: domains and records over its plain JSON API.

import * as z from 'zod';
import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { formatCaa, normalizeName, parseCaa, sameRecord, unquoteTxt } from '../wire/presentation.ts';
import { longestZone, nameInZone } from '../zone.ts';
import {
  type Api,
  createApi,
  createJsonCall,
  type JsonCall,
  readAllPages,
  readBaseUrl,
  unlessNotFound,
  wordsIn,
} from './api.ts';
import { createByRecord, type Held, type RecordCalls } from './by-record.ts';

const DEFAULT_BASE_URL = 'https://api.digitalocean.com';

export const digitaloceanKind: ProviderKind = {
  name: 'digitalocean',
  aliases: ['do'],
  variables: [
    {
      name: 'DO_AUTH_TOKEN',
      aliases: ['DIGITALOCEAN_ACCESS_TOKEN', 'DIGITALOCEAN_TOKEN', 'DO_API_TOKEN'],
      required: true,
      secret: true,
      meaning: 'an API token that may read domains, and create and delete their records',
    },
    {
      name: 'DO_API_URL',
      required: false,
      secret: false,
      meaning: `where the API is, if not at ${DEFAULT_BASE_URL}`,
    },
  ],
  create: createDigitalocean,
};

const SHORTEST_TTL_SECONDS = 30;
const LARGEST_PAGE = 200;

const metaSchema = z.object({ total: z.number().int().nonnegative() });
const zonesSchema = z.object({ domains: z.array(z.object({ name: z.string().min(1) })), meta: metaSchema });
const recordSchema = z.object({
  id: z.number().int(),
  type: z.string(),
  name: z.string(),
  data: z.string(),
  flags: z.number().int().nullish(),
  tag: z.string().nullish(),
});
const recordsSchema = z.object({ domain_records: z.array(recordSchema), meta: metaSchema });
const createdSchema = z.object({ domain_record: recordSchema });
const refusalSchema = z.object({ message: z.string() });
const said = wordsIn(refusalSchema, (refusal) => refusal.message);

interface Zone {
  readonly name: string;
}

function createDigitalocean(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience } = options;
  const token = credentials.DO_AUTH_TOKEN ?? '';
  const base = readBaseUrl('DO_API_URL', credentials.DO_API_URL ?? DEFAULT_BASE_URL);
  const api = createApi({ provider: 'digitalocean', secrets: [token], timeoutMs });
  const calls = createCalls(api, createJsonCall(api, { base, authorization: `Bearer ${token}`, said }));
  return createByRecord(calls, {
    name: 'digitalocean',
    caaBesideCname: false,
    plainCaaOnly: true,
    shortestTtlSeconds: SHORTEST_TTL_SECONDS,
    patience,
  });
}

function createCalls(api: Api, call: JsonCall): RecordCalls<Zone, number> {
  const pageQuery = (page: number) => `per_page=${LARGEST_PAGE}&page=${page}`;
  /** The API does not say how many pages there are, only how many entries. */
  const paged = <T>(items: readonly T[], page: number, total: number) => ({
    items,
    total,
    pages: items.length > 0 && total > 0 ? Math.max(page, Math.ceil(total / items.length)) : page,
  });
  return {
    async findZone(name) {
      const subject = `domain of ${name}`;
      const zones = await readAllPages(api, subject, async (page) => {
        const { domains, meta } = api.expect(
          zonesSchema,
          api.json(await call('GET', `/v2/domains?${pageQuery(page)}`)),
          subject,
        );
        return paged(domains, page, meta.total);
      });
      const zone = longestZone(
        name,
        zones.map((one) => ({ name: normalizeName(one.name) })),
      );
      if (zone === undefined) throw api.error('zone-not-found', `no domain of this account holds ${name}`);
      return zone;
    },
    async held(zone, name, type) {
      const subject = `records ${type} of ${name}`;
      const filter = new URLSearchParams({ name, type });
      const found = await readAllPages(api, subject, async (page) => {
        const reply = await call('GET', `/v2/domains/${zone.name}/records?${filter}&${pageQuery(page)}`);
        const { domain_records, meta } = api.expect(recordsSchema, api.json(reply), subject);
        return paged(domain_records, page, meta.total);
      });
      const relative = nameInZone(name, zone.name) || '@';
      const here = found.filter((record) => record.type === type && record.name.toLowerCase() === relative);
      return here.map(
        (record): Held<number> => ({ id: record.id, record: { name, type, value: toValue(record, type) } }),
      );
    },
    async create(zone, record, ttl) {
      const subject = `adding ${record.type} ${record.name}`;
      const body = { name: nameInZone(record.name, zone.name) || '@', ttl, ...toFields(api, record) };
      const reply = await call('POST', `/v2/domains/${zone.name}/records`, body);
      const { domain_record: made } = api.expect(createdSchema, api.json(reply), subject);
      const claimed = { ...record, value: toValue(made, record.type) };
      if (made.type !== record.type || made.name !== body.name || !sameRecord(claimed, record)) {
        throw api.error('unintelligible', `${subject}: the API reports success but describes another record`);
      }
    },
    async delete(zone, id) {
      await call('DELETE', `/v2/domains/${zone.name}/records/${id}`).catch(unlessNotFound);
    },
  };
}

/** This API wants a trailing dot on names outside of the domain. */
function toFields(api: Api, { type, name, value }: DnsRecord): Record<string, unknown> {
  if (type === 'CNAME') return { type, data: `${value}.` };
  if (type !== 'CAA') return { type, data: value };
  const property = parseCaa(value);
  if (property === undefined) throw api.error('unsupported', `${value} is not a CAA value`);
  if (property.value.includes(';')) {
    throw api.error(
      'unsupported',
      `CAA of ${name}: parameters after a semicolon, such as accounturi, cannot be written here`,
    );
  }
  return { type, flags: property.flags, tag: property.tag, data: `${property.value}.` };
}

function toValue(held: z.infer<typeof recordSchema>, type: RecordType): string {
  if (type === 'TXT') return unquoteTxt(held.data);
  if (type === 'CNAME') return normalizeName(held.data);
  if (type !== 'CAA') return held.data;
  return formatCaa({ flags: held.flags ?? 0, tag: held.tag ?? 'issue', value: held.data.replace(/\.$/, '') });
}
