// A double of Gandi's LiveDNS API, in the documented shapes, over a real socket.

import { type Answer, type ApiDouble, type DoubleOptions, type Reply, startApiDouble } from './api-double.ts';
import { readSet, replaceSet } from './record-set-double.ts';

/** GANDI_API_URL for it is `url`. */
export function startGandiDouble(options: DoubleOptions = {}): Promise<ApiDouble> {
  return startApiDouble(options, answer);
}

const answer: Answer = async (call, held) => {
  if (call.headers.authorization !== `Bearer ${held.token}`) return refuse(401, 'Unauthorized');
  const pattern = /^\/domains\/([^/]+)(?:\/records\/([^/]+)\/([A-Z]+))?$/;
  const [, domain = '', encoded, type = ''] = pattern.exec(call.path) ?? [];
  const zone = held.zones.get(domain);
  if (zone === undefined) return refuse(404, `Unknown domain ${domain}`);
  if (encoded === undefined) return { status: 200, body: { fqdn: zone.name, automatic_snapshots: false } };
  const label = decodeURIComponent(encoded) === '@' ? '' : decodeURIComponent(encoded);
  const { values } = readSet(zone, label, type);
  if (call.method === 'GET') {
    if (values.length === 0) return refuse(404, "Can't find the DNS record");
    const set = { rrset_name: label || '@', rrset_type: type, rrset_ttl: 300, rrset_values: values };
    return { status: 200, body: set };
  }
  if (call.method === 'DELETE') {
    await replaceSet(zone, label, type, [], held);
    return { status: 204, body: '', raw: true };
  }
  const { rrset_values, rrset_ttl } = call.body as { rrset_values: string[]; rrset_ttl: number };
  if (rrset_values.length === 0 || rrset_ttl < 300) return refuse(400, 'invalid record set');
  const done = await replaceSet(zone, label, type, rrset_values, held);
  return done ? { status: 201, body: { message: 'DNS Record Created' } } : refuse(409, 'conflicting record');
};

function refuse(status: number, message: string): Reply {
  return { status, body: { cause: 'x', code: status, message, object: 'x' } };
}
