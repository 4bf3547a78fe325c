// Providers whose API replaces all values of a name and type at once: single values are changed after reading.

import { createTurns } from '../../src/lib/turns.ts';
import type { DnsProvider, DnsRecord, RecordType } from '../provider.ts';
import { fromZoneFile, sameRecord, zoneFileValue } from '../wire/presentation.ts';
import { type Patience, patiently } from './patience.ts';
import { createZoneCache } from './zone-cache.ts';

export interface RecordSet {
  readonly ttlSeconds: number;
  /** As in a zone file, exactly as they were read. */
  readonly values: readonly string[];
}

/** What such an API offers. Each rejects with DnsError. */
export interface SetCalls<Zone> {
  findZone(name: string): Promise<Zone>;
  /** Undefined if the API says that there is no set; a failure must reject. */
  read(zone: Zone, name: string, type: RecordType): Promise<RecordSet | undefined>;
  /** Removes the set if there are no values. */
  replace(zone: Zone, name: string, type: RecordType, set: RecordSet): Promise<void>;
}

export interface BySetOptions {
  readonly name: string;
  readonly caaBesideCname: boolean;
  readonly shortestTtlSeconds: number;
  readonly patience: Patience | undefined;
}

/** Makes one change at a time, because two that read the same set would undo each other. Other values stay as read. */
export function createBySet<Zone>(calls: SetCalls<Zone>, options: BySetOptions): DnsProvider {
  const { name: provider, caaBesideCname, shortestTtlSeconds, patience } = options;
  const zones = createZoneCache(calls.findZone);
  const inTurn = createTurns();
  const inZone = <T>(name: string, use: (zone: Zone) => Promise<T>) =>
    patiently(() => zones.within(name, use), patience);
  const change = (record: DnsRecord, next: (set: RecordSet | undefined) => RecordSet | undefined) =>
    inTurn(() =>
      inZone(record.name, async (zone) => {
        const wanted = next(await calls.read(zone, record.name, record.type));
        if (wanted !== undefined) await calls.replace(zone, record.name, record.type, wanted);
      }),
    );
  return {
    name: provider,
    caaBesideCname,
    list: (name, type) =>
      inZone(name, async (zone) => {
        const { values = [] } = (await calls.read(zone, name, type)) ?? {};
        return values.map((value) => fromZoneFile(name, type, value));
      }),
    add: (record, ttlSeconds = shortestTtlSeconds) =>
      change(record, (set) => {
        const { values = [], ttlSeconds: ttl = Math.max(ttlSeconds, shortestTtlSeconds) } = set ?? {};
        if (values.some((value) => isValueOf(record, value))) return undefined;
        return { ttlSeconds: ttl, values: [...values, zoneFileValue(record)] };
      }),
    remove: (record) =>
      change(record, (set) => {
        const values = set?.values.filter((value) => !isValueOf(record, value)) ?? [];
        return set === undefined || values.length === set.values.length ? undefined : { ...set, values };
      }),
  };
}

function isValueOf(record: DnsRecord, value: string): boolean {
  return sameRecord(fromZoneFile(record.name, record.type, value), record);
}
