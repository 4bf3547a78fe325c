// Hetzner: zones and record sets of its Cloud API, whose actions add and remove single values.

import * as z from 'zod';
import { DnsError } from '../error.ts';
import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { fromZoneFile, normalizeName, zoneFileValue } from '../wire/presentation.ts';
import { nameInZone, possibleZones } from '../zone.ts';
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

const DEFAULT_BASE_URL = 'https://api.hetzner.cloud/v1';

export const hetznerKind: ProviderKind = {
  name: 'hetzner',
  aliases: ['hetznercloud'],
  variables: [
    {
      name: 'HETZNER_API_TOKEN',
      aliases: ['HCLOUD_TOKEN', 'HETZNER_TOKEN'],
      required: true,
      secret: true,
      meaning: 'a Cloud API token of the project that has the zone, with read and write access',
    },
    {
      name: 'HETZNER_API_URL',
      aliases: ['HCLOUD_ENDPOINT'],
      required: false,
      secret: false,
      meaning: `where the API is, if not at ${DEFAULT_BASE_URL}`,
    },
  ],
  create: createHetzner,
};

const SHORTEST_TTL_SECONDS = 60;

const zonesSchema = z.object({
  zones: z.array(z.object({ id: z.number().int(), name: z.string().min(1) })),
  meta: z.object({
    pagination: z.object({
      last_page: z.number().int().nonnegative(),
      total_entries: z.number().int().nonnegative(),
    }),
  }),
});
const setSchema = z.object({
  rrset: z.object({ name: z.string(), type: z.string(), records: z.array(z.object({ value: z.string() })) }),
});
const actionSchema = z.object({
  action: z.object({
    status: z.enum(['running', 'success', 'error']),
    error: z.object({ message: z.string() }).nullish(),
  }),
});
const refusalSchema = z.object({ error: z.object({ code: z.string(), message: z.string() }) });
const said = wordsIn(refusalSchema, (refusal) => `${refusal.error.message} (${refusal.error.code})`);

interface Zone {
  readonly id: number;
  readonly name: string;
}

function createHetzner(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience } = options;
  const token = credentials.HETZNER_API_TOKEN ?? '';
  const base = readBaseUrl('HETZNER_API_URL', credentials.HETZNER_API_URL ?? DEFAULT_BASE_URL);
  const api = createApi({ provider: 'hetzner', secrets: [token], timeoutMs });
  return createByRecord(
    createCalls(api, createJsonCall(api, { base, authorization: `Bearer ${token}`, said })),
    {
      name: 'hetzner',
      caaBesideCname: false,
      shortestTtlSeconds: SHORTEST_TTL_SECONDS,
      patience,
    },
  );
}

/** Values have no ids here: the content identifies a value. */
function createCalls(api: Api, call: JsonCall): RecordCalls<Zone, string> {
  const pathOf = (zone: Zone, name: string, type: RecordType) =>
    `/zones/${zone.id}/rrsets/${encodeURIComponent(nameInZone(name, zone.name) || '@')}/${type}`;
  const act = async (zone: Zone, { name, type }: DnsRecord, action: string, body: unknown) => {
    const subject = `${action} ${type} ${name}`;
    const reply = await call('POST', `${pathOf(zone, name, type)}/actions/${action}`, body);
    const { action: outcome } = api.expect(actionSchema, api.json(reply), subject);
    if (outcome.status === 'error')
      throw api.error('refused', `${subject}: ${outcome.error?.message ?? 'it failed'}`);
  };
  return {
    async findZone(name) {
      for (const candidate of possibleZones(name)) {
        const subject = `zone ${candidate}`;
        const zones = await readAllPages(api, subject, async (page) => {
          const reply = await call(
            'GET',
            `/zones?name=${encodeURIComponent(candidate)}&page=${page}&per_page=50`,
          );
          const { zones: items, meta } = api.expect(zonesSchema, api.json(reply), subject);
          return { items, pages: meta.pagination.last_page, total: meta.pagination.total_entries };
        });
        const zone = zones.find((one) => normalizeName(one.name) === candidate);
        if (zone !== undefined) return { id: zone.id, name: candidate };
      }
      throw api.error('zone-not-found', `no zone of this project holds ${name}`);
    },
    async held(zone, name, type) {
      const subject = `records ${type} of ${name}`;
      const reply = await call('GET', pathOf(zone, name, type)).catch((error: unknown) =>
        nothingThere(error, zone, call),
      );
      if (reply === undefined) return [];
      const { rrset } = api.expect(setSchema, api.json(reply), subject);
      if (rrset.type !== type || rrset.name.toLowerCase() !== (nameInZone(name, zone.name) || '@')) {
        throw api.error('unintelligible', `${subject}: the API answered about other records`);
      }
      return rrset.records.map(
        ({ value }): Held<string> => ({ id: value, record: fromZoneFile(name, type, value) }),
      );
    },
    create: (zone, record, ttl) =>
      act(zone, record, 'add_records', { records: [{ value: zoneFileValue(record) }], ttl }),
    async delete(zone, id, record) {
      await act(zone, record, 'remove_records', { records: [{ value: id }] }).catch(unlessNotFound);
    },
  };
}

/** The API says "not found" for a missing set and for a missing zone. Only the former means that there are no records. */
async function nothingThere(error: unknown, zone: Zone, call: JsonCall): Promise<undefined> {
  if (!(error instanceof DnsError && error.code === 'zone-not-found')) throw error;
  await call('GET', `/zones/${zone.id}`);
  return undefined;
}
