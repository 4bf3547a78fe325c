// Record sets of deSEC, in zones that each have a shortest time to live.

import * as z from 'zod';
import type { HttpReply } from '../../src/lib/fetch.ts';
import type { DnsProvider, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { normalizeName } from '../wire/presentation.ts';
import { nameInZone, possibleZones } from '../zone.ts';
import { type Api, createApi, createJsonCall, type JsonCall, readBaseUrl, unlessNotFound } from './api.ts';
import { createBySet, type SetCalls } from './by-set.ts';

const DEFAULT_BASE_URL = 'https://desec.io/api/v1';

export const desecKind: ProviderKind = {
  name: 'desec',
  variables: [
    {
      name: 'DESEC_TOKEN',
      aliases: ['DESEC_API_TOKEN'],
      required: true,
      secret: true,
      meaning: 'a token that may write the record sets of the zone',
    },
    {
      name: 'DESEC_API_URL',
      required: false,
      secret: false,
      meaning: `where the API is, if not at ${DEFAULT_BASE_URL}`,
    },
  ],
  create: createDesec,
};

/** Each zone has its own shortest value besides, usually an hour. */
const SHORTEST_TTL_SECONDS = 60;

const zoneSchema = z.object({ name: z.string().min(1), minimum_ttl: z.number().int().nonnegative() });
const setSchema = z.object({
  subname: z.string(),
  type: z.string(),
  ttl: z.number().int().nonnegative(),
  records: z.array(z.string()),
});
const refusalSchema = z.object({ detail: z.string() });

interface Zone {
  readonly name: string;
  readonly shortestTtlSeconds: number;
}

function createDesec(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience } = options;
  const token = credentials.DESEC_TOKEN ?? '';
  const base = readBaseUrl('DESEC_API_URL', credentials.DESEC_API_URL ?? DEFAULT_BASE_URL);
  const api = createApi({ provider: 'desec', secrets: [token], timeoutMs });
  return createBySet(createCalls(api, createJsonCall(api, { base, authorization: `Token ${token}`, said })), {
    name: 'desec',
    caaBesideCname: false,
    shortestTtlSeconds: SHORTEST_TTL_SECONDS,
    patience,
  });
}

/** `detail`, or the whole text: messages about fields have no fixed shape. */
function said(reply: HttpReply): string {
  const text = reply.body.toString('utf8');
  try {
    const parsed = refusalSchema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data.detail : text;
  } catch {
    return '';
  }
}

function createCalls(api: Api, call: JsonCall): SetCalls<Zone> {
  const sets = (zone: Zone) => `/domains/${zone.name}/rrsets/`;
  const labelOf = (zone: Zone, name: string) => nameInZone(name, zone.name);
  const isThere = async (zone: Zone) =>
    (await call('GET', `/domains/${zone.name}/`).catch(unlessNotFound)) !== undefined;
  return {
    async findZone(name) {
      const subject = `zone of ${name}`;
      const reply = await call('GET', `/domains/?owns_qname=${encodeURIComponent(name)}`);
      const [zone] = api.expect(z.array(zoneSchema), api.json(reply), subject);
      if (zone === undefined) throw api.error('zone-not-found', `no zone of this account holds ${name}`);
      const owner = normalizeName(zone.name);
      if (!possibleZones(name).includes(owner))
        throw api.error('unintelligible', `${subject}: the API answered with ${owner}`);
      return { name: owner, shortestTtlSeconds: zone.minimum_ttl };
    },
    async read(zone, name, type) {
      const subject = `records ${type} of ${name}`;
      const label = encodeURIComponent(labelOf(zone, name) || '@');
      const reply = await call('GET', `${sets(zone)}${label}/${type}/`).catch(unlessNotFound);
      if (reply === undefined) {
        // The API says "not found" for a missing zone as well.
        if (await isThere(zone)) return undefined;
        throw api.error('zone-not-found', `the zone ${zone.name} is gone`);
      }
      const set = api.expect(setSchema, api.json(reply), subject);
      if (!isSetOf(set, labelOf(zone, name), type))
        throw api.error('unintelligible', `${subject}: the API answered about other records`);
      return { ttlSeconds: set.ttl, values: set.records };
    },
    async replace(zone, name, type, { values, ttlSeconds }) {
      const subject = `setting ${type} of ${name}`;
      const ttl = Math.max(ttlSeconds, zone.shortestTtlSeconds);
      const subname = labelOf(zone, name);
      const reply = await call('PATCH', sets(zone), [{ subname, type, ttl, records: values }]);
      const [made] = api.expect(z.array(setSchema), api.json(reply), subject);
      if (values.length > 0 && !(made !== undefined && isSetOf(made, subname, type)))
        throw api.error('unintelligible', `${subject}: the API reports success but describes other records`);
    },
  };
}

function isSetOf(set: z.infer<typeof setSchema>, label: string, type: RecordType): boolean {
  return set.type === type && set.subname.toLowerCase() === label;
}
