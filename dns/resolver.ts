// What the world sees in DNS: several resolvers asked at once, a quorum of answers required; and the wait until records show.

import { type Clock, systemClock } from '../src/lib/clock.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { DnsError } from './error.ts';
import { createHttpsExchange, createPlainExchange, type Exchange } from './exchange.ts';
import {
  CLASS_IN,
  FLAG_TRUNCATED,
  type Message,
  recordValue,
  responseCode,
  responseCodes,
  typeNumbers,
} from './message.ts';
import { normalizeName, normalizeValue } from './presentation.ts';
import type { DnsRecord, RecordType } from './provider.ts';

export interface Resolver {
  /** The values at this name, CNAMEs followed for every type but CNAME; empty if there are none. Rejects with DnsError. */
  resolve(name: string, type: RecordType): Promise<string[]>;
  /** Each of the resolvers behind this one, for those who must know who says what. */
  readonly views?: readonly ResolverView[];
  /** How many views have to answer before their answers count. */
  readonly quorum?: number;
}

export interface ResolverView extends Pick<Resolver, 'resolve'> {
  /** The server as the operator wrote it. */
  readonly server: string;
}

export interface ResolverOptions {
  /** Plain DNS: IP addresses with an optional port. When given, `doh` has no default. */
  readonly servers?: readonly string[];
  /** DNS over HTTPS (RFC 8484): URLs. Default: two public ones. */
  readonly doh?: readonly string[];
  /** Default: half of them, rounded up. */
  readonly quorum?: number;
  readonly timeoutMs?: number;
  /** PEM, for DNS over HTTPS under a private CA. */
  readonly ca?: string;
}

export interface PropagationOptions {
  readonly resolver: Resolver;
  readonly timeoutMs: number;
  /** Between two looks. Default 5 s. */
  readonly intervalMs?: number;
  /** Between two log lines about the same missing record. Default 30 s. */
  readonly reportEveryMs?: number;
  readonly clock?: Clock;
  readonly log?: Log;
  readonly signal?: AbortSignal;
}

export type WaitForRecords = (records: readonly DnsRecord[], options: PropagationOptions) => Promise<void>;

export const DEFAULT_DOH_RESOLVERS = [
  'https://dns.google/dns-query',
  'https://cloudflare-dns.com/dns-query',
] as const;

/** Longer chains than this are loops to resolvers and CAs alike. */
const LONGEST_CHAIN = 8;

/** Throws DnsError `unsupported` when an address cannot be read. No server is asked yet. */
export function createResolver(options: ResolverOptions = {}): Resolver {
  const exchanges = exchangesOf(options);
  const views = exchanges.map((exchange) => ({
    server: exchange.server,
    resolve: (name: string, type: RecordType) => resolveWith(exchange, name, type),
  }));
  const quorum = options.quorum ?? Math.ceil(views.length / 2);
  return { views, quorum, resolve: (name, type) => union(views, quorum, name, type) };
}

function exchangesOf(options: ResolverOptions): Exchange[] {
  const { servers = [], timeoutMs, ca } = options;
  const doh = options.doh ?? (servers.length === 0 ? DEFAULT_DOH_RESOLVERS : []);
  if (servers.length + doh.length === 0) throw new DnsError('unsupported', 'there is no DNS resolver to ask');
  const limits = { ...(timeoutMs === undefined ? {} : { timeoutMs }), ...(ca === undefined ? {} : { ca }) };
  return [
    ...servers.map((server) => createPlainExchange(server, limits)),
    ...doh.map((url) => createHttpsExchange(dohAddress(url), limits)),
  ];
}

/** The images before this one spoke Google's JSON form, whose address people have in DOH_RESOLVERS. */
function dohAddress(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const secure = url?.protocol === 'https:';
  // Without TLS anyone on the path could answer; on the loopback there is no path.
  const local = url?.protocol === 'http:' && ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
  if (url === undefined || !(secure || local)) {
    throw new DnsError(
      'unsupported',
      `${JSON.stringify(text)} is not a DNS over HTTPS address: give an https:// URL`,
    );
  }
  if (url.hostname === 'dns.google' && url.pathname === '/resolve') url.pathname = '/dns-query';
  return url.href;
}

async function union(
  views: readonly ResolverView[],
  quorum: number,
  name: string,
  type: RecordType,
): Promise<string[]> {
  const answers = await Promise.allSettled(views.map((view) => view.resolve(name, type)));
  const failures = answers.flatMap((answer) =>
    answer.status === 'rejected' ? [answer.reason as Error] : [],
  );
  if (answers.length - failures.length < quorum) {
    const [first] = failures;
    const said = failures.map((failure) => failure.message).join('; ');
    const code = first instanceof DnsError ? first.code : 'unreachable';
    throw new DnsError(code, `${type} of ${name}: too few resolvers answered: ${said}`, { cause: first });
  }
  const values = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  return [...new Set(values)];
}

/** One server's answer. SERVFAIL and silence reject: they do not mean that there is nothing. */
async function resolveWith(exchange: Exchange, name: string, type: RecordType): Promise<string[]> {
  const chain = [normalizeName(name)];
  for (;;) {
    const asked = chain.at(-1)!;
    const message = await exchange.ask({ name: asked, type: typeNumbers[type], class: CLASS_IN });
    refuseFailure(message, exchange.server, asked, type);
    const values = valuesIn(message, chain, type, exchange.server);
    if (values.length > 0) return values;
    // Servers that do not follow an alias into other zones leave its end to be asked for.
    if (chain.at(-1) === asked || responseCode(message) === 3) return [];
  }
}

