// A double of Cloudflare's API v4: the zones and DNS records part, in the documented envelopes, over a real socket.

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

/** CLOUDFLARE_BASE_URL for it is `url`. */
export function startCloudflareDouble(options: DoubleOptions = {}): Promise<ApiDouble> {
  return startApiDouble(options, answer);
}

const answer: Answer = (call, held) => {
  const url = new URL(call.path, 'http://double');
  if (call.headers.authorization !== `Bearer ${held.token}`) return refuse(403, 9109, 'Invalid access token');
  if (call.method === 'GET' && url.pathname === '/zones') return listZones(url, held);
  const [, zoneId, recordId] = /^\/zones\/([^/]+)\/dns_records(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
  if (zoneId === undefined) return refuse(404, 7003, 'Could not route to the path');
  const zone = [...held.zones.values()].find(({ id }) => id === zoneId);
  if (zone === undefined)
    return refuse(404, 7003, 'Could not route to /zones, perhaps your object identifier is invalid?');
  if (call.method === 'GET') return listRecords(url, zone, held);
  if (call.method === 'POST') return createRecord(call, zone, held);
  const record = zone.records.find(({ id }) => id === recordId);
  if (record === undefined) return refuse(404, 81044, 'Record does not exist.');
  return call.method === 'PATCH' ? editRecord(call, zone, record, held) : deleteRecord(zone, record, held);
};

function listZones(url: URL, held: Held): Reply {
  const name = url.searchParams.get('name');
  const zones = [...held.zones.values()].filter((zone) => name === null || zone.name === name);
  return list(
    url,
    zones.map(({ id, name }) => ({ id, name, status: 'active', type: 'full' })),
    held,
    50,
  );
}

function listRecords(url: URL, zone: HeldZone, held: Held): Reply {
  const name = url.searchParams.get('name.exact') ?? url.searchParams.get('name');
  const type = url.searchParams.get('type');
  const found = zone.records.filter(
    (record) => (name === null || record.name === name) && (type === null || record.type === type),
  );
  return list(
    url,
    found.map((record) => toApi(record)),
    held,
    100,
  );
}

function list(url: URL, entries: readonly unknown[], held: Held, limit: number): Reply {
  const page = Number(url.searchParams.get('page') ?? 1);
  const size = Math.min(Number(url.searchParams.get('per_page') ?? 20), limit, held.pageLimit);
  const { items, pages } = pageOf(entries, page, size);
  const info = { page, per_page: size, count: items.length, total_count: entries.length, total_pages: pages };
  return { status: 200, body: { success: true, errors: [], messages: [], result: items, result_info: info } };
}

async function createRecord(call: Call, zone: HeldZone, held: Held): Promise<Reply> {
  const record = fromApi(call.body, held.nextId());
  if (record === undefined) return refuse(400, 9005, 'Content for the record is invalid.');
  const here = zone.records.filter(({ name }) => name === record.name);
  if (here.some(({ type, value }) => type === record.type && value === record.value)) {
    return refuse(400, 81058, 'An identical record already exists.');
  }
  const exclusive = ['A', 'AAAA', 'CNAME'];
  const clash = here.some(
    ({ type }) => exclusive.includes(type) && (type === 'CNAME') !== (record.type === 'CNAME'),
  );
  const second = record.type === 'CNAME' && here.some(({ type }) => type === 'CNAME');
  if (exclusive.includes(record.type) && (clash || second)) {
    return refuse(400, 81053, 'An A, AAAA, or CNAME record with that host already exists.');
  }
  zone.records.push(record);
  await held.changed(zone, record.name, record.type);
  return ok(toApi(record));
}

async function editRecord(call: Call, zone: HeldZone, record: HeldRecord, held: Held): Promise<Reply> {
  const edited = fromApi({ ...toApi(record), ...(call.body as object) }, record.id);
  if (edited === undefined) return refuse(400, 9005, 'Content for the record is invalid.');
  zone.records = zone.records.map((other) => (other === record ? edited : other));
  await held.changed(zone, edited.name, edited.type);
  return ok(toApi(edited));
}

async function deleteRecord(zone: HeldZone, record: HeldRecord, held: Held): Promise<Reply> {
  zone.records = zone.records.filter((other) => other !== record);
  await held.changed(zone, record.name, record.type);
  return ok({ id: record.id });
}

function fromApi(body: unknown, id: string): HeldRecord | undefined {
  const { name, type, content, data, proxied, ttl } = body as Record<string, unknown>;
  const caa = data as { flags?: number; tag?: string; value?: string } | undefined;
  if (typeof name !== 'string' || typeof type !== 'string') return undefined;
  if (typeof ttl === 'number' && ttl !== 1 && ttl < 60) return undefined;
  if (type === 'CAA') {
    if (caa?.tag === undefined || caa.value === undefined) return undefined;
    return { id, name, type, value: `${caa.flags ?? 0} ${caa.tag} "${caa.value}"` };
  }
  if (typeof content !== 'string') return undefined;
  // The text is the quoted strings joined; what is not quoted is taken as it is.
  const strings = content
    .match(/"((?:[^"\\]|\\.)*)"/g)
    ?.map((part) => part.slice(1, -1).replace(/\\(.)/g, '$1'));
  const value = type === 'TXT' ? (strings?.join('') ?? content) : content.toLowerCase();
  if (type === 'TXT' && (strings ?? [content]).some((part) => part.length > 255)) return undefined;
  return { id, name, type, value, proxied: proxied === true };
}

function toApi(record: HeldRecord): Record<string, unknown> {
  const common = {
    id: record.id,
    name: record.name,
    type: record.type,
    ttl: 60,
    proxied: record.proxied ?? false,
  };
  if (record.type === 'TXT') {
    const strings = (record.value.match(/.{1,255}/gs) ?? ['']).map(
      (part) => `"${part.replace(/["\\]/g, '\\$&')}"`,
    );
    return { ...common, content: strings.join(' ') };
  }
  if (record.type !== 'CAA') return { ...common, content: record.value };
  const [, flags, tag, value] = /^(\d+) (\S+) "(.*)"$/.exec(record.value) ?? [];
  return { ...common, content: record.value, data: { flags: Number(flags), tag, value } };
}

function ok(result: unknown): Reply {
  return { status: 200, body: { success: true, errors: [], messages: [], result } };
}

function refuse(status: number, code: number, message: string): Reply {
  return { status, body: { success: false, errors: [{ code, message }], messages: [], result: null } };
}
