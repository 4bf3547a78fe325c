// A double of Porkbun's JSON API, in the documented shapes, over a real socket.

import {
  type Answer,
  type ApiDouble,
  type DoubleOptions,
  type Held,
  type HeldZone,
  type Reply,
  startApiDouble,
} from './api-double.ts';

/** PORKBUN_API_URL for it is `url`; the secret key is `token`. */
export function startPorkbunDouble(options: DoubleOptions = {}): Promise<ApiDouble> {
  return startApiDouble(options, answer, { isWrite: ({ path }) => /\/dns\/(create|delete)\//.test(path) });
}

const answer: Answer = (call, held) => {
  const body = call.body as Record<string, string>;
  if (body.secretapikey !== held.token || body.apikey === undefined) return refuse('Invalid API key. (002)');
  if (call.path === '/domain/listAll') {
    const start = Number(body.start ?? 0);
    const names = [...held.zones.values()].map(({ name }) => ({ domain: name, status: 'ACTIVE' }));
    return { status: 200, body: { status: 'SUCCESS', domains: names.slice(start, start + held.pageLimit) } };
  }
  const [, , action, domain = '', third = '', fourth = ''] = call.path.split('/');
  const zone = held.zones.get(domain);
  if (zone === undefined) return refuse('Invalid domain.');
  if (action === 'retrieveByNameType') return retrieve(zone, third, decodeURIComponent(fourth));
  if (action === 'create') return create(zone, body, held);
  const record = zone.records.find(({ id }) => id === third);
  return record === undefined ? refuse('Invalid record ID.') : remove(zone, record.id, held);
};

function retrieve(zone: HeldZone, type: string, label: string): Reply {
  const name = fullName(zone, label);
  const records = zone.records
    .filter((record) => record.name === name && record.type === type)
    .map((record) => ({
      id: record.id,
      name,
      type,
      content: record.value,
      ttl: '600',
      prio: '0',
      notes: '',
    }));
  return { status: 200, body: { status: 'SUCCESS', cloudflare: 'disabled', records } };
}

async function create(zone: HeldZone, body: Record<string, string>, held: Held): Promise<Reply> {
  const { name: label = '', type = '', content: value = '', ttl } = body;
  const name = fullName(zone, label);
  const here = zone.records.filter((record) => record.name === name);
  if (Number(ttl) < 600) return refuse('Invalid TTL.');
  if (type === 'CNAME' ? here.length > 0 : here.some((record) => record.type === 'CNAME'))
    return refuse('Create error: We were unable to create the DNS record.');
  const id = held.nextId();
  zone.records.push({ id, name, type, value });
  await held.changed(zone, name, type);
  return { status: 200, body: { status: 'SUCCESS', id: Number(id) } };
}

async function remove(zone: HeldZone, id: string, held: Held): Promise<Reply> {
  const { name, type } = zone.records.find((record) => record.id === id)!;
  zone.records = zone.records.filter((record) => record.id !== id);
  await held.changed(zone, name, type);
  return { status: 200, body: { status: 'SUCCESS' } };
}

function fullName(zone: HeldZone, label: string): string {
  return label === '' ? zone.name : `${label}.${zone.name}`;
}

function refuse(message: string): Reply {
  return { status: 400, body: { status: 'ERROR', message } };
}
