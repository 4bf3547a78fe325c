// Linode: domains and records through the vendor's own package, without its global state.

import { AsyncLocalStorage } from 'node:async_hooks';
import * as z from 'zod';
import { DnsError } from '../error.ts';
import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { formatCaa, normalizeName, parseCaa, sameRecord, unquoteTxt } from '../wire/presentation.ts';
import { longestZone, nameInZone, possibleZones } from '../zone.ts';
import { type Api, createApi, readAllPages, readBaseUrl, unlessNotFound } from './api.ts';
import { createByRecord, type Held } from './by-record.ts';
import type { CarriedRequest, LinodePackage, PageQuery } from './linode-package.ts';

const PACKAGE_BASE_URL = 'https://api.linode.com/v4';

export const linodeKind: ProviderKind = {
  name: 'linode',
  aliases: ['linodev4', 'akamai'],
  variables: [
    {
      name: 'LINODE_API_TOKEN',
      aliases: ['LINODE_TOKEN'],
      required: true,
      secret: true,
      meaning: 'a personal access token with read and write access to Domains',
    },
    {
      name: 'LINODE_API_URL',
      aliases: ['LINODE_URL'],
      required: false,
      secret: false,
      meaning: `where the API is, if not at ${PACKAGE_BASE_URL}`,
    },
  ],
  create: createLinode,
};

/** The API rounds other values; this one it keeps. */
const SHORTEST_TTL_SECONDS = 300;
const LARGEST_PAGE = 500;

const listSchema = z.object({
  data: z.array(z.unknown()),
  pages: z.number().int().nonnegative(),
  results: z.number().int().nonnegative(),
});
const zoneSchema = z.object({ id: z.number().int(), domain: z.string().min(1), type: z.string() });
const recordSchema = z.object({
  id: z.number().int(),
  type: z.string(),
  name: z.string().nullable(),
  target: z.string().nullable(),
  tag: z.string().nullish(),
});
const refusalSchema = z.object({
  errors: z.array(z.object({ reason: z.string(), field: z.string().optional() })),
});

interface Zone {
  readonly id: number;
  readonly name: string;
}

function createLinode(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const token = credentials.LINODE_API_TOKEN ?? '';
  const { timeoutMs, patience } = options;
  const api = createApi({ provider: 'linode', secrets: [token], timeoutMs });
  const baseUrl = readBaseUrl('LINODE_API_URL', credentials.LINODE_API_URL ?? PACKAGE_BASE_URL);
  const calls = createCalls(api, { token, baseUrl, api });
  return createByRecord(calls, {
    name: 'linode',
    caaBesideCname: false,
    shortestTtlSeconds: SHORTEST_TTL_SECONDS,
    patience,
  });
}

/** What a provider's calls need. The package's one global HTTP client finds it through the call's async context. */
interface Session {
  readonly token: string;
  readonly baseUrl: string;
  readonly api: Api;
}

const session = new AsyncLocalStorage<Session>();

let loaded: Promise<LinodePackage> | undefined;

/** Loads the large package on demand: a start that writes no records serves sooner without it. */
function loadPackage(): Promise<LinodePackage> {
  loaded ??= import('./linode-package.ts').then(({ linode }) => carryOurselves(linode));
  return loaded;
}

/**
 * The package would keep the token in a global. Instead, each request takes the token of the provider that makes it, and
 * goes over our own HTTP, which ignores proxy variables, follows no redirects and has a deadline.
 */
function carryOurselves(linode: LinodePackage): LinodePackage {
  linode.baseRequest.interceptors.request.use((config) => {
    const current = session.getStore();
    if (current === undefined) throw new DnsError('unsupported', 'linode: a request outside of a provider');
    config.adapter = (request) => carry(current, request);
    return config;
  });
  return linode;
}

async function carry({ api, baseUrl, token }: Session, request: CarriedRequest): Promise<unknown> {
  const path = (request.url ?? '').slice(PACKAGE_BASE_URL.length);
  const query = new URLSearchParams(
    Object.entries(request.params ?? {}).map(([name, value]) => [name, String(value)]),
  );
  const method = (request.method ?? 'GET').toUpperCase();
  const reply = await api.send({
    url: `${baseUrl}${path}${query.size === 0 ? '' : `?${query}`}`,
    method,
    headers: { ...request.headers.toJSON(true), authorization: `Bearer ${token}` },
    ...(typeof request.data === 'string' ? { body: request.data } : {}),
  });
  if (reply.status < 200 || reply.status > 299) {
    const parsed = refusalSchema.safeParse(jsonOrNothing(reply.body));
    const errors = parsed.success ? parsed.data.errors : [];
    const said = errors
      .map(({ field, reason }) => (field === undefined ? reason : `${field}: ${reason}`))
      .join('; ');
    // A missing scope is answered with 401 too, but in other words.
    const known = reply.status === 401 && /not authorized/i.test(said);
    throw api.refusal(reply, `${method} ${path}`, said, known ? 'permission-missing' : undefined);
  }
  return {
    data: api.json(reply),
    status: reply.status,
    statusText: '',
    headers: { ...reply.headers },
    config: request,
  };
}

