// A double of Linode's API v4: the domains part, in the documented shapes, over a real socket.

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

/** LINODE_API_URL for it is `url` with `/v4`. */
export async function startLinodeDouble(options: DoubleOptions = {}): Promise<ApiDouble> {
  const double = await startApiDouble(options, answer);
  return { ...double, url: `${double.url}/v4` };
}

const answer: Answer = (call, held) => {
  const url = new URL(call.path, 'http://double');
  if (call.headers.authorization !== `Bearer ${held.token}`) return refuse(401, 'Invalid Token');
  if (call.method === 'GET' && url.pathname === '/v4/domains') return listDomains(url, call, held);
  const [, domainId, recordId] = /^\/v4\/domains\/(\d+)\/records(?:\/(\d+))?$/.exec(url.pathname) ?? [];
  const zone = [...held.zones.values()].find(({ id }) => id === domainId);
  if (zone === undefined) return refuse(404, 'Not found');
  if (call.method === 'GET')
    return list(
      url,
      zone.records.map((record) => toApi(record, zone)),
      held,
    );
  if (call.method === 'POST') return createRecord(call, zone, held);
  const record = zone.records.find(({ id }) => id === recordId);
  if (record === undefined || call.method !== 'DELETE') return refuse(404, 'Not found');
  return deleteRecord(zone, record, held);
};

function listDomains(url: URL, call: Call, held: Held): Reply {
  const filter = JSON.parse(call.headers['x-filter'] ?? '{}') as {
    domain?: string;
    '+or'?: { domain?: string }[];
  };
  const asked =
    filter['+or']?.map(({ domain }) => domain) ?? (filter.domain === undefined ? undefined : [filter.domain]);
  const zones = [...held.zones.values()].filter(({ name }) => asked === undefined || asked.includes(name));
  return list(
    url,
    zones.map(({ id, name }) => ({ id: Number(id), domain: name, type: 'master', status: 'active' })),
    held,
  );
}

function list(url: URL, entries: readonly unknown[], held: Held): Reply {
  const page = Number(url.searchParams.get('page') ?? 1);
  const asked = Number(url.searchParams.get('page_size') ?? 100);
  if (asked < 25 || asked > 500) return refuse(400, 'Must be 25-500', 'page_size');
  const { items, pages } = pageOf(entries, page, Math.min(asked, held.pageLimit));
  return { status: 200, body: { data: items, page, pages, results: entries.length } };
}

async function createRecord(call: Call, zone: HeldZone, held: Held): Promise<Reply> {
  const { name = '', type, target = '', tag } = call.body as Record<string, string | undefined>;
  if (type === undefined) return refuse(400, 'type is required', 'type');
  const full = name === '' ? zone.name : `${name}.${zone.name}`;
  const here = zone.records.filter((record) => record.name === full);
  const aliased = here.some((record) => record.type === 'CNAME');
  if ((type === 'CNAME' && here.length > 0) || aliased) {
    return refuse(400, 'Record conflict - CNAMES must be unique', 'name');
  }
  const value = type === 'CAA' ? `0 ${tag} "${target}"` : target;
  const record: HeldRecord = { id: held.nextId(), name: full, type, value };
  zone.records.push(record);
  await held.changed(zone, full, type);
  return { status: 200, body: toApi(record, zone) };
}

async function deleteRecord(zone: HeldZone, record: HeldRecord, held: Held): Promise<Reply> {
  zone.records = zone.records.filter((other) => other !== record);
  await held.changed(zone, record.name, record.type);
  return { status: 200, body: {} };
}

function toApi(record: HeldRecord, zone: HeldZone): Record<string, unknown> {
  const name = record.name === zone.name ? '' : record.name.slice(0, -zone.name.length - 1);
  const common = {
    id: Number(record.id),
    type: record.type,
    name,
    ttl_sec: 300,
    priority: 0,
    weight: 0,
    port: 0,
  };
  if (record.type !== 'CAA') return { ...common, target: record.value, tag: null };
  const [, tag, target] = /^\d+ (\S+) "(.*)"$/.exec(record.value) ?? [];
  return { ...common, target, tag };
}

function refuse(status: number, reason: string, field?: string): Reply {
  return { status, body: { errors: [field === undefined ? { reason } : { reason, field }] } };
}
