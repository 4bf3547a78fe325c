// Makes the records that a domain needs true: writes them through a provider, or shows them to the operator; then waits until they are seen.

import { DnsError } from '../../dns/error.ts';
import type { DnsProvider, DnsRecord } from '../../dns/provider.ts';
import { type Resolver, waitForRecords } from '../../dns/resolver.ts';
import { parseCaa, sameRecord, zoneFileLine } from '../../dns/wire/presentation.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { isPersistentName } from './persistent-validation.ts';
import type { Webhook } from './webhook.ts';

/**
 * Who makes the records, or with a delegation zone the aliases into it. `auto`: we write them. `wait`: we show what is to
 * be written, and wait until it is there. `print`: we show it, and do not look. `webhook`: we ask the operator's service,
 * and wait.
 */
export type RecordsMode = 'auto' | 'wait' | 'print' | 'webhook';

export interface RecordsSetupOptions {
  readonly mode: RecordsMode;
  /** Needed by `auto`. */
  readonly provider?: DnsProvider;
  /** Needed by `webhook`. */
  readonly webhook?: Webhook;
  readonly resolver: Resolver;
  /** For the records to be seen. */
  readonly timeoutMs: number;
  /** Between two looks. Default 5 s. */
  readonly intervalMs?: number;
  readonly log: Log;
  readonly clock?: Clock;
  /** Default: standard error. */
  readonly print?: (text: string) => void;
}

export interface RecordsSetup {
  /**
   * Resolves once the records are there and seen. Rejects with DnsError, `conflict` when something stands in the way that
   * is not ours to remove. `obsolete` are CAA records that we wrote before, removed when the new ones are in place. With
   * everything in place already nothing is written.
   */
  ensure(records: readonly DnsRecord[], signal: AbortSignal, obsolete?: readonly DnsRecord[]): Promise<void>;
}

/** Throws DnsError `unsupported` for `auto` without a provider that can read and write all that is needed. */
export function createRecordsSetup(options: RecordsSetupOptions): RecordsSetup {
  const { mode, provider } = options;
  if (mode === 'webhook' && options.webhook === undefined) {
    throw new DnsError('unsupported', 'DNS_SETUP_MODE=webhook needs the address of the webhook');
  }
  if (mode !== 'auto') return { ensure: (records, signal) => showAndWait(records, signal, options) };
  if (provider === undefined)
    throw new DnsError('unsupported', 'DNS records cannot be written without a DNS provider');
  if (provider.challengesOnly) {
    const instead = 'create the other records yourself, with DNS_SETUP_MODE=wait or print';
    throw new DnsError('unsupported', `${provider.name} can write challenges only: ${instead}`);
  }
  return {
    async ensure(records, signal, obsolete = []) {
      const writer = createWriter(provider, options, signal);
      const wanted = await withoutForbiddenAliases(records, provider, options.resolver);
      for (const group of groupByNameAndType(wanted)) await writer.make(group, wanted);
      for (const record of obsolete) await writer.removeIfThere(record, wanted);
      await waitForRecords(wanted, waitOptions(options, signal));
    },
  };
}

function waitOptions(options: RecordsSetupOptions, signal: AbortSignal) {
  const { resolver, timeoutMs, intervalMs = 5_000, log, clock = systemClock } = options;
  return { resolver, timeoutMs, intervalMs, log, clock, signal };
}

/** Where CAA cannot stand beside a CNAME, the alias becomes the addresses that it stands for. */
async function withoutForbiddenAliases(
  records: readonly DnsRecord[],
  provider: DnsProvider,
  resolver: Resolver,
) {
  if (provider.caaBesideCname) return records;
  const guarded = new Set(records.filter(({ type }) => type === 'CAA').map(({ name }) => name));
  const replaced = records.map(async (record) => {
    if (record.type !== 'CNAME' || !guarded.has(record.name)) return [record];
    const addresses = await addressesOf(record.value, resolver);
    if (addresses.length > 0) return addresses.map(({ type, value }) => ({ name: record.name, type, value }));
    throw new DnsError(
      'not-visible',
      `${record.value} has no address that could be written for ${record.name}: ${provider.name} cannot hold CAA beside a CNAME`,
    );
  });
  return (await Promise.all(replaced)).flat();
}

async function addressesOf(name: string, resolver: Resolver): Promise<DnsRecord[]> {
  const types = ['A', 'AAAA'] as const;
  const found = await Promise.all(
    types.map(async (type) => (await resolver.resolve(name, type)).map((value) => ({ name, type, value }))),
  );
  return found.flat();
}

