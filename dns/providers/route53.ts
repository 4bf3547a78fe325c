// Amazon Route 53: record sets through the vendor's package over our own HTTP, replaced only if still as they were read.

import type { Change, ResourceRecordSet, Route53Client } from '@aws-sdk/client-route-53';
import * as z from 'zod';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import type { HttpReply } from '../../src/lib/fetch.ts';
import { createTurns } from '../../src/lib/turns.ts';
import { DnsError, type DnsErrorCode } from '../error.ts';
import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { fromZoneFile, normalizeName, sameRecord, zoneFileValue } from '../wire/presentation.ts';
import { possibleZones } from '../zone.ts';
import { type Api, createApi, readBaseUrl } from './api.ts';
import { type AwsKeys, assumeRole } from './aws-role.ts';
import { patiently } from './patience.ts';
import { elementsNamed, parseXml } from './xml.ts';
import { createZoneCache } from './zone-cache.ts';

const DEFAULT_BASE_URL = 'https://route53.amazonaws.com';
const DEFAULT_STS_URL = 'https://sts.amazonaws.com';

export const route53Kind: ProviderKind = {
  name: 'route53',
  aliases: ['aws'],
  variables: [
    {
      name: 'AWS_ACCESS_KEY_ID',
      aliases: ['CERTBOT_AWS_ACCESS_KEY_ID'],
      required: true,
      secret: false,
      meaning: 'the id of an access key',
    },
    {
      name: 'AWS_SECRET_ACCESS_KEY',
      aliases: ['CERTBOT_AWS_SECRET_ACCESS_KEY'],
      required: true,
      secret: true,
      meaning:
        'the key; it or its role may list hosted zones and record sets, change record sets and get changes',
    },
    {
      name: 'AWS_SESSION_TOKEN',
      aliases: ['CERTBOT_AWS_SESSION_TOKEN'],
      required: false,
      secret: true,
      meaning: 'goes with a temporary access key',
    },
    {
      name: 'AWS_ROLE_ARN',
      aliases: ['CERTBOT_AWS_ROLE_ARN', 'AWS_ASSUME_ROLE_ARN'],
      required: false,
      secret: false,
      meaning: 'a role to assume with the key',
    },
    {
      name: 'AWS_REGION',
      aliases: ['CERTBOT_AWS_REGION', 'AWS_DEFAULT_REGION'],
      required: false,
      secret: false,
      meaning: 'the region that requests are signed for, if not us-east-1',
    },
    {
      name: 'ROUTE53_INITIAL_WEIGHT',
      required: false,
      secret: false,
      meaning:
        'the weight, 0 to 255, with which the alias of a domain is made, as one of several that deployments of one app make for it',
    },
    {
      name: 'AWS_ENDPOINT_URL_ROUTE_53',
      required: false,
      secret: false,
      meaning: `where the API is, if not at ${DEFAULT_BASE_URL}`,
    },
    {
      name: 'AWS_ENDPOINT_URL_STS',
      required: false,
      secret: false,
      meaning: `where roles are assumed, if not at ${DEFAULT_STS_URL}`,
    },
  ],
  create: createRoute53,
};

const DEFAULT_TTL_SECONDS = 60;
/** A change usually reaches all servers within a minute. After this, propagation is checked at the servers themselves. */
const SYNC_ATTEMPTS = 30;
const LONGEST_SYNC_PAUSE_MS = 5_000;

const zonesSchema = z.object({
  HostedZones: z.array(
    z.object({
      Id: z.string().min(1),
      Name: z.string().min(1),
      Config: z.object({ PrivateZone: z.boolean().optional() }).optional(),
    }),
  ),
  IsTruncated: z.boolean(),
});
const setSchema = z.object({
  Name: z.string().min(1),
  Type: z.string().min(1),
  TTL: z.number().optional(),
  SetIdentifier: z.string().optional(),
  Weight: z.number().optional(),
  HealthCheckId: z.string().optional(),
  AliasTarget: z.object({ DNSName: z.string() }).optional(),
  ResourceRecords: z.array(z.object({ Value: z.string() })).optional(),
});
const setsSchema = z.object({
  ResourceRecordSets: z.array(setSchema),
  IsTruncated: z.boolean(),
  NextRecordName: z.string().optional(),
  NextRecordType: z.string().optional(),
  NextRecordIdentifier: z.string().optional(),
});
const changeSchema = z.object({ ChangeInfo: z.object({ Id: z.string().min(1), Status: z.string() }) });

