// Waits until records are visible: first at every server that holds the zone, then at public resolvers.

import { type Clock, monotonicMs, systemClock } from '../src/lib/clock.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { DnsError } from './error.ts';
import type { DnsRecord, RecordType } from './provider.ts';
import type { Resolver, ResolverView } from './views.ts';
import { normalizeValue } from './wire/presentation.ts';

export interface PropagationOptions {
  readonly resolver: Resolver;
  readonly timeoutMs: number;
  /** Between two looks. Default 5 s. */
  readonly intervalMs?: number;
  /** Between two log lines about the same missing record. Default 30 s. */
  readonly reportEveryMs?: number;
  /** How long to wait for resolvers once the zone's own servers have the record. Default 60 s. */
  readonly secondOpinionMs?: number;
  /**
   * How long to wait in addition where port 53 is closed to us. Resolvers then show only that one of the zone's servers has
   * the record. Default 0.
   */
  readonly blindWaitMs?: number;
  readonly clock?: Clock;
  readonly log?: Log;
  readonly signal?: AbortSignal;
}

export type WaitForRecords = (records: readonly DnsRecord[], options: PropagationOptions) => Promise<void>;

interface Wanted {
  readonly name: string;
  readonly type: RecordType;
  readonly values: readonly string[];
  /**
   * It is a CAA record beside a CNAME. A resolver with the CNAME in its cache answers any question for the target (RFC 1034
   * §3.6.2), so it may never show the record.
   */
  readonly besideAlias: boolean;
}

/** A record that one server does not show, and what it shows instead. */
interface Lack {
  readonly name: string;
  readonly type: RecordType;
  readonly values: readonly string[];
  readonly server: string;
  readonly seen: readonly string[];
  readonly failure?: string;
  /** The zone's own servers show it, or a resolver may never show it: it is waited for only a while. */
  readonly minor: boolean;
}

/**
 * Resolves once enough servers answer and each that answers has every value of every record; other values beside them do
 * not matter. A CNAME also counts as seen when the name has the addresses of its target, as flattened aliases have. Where
 * the zone's own servers can be asked, resolvers are asked only after them, because a resolver that is asked too early
 * remembers that there was nothing. Rejects with DnsError `not-visible`, which says what is missing, or with the signal's
 * reason.
 */
export const waitForRecords: WaitForRecords = async (records, options) => {
  const { timeoutMs, intervalMs = 5_000, secondOpinionMs = 60_000 } = options;
  const { clock = systemClock, log = silentLog, signal } = options;
  const since = monotonicMs(clock);
  const report = createReport(options);
  let minorSince: number | undefined;
  let blind = false;
  let wanted = groupWanted(records);
  for (;;) {
    signal?.throwIfAborted();
    const looks = await Promise.all(wanted.map((want) => lookFor(want, options.resolver)));
    const lacks = looks.flatMap((look) => look.lacks);
    blind ||= options.resolver.authority !== undefined && looks.some((look) => look.blind);
    if (lacks.length === 0) return blind ? waitBlindly(options) : undefined;
    const now = monotonicMs(clock);
    const waitedMs = now - since;
    minorSince = lacks.every(({ minor }) => minor) ? (minorSince ?? now) : undefined;
    if (minorSince !== undefined && now - minorSince >= Math.min(secondOpinionMs, timeoutMs)) {
      for (const { minor, ...lack } of lacks) log.warn(lack, 'a resolver does not see a DNS record yet');
      return;
    }
    wanted = wanted.filter((want) =>
      lacks.some(({ name, type }) => name === want.name && type === want.type),
    );
    if (waitedMs >= timeoutMs) throw notVisible(lacks, waitedMs);
    report(lacks, waitedMs);
    await clock.sleep(Math.min(intervalMs, Math.max(1, timeoutMs - waitedMs)), signal);
  }
};

function createReport({ reportEveryMs = 30_000, log = silentLog }: PropagationOptions) {
  let reported = Number.NEGATIVE_INFINITY;
  return (lacks: readonly Lack[], waitedMs: number): void => {
    if (waitedMs - reported < reportEveryMs) return;
    reported = waitedMs;
    for (const { minor, ...lack } of lacks) log.info({ ...lack, waitedMs }, 'waiting for a DNS record');
  };
}

async function waitBlindly({
  blindWaitMs = 0,
  clock = systemClock,
  log = silentLog,
  signal,
}: PropagationOptions) {
  if (blindWaitMs === 0) return;
  log.info({ blindWaitMs }, "the zone's own servers cannot be asked, waiting a while for all of them");
  await clock.sleep(blindWaitMs, signal);
}

function groupWanted(records: readonly DnsRecord[]): Wanted[] {
  const aliases = new Set(records.filter(({ type }) => type === 'CNAME').map(({ name }) => name));
  const groups = new Map<string, Wanted>();
  for (const { name, type, value } of records) {
    const key = `${type} ${name}`;
    const values = [...(groups.get(key)?.values ?? []), normalizeValue(type, value)];
    groups.set(key, { name, type, values, besideAlias: type === 'CAA' && aliases.has(name) });
  }
  return [...groups.values()];
}

async function lookFor(want: Wanted, resolver: Resolver): Promise<{ lacks: Lack[]; blind: boolean }> {
  const holders = await holdersOf(want, resolver);
  const held =
    holders.length === 0 ? undefined : await lookWithAll(want, holders, Math.ceil(holders.length / 2));
  // If none of the zone's servers answers, port 53 is probably closed to us.
  const blind = held === undefined || held.answered === 0;
  if (!blind && held.lacks.length > 0) {
    return { blind, lacks: held.lacks.map((lack) => ({ ...lack, minor: want.besideAlias })) };
  }
  if (want.besideAlias) return { blind, lacks: [] };
  const views = resolver.views ?? [{ server: 'the resolver', resolve: resolver.resolve }];
  const { lacks } = await lookWithAll(want, views, resolver.quorum ?? views.length);
  return { blind, lacks: lacks.map((lack) => ({ ...lack, minor: !blind })) };
}

async function holdersOf(want: Wanted, resolver: Resolver): Promise<readonly ResolverView[]> {
  try {
    return (await resolver.authority?.viewsOf(want.name)) ?? [];
  } catch (error) {
    if (error instanceof DnsError) return [];
    throw error;
  }
}

type PlainLack = Omit<Lack, 'minor'>;

/** A server that fails counts as lacking the record only when fewer than `quorum` servers answer. */
async function lookWithAll(want: Wanted, views: readonly ResolverView[], quorum: number) {
  const looks = await Promise.all(views.map((view) => lookWith(view, want)));
  const lacks = looks.filter((lack) => lack !== undefined);
  const failed = lacks.filter(({ failure }) => failure !== undefined);
  const answered = views.length - failed.length;
  return { answered, lacks: answered >= quorum ? lacks.filter((lack) => !failed.includes(lack)) : lacks };
}

async function lookWith(view: ResolverView, want: Wanted): Promise<PlainLack | undefined> {
  const { name, type, values } = want;
  try {
    const seen = (await view.resolve(name, type)).map((value) => normalizeValue(type, value));
    if (values.every((value) => seen.includes(value))) return undefined;
    if (type === 'CNAME' && (await leadsTo(view, name, values[0]!))) return undefined;
    return { name, type, values, server: view.server, seen };
  } catch (error) {
    const failure = error instanceof Error ? error.message : String(error);
    return { name, type, values, server: view.server, seen: [], failure };
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
