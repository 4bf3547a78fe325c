// A double of Amazon Route 53 and of the token service for roles: XML over REST, signatures checked, changes in atomic batches.

import { type Element, elementsNamed, parseXml } from '../../dns/providers/xml.ts';
import { quoteTxt, unquoteTxt } from '../../dns/wire/presentation.ts';
import {
  type ApiDouble,
  type Call,
  type DoubleOptions,
  type Held,
  type HeldRecord,
  type HeldZone,
  type Reply,
  startApiDouble,
} from './api-double.ts';
import { readSignature } from './aws-signature.ts';

export const ACCESS_KEY_ID = 'AKIDEXAMPLE';
/** What assuming a role gives. */
const role = { id: 'ASIAROLE', secret: 'secret-of-the-role', token: 'token-of-the-role' };

export interface Route53Options extends DoubleOptions {
  /** The key itself may do nothing but assume the role. */
  readonly roleOnly?: boolean;
  /** GetChange is not permitted. */
  readonly noGetChange?: boolean;
  /** Zones that are private, by name, beside the public ones. */
  readonly privateZones?: readonly string[];
  /** Record sets with a routing policy or an alias target: raw XML by `TYPE name`. */
  readonly special?: Readonly<Record<string, string>>;
}

/** AWS_ENDPOINT_URL_ROUTE_53 and _STS for it are `url`; the secret key is `token`. */
export function startRoute53Double(options: Route53Options = {}): Promise<ApiDouble> {
  const asked = new Map<string, number>();
  return startApiDouble(options, (call, held) => answer(call, held, options, asked), {
    isWrite: ({ method, path }) => method === 'POST' && path.includes('/rrset'),
  });
}

function answer(
  call: Call,
  held: Held,
  options: Route53Options,
  asked: Map<string, number>,
): Reply | Promise<Reply> {
  const signature = readSignature(call);
  const isRole = signature?.accessKeyId === role.id;
  const known = isRole
    ? call.headers['x-amz-security-token'] === role.token && signature.isBy(role.secret)
    : signature?.accessKeyId === ACCESS_KEY_ID && signature.isBy(held.token);
  if (!known) return refuse(403, 'SignatureDoesNotMatch');
  if (call.path === '/' && call.method === 'POST') return assume(call);
  if (options.roleOnly && !isRole) return refuse(403, 'AccessDenied');
  const url = new URL(call.path, 'http://double');
  const [, , what, id, sub] = url.pathname.split('/');
  if (what === 'hostedzonesbyname') return zonesByName(url, held, options);
  if (what === 'change') {
    if (options.noGetChange) return refuse(403, 'AccessDenied');
    const times = (asked.get(id!) ?? 0) + 1;
    asked.set(id!, times);
    return xml('GetChangeResponse', changeInfo(id!, times > 1 ? 'INSYNC' : 'PENDING'));
  }
  const zone = [...held.zones.values()].find((one) => one.id === id);
  if (zone === undefined) return refuse(404, 'NoSuchHostedZone');
  if (sub !== 'rrset') return refuse(404, 'InvalidInput');
  return call.method === 'GET' ? recordSets(url, zone, options) : change(call, zone, held);
}

function assume(call: Call): Reply {
  const form = new URLSearchParams(String(call.body));
  if (form.get('Action') !== 'AssumeRole' || !form.get('RoleArn')?.endsWith('role/dns')) {
    return refuse(403, 'AccessDenied');
  }
  const expiration = new Date(Date.now() + 3_600_000).toISOString();
  return xml(
    'AssumeRoleResponse',
    `<AssumeRoleResult><Credentials><AccessKeyId>${role.id}</AccessKeyId><SecretAccessKey>${role.secret}</SecretAccessKey>` +
      `<SessionToken>${role.token}</SessionToken><Expiration>${expiration}</Expiration></Credentials></AssumeRoleResult>`,
  );
}

/** Sorted by the labels from the right, as the API does. */
const orderOf = (name: string) => `${name.split('.').reverse().join('.')}.`;

function zonesByName(url: URL, held: Held, { privateZones = [] }: Route53Options): Reply {
  const from = orderOf((url.searchParams.get('dnsname') ?? '').replace(/\.$/, ''));
  const all = [
    ...[...held.zones.values()].map(({ id, name }) => ({ id, name, isPrivate: false })),
    ...privateZones.map((name) => ({ id: `P${name}`, name, isPrivate: true })),
  ]
    .filter(({ name }) => orderOf(name) >= from)
    .sort((a, b) => (orderOf(a.name) < orderOf(b.name) ? -1 : 1));
  const size = Math.min(Number(url.searchParams.get('maxitems') ?? 100), held.pageLimit);
  const zones = all
    .slice(0, size)
    .map(
      ({ id, name, isPrivate }) =>
        `<HostedZone><Id>/hostedzone/${id}</Id><Name>${name}.</Name><CallerReference>x</CallerReference>` +
        `<Config><PrivateZone>${isPrivate}</PrivateZone></Config></HostedZone>`,
    );
  const truncated = all.length > size;
  return xml(
    'ListHostedZonesByNameResponse',
    `<HostedZones>${zones.join('')}</HostedZones><IsTruncated>${truncated}</IsTruncated><MaxItems>${size}</MaxItems>`,
  );
}

