// limit_req_zone and limit_conn_zone: what requests and connections are counted by.

import type { ConnectionZone, RequestZone } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import type { Directive } from './blocks.ts';
import type { Word } from './lexer.ts';
import { type Level, originOf, type Reading } from './reading.ts';
import { readCount, readSize } from './values.ts';

type Kind = 'limit_req_zone' | 'limit_conn_zone';

export interface Zones {
  readonly requests: readonly RequestZone[];
  readonly connections: readonly ConnectionZone[];
  has(kind: Kind, name: string): boolean;
}

/** What nginx needs for one key, on a 64-bit machine. */
const BYTES_PER_KEY = 128;
const LEAST_BYTES = 32 * 1024;

export function readZones(level: Level, reading: Reading): Zones {
  const known = new Map<string, Kind>();
  const isNew = (at: Directive, name: string, kind: Kind): boolean => {
    if (known.has(name))
      reading.refuse(at.name, `the zone ${name} is defined twice`, 'give one of them another name');
    else known.set(name, kind);
    return known.get(name) === kind;
  };
  const requests = level.all('limit_req_zone').flatMap((directive): RequestZone[] => {
    const [key, ...params] = directive.args as [Word, ...Word[]];
    const zone = readZone(directive, params, reading);
    const rate = readRate(directive, params, reading);
    const template = reading.template(key);
    if (zone === undefined || rate === undefined || !isNew(directive, zone.name, 'limit_req_zone')) return [];
    const maxKeys = Math.floor(zone.bytes / BYTES_PER_KEY);
    return [
      { name: zone.name, origin: originOf(directive), key: template, perThousandSeconds: rate, maxKeys },
    ];
  });
  const connections = level.all('limit_conn_zone').flatMap((directive): ConnectionZone[] => {
    const [key, ...params] = directive.args as [Word, ...Word[]];
    const zone = readZone(directive, params, reading);
    const template = reading.template(key);
    if (zone === undefined || !isNew(directive, zone.name, 'limit_conn_zone')) return [];
    return [{ name: zone.name, origin: originOf(directive), key: template }];
  });
  return { requests, connections, has: (kind, name) => known.get(name) === kind };
}

function readZone(
  { name }: Directive,
  params: readonly Word[],
  reading: Reading,
): { name: string; bytes: number } | undefined {
  for (const word of params) {
    if (/^(zone=|rate=|sync$)/.test(word.text)) continue;
    return reading.refuse(
      word,
      `${quote(word.text)} is no parameter of ${name.text}`,
      'wants zone=name:size',
    );
  }
  const word = params.find(({ text }) => text.startsWith('zone='));
  const [, zone, size] = /^zone=([^:]+):(.+)$/.exec(word?.text ?? '') ?? [];
  const bytes = size === undefined ? undefined : readSize(size);
  if (zone === undefined || bytes === undefined)
    return reading.refuse(word ?? name, `${name.text} has no zone with a size`, 'write zone=name:10m');
  if (bytes < LEAST_BYTES) return reading.refuse(word!, `the zone ${zone} is too small`, 'wants 32k or more');
  return { name: zone, bytes };
}

/** Requests in a thousand seconds. */
function readRate({ name }: Directive, params: readonly Word[], reading: Reading): number | undefined {
  const word = params.find(({ text }) => text.startsWith('rate='));
  const [, count, unit] = /^rate=(\d+)r\/([sm])$/.exec(word?.text ?? '') ?? [];
  const rate = count === undefined ? undefined : readCount(count, 1_000_000);
  if (rate === undefined || rate === 0)
    return reading.refuse(word ?? name, `${name.text} has no rate`, 'write rate=10r/s, or rate=10r/m');
  return Math.floor((rate * 1000) / (unit === 's' ? 1 : 60));
}
