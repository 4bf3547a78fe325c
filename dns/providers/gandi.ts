// Gandi: the record sets of its LiveDNS API.

import * as z from 'zod';
import type { DnsProvider, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { normalizeName } from '../wire/presentation.ts';
import { nameInZone, possibleZones } from '../zone.ts';
import {
  type Api,
  createApi,
  createJsonCall,
  type JsonCall,
  readBaseUrl,
  unlessNotFound,
  wordsIn,
} from './api.ts';
import { createBySet, type SetCalls } from './by-set.ts';

const DEFAULT_BASE_URL = 'https://api.gandi.net/v5/livedns';

export const gandiKind: ProviderKind = {
  name: 'gandi',
  aliases: ['gandiv5'],
  variables: [
    {
      name: 'GANDI_PERSONAL_ACCESS_TOKEN',
      aliases: ['GANDIV5_PERSONAL_ACCESS_TOKEN'],
      required: true,
      secret: true,
      meaning: 'a personal access token that may manage domain name technical configurations',
    },
    {
      name: 'GANDI_API_URL',
      required: false,
      secret: false,
      meaning: `where the API is, if not at ${DEFAULT_BASE_URL}`,
    },
  ],
  create: createGandi,
};

const SHORTEST_TTL_SECONDS = 300;

const zoneSchema = z.object({ fqdn: z.string().min(1) });
const setSchema = z.object({
  rrset_name: z.string(),
  rrset_type: z.string(),
  rrset_ttl: z.number().int().nonnegative(),
  rrset_values: z.array(z.string()),
});
const doneSchema = z.object({ message: z.string() });
const refusalSchema = z.object({ message: z.string() });
const said = wordsIn(refusalSchema, (refusal) => refusal.message);

type Zone = string;

function createGandi(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience } = options;
  const token = credentials.GANDI_PERSONAL_ACCESS_TOKEN ?? '';
  const base = readBaseUrl('GANDI_API_URL', credentials.GANDI_API_URL ?? DEFAULT_BASE_URL);
  const api = createApi({ provider: 'gandi', secrets: [token], timeoutMs });
  return createBySet(
    createCalls(api, createJsonCall(api, { base, authorization: `Bearer ${token}`, said })),
    {
      name: 'gandi',
      caaBesideCname: false,
      shortestTtlSeconds: SHORTEST_TTL_SECONDS,
      patience,
    },
  );
}

function createCalls(api: Api, call: JsonCall): SetCalls<Zone> {
  const pathOf = (zone: Zone, name: string, type: RecordType) =>
    `/domains/${zone}/records/${encodeURIComponent(nameInZone(name, zone) || '@')}/${type}`;
  const isZone = async (zone: string): Promise<boolean> => {
    const reply = await call('GET', `/domains/${zone}`).catch(unlessNotFound);
    if (reply === undefined) return false;
    const { fqdn } = api.expect(zoneSchema, api.json(reply), `zone ${zone}`);
    if (normalizeName(fqdn) === zone) return true;
    throw api.error('unintelligible', `zone ${zone}: the API answered about ${fqdn}`);
  };
  return {
    async findZone(name) {
      for (const candidate of possibleZones(name)) if (await isZone(candidate)) return candidate;
      throw api.error('zone-not-found', `no zone of this token holds ${name}`);
    },
    async read(zone, name, type) {
      const subject = `records ${type} of ${name}`;
      const reply = await call('GET', pathOf(zone, name, type)).catch(unlessNotFound);
      if (reply === undefined) {
        // The API says "not found" for a missing zone as well.
        if (await isZone(zone)) return undefined;
        throw api.error('zone-not-found', `the zone ${zone} is gone`);
      }
      const set = api.expect(setSchema, api.json(reply), subject);
      if (set.rrset_type !== type || set.rrset_name.toLowerCase() !== (nameInZone(name, zone) || '@')) {
        throw api.error('unintelligible', `${subject}: the API answered about other records`);
      }
      return { ttlSeconds: set.rrset_ttl, values: set.rrset_values };
    },
    async replace(zone, name, type, { values, ttlSeconds }) {
      const path = pathOf(zone, name, type);
      if (values.length === 0) {
        await call('DELETE', path).catch(unlessNotFound);
        return;
      }
      const reply = await call('PUT', path, { rrset_values: values, rrset_ttl: ttlSeconds });
      api.expect(doneSchema, api.json(reply), `setting ${type} of ${name}`);
    },
  };
}
