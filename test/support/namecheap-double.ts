// A double of Namecheap's XML API: the domain list and the records of a domain, read and written as a whole.

import {
  type Answer,
  type ApiDouble,
  type DoubleOptions,
  type Held,
  type HeldRecord,
  type HeldZone,
  pageOf,
  type Reply,
  startApiDouble,
} from './api-double.ts';

/** NAMECHEAP_API_URL for it is `url`. The token is the API key. */
export function startNamecheapDouble(options: DoubleOptions = {}): Promise<ApiDouble> {
  return startApiDouble(options, answer, { isWrite: ({ body }) => String(body).includes('setHosts') });
}

const answer: Answer = async (call, held) => {
  const fields = new URLSearchParams(String(call.body));
  if (fields.get('ApiKey') !== held.token)
    return refuse(1011102, 'API Key is invalid or API access has not been enabled');
  const command = fields.get('Command');
  if (command === 'namecheap.domains.getList') return listDomains(fields, held);
  const zone = held.zones.get(`${fields.get('SLD')}.${fields.get('TLD')}`);
  if (zone === undefined) return refuse(2019166, 'Domain not found');
  return command === 'namecheap.domains.dns.getHosts' ? getHosts(zone) : setHosts(fields, zone, held);
};

function listDomains(fields: URLSearchParams, held: Held): Reply {
  const size = Math.min(Number(fields.get('PageSize') ?? 20), held.pageLimit);
  const { items } = pageOf([...held.zones.values()], Number(fields.get('Page') ?? 1), size);
  const domains = items
    .map(({ id, name }) => `<Domain ID="${id}" Name="${name}" IsExpired="false" IsLocked="false"/>`)
    .join('');
  const paging = `<Paging><TotalItems>${held.zones.size}</TotalItems><CurrentPage>${fields.get('Page')}</CurrentPage><PageSize>${size}</PageSize></Paging>`;
  return ok(`<DomainGetListResult>${domains}</DomainGetListResult>${paging}`);
}

function getHosts(zone: HeldZone): Reply {
  const hosts = zone.records.map((record) => {
    const { name, address } = toHost(record, zone);
    return `<host HostId="${record.id}" Name="${name}" Type="${record.type}" Address="${attribute(address)}" MXPref="10" TTL="1799" IsActive="true" />`;
  });
  return ok(
    `<DomainDNSGetHostsResult Domain="${zone.name}" EmailType="FWD" IsUsingOurDNS="true">${hosts.join('')}</DomainDNSGetHostsResult>`,
  );
}

async function setHosts(fields: URLSearchParams, zone: HeldZone, held: Held): Promise<Reply> {
  if (fields.get('EmailType') !== 'FWD') return refuse(2050900, 'the mail forwarding would be lost');
  const records: HeldRecord[] = [];
  for (let number = 1; fields.has(`HostName${number}`); number++) {
    const name = fields.get(`HostName${number}`)!;
    const type = fields.get(`RecordType${number}`)!;
    const address = fields.get(`Address${number}`)!;
    const full = name === '@' ? zone.name : `${name}.${zone.name}`;
    records.push({
      id: held.nextId(),
      name: full,
      type,
      value: type === 'CNAME' ? address.replace(/\.$/, '') : address,
    });
  }
  const clash = records.some(
    (record) =>
      record.type === 'CNAME' && records.some((other) => other !== record && other.name === record.name),
  );
  if (clash) return refuse(2050900, 'a CNAME stands beside another record');
  const touched = [...zone.records, ...records];
  zone.records = records;
  const seen = new Set<string>();
  for (const { name, type } of touched) {
    if (!seen.has(`${type} ${name}`)) await held.changed(zone, name, type);
    seen.add(`${type} ${name}`);
  }
  return ok(`<DomainDNSSetHostsResult Domain="${zone.name}" IsSuccess="true"/>`);
}

function toHost(record: HeldRecord, zone: HeldZone): { name: string; address: string } {
  const name = record.name === zone.name ? '@' : record.name.slice(0, -zone.name.length - 1);
  return { name, address: record.type === 'CNAME' ? `${record.value}.` : record.value };
}

function attribute(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;');
}

function ok(inner: string): Reply {
  return xml(
    `<ApiResponse Status="OK" xmlns="http://api.namecheap.com/xml.response"><Errors /><CommandResponse>${inner}</CommandResponse></ApiResponse>`,
  );
}

function refuse(number: number, message: string): Reply {
  return xml(
    `<ApiResponse Status="ERROR" xmlns="http://api.namecheap.com/xml.response"><Errors><Error Number="${number}">${message}</Error></Errors></ApiResponse>`,
  );
}

function xml(text: string): Reply {
  return { status: 200, body: `<?xml version="1.0" encoding="utf-8"?>\n${text}`, raw: true };
}