function refuseFailure(message: Message, server: string, name: string, type: RecordType): void {
  const code = responseCode(message);
  if ((message.flags & FLAG_TRUNCATED) !== 0) {
    throw new DnsError('unintelligible', `${server} sent only a part of the ${type} records of ${name}`);
  }
  // NXDOMAIN is a definite answer: there is nothing.
  if (code === 0 || code === 3) return;
  const said = `${server} answered ${responseCodes[code] ?? `code ${code}`} for ${type} of ${name}`;
  throw new DnsError(code === 2 ? 'unreachable' : 'refused', said);
}

/** Appends the aliases that it follows to `chain`. A record at the name itself goes before an alias of the same name. */
function valuesIn(message: Message, chain: string[], type: RecordType, server: string): string[] {
  const answers = message.answers.filter((record) => record.class === CLASS_IN);
  for (;;) {
    const name = chain.at(-1)!;
    const here = answers.filter((record) => record.name === name);
    const values = here.filter((record) => record.type === typeNumbers[type]).map(recordValue);
    const alias = here.find((record) => record.type === typeNumbers.CNAME);
    if (values.length > 0 || alias === undefined) return values;
    const target = recordValue(alias);
    if (chain.includes(target) || chain.length > LONGEST_CHAIN) {
      throw new DnsError(
        'unintelligible',
        `${server}: the CNAMEs of ${chain[0]} lead nowhere: ${chain.join(' -> ')} -> ${target}`,
      );
    }
    chain.push(target);
  }
}

interface Wanted {
  readonly name: string;
  readonly type: RecordType;
  readonly values: readonly string[];
}

/** What one resolver sees in place of what is wanted. */
interface Lack extends Wanted {
  readonly server: string;
  readonly seen: readonly string[];
  readonly failure?: string;
}

/**
 * Resolves once every record is seen, all its values beside whatever else is there, by every resolver that answers, and
 * enough of them do. A CNAME counts as seen, too, when the name has the addresses of its target, as flattened aliases
 * have. Rejects with DnsError `not-visible` that says what is missing, or with the signal's reason.
 */
export const waitForRecords: WaitForRecords = async (records, options) => {
  const {
    timeoutMs,
    intervalMs = 5_000,
    reportEveryMs = 30_000,
    clock = systemClock,
    log = silentLog,
    signal,
  } = options;
  const since = clock.now().getTime();
  let reported = Number.NEGATIVE_INFINITY;
  let wanted = groupWanted(records);
  for (;;) {
    signal?.throwIfAborted();
    const lacks = await lookFor(wanted, options.resolver);
    if (lacks.length === 0) return;
    wanted = wanted.filter((want) =>
      lacks.some((lack) => lack.name === want.name && lack.type === want.type),
    );
    const waitedMs = clock.now().getTime() - since;
    if (waitedMs >= timeoutMs) throw notVisible(lacks, waitedMs);
    if (waitedMs - reported >= reportEveryMs) {
      reported = waitedMs;
      for (const lack of lacks) log.info({ ...lack, waitedMs }, 'waiting for a DNS record');
    }
    await clock.sleep(Math.min(intervalMs, Math.max(1, timeoutMs - waitedMs)), signal);
  }
};

function groupWanted(records: readonly DnsRecord[]): Wanted[] {
  const groups = new Map<string, Wanted>();
  for (const { name, type, value } of records) {
    const key = `${type} ${name}`;
    const values = [...(groups.get(key)?.values ?? []), normalizeValue(type, value)];
    groups.set(key, { name, type, values });
  }
  return [...groups.values()];
}

async function lookFor(wanted: readonly Wanted[], resolver: Resolver): Promise<Lack[]> {
  const views = resolver.views ?? [{ server: 'the resolver', resolve: resolver.resolve }];
  const quorum = resolver.quorum ?? views.length;
  const lacks: Lack[] = [];
  for (const want of wanted) {
    const looks = await Promise.all(views.map((view) => lookWith(view, want)));
    const failed = looks.filter((lack) => lack?.failure !== undefined);
    const lacking = looks.filter((lack) => lack !== undefined && lack.failure === undefined);
    const enough = views.length - failed.length >= quorum;
    lacks.push(...(enough ? lacking : [...lacking, ...failed]).filter((lack) => lack !== undefined));
  }
  return lacks;
}

async function lookWith(view: ResolverView, want: Wanted): Promise<Lack | undefined> {
  try {
    const seen = (await view.resolve(want.name, want.type)).map((value) => normalizeValue(want.type, value));
    if (want.values.every((value) => seen.includes(value))) return undefined;
    if (want.type === 'CNAME' && (await leadsTo(view, want.name, want.values[0]!))) return undefined;
    return { ...want, server: view.server, seen };
  } catch (error) {
    return {
      ...want,
      server: view.server,
      seen: [],
      failure: error instanceof Error ? error.message : String(error),
    };
  }
}

/** Whether every address of the name is one of the target's. */
async function leadsTo(view: ResolverView, name: string, target: string): Promise<boolean> {
  for (const type of ['A', 'AAAA'] as const) {
    const own = await view.resolve(name, type);
    if (own.length === 0) continue;
    const theirs = await view.resolve(target, type);
    return own.every((address) => theirs.includes(address));
  }
  return false;
}

function notVisible(lacks: readonly Lack[], waitedMs: number): DnsError {
  const lines = lacks.map((lack) => {
    const instead =
      lack.failure ?? (lack.seen.length === 0 ? 'there is none' : `there is ${lack.seen.join(', ')}`);
    return `${lack.type} ${lack.name} should be ${lack.values.join(', ')}; ${lack.server}: ${instead}`;
  });
  return new DnsError(
    'not-visible',
    `not in DNS after ${Math.round(waitedMs / 1000)} s: ${lines.join('. ')}`,
  );
}
