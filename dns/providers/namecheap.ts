// Namecheap: its API replaces all records of a domain at once, so each change must repeat every other record.

import * as z from 'zod';
import { createTurns } from '../../src/lib/turns.ts';
import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { formatCaa, normalizeName, parseCaa, sameRecord } from '../wire/presentation.ts';
import { longestZone, nameInZone } from '../zone.ts';
import { type Api, createApi, type Page, readAllPages, readBaseUrl } from './api.ts';
import { patiently } from './patience.ts';
import { type Element, elementsNamed, parseXml } from './xml.ts';
import { createZoneCache } from './zone-cache.ts';

const DEFAULT_BASE_URL = 'https://api.namecheap.com/xml.response';

export const namecheapKind: ProviderKind = {
  name: 'namecheap',
  variables: [
    {
      name: 'NAMECHEAP_USERNAME',
      aliases: ['NAMECHEAP_API_USER', 'NAMECHEAP_API_USERNAME'],
      required: true,
      secret: false,
      meaning: 'the name of the account',
    },
    { name: 'NAMECHEAP_API_KEY', required: true, secret: true, meaning: 'the key from its API access page' },
    {
      name: 'NAMECHEAP_CLIENT_IP',
      required: true,
      secret: false,
      meaning: 'the IPv4 address that the account lists as allowed to call the API',
    },
    {
      name: 'NAMECHEAP_API_URL',
      aliases: ['NAMECHEAP_BASE_URL'],
      required: false,
      secret: false,
      meaning: `where the API is, if not at ${DEFAULT_BASE_URL}`,
    },
  ],
  create: createNamecheap,
};

const SHORTEST_TTL_SECONDS = 60;
const LARGEST_PAGE = 100;

/** Every attribute of a record: the API wants all of them back. */
const hostSchema = z.object({
  Name: z.string().min(1),
  Type: z.string().min(1),
  Address: z.string(),
  MXPref: z.string().default('10'),
  TTL: z.string().regex(/^\d+$/).default('1800'),
});
const resultSchema = z.object({ IsUsingOurDNS: z.string(), EmailType: z.string().optional() });

type Host = z.infer<typeof hostSchema>;
interface Zone {
  readonly name: string;
}
interface Hosts {
  readonly hosts: readonly Host[];
  readonly emailType: string | undefined;
}

function createNamecheap(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience } = options;
  const key = credentials.NAMECHEAP_API_KEY ?? '';
  const api = createApi({ provider: 'namecheap', secrets: [key], timeoutMs });
  const user = credentials.NAMECHEAP_USERNAME ?? '';
  const common = {
    ApiUser: user,
    UserName: user,
    ApiKey: key,
    ClientIp: credentials.NAMECHEAP_CLIENT_IP ?? '',
  };
  const url = readBaseUrl('NAMECHEAP_API_URL', credentials.NAMECHEAP_API_URL ?? DEFAULT_BASE_URL);
  const calls = createCalls(api, (command, fields) =>
    callApi(api, url, { ...common, Command: command, ...fields }),
  );
  const zones = createZoneCache(calls.findZone);
  const inTurn = createTurns();
  const inZone = <T>(name: string, use: (zone: Zone) => Promise<T>) =>
    patiently(() => zones.within(name, use), patience);
  /** Writes the domain's changed records, unless nothing changes. */
  const rewrite = (record: DnsRecord, change: (hosts: readonly Host[], zone: Zone) => readonly Host[]) =>
    inTurn(() =>
      inZone(record.name, async (zone) => {
        const before = await calls.readHosts(zone);
        const after = change(before.hosts, zone);
        if (after !== before.hosts) await calls.writeHosts(zone, { ...before, hosts: after }, before);
      }),
    );
  return {
    name: 'namecheap',
    caaBesideCname: false,
    list: (name, type) =>
      inZone(name, async (zone) =>
        recordsAt((await calls.readHosts(zone)).hosts, zone, name, type).map(({ record }) => record),
      ),
    add: (record, ttlSeconds = SHORTEST_TTL_SECONDS) =>
      rewrite(record, (hosts, zone) => {
        const held = recordsAt(hosts, zone, record.name, record.type);
        if (held.some((other) => sameRecord(other.record, record))) return hosts;
        return [...hosts, toHost(record, zone, Math.max(ttlSeconds, SHORTEST_TTL_SECONDS))];
      }),
    remove: (record) =>
      rewrite(record, (hosts, zone) => {
        const held = recordsAt(hosts, zone, record.name, record.type);
        const gone = held.filter((other) => sameRecord(other.record, record)).map(({ host }) => host);
        return gone.length === 0 ? hosts : hosts.filter((host) => !gone.includes(host));
      }),
  };
}