/** All A and AAAA records of a name are one group: together they are its address. */
function groupByNameAndType(records: readonly DnsRecord[]): DnsRecord[][] {
  const groups = new Map<string, DnsRecord[]>();
  for (const record of records) {
    const key = `${record.type === 'AAAA' ? 'A' : record.type} ${record.name}`;
    groups.set(key, [...(groups.get(key) ?? []), record]);
  }
  return [...groups.values()];
}

interface Writer {
  /** `wanted` are all records of this run, `group` those of one name and type among them. */
  make(group: readonly DnsRecord[], wanted: readonly DnsRecord[]): Promise<void>;
  removeIfThere(record: DnsRecord, wanted: readonly DnsRecord[]): Promise<void>;
}

function createWriter(provider: DnsProvider, options: RecordsSetupOptions, signal: AbortSignal): Writer {
  const { resolver, log } = options;
  const add = async (record: DnsRecord) => {
    signal.throwIfAborted();
    await provider.add(record);
    log.info({ ...record, provider: provider.name }, 'wrote a DNS record');
  };
  const remove = async (record: DnsRecord) => {
    signal.throwIfAborted();
    await provider.remove(record);
    log.info({ ...record, provider: provider.name }, 'removed a DNS record');
  };
  const addMissing = async (group: readonly DnsRecord[], held: readonly DnsRecord[]) => {
    for (const record of group) if (!held.some((other) => inPlace(other, record))) await add(record);
  };
  /** For what cannot stand together: the old goes first, and comes back if the new does not get in. */
  const swap = async (old: readonly DnsRecord[], fresh: readonly DnsRecord[]) => {
    const undo: (() => Promise<void>)[] = [];
    try {
      for (const record of old) {
        undo.unshift(() => provider.add(record));
        await remove(record);
      }
      for (const record of fresh) {
        undo.unshift(() => provider.remove(record));
        await add(record);
      }
    } catch (error) {
      await restore(undo, old, log);
      throw error;
    }
  };
  const makeAlias = async (alias: DnsRecord) => {
    const held = await provider.list(alias.name, 'CNAME');
    const same = held.find((record) => sameRecord(record, alias));
    const others = held.filter((record) => record !== same);
    if (same !== undefined && others.length === 0) return same.proxied ? add(alias) : undefined;
    const addresses = await addressesHeld(provider, alias.name);
    await refuseForeignAddresses(addresses, alias, resolver);
    await swap([...others, ...addresses], [alias]);
  };
  const makeAddresses = async (group: readonly DnsRecord[], wanted: readonly DnsRecord[]) => {
    const name = group[0]!.name;
    const aliases = await provider.list(name, 'CNAME');
    if (aliases.length > 0) return swap(aliases, group);
    const held = await addressesHeld(provider, name);
    const others = held.filter((record) => !group.some((fresh) => sameRecord(record, fresh)));
    if (others.length > 0 && !(await isOurs(provider, name, wanted))) throw foreignAddresses(name, others);
    await addMissing(group, held);
    for (const record of others) await remove(record);
  };
  const makeAddressText = async (text: DnsRecord) => {
    const held = await provider.list(text.name, 'TXT');
    const others = held.filter((record) => !sameRecord(record, text));
    const foreign = others.filter((record) => !looksLikeAddress(record.value));
    if (foreign.length > 0) {
      const values = foreign.map((record) => JSON.stringify(record.value)).join(', ');
      throw new DnsError(
        'conflict',
        `${text.name} has TXT records that are not ours: ${values}. The gateway reads the first one: remove them`,
      );
    }
    await addMissing([text], held);
    for (const record of others) await remove(record);
  };
  const makePersistent = async (group: readonly DnsRecord[]) => {
    await addMissing(group, await provider.list(group[0]!.name, 'TXT'));
  };
  const makeCaa = async (group: readonly DnsRecord[]) => {
    const held = await provider.list(group[0]!.name, 'CAA');
    await addMissing(group, held);
    warnOfOtherPermissions(held, group, log);
  };
  return {
    async make(group, wanted) {
      const [first] = group;
      if (first === undefined) return;
      if (first.type === 'CNAME') return makeAlias(first);
      if (isPersistentName(first.name)) return makePersistent(group);
      if (first.type === 'TXT') return makeAddressText(first);
      if (first.type === 'CAA') return makeCaa(group);
      return makeAddresses(group, wanted);
    },
    async removeIfThere(record, wanted) {
      if (wanted.some((other) => sameRecord(other, record))) return;
      const held = await provider.list(record.name, record.type);
      if (held.some((other) => sameRecord(other, record))) await remove(record);
    },
  };
}

/** A proxied record has our value and leads elsewhere. */
function inPlace(held: DnsRecord, wanted: DnsRecord): boolean {
  return sameRecord(held, wanted) && !held.proxied;
}

