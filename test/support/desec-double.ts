// A double of deSEC's API: domains and their record sets, in the documented shapes, over a real socket.

import { type Answer, type ApiDouble, type DoubleOptions, type Reply, startApiDouble } from './api-double.ts';
import { readSet, replaceSet } from './record-set-double.ts';

export const MINIMUM_TTL = 3600;

/** DESEC_API_URL for it is `url`. */
export function startDesecDouble(options: DoubleOptions = {}): Promise<ApiDouble> {
  return startApiDouble(options, answer);
}

interface Wanted {
  readonly subname: string;
  readonly type: string;
  readonly ttl: number;
  readonly records: readonly string[];
}

const answer: Answer = async (call, held) => {
  if (call.headers.authorization !== `Token ${held.token}`) return refuse(401, 'Invalid token.');
  const url = new URL(call.path, 'http://double');
  const describe = (name: string) => ({ name, minimum_ttl: MINIMUM_TTL, keys: [] });
  if (url.pathname === '/domains/') {
    const qname = url.searchParams.get('owns_qname') ?? '';
    const owners = [...held.zones.values()].filter(({ name }) => `.${qname}`.endsWith(`.${name}`));
    const [owner] = owners.sort((a, b) => b.name.length - a.name.length);
    return { status: 200, body: owner === undefined ? [] : [describe(owner.name)] };
  }
  const pattern = /^\/domains\/([^/]+)\/(?:(rrsets)\/(?:([^/]+)\/([A-Z]+)\/)?)?$/;
  const [, domain = '', sets, encoded, type = ''] = pattern.exec(url.pathname) ?? [];
  const zone = held.zones.get(domain);
  if (zone === undefined) return refuse(404, 'Not found.');
  if (sets === undefined) return { status: 200, body: describe(zone.name) };
  if (call.method === 'GET') {
    const label = decodeURIComponent(encoded ?? '') === '@' ? '' : decodeURIComponent(encoded ?? '');
    const { values } = readSet(zone, label, type);
    return values.length === 0
      ? refuse(404, 'Not found.')
      : { status: 200, body: { subname: label, type, ttl: MINIMUM_TTL, records: values } };
  }
  const wanted = call.body as Wanted[];
  for (const { subname, type: kind, ttl, records } of wanted) {
    if (ttl < MINIMUM_TTL) return { status: 400, body: [{ ttl: ['too low'] }] };
    if (!(await replaceSet(zone, subname, kind, records, held)))
      return { status: 400, body: [{ non_field_errors: ['RRset conflicts with others'] }] };
  }
  return { status: 200, body: wanted.filter(({ records }) => records.length > 0) };
};

function refuse(status: number, detail: string): Reply {
  return { status, body: { detail } };
}