type Call = (command: string, fields: Readonly<Record<string, string>>) => Promise<Element>;

async function callApi(api: Api, url: string, fields: Readonly<Record<string, string>>): Promise<Element> {
  const command = fields.Command ?? '';
  const reply = await api.send({
    method: 'POST',
    url,
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams(fields).toString(),
  });
  if (reply.status !== 200) throw api.refusal(reply, command, '');
  const root = parseXml(reply.body.toString('utf8'));
  if (root?.name !== 'ApiResponse')
    throw api.error('unintelligible', `${command}: the API's answer is not the documented XML`);
  if (root.attributes.Status === 'OK') return root;
  throw refused(api, command, elementsNamed(root, 'Error'));
}

const NOT_LISTED = {
  variable: 'NAMECHEAP_CLIENT_IP',
  cure: 'NAMECHEAP_CLIENT_IP must be the IPv4 address that this machine is seen with, and in the whitelist at https://ap.www.namecheap.com/settings/tools/apiaccess (Profile, Tools, API Access)',
};

/** The API refuses with status 200 and a number: 10xxxxx for credentials, 500000 for too many requests. */
function refused(api: Api, command: string, errors: readonly Element[]) {
  const numbers = errors.map(({ attributes }) => attributes.Number ?? '');
  const said = errors.map(({ text }, index) => `${text.trim()} (${numbers[index]})`).join('; ');
  // The client's address is not in the whitelist, or is locked.
  if (numbers.some((number) => ['1011150', '1017150'].includes(number)))
    return api.error('permission-missing', `${command}: ${said}`, NOT_LISTED);
  if (numbers.some((number) => /^10\d{5}$/.test(number)))
    return api.error('credentials-refused', `${command}: ${said}`);
  if (numbers.includes('500000')) return api.error('rate-limited', `${command}: ${said}`);
  if (numbers.some((number) => ['2019166', '2016166', '2030166'].includes(number))) {
    return api.error('zone-not-found', `${command}: ${said}`);
  }
  return api.error('refused', `${command}: ${said}`);
}

