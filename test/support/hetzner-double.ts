// A double of Hetzner's Cloud API: zones and their record sets, in the documented shapes, over a real socket.

import { quoteTxt, unquoteTxt } from '../../dns/wire/presentation.ts';
import {
  type Answer,
  type ApiDouble,
  type Call,
  type DoubleOptions,
  type Held,
  type HeldRecord,
  type HeldZone,
  pageOf,
  type Reply,
  startApiDouble,
} from './api-double.ts';

/** HETZNER_API_URL for it is `url`. */
export function startHetznerDouble(options: DoubleOptions = {}): Promise<ApiDouble> {
  return startApiDouble(options, answer);
}

const answer: Answer = (call, held) => {
  const url = new URL(call.path, 'http://double');
  if (call.headers.authorization !== `Bearer ${held.token}`) return refuse(401, 'unauthorized');
  if (url.pathname === '/zones') return listZones(url, held);
  const [, id, name, type, action] =
    /^\/zones\/(\d+)(?:\/rrsets\/([^/]+)\/([A-Z]+)(?:\/actions\/(\w+))?)?$/.exec(url.pathname) ?? [];
  const zone = [...held.zones.values()].find((one) => one.id === id);
  if (zone === undefined) return refuse(404, 'not_found');
  if (name === undefined || type === undefined)
    return { status: 200, body: { zone: { id: Number(id), name: zone.name } } };
  const relative = decodeURIComponent(name);
  const full = relative === '@' ? zone.name : `${relative}.${zone.name}`;
  const here = zone.records.filter((record) => record.name === full && record.type === type);
  if (call.method === 'GET') return here.length === 0 ? refuse(404, 'not_found') : set(relative, type, here);
  return action === 'add_records' ? add(call, zone, full, type, held) : remove(call, zone, here, held);
};

function listZones(url: URL, held: Held): Reply {
  const name = url.searchParams.get('name');
  const found = [...held.zones.values()].filter((zone) => name === null || zone.name === name);
  const page = Number(url.searchParams.get('page') ?? 1);
  const { items, pages } = pageOf(
    found,
    page,
    Math.min(Number(url.searchParams.get('per_page') ?? 25), held.pageLimit),
  );
  const zones = items.map((zone) => ({ id: Number(zone.id), name: zone.name, mode: 'primary' }));
  return {
    status: 200,
    body: { zones, meta: { pagination: { page, last_page: pages, total_entries: found.length } } },
  };
}

function set(name: string, type: string, records: readonly HeldRecord[]): Reply {
  const values = records.map((record) => ({ value: toContent(record), comment: '' }));
  return { status: 200, body: { rrset: { id: `${name}/${type}`, name, type, ttl: 60, records: values } } };
}

async function add(call: Call, zone: HeldZone, name: string, type: string, held: Held): Promise<Reply> {
  const here = zone.records.filter((record) => record.name === name);
  const { records } = call.body as { records: { value: string }[] };
  if ((type === 'CNAME' && here.length > 0) || here.some((record) => record.type === 'CNAME')) {
    return refuse(422, 'invalid_input');
  }
  for (const { value } of records) {
    if (type === 'TXT' && !value.startsWith('"')) return refuse(422, 'invalid_input');
    if (type === 'CNAME' && !value.endsWith('.')) return refuse(422, 'invalid_input');
    const record = { id: held.nextId(), name, type, value: fromContent(type, value) };
    if (here.some((other) => other.type === type && other.value === record.value))
      return refuse(409, 'uniqueness_error');
    zone.records.push(record);
  }
  await held.changed(zone, name, type);
  return { status: 201, body: { action: { id: 1, command: 'add_records', status: 'running', error: null } } };
}

async function remove(call: Call, zone: HeldZone, here: readonly HeldRecord[], held: Held): Promise<Reply> {
  const { records } = call.body as { records: { value: string }[] };
  const gone = here.filter((record) => records.some(({ value }) => value === toContent(record)));
  if (gone.length < records.length) return refuse(404, 'not_found');
  zone.records = zone.records.filter((record) => !gone.includes(record));
  await held.changed(zone, gone[0]!.name, gone[0]!.type);
  return {
    status: 201,
    body: { action: { id: 2, command: 'remove_records', status: 'running', error: null } },
  };
}

function toContent({ type, value }: HeldRecord): string {
  return type === 'TXT' ? quoteTxt(value) : type === 'CNAME' ? `${value}.` : value;
}

function fromContent(type: string, content: string): string {
  return type === 'TXT' ? unquoteTxt(content) : type === 'CNAME' ? content.replace(/\.$/, '') : content;
}

function refuse(status: number, code: string): Reply {
  return { status, body: { error: { code, message: code.replaceAll('_', ' ') } } };
}
