// Providers whose API gives each record an id: values are added and removed after reading.

import type { DnsProvider, DnsRecord, RecordType } from '../provider.ts';
import { sameRecord } from '../wire/presentation.ts';
import { type Patience, patiently } from './patience.ts';
import { createZoneCache } from './zone-cache.ts';

export interface Held<Id> {
  readonly id: Id;
  readonly record: DnsRecord;
}

/** What such an API offers. Each call rejects with DnsError; deleting a record that is gone succeeds. */
export interface RecordCalls<Zone, Id> {
  findZone(name: string): Promise<Zone>;
  held(zone: Zone, name: string, type: RecordType): Promise<Held<Id>[]>;
  create(zone: Zone, record: DnsRecord, ttlSeconds: number): Promise<void>;
  delete(zone: Zone, id: Id, record: DnsRecord): Promise<void>;
  /** For providers that can answer with their own addresses. */
  unproxy?(zone: Zone, held: Held<Id>, ttlSeconds: number): Promise<void>;
}

export interface ByRecordOptions {
  readonly name: string;
  readonly caaBesideCname: boolean;
  readonly plainCaaOnly?: boolean;
  readonly shortestTtlSeconds: number;
  readonly patience: Patience | undefined;
}

/** Each repetition after a failure reads again first, so that a change whose answer was lost is not made twice. */
export function createByRecord<Zone, Id>(
  calls: RecordCalls<Zone, Id>,
  options: ByRecordOptions,
): DnsProvider {
  const { name: provider, caaBesideCname, plainCaaOnly, shortestTtlSeconds, patience } = options;
  const zones = createZoneCache(calls.findZone);
  const inZone = <T>(name: string, use: (zone: Zone) => Promise<T>) =>
    patiently(() => zones.within(name, use), patience);
  return {
    name: provider,
    caaBesideCname,
    ...(plainCaaOnly && { plainCaaOnly }),
    list: (name, type) =>
      inZone(name, async (zone) => (await calls.held(zone, name, type)).map(({ record }) => record)),
    add: (record, ttlSeconds = shortestTtlSeconds) =>
      inZone(record.name, async (zone) => {
        const held = await calls.held(zone, record.name, record.type);
        const same = held.find((candidate) => sameRecord(candidate.record, record));
        const ttl = Math.max(ttlSeconds, shortestTtlSeconds);
        if (same === undefined) return calls.create(zone, record, ttl);
        if (same.record.proxied) await calls.unproxy?.(zone, same, ttl);
      }),
    remove: (record) =>
      inZone(record.name, async (zone) => {
        const held = await calls.held(zone, record.name, record.type);
        for (const { id, record: found } of held)
          if (sameRecord(found, record)) await calls.delete(zone, id, record);
      }),
  };
}