function createCalls(api: Api, call: Call) {
  return {
    async findZone(name: string): Promise<Zone> {
      const subject = `domain of ${name}`;
      const domains = await readAllPages(api, subject, (page) => readDomains(api, call, page, subject));
      const zone = longestZone(name, domains);
      if (zone === undefined) throw api.error('zone-not-found', `no domain of this account holds ${name}`);
      return zone;
    },
    async readHosts(zone: Zone): Promise<Hosts> {
      const subject = `records of ${zone.name}`;
      const root = await call('namecheap.domains.dns.getHosts', namesOf(zone));
      const [result, ...more] = elementsNamed(root, 'DomainDNSGetHostsResult');
      if (result === undefined || more.length > 0)
        throw api.error('unintelligible', `${subject}: no list in the answer`);
      const { IsUsingOurDNS, EmailType } = api.expect(resultSchema, result.attributes, subject);
      if (IsUsingOurDNS.toLowerCase() !== 'true') {
        throw api.error(
          'unsupported',
          `${zone.name} does not use Namecheap's name servers, its records are elsewhere`,
        );
      }
      const hosts = result.children.map(({ attributes }) => api.expect(hostSchema, attributes, subject));
      return { hosts, emailType: EmailType };
    },
    /** This call deletes every record that it does not repeat, so the result is read back and checked. */
    async writeHosts(zone: Zone, { hosts, emailType }: Hosts, before: Hosts): Promise<void> {
      const current = await this.readHosts(zone);
      if (JSON.stringify(current) !== JSON.stringify(before)) {
        throw api.error('unreachable', `${zone.name} was changed by somebody else at this moment`);
      }
      const fields = Object.assign({}, ...hosts.map(toFields)) as Record<string, string>;
      const root = await call('namecheap.domains.dns.setHosts', {
        ...namesOf(zone),
        ...(emailType === undefined ? {} : { EmailType: emailType }),
        ...fields,
      });
      const [result] = elementsNamed(root, 'DomainDNSSetHostsResult');
      const done = result?.attributes.IsSuccess?.toLowerCase() === 'true';
      const after = await this.readHosts(zone);
      if (!done || !hosts.every((host) => after.hosts.some((held) => sameHost(held, host)))) {
        throw api.error(
          'unintelligible',
          `${zone.name}: the records are not what was written; check them at once`,
        );
      }
    },
  };
}

async function readDomains(api: Api, call: Call, page: number, subject: string): Promise<Page<Zone>> {
  const root = await call('namecheap.domains.getList', {
    Page: String(page),
    PageSize: String(LARGEST_PAGE),
  });
  const schema = z.object({ Name: z.string().min(1) });
  const items = elementsNamed(root, 'Domain').map(({ attributes }) =>
    api.expect(schema, attributes, subject),
  );
  const [total] = elementsNamed(root, 'TotalItems');
  const [size] = elementsNamed(root, 'PageSize');
  const count = api.expect(z.coerce.number().int().nonnegative(), total?.text, subject);
  const perPage = api.expect(z.coerce.number().int().positive(), size?.text, subject);
  return {
    items: items.map(({ Name }) => ({ name: normalizeName(Name) })),
    pages: Math.ceil(count / perPage),
    total: count,
  };
}

/** A domain is registered directly under its suffix, which may have several labels. */
function namesOf({ name }: Zone): { SLD: string; TLD: string } {
  const dot = name.indexOf('.');
  return { SLD: name.slice(0, dot), TLD: name.slice(dot + 1) };
}

function toFields(host: Host, index: number): Record<string, string> {
  const number = index + 1;
  return {
    [`HostName${number}`]: host.Name,
    [`RecordType${number}`]: host.Type,
    [`Address${number}`]: host.Address,
    [`MXPref${number}`]: host.MXPref,
    [`TTL${number}`]: host.TTL,
  };
}

function sameHost(a: Host, b: Host): boolean {
  const address = (host: Host) =>
    host.Type === 'TXT' ? host.Address : host.Address.replace(/\.$/, '').toLowerCase();
  return a.Name.toLowerCase() === b.Name.toLowerCase() && a.Type === b.Type && address(a) === address(b);
}

function recordsAt(hosts: readonly Host[], zone: Zone, name: string, type: RecordType) {
  const relative = nameInZone(name, zone.name) || '@';
  const here = hosts.filter((host) => host.Type === type && host.Name.toLowerCase() === relative);
  return here.map((host) => ({ host, record: { name, type, value: toValue(host, type) } }));
}

function toHost(record: DnsRecord, zone: Zone, ttl: number): Host {
  const dot = record.type === 'CNAME' ? '.' : '';
  return {
    Name: nameInZone(record.name, zone.name) || '@',
    Type: record.type,
    Address: `${record.value}${dot}`,
    MXPref: '10',
    TTL: String(ttl),
  };
}

function toValue(host: Host, type: RecordType): string {
  if (type === 'CNAME') return normalizeName(host.Address);
  if (type !== 'CAA') return host.Address;
  const parsed = parseCaa(host.Address);
  return parsed === undefined ? host.Address : formatCaa(parsed);
}