async function restore(
  undo: readonly (() => Promise<void>)[],
  old: readonly DnsRecord[],
  log: Log,
): Promise<void> {
  try {
    for (const step of undo) await step();
    if (old.length > 0)
      log.warn({ records: old }, 'a DNS record could not be replaced, the old one was put back');
  } catch (err) {
    log.error({ err, records: old }, 'a DNS record could not be replaced, and the old one not be put back');
  }
}

async function addressesHeld(provider: DnsProvider, name: string): Promise<DnsRecord[]> {
  return [...(await provider.list(name, 'A')), ...(await provider.list(name, 'AAAA'))];
}

/** Addresses that are the gateway's were written in place of the alias; any other may be somebody's website. */
async function refuseForeignAddresses(addresses: readonly DnsRecord[], alias: DnsRecord, resolver: Resolver) {
  if (addresses.length === 0) return;
  const gateway = await addressesOf(alias.value, resolver);
  const foreign = addresses.filter(
    ({ type, value }) => !gateway.some((own) => own.type === type && own.value === value),
  );
  if (foreign.length > 0) throw foreignAddresses(alias.name, foreign);
}

function foreignAddresses(name: string, records: readonly DnsRecord[]): DnsError {
  const list = records.map(({ type, value }) => `${type} ${value}`).join(', ');
  return new DnsError(
    'conflict',
    `${name} has addresses that do not lead to the gateway: ${list}. If nothing else needs them, remove them`,
  );
}

/** The address text of a name is the sign that its address records were written by an ingress. */
async function isOurs(provider: DnsProvider, name: string, wanted: readonly DnsRecord[]): Promise<boolean> {
  const base = name.replace(/^\*\./, '');
  const text = wanted.find((record) => record.type === 'TXT' && record.name.endsWith(`.${base}`));
  if (text === undefined) return false;
  return (await provider.list(text.name, 'TXT')).some((record) => looksLikeAddress(record.value));
}

/** `<app or instance id>:<port>`. */
function looksLikeAddress(value: string): boolean {
  return /^[0-9a-z]+:\d{1,5}$/i.test(value);
}

/**
 * CAA records add up (RFC 8659 §4.2): whatever else permits issuance weakens our pin. Whose they are cannot be told from
 * here (another replica's pin looks just the same), so they stay, and the operator hears of them.
 */
function warnOfOtherPermissions(held: readonly DnsRecord[], ours: readonly DnsRecord[], log: Log): void {
  const pins = ours.map(({ value }) => parseCaa(value));
  for (const record of held) {
    const property = parseCaa(record.value);
    if (property === undefined || ours.some((own) => sameRecord(own, record))) continue;
    if (!pins.some((pin) => pin?.tag === property.tag)) continue;
    const [issuer = '', ...parameters] = property.value.split(';').map((part) => part.trim());
    if (issuer === '') continue;
    const permits = parameters.some((parameter) => /^accounturi\s*=/i.test(parameter))
      ? 'another account'
      : 'any account';
    log.warn(
      { name: record.name, value: record.value, permits, issuer },
      'another CAA record permits issuance as well',
    );
  }
}

async function showAndWait(records: readonly DnsRecord[], signal: AbortSignal, options: RecordsSetupOptions) {
  const { mode, webhook, log, print = (text: string) => void process.stderr.write(text) } = options;
  if (mode !== 'print' && (await alreadySeen(records, signal, options))) return;
  print(describeRecords(records));
  // Whether the webhook took them or not, the records can still be made by hand.
  await webhook?.notify(records, signal).catch((err: unknown) => {
    signal.throwIfAborted();
    log.error({ err }, 'the DNS webhook failed, the records have to be made by hand');
  });
  if (mode !== 'print') await waitForRecords(records, waitOptions(options, signal));
}

async function alreadySeen(records: readonly DnsRecord[], signal: AbortSignal, options: RecordsSetupOptions) {
  try {
    await waitForRecords(records, { ...waitOptions(options, signal), timeoutMs: 0 });
    return true;
  } catch (error) {
    if (error instanceof DnsError && error.code === 'not-visible') return false;
    throw error;
  }
}

/** A table for reading and lines for pasting into a zone file. */
export function describeRecords(records: readonly DnsRecord[]): string {
  const width = Math.max(4, ...records.map(({ name }) => name.length));
  const row = (type: string, name: string, value: string) =>
    `  ${type.padEnd(5)}  ${name.padEnd(width)}  ${value}\n`;
  const rows = records.map(({ type, name, value }) => row(type, name, value)).join('');
  const lines = records.map((record) => `${zoneFileLine(record)}\n`).join('');
  return `\nDNS records that must exist:\n\n${row('type', 'name', 'value')}${rows}\nThe same as lines of a zone file:\n\n${lines}\n`;
}