function jsonOrNothing(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
}

function createCalls(api: Api, current: Session) {
  const call = <T>(run: (linode: LinodePackage) => Promise<T>): Promise<unknown> =>
    session.run(current, async () => run(await loadPackage()));
  const all = <T>(
    schema: z.ZodType<T>,
    subject: string,
    read: (linode: LinodePackage, page: PageQuery) => Promise<unknown>,
  ) =>
    readAllPages(api, subject, async (page) => {
      const answer = api.expect(
        listSchema,
        await call((linode) => read(linode, { page, page_size: LARGEST_PAGE })),
        subject,
      );
      return {
        items: api.expect(z.array(schema), answer.data, subject),
        pages: answer.pages,
        total: answer.results,
      };
    });
  return {
    async findZone(name: string): Promise<Zone> {
      const filter = { '+or': possibleZones(name).map((domain) => ({ domain })) };
      const found = await all(zoneSchema, `zone of ${name}`, (linode, page) =>
        linode.getDomains(page, filter),
      );
      const zones = found.map(({ id, domain, type }) => ({ id, type, name: normalizeName(domain) }));
      const zone = longestZone(name, zones);
      if (zone === undefined) throw api.error('zone-not-found', `no domain of this account holds ${name}`);
      if (zone.type !== 'master')
        throw api.error('unsupported', `${zone.name} is a secondary zone here, it is written elsewhere`);
      return zone;
    },
    async held(zone: Zone, name: string, type: RecordType): Promise<Held<number>[]> {
      const found = await all(recordSchema, `records of ${zone.name}`, (linode, page) =>
        linode.getDomainRecords(zone.id, page),
      );
      const relative = nameInZone(name, zone.name);
      const here = found.filter(
        (record) => record.type === type && hostOf(record.name ?? '', zone) === relative,
      );
      return here.map((record) => ({ id: record.id, record: { name, type, value: toValue(record, type) } }));
    },
    async create(zone: Zone, record: DnsRecord, ttl: number): Promise<void> {
      const subject = `adding ${record.type} ${record.name}`;
      const name = nameInZone(record.name, zone.name);
      const body = { type: record.type, name, ttl_sec: ttl, ...toFields(api, record) };
      const made = api.expect(
        recordSchema,
        await call((linode) => linode.createDomainRecord(zone.id, body)),
        subject,
      );
      const claimed = { ...record, value: toValue(made, record.type) };
      if (
        made.type !== record.type ||
        hostOf(made.name ?? '', zone) !== name ||
        !sameRecord(claimed, record)
      ) {
        throw api.error('unintelligible', `${subject}: the API reports success but describes another record`);
      }
    },
    async delete(zone: Zone, id: number): Promise<void> {
      await call((linode) => linode.deleteDomainRecord(zone.id, id)).catch(unlessNotFound);
    },
  };
}

/** The API gives names relative to the zone, but also accepts and keeps full ones. */
function hostOf(name: string, zone: Zone): string {
  const host = normalizeName(name);
  return host === zone.name || host.endsWith(`.${zone.name}`) ? nameInZone(host, zone.name) : host;
}

function toFields(api: Api, record: DnsRecord): { target: string; tag?: string } {
  if (record.type !== 'CAA') return { target: record.value };
  const property = parseCaa(record.value);
  if (property === undefined) throw api.error('unsupported', `${record.value} is not a CAA value`);
  if (property.flags !== 0)
    throw api.error('unsupported', `CAA flags other than 0 cannot be written here: ${record.value}`);
  return { target: property.value, tag: property.tag };
}

function toValue(held: z.infer<typeof recordSchema>, type: RecordType): string {
  const target = held.target ?? '';
  if (type === 'TXT') return unquoteTxt(target);
  if (type === 'CNAME') return normalizeName(target);
  if (type !== 'CAA') return target;
  return formatCaa({ flags: 0, tag: held.tag ?? 'issue', value: unquoteTxt(target) });
}