type HeldSet = z.infer<typeof setSchema>;
interface Zone {
  readonly id: string;
}

function createRoute53(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience, clock = systemClock } = options;
  const keys: AwsKeys = {
    accessKeyId: credentials.AWS_ACCESS_KEY_ID ?? '',
    secretAccessKey: credentials.AWS_SECRET_ACCESS_KEY ?? '',
    ...(credentials.AWS_SESSION_TOKEN !== undefined && { sessionToken: credentials.AWS_SESSION_TOKEN }),
  };
  const secrets = [keys.secretAccessKey, keys.sessionToken ?? ''];
  const api = createApi({ provider: 'route53', secrets, timeoutMs, clock });
  const region = credentials.AWS_REGION ?? 'us-east-1';
  const endpoint = readBaseUrl(
    'AWS_ENDPOINT_URL_ROUTE_53',
    credentials.AWS_ENDPOINT_URL_ROUTE_53 ?? DEFAULT_BASE_URL,
  );
  const sts = readBaseUrl('AWS_ENDPOINT_URL_STS', credentials.AWS_ENDPOINT_URL_STS ?? DEFAULT_STS_URL);
  const roleArn = credentials.AWS_ROLE_ARN;
  const weight = readWeight(credentials.ROUTE53_INITIAL_WEIGHT);
  const identity =
    roleArn === undefined
      ? async () => keys
      : () => assumeRole({ api, url: sts, region, keys, roleArn, now: () => clock.now() });
  let client: Promise<Client> | undefined;
  const calls = createCalls(api, () => {
    client ??= openClient({ api, endpoint, region, identity });
    return client;
  });
  const zones = createZoneCache(calls.findZone, clock);
  const inTurn = createTurns();
  const inZone = <T>(name: string, use: (zone: Zone) => Promise<T>) =>
    patiently(() => zones.within(name, use), patience);
  const pauseMs = patience?.firstWaitMs ?? 1_000;
  const share = (record: DnsRecord, own: Pick<HeldSet, 'TTL' | 'Weight'>) =>
    inTurn(() =>
      inZone(record.name, async (zone) => {
        const fresh = sharedSet(await calls.readSets(zone, record.name, record.type), record, own);
        if (fresh === undefined) return;
        const changeId = await calls.swap(zone, undefined, fresh, `${record.type} ${record.name}`);
        await calls.untilInSync(changeId, (ms) => clock.sleep(ms), pauseMs);
      }),
    );
  const change = (record: DnsRecord, next: (set: HeldSet | undefined) => HeldSet | undefined | 'as it is') =>
    inTurn(() =>
      inZone(record.name, (zone) => swapUntilTaken(calls, zone, record, next, { clock, pauseMs })),
    );
  const isShared = ({ type }: DnsRecord) => weight !== undefined && type === 'CNAME';
  return {
    name: 'route53',
    caaBesideCname: false,
    sharesAliases: weight !== undefined,
    list: (name, type) =>
      inZone(name, async (zone) =>
        (await calls.readSets(zone, name, type)).flatMap((set) => recordsOf(set, name, type)),
      ),
    add: (record, ttlSeconds = DEFAULT_TTL_SECONDS) =>
      isShared(record)
        ? share(record, { TTL: ttlSeconds, Weight: weight! })
        : change(record, (set) => withValue(set, record, ttlSeconds)),
    remove: (record) => change(record, (set) => withoutValue(set, record)),
  };
}

/** Throws DnsError. */
function readWeight(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,3}$/.test(text) && Number(text) <= HEAVIEST) return Number(text);
  throw new DnsError('unsupported', `${JSON.stringify(text)} is no weight`, {
    variable: 'ROUTE53_INITIAL_WEIGHT',
    cure: `wants a whole number from 0 to ${HEAVIEST}`,
  });
}

/** Of the API. */
const HEAVIEST = 255;
const LONGEST_IDENTIFIER = 128;

/**
 * The weight is that of the beginning: a set that leads to the same target stays as its operator has made it. It is told
 * from those of other deployments by where it leads, which no two of them have in common.
 */
