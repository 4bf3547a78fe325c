// PowerDNS Authoritative Server: its HTTP API, which replaces the records of one name and type at a time.

import * as z from 'zod';
import type { HttpReply } from '../../src/lib/fetch.ts';
import { createTurns } from '../../src/lib/turns.ts';
import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { fromZoneFile, normalizeName, sameRecord, zoneFileValue } from '../wire/presentation.ts';
import { possibleZones } from '../zone.ts';
import { type Api, createApi, readBaseUrl } from './api.ts';
import { patiently } from './patience.ts';
import { createZoneCache } from './zone-cache.ts';

export const powerdnsKind: ProviderKind = {
  name: 'powerdns',
  aliases: ['pdns'],
  variables: [
    {
      name: 'PDNS_API_URL',
      aliases: ['POWERDNS_API_URL'],
      required: true,
      secret: false,
      meaning: "the address of the server's API, as in https://ns.example.com:8081",
    },
    {
      name: 'PDNS_API_KEY',
      aliases: ['POWERDNS_API_KEY'],
      required: true,
      secret: true,
      meaning: 'its api-key',
    },
    { name: 'PDNS_SERVER_NAME', required: false, secret: false, meaning: 'the server id, if not localhost' },
  ],
  create: createPowerdns,
};

const DEFAULT_TTL_SECONDS = 60;

const zoneListSchema = z.array(z.object({ id: z.string().min(1), name: z.string().min(1) }));
const setSchema = z.object({
  name: z.string(),
  type: z.string(),
  ttl: z.number().int().nonnegative(),
  records: z.array(z.object({ content: z.string(), disabled: z.boolean().default(false) })),
});
const zoneSchema = z.object({ rrsets: z.array(setSchema) });
const refusalSchema = z.object({ error: z.string() });

interface Zone {
  readonly id: string;
}
type HeldSet = z.infer<typeof setSchema>;

function createPowerdns(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience } = options;
  const key = credentials.PDNS_API_KEY ?? '';
  const api = createApi({ provider: 'powerdns', secrets: [key], timeoutMs });
  const base = readBaseUrl('PDNS_API_URL', credentials.PDNS_API_URL ?? '').replace(/\/api\/v1$/, '');
  const server = encodeURIComponent(credentials.PDNS_SERVER_NAME ?? 'localhost');
  const calls = createCalls(api, createCall(api, `${base}/api/v1/servers/${server}`, key));
  const zones = createZoneCache(calls.findZone);
  const inTurn = createTurns();
  const inZone = <T>(name: string, use: (zone: Zone) => Promise<T>) =>
    patiently(() => zones.within(name, use), patience);
  const rewrite = (record: DnsRecord, change: (set: HeldSet | undefined, zone: Zone) => Promise<void>) =>
    inTurn(() =>
      inZone(record.name, async (zone) => change(await calls.readSet(zone, record.name, record.type), zone)),
    );
  return {
    name: 'powerdns',
    caaBesideCname: false,
    list: (name, type) =>
      inZone(name, async (zone) => recordsOf(await calls.readSet(zone, name, type), name, type)),
    add: (record, ttlSeconds = DEFAULT_TTL_SECONDS) =>
      rewrite(record, async (set, zone) => {
        if (recordsOf(set, record.name, record.type).some((held) => sameRecord(held, record))) return;
        const records = [...(set?.records ?? []), { content: zoneFileValue(record), disabled: false }];
        await calls.replace(zone, record, records, set?.ttl ?? ttlSeconds);
      }),
    remove: (record) =>
      rewrite(record, async (set, zone) => {
        if (set === undefined) return;
        const records = set.records.filter(
          ({ content }) => !sameRecord(fromZoneFile(record.name, record.type, content), record),
        );
        if (records.length < set.records.length) await calls.replace(zone, record, records, set.ttl);
      }),
  };
}

type Call = (method: string, path: string, body?: unknown) => Promise<HttpReply>;

function createCall(api: Api, base: string, key: string): Call {
  return async (method, path, body) => {
    const reply = await api.send({
      method,
      url: `${base}${path}`,
      headers: { 'x-api-key': key, accept: 'application/json', 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (reply.status >= 200 && reply.status <= 299) return reply;
    const said = refusalSchema.safeParse(jsonOrNothing(reply));
    const words = said.success ? said.data.error : '';
    // 422 is the answer to records that exclude each other, and to other lasting faults.
    const conflict = reply.status === 422 && /conflict/i.test(words);
    throw api.refusal(reply, `${method} ${path}`, words, conflict ? 'conflict' : undefined);
  };
}

function jsonOrNothing(reply: HttpReply): unknown {
  try {
    return JSON.parse(reply.body.toString('utf8'));
  } catch {
    return undefined;
  }
}

function createCalls(api: Api, call: Call) {
  return {
    async findZone(name: string): Promise<Zone> {
      for (const candidate of possibleZones(name)) {
        const subject = `zone ${candidate}`;
        const reply = await call('GET', `/zones?zone=${encodeURIComponent(`${candidate}.`)}`);
        const zones = api.expect(zoneListSchema, api.json(reply), subject);
        const zone = zones.find((one) => normalizeName(one.name) === candidate);
        if (zone !== undefined) return { id: zone.id };
      }
      throw api.error('zone-not-found', `no zone of this server holds ${name}`);
    },
    async readSet(zone: Zone, name: string, type: RecordType): Promise<HeldSet | undefined> {
      const query = new URLSearchParams({ rrset_name: `${name}.`, rrset_type: type });
      const reply = await call('GET', `/zones/${encodeURIComponent(zone.id)}?${query}`);
      const { rrsets } = api.expect(zoneSchema, api.json(reply), `records ${type} of ${name}`);
      // Servers before 4.8 ignore the query and send the whole zone.
      return rrsets.find((set) => set.type === type && normalizeName(set.name) === name);
    },
    async replace(
      zone: Zone,
      { name, type }: DnsRecord,
      records: HeldSet['records'],
      ttl: number,
    ): Promise<void> {
      const set = { name: `${name}.`, type, ttl, records };
      const change =
        records.length === 0
          ? { name: set.name, type, changetype: 'DELETE' }
          : { ...set, changetype: 'REPLACE' };
      await call('PATCH', `/zones/${encodeURIComponent(zone.id)}`, { rrsets: [change] });
    },
  };
}

function recordsOf(set: HeldSet | undefined, name: string, type: RecordType): DnsRecord[] {
  const enabled = (set?.records ?? []).filter(({ disabled }) => !disabled);
  return enabled.map(({ content }) => fromZoneFile(name, type, content));
}
