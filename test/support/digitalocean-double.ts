// A double of DigitalOcean's API v2: the domains part, in the documented shapes, over a real socket.

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

/** DO_API_URL for it is `url`. */
export function startDigitaloceanDouble(options: DoubleOptions = {}): Promise<ApiDouble> {
  return startApiDouble(options, answer);
}

const answer: Answer = (call, held) => {
  const url = new URL(call.path, 'http://double');
  if (call.headers.authorization !== `Bearer ${held.token}`) return refuse(401, 'Unable to authenticate you');
  if (url.pathname === '/v2/domains') {
    return list(
      url,
      'domains',
      [...held.zones.values()].map(({ name }) => ({ name, ttl: 1800 })),
      held,
    );
  }
  const [, domain = '', id] = /^\/v2\/domains\/([^/]+)\/records(?:\/(\d+))?$/.exec(url.pathname) ?? [];
  const zone = held.zones.get(domain);
  if (zone === undefined) return refuse(404, 'The resource you were accessing could not be found.');
  if (call.method === 'GET') return listRecords(url, zone, held);
  if (call.method === 'POST') return createRecord(call, zone, held);
  const record = zone.records.find((one) => one.id === id);
  return record === undefined ? refuse(404, 'not found') : deleteRecord(zone, record, held);
};

function listRecords(url: URL, zone: HeldZone, held: Held): Reply {
  const name = url.searchParams.get('name');
  const type = url.searchParams.get('type');
  const found = zone.records.filter(
    (record) => (name === null || record.name === name) && (type === null || record.type === type),
  );
  return list(
    url,
    'domain_records',
    found.map((record) => toApi(record, zone)),
    held,
  );
}

function list(url: URL, field: string, entries: readonly unknown[], held: Held): Reply {
  const page = Number(url.searchParams.get('page') ?? 1);
  const size = Math.min(Number(url.searchParams.get('per_page') ?? 20), held.pageLimit);
  const { items } = pageOf(entries, page, size);
  return { status: 200, body: { [field]: items, links: {}, meta: { total: entries.length } } };
}

async function createRecord(call: Call, zone: HeldZone, held: Held): Promise<Reply> {
  const { name = '', type = '', data = '', tag, flags } = call.body as Record<string, string>;
  if ((type === 'CNAME' || type === 'CAA') && !data.endsWith('.'))
    return refuse(422, 'Data needs to end with a dot (.)');
  if (type === 'CAA' && data.includes(';')) return refuse(422, 'Data is invalid');
  const full = name === '@' ? zone.name : `${name}.${zone.name}`;
  const here = zone.records.filter((record) => record.name === full);
  if ((type === 'CNAME' && here.length > 0) || here.some((record) => record.type === 'CNAME')) {
    return refuse(422, 'CNAME records cannot share a name with other records');
  }
  const target = type === 'CNAME' || type === 'CAA' ? data.replace(/\.$/, '') : data;
  const record = {
    id: held.nextId(),
    name: full,
    type,
    value: type === 'CAA' ? `${flags} ${tag} "${target}"` : target,
  };
  zone.records.push(record);
  await held.changed(zone, full, type);
  return { status: 201, body: { domain_record: toApi(record, zone) } };
}

async function deleteRecord(zone: HeldZone, record: HeldRecord, held: Held): Promise<Reply> {
  zone.records = zone.records.filter((other) => other !== record);
  await held.changed(zone, record.name, record.type);
  return { status: 204, body: '', raw: true };
}

function toApi(record: HeldRecord, zone: HeldZone): Record<string, unknown> {
  const name = record.name === zone.name ? '@' : record.name.slice(0, -zone.name.length - 1);
  const common = { id: Number(record.id), type: record.type, name, ttl: 1800, priority: null, port: null };
  if (record.type !== 'CAA') return { ...common, data: record.value, flags: null, tag: null };
  const [, flags, tag, data] = /^(\d+) (\S+) "(.*)"$/.exec(record.value) ?? [];
  return { ...common, data, flags: Number(flags), tag };
}

function refuse(status: number, message: string): Reply {
  return { status, body: { id: 'refused', message } };
}