function recordSets(url: URL, zone: HeldZone, { special = {} }: Route53Options): Reply {
  const name = (url.searchParams.get('name') ?? '').replace(/\.$/, '').toLowerCase();
  const type = url.searchParams.get('type') ?? '';
  const sets = new Map<string, HeldRecord[]>();
  for (const record of zone.records) {
    const key = `${orderOf(record.name)} ${record.type} ${record.set?.identifier ?? ''}`;
    sets.set(key, [...(sets.get(key) ?? []), record]);
  }
  const from = `${orderOf(name)} ${type}`;
  // The sets that follow are sent as well: what was asked for is only where the list begins.
  const listed = [...sets].filter(([key]) => key >= from).sort(([a], [b]) => (a < b ? -1 : 1));
  const shown = listed.slice(0, 3).map(([, records]) => setXml(records));
  const extra = special[`${type} ${name}`] ?? '';
  return xml(
    'ListResourceRecordSetsResponse',
    `<ResourceRecordSets>${extra}${shown.join('')}</ResourceRecordSets><IsTruncated>${listed.length > 3}</IsTruncated>` +
      (listed.length > 3
        ? `<NextRecordName>${listed[3]![1][0]!.name}.</NextRecordName><NextRecordType>${listed[3]![1][0]!.type}</NextRecordType>`
        : '') +
      '<MaxItems>3</MaxItems>',
  );
}

function setXml(records: readonly HeldRecord[]): string {
  const [{ name, type, set }] = records as [HeldRecord];
  const policy = set && `<SetIdentifier>${set.identifier}</SetIdentifier><Weight>${set.weight}</Weight>`;
  const values = records.map(
    (one) => `<ResourceRecord><Value>${escapeXml(toContent(one))}</Value></ResourceRecord>`,
  );
  return (
    `<ResourceRecordSet><Name>${name.replace('*', '\\052')}.</Name><Type>${type}</Type>${policy ?? ''}<TTL>60</TTL>` +
    `<ResourceRecords>${values.join('')}</ResourceRecords></ResourceRecordSet>`
  );
}

async function change(call: Call, zone: HeldZone, held: Held): Promise<Reply> {
  const root = parseXml(String(call.body));
  if (root === undefined) return refuse(400, 'InvalidInput');
  let records = zone.records;
  const touched: { name: string; type: string }[] = [];
  for (const one of elementsNamed(root, 'Change')) {
    const result = applied(one, records, held);
    if (typeof result === 'string') return refuseBatch(result);
    records = result.records;
    touched.push(result);
  }
  zone.records = records;
  for (const { name, type } of touched) await held.changed(zone, name, type);
  return xml('ChangeResourceRecordSetsResponse', changeInfo(`C${held.nextId()}`, 'PENDING'));
}

function applied(one: Element, records: HeldRecord[], held: Held) {
  const text = (name: string) => elementsNamed(one, name)[0]?.text ?? '';
  const [name, type] = [text('Name').replace(/\.$/, '').replace('\\052', '*'), text('Type')];
  const values = elementsNamed(one, 'Value').map((element) => fromContent(type, element.text));
  const identifier = text('SetIdentifier');
  const ofType = records.filter((record) => record.name === name && record.type === type);
  const here = ofType.filter(({ set }) => (set?.identifier ?? '') === identifier);
  if (text('Action') === 'DELETE') {
    const same = here.length === values.length && here.every(({ value }) => values.includes(value));
    if (here.length === 0)
      return `Tried to delete resource record set [name='${name}.', type='${type}'] but it was not found`;
    if (!same || text('TTL') !== '60')
      return `Tried to delete resource record set [name='${name}.', type='${type}'] but the values provided do not match the current values`;
    return { name, type, records: records.filter((record) => !here.includes(record)) };
  }
  if (here.length > 0)
    return `Tried to create resource record set [name='${name}.', type='${type}'] but it already exists`;
  const others = records.filter((record) => record.name === name);
  // A simple set has nothing of its name and type beside it.
  const besides = ofType.some(({ set }) => set === undefined || identifier === '');
  const foreign = type === 'CNAME' ? others.filter((other) => other.type !== 'CNAME') : [];
  if (
    type === 'CNAME'
      ? foreign.length > 0 || besides || values.length > 1
      : others.some((other) => other.type === 'CNAME')
  )
    return `RRSet of type ${type} with DNS name ${name}. is not permitted as it conflicts with other records with the same DNS name in zone`;
  const set = identifier === '' ? undefined : { identifier, weight: text('Weight') };
  const added = values.map((value) => ({ id: held.nextId(), name, type, value, ...(set && { set }) }));
  return { name, type, records: [...records, ...added] };
}

function changeInfo(id: string, status: string): string {
  return `<ChangeInfo><Id>/change/${id}</Id><Status>${status}</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo>`;
}

function xml(root: string, inner: string): Reply {
  const namespace = 'https://route53.amazonaws.com/doc/2013-04-01/';
  const body = `<?xml version="1.0"?>\n<${root} xmlns="${namespace}">${inner}</${root}>`;
  return { status: 200, body, raw: true };
}

function refuse(status: number, code: string): Reply {
  const body = `<?xml version="1.0"?>\n<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>refused</Message></Error><RequestId>1</RequestId></ErrorResponse>`;
  return { status, body, raw: true };
}

function refuseBatch(message: string): Reply {
  const said = `<Messages><Message>${escapeXml(message)}</Message></Messages>`;
  return {
    status: 400,
    body: `<?xml version="1.0"?>\n<InvalidChangeBatch>${said}<RequestId>1</RequestId></InvalidChangeBatch>`,
    raw: true,
  };
}

function toContent({ type, value }: HeldRecord): string {
  return type === 'TXT' ? quoteTxt(value) : type === 'CNAME' ? `${value}.` : value;
}

function fromContent(type: string, content: string): string {
  return type === 'TXT' ? unquoteTxt(content) : type === 'CNAME' ? content.replace(/\.$/, '') : content;
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