function sharedSet(sets: readonly HeldSet[], record: DnsRecord, own: Pick<HeldSet, 'TTL' | 'Weight'>) {
  if (sets.some((set) => recordsOf(set, record.name, record.type).some((held) => sameRecord(held, record))))
    return undefined;
  if (sets.some(({ Weight }) => Weight === undefined)) throw hasPolicy(record);
  return {
    Name: `${record.name}.`,
    Type: record.type,
    SetIdentifier: record.value.slice(0, LONGEST_IDENTIFIER),
    ...own,
    ResourceRecords: [{ Value: zoneFileValue(record) }],
  };
}

function hasPolicy(record: DnsRecord): DnsError {
  return new DnsError(
    'conflict',
    `route53: ${record.type} ${record.name} is an alias or has a routing policy, which is not ours to change`,
  );
}

/** Other values stay exactly as they were read. */
function withValue(set: HeldSet | undefined, record: DnsRecord, ttl: number): HeldSet | 'as it is' {
  if (recordsOf(set, record.name, record.type).some((held) => sameRecord(held, record))) return 'as it is';
  const others = set?.ResourceRecords ?? [];
  return {
    Name: `${record.name}.`,
    Type: record.type,
    TTL: set?.TTL ?? ttl,
    ResourceRecords: [...others, { Value: zoneFileValue(record) }],
  };
}

function withoutValue(set: HeldSet | undefined, record: DnsRecord): HeldSet | undefined | 'as it is' {
  const values = set?.ResourceRecords ?? [];
  const left = values.filter(({ Value }) => !sameRecord(toRecord(Value, record.name, record.type), record));
  if (set === undefined || left.length === values.length) return 'as it is';
  return left.length === 0 ? undefined : { ...set, ResourceRecords: left };
}

type Calls = ReturnType<typeof createCalls>;

/** Reads again if somebody else changes the set between our read and our write. */
async function swapUntilTaken(
  calls: Calls,
  zone: Zone,
  record: DnsRecord,
  next: (set: HeldSet | undefined) => HeldSet | undefined | 'as it is',
  { clock, pauseMs }: { clock: Clock; pauseMs: number },
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const sets = await calls.readSets(zone, record.name, record.type);
    const [set] = sets;
    const wanted = next(set);
    if (wanted === 'as it is') return;
    if (sets.some((one) => one.SetIdentifier !== undefined || one.AliasTarget !== undefined)) {
      throw hasPolicy(record);
    }
    try {
      const changeId = await calls.swap(zone, set, wanted, `${record.type} ${record.name}`);
      return await calls.untilInSync(changeId, (ms) => clock.sleep(ms), pauseMs);
    } catch (error) {
      if (!(error instanceof Refusal && error.reason === 'InvalidChangeBatch')) throw error;
      if (attempt >= 3 || !/but it (already exists|was not found)|do not match/i.test(error.message))
        throw error;
    }
  }
}

interface ClientOptions {
  readonly api: Api;
  readonly endpoint: string;
  readonly region: string;
  readonly identity: () => Promise<AwsKeys & { readonly expiration?: Date }>;
}

type Client = Awaited<ReturnType<typeof openClient>>;

/** Loads the large package on demand: a start that writes no records serves sooner without it. */
async function openClient({ api, endpoint, region, identity }: ClientOptions) {
  const aws = await import('./aws-packages.ts');
  const client: Route53Client = new aws.Route53Client({
    endpoint,
    region,
    credentials: identity,
    // Given here so that the package does not read the environment or files of the machine.
    defaultsMode: 'standard',
    retryMode: 'standard',
    useDualstackEndpoint: false,
    useFipsEndpoint: false,
    userAgentAppId: async () => undefined,
    authSchemePreference: async () => [],
    // We repeat ourselves, after reading again.
    maxAttempts: 1,
    requestHandler: { handle: (request: SignedRequest) => carry(api, request) },
  });
  return { client, aws };
}

