// Makes the records that a domain needs true: writes them through a provider, or shows them to the operator; then waits until they are seen.

import { DnsError } from '../../dns/error.ts';
import type { DnsProvider, DnsRecord } from '../../dns/provider.ts';
import { type Resolver, waitForRecords } from '../../dns/resolver.ts';
import { zoneFileLine } from '../../dns/wire/presentation.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Webhook } from './webhook.ts';
import { addressesOf, createWriter } from './writer.ts';

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
      const writer = createWriter({ provider, resolver: options.resolver, log: options.log, signal });
      const wanted = await withoutForbiddenAliases(records, provider, options.resolver);
      for (const group of groupByNameAndType(wanted)) await writer.make(group, wanted);
      for (const record of obsolete) await writer.removeIfThere(record, wanted);
      await waitForRecords(seenByAll(wanted, provider), waitOptions(options, signal));
    },
  };
}

/** Without what the world may be shown another one of: there our own look at the provider has to do. */
export function seenByAll(
  records: readonly DnsRecord[],
  provider: Pick<DnsProvider, 'sharesAliases'> | undefined,
): readonly DnsRecord[] {
  return provider?.sharesAliases === true ? records.filter(({ type }) => type !== 'CNAME') : records;
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

/** All A and AAAA records of a name are one group: together they are its address. */
function groupByNameAndType(records: readonly DnsRecord[]): DnsRecord[][] {
  const groups = new Map<string, DnsRecord[]>();
  for (const record of records) {
    const key = `${record.type === 'AAAA' ? 'A' : record.type} ${record.name}`;
    groups.set(key, [...(groups.get(key) ?? []), record]);
  }
  return [...groups.values()];
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
