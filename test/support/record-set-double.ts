// What the doubles of APIs with record sets share: reading and replacing all values of one name and type.

import type { DnsRecord, RecordType } from '../../dns/provider.ts';
import { fromZoneFile, zoneFileValue } from '../../dns/wire/presentation.ts';
import type { Held, HeldRecord, HeldZone } from './api-double.ts';

export interface SetAnswer {
  readonly name: string;
  readonly type: string;
  /** As in a zone file. */
  readonly values: readonly string[];
}

/** `label` is relative to the zone, empty at its apex. */
export function readSet(zone: HeldZone, label: string, type: string): SetAnswer {
  const name = fullName(zone, label);
  const here = zone.records.filter((record) => record.name === name && record.type === type);
  return { name, type, values: here.map((record) => zoneFileValue(record as DnsRecord)) };
}

/** False if the values cannot stand beside what is there, or are not in the form of a zone file. */
export async function replaceSet(
  zone: HeldZone,
  label: string,
  type: string,
  values: readonly string[],
  held: Held,
): Promise<boolean> {
  const name = fullName(zone, label);
  const others = zone.records.filter((record) => record.name === name && record.type !== type);
  const stands =
    values.length === 0 ||
    (type === 'CNAME' ? others.length === 0 : others.every((one) => one.type !== 'CNAME'));
  const wellFormed = values.every((value) =>
    type === 'TXT' ? value.startsWith('"') : type !== 'CNAME' || value.endsWith('.'),
  );
  if (!stands || !wellFormed || (type === 'CNAME' && values.length > 1)) return false;
  const fresh: HeldRecord[] = values.map((value) => ({
    id: held.nextId(),
    ...fromZoneFile(name, type as RecordType, value),
  }));
  zone.records = [...zone.records.filter((record) => record.name !== name || record.type !== type), ...fresh];
  await held.changed(zone, name, type);
  return true;
}

function fullName(zone: HeldZone, label: string): string {
  return label === '' ? zone.name : `${label}.${zone.name}`;
}