interface SignedRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | string[] | null>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** Turns refusals into DnsError. The package sees only complete successes. */
async function carry(api: Api, request: SignedRequest) {
  const { protocol, hostname, port, method, path, query = {}, headers, body } = request;
  const search = Object.entries(query).flatMap(([name, value]) =>
    [value ?? ''].flat().map((one) => `${encode(name)}=${encode(one)}`),
  );
  const url = `${protocol}//${hostname}${port === undefined ? '' : `:${port}`}${path}`;
  const reply = await api.send({
    url: search.length === 0 ? url : `${url}?${search.join('&')}`,
    method,
    headers,
    ...(typeof body === 'string' || body instanceof Uint8Array ? { body } : {}),
  });
  const root = parseXml(reply.body.toString('utf8'));
  const subject = `${method} ${path}`;
  if (reply.status < 200 || reply.status > 299) throw refused(api, reply, subject);
  if (root === undefined || !root.name.endsWith('Response')) {
    throw api.error('unintelligible', `${subject}: the API answered with what is not its XML`);
  }
  const { status: statusCode, headers: replied, body: bytes } = reply;
  return { response: { statusCode, headers: { ...replied }, body: bytes } };
}

/** Encodes as the signature does: all but unreserved characters (RFC 3986 §2.3), so an asterisk too. */
function encode(text: string): string {
  const hex = (character: string) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(text).replace(/[!'()*]/g, hex);
}

/** A refusal with the API's own word for the reason. */
class Refusal extends DnsError {
  readonly reason: string;
  constructor({ code, subject, ...more }: DnsError, reason: string) {
    super(code, subject, more);
    this.reason = reason;
  }
}

function refused(api: Api, reply: HttpReply, subject: string): Refusal {
  const root = parseXml(reply.body.toString('utf8'));
  const text = (name: string) => (root === undefined ? undefined : elementsNamed(root, name)[0]?.text.trim());
  // Only its messages describe a refused batch.
  const batch = root?.name === 'InvalidChangeBatch';
  const reason = batch ? 'InvalidChangeBatch' : (text('Code') ?? '');
  const said = [reason, text('Message') ?? ''].filter((part) => part !== '').join(': ');
  return new Refusal(api.refusal(reply, subject, said, codeOf(reason, said)), reason);
}

function codeOf(reason: string, said: string): DnsErrorCode | undefined {
  if (['Throttling', 'ThrottlingException', 'PriorRequestNotComplete'].includes(reason))
    return 'rate-limited';
  const credentials =
    /^(InvalidClientTokenId|ExpiredToken|SignatureDoesNotMatch|UnrecognizedClient|MissingAuthenticationToken|IncompleteSignature)/;
  if (credentials.test(reason)) return 'credentials-refused';
  if (/^(AccessDenied|NotAuthorized|OptInRequired)/.test(reason)) return 'permission-missing';
  return reason === 'InvalidChangeBatch' && /conflict/i.test(said) ? 'conflict' : undefined;
}

type Call = <T>(
  subject: string,
  schema: z.ZodType<T>,
  run: (client: Client) => Promise<unknown>,
) => Promise<T>;

function createCalls(api: Api, open: () => Promise<Client>) {
  const call: Call = async (subject, schema, run) =>
    api.expect(schema, await unwrapped(api, subject, async () => run(await open())), subject);
  return {
    findZone: (name: string) => findZone(api, call, name),
    readSets: (zone: Zone, name: string, type: RecordType) => readSets(api, call, zone, name, type),
    swap: (zone: Zone, old: HeldSet | undefined, fresh: HeldSet | undefined, subject: string) =>
      swap(call, zone, old, fresh, subject),
    untilInSync: (id: string, sleep: (ms: number) => Promise<void>, firstPauseMs: number) =>
      untilInSync(call, id, sleep, firstPauseMs),
  };
}

async function findZone(api: Api, call: Call, name: string): Promise<Zone> {
  for (const candidate of possibleZones(name)) {
    // The API lists zones by name from this one on, so that all zones of this name come first.
    const { HostedZones } = await call(`zone ${candidate}`, zonesSchema, ({ client, aws }) =>
      client.send(new aws.ListHostedZonesByNameCommand({ DNSName: `${candidate}.`, MaxItems: 100 })),
    );
    const named = HostedZones.filter((zone) => fromName(zone.Name) === candidate);
    const [zone, ...others] = named.filter(({ Config }) => Config?.PrivateZone !== true);
    if (others.length > 0) {
      const several = `there are several public hosted zones ${candidate}: remove those not in use`;
      throw api.error('conflict', several);
    }
    if (zone !== undefined) return { id: zone.Id };
  }
  throw api.error('zone-not-found', `no public hosted zone of this account holds ${name}`);
}

/** More than one if a routing policy chooses among them. */
async function readSets(
  api: Api,
  call: Call,
  zone: Zone,
  name: string,
  type: RecordType,
): Promise<HeldSet[]> {
  const subject = `records ${type} of ${name}`;
  const found: HeldSet[] = [];
  let identifier: string | undefined;
  for (;;) {
    const start = {
      HostedZoneId: zone.id,
      StartRecordName: `${name}.`,
      StartRecordType: type,
      ...(identifier !== undefined && { StartRecordIdentifier: identifier }),
    };
    const page = await call(subject, setsSchema, ({ client, aws }) =>
      client.send(new aws.ListResourceRecordSetsCommand(start)),
    );
    found.push(...page.ResourceRecordSets.filter((set) => set.Type === type && fromName(set.Name) === name));
    const more =
      page.IsTruncated && page.NextRecordType === type && fromName(page.NextRecordName ?? '') === name;
    if (!more) return found;
    const { NextRecordIdentifier: next } = page;
    if (next === undefined || (identifier !== undefined && next <= identifier)) {
      throw api.error('unintelligible', `${subject}: the API's pages lead nowhere`);
    }
    identifier = next;
  }
}

/** Makes both changes or neither. The deletion fails unless the set still is what was read. */
async function swap(
  call: Call,
  zone: Zone,
  old: HeldSet | undefined,
  fresh: HeldSet | undefined,
  subject: string,
): Promise<string> {
  const step = (action: 'DELETE' | 'CREATE', set: HeldSet): Change => ({
    Action: action,
    ResourceRecordSet: set as ResourceRecordSet,
  });
  const Changes = [
    ...(old === undefined ? [] : [step('DELETE', old)]),
    ...(fresh === undefined ? [] : [step('CREATE', fresh)]),
  ];
  const { ChangeInfo } = await call(`changing ${subject}`, changeSchema, ({ client, aws }) =>
    client.send(new aws.ChangeResourceRecordSetsCommand({ HostedZoneId: zone.id, ChangeBatch: { Changes } })),
  );
  return ChangeInfo.Id;
}

async function untilInSync(
  call: Call,
  id: string,
  sleep: (ms: number) => Promise<void>,
  firstPauseMs: number,
): Promise<void> {
  for (let attempt = 0; attempt < SYNC_ATTEMPTS; attempt++) {
    try {
      const { ChangeInfo } = await call(`change ${id}`, changeSchema, ({ client, aws }) =>
        client.send(new aws.GetChangeCommand({ Id: id })),
      );
      if (ChangeInfo.Status === 'INSYNC') return;
    } catch (error) {
      // The change is made. A key that may not ask about it, or an API in trouble, does not undo that.
      if (error instanceof DnsError && ['credentials-refused', 'permission-missing'].includes(error.code))
        return;
      if (!(error instanceof DnsError)) throw error;
    }
    await sleep(Math.min(firstPauseMs * 2 ** Math.min(attempt, 10), LONGEST_SYNC_PAUSE_MS));
  }
}

/** The package wraps errors that our HTTP throws while a request is prepared. */
async function unwrapped<T>(api: Api, subject: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof DnsError) throw error;
    const cause = (error as { cause?: unknown }).cause;
    if (cause instanceof DnsError) throw cause;
    throw api.error(
      'unintelligible',
      `${subject}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

/** Names come with a dot at the end and with octal escapes: `\052.example.com.`. */
function fromName(name: string): string {
  return normalizeName(
    name.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
  );
}

/** An alias has no values. It is shown with its target, so that the name does not look unused. */
function recordsOf(set: HeldSet | undefined, name: string, type: RecordType): DnsRecord[] {
  if (set?.AliasTarget !== undefined) {
    return [{ name, type, value: `alias of ${normalizeName(set.AliasTarget.DNSName)}` }];
  }
  const shared = set?.Weight !== undefined && { shared: true };
  return (set?.ResourceRecords ?? []).map(({ Value }) => ({ ...toRecord(Value, name, type), ...shared }));
}

/** A CNAME's target has the escapes of names. */
function toRecord(content: string, name: string, type: RecordType): DnsRecord {
  return fromZoneFile(name, type, type === 'CNAME' ? fromName(content) : content);
}
