// Writes records through a provider, each kind by its own rule, and removes nothing that may be somebody else's.

import { DnsError } from '../../dns/error.ts';
import type { DnsProvider, DnsRecord } from '../../dns/provider.ts';
import type { Resolver } from '../../dns/resolver.ts';
import { parseCaa, sameRecord } from '../../dns/wire/presentation.ts';
import type { Log } from '../lib/log.ts';
import { isPersistentName } from './persistent-validation.ts';

export interface Writer {
  /** `wanted` are all records of this run, `group` those of one name and type among them. */
  make(group: readonly DnsRecord[], wanted: readonly DnsRecord[]): Promise<void>;
  removeIfThere(record: DnsRecord, wanted: readonly DnsRecord[]): Promise<void>;
}

export interface WriterParts {
  readonly provider: DnsProvider;
  readonly resolver: Resolver;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export function createWriter(parts: WriterParts): Writer {
  const { provider, log } = parts;
  const editor = createEditor(parts);
  return {
    async make(group, wanted) {
      const [first] = group;
      if (first === undefined) return;
      if (first.type === 'CNAME') return makeAlias(first, editor, parts);
      if (first.type === 'TXT' && !isPersistentName(first.name)) {
        return makeAddressText(first, editor, provider);
      }
      if (first.type !== 'TXT' && first.type !== 'CAA') return makeAddresses(group, wanted, editor, provider);
      const held = await provider.list(first.name, first.type);
      await editor.addMissing(group, held);
      if (first.type === 'CAA') warnOfOtherPermissions(held, group, log);
    },
    async removeIfThere(record, wanted) {
      if (wanted.some((other) => sameRecord(other, record))) return;
      const held = await provider.list(record.name, record.type);
      if (held.some((other) => sameRecord(other, record))) await editor.remove(record);
    },
  };
}

/** Single steps, each of them logged. */
interface Editor {
  add(record: DnsRecord): Promise<void>;
  remove(record: DnsRecord): Promise<void>;
  addMissing(group: readonly DnsRecord[], held: readonly DnsRecord[]): Promise<void>;
  /** For what cannot stand together: the old goes first, and comes back if the new does not get in. */
  swap(old: readonly DnsRecord[], fresh: readonly DnsRecord[]): Promise<void>;
}

function createEditor({ provider, log, signal }: WriterParts): Editor {
  async function add(record: DnsRecord): Promise<void> {
    signal.throwIfAborted();
    await provider.add(record);
    log.info({ ...record, provider: provider.name }, 'wrote a DNS record');
  }
  async function remove(record: DnsRecord): Promise<void> {
    signal.throwIfAborted();
    await provider.remove(record);
    log.info({ ...record, provider: provider.name }, 'removed a DNS record');
  }
  return {
    add,
    remove,
    async addMissing(group, held) {
      for (const record of group) if (!held.some((other) => inPlace(other, record))) await add(record);
    },
    async swap(old, fresh) {
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
    },
  };
}

async function makeAlias(
  alias: DnsRecord,
  editor: Editor,
  { provider, resolver }: WriterParts,
): Promise<void> {
  const held = await provider.list(alias.name, 'CNAME');
  const same = held.find((record) => sameRecord(record, alias));
  const others = held.filter((record) => record !== same && !isOthers(record, provider));
  if (same !== undefined && others.length === 0) {
    if (same.proxied) await editor.add(alias);
    return;
  }
  const addresses = await addressesHeld(provider, alias.name);
  await refuseForeignAddresses(addresses, alias, resolver);
  await editor.swap([...others, ...addresses], [alias]);
}

/** That of another deployment, which shares the name's visitors with us. */
function isOthers(record: DnsRecord, { sharesAliases }: DnsProvider): boolean {
  return sharesAliases === true && record.shared === true;
}

async function makeAddresses(
  group: readonly DnsRecord[],
  wanted: readonly DnsRecord[],
  editor: Editor,
  provider: DnsProvider,
): Promise<void> {
  const name = group[0]!.name;
  const aliases = await provider.list(name, 'CNAME');
  if (aliases.length > 0) return editor.swap(aliases, group);
  const held = await addressesHeld(provider, name);
  const others = held.filter((record) => !group.some((fresh) => sameRecord(record, fresh)));
  if (others.length > 0 && !(await isOurs(provider, name, wanted))) throw foreignAddresses(name, others);
  await editor.addMissing(group, held);
  for (const record of others) await editor.remove(record);
}

async function makeAddressText(text: DnsRecord, editor: Editor, provider: DnsProvider): Promise<void> {
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
  await editor.addMissing([text], held);
  for (const record of others) await editor.remove(record);
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

export async function addressesOf(name: string, resolver: Resolver): Promise<DnsRecord[]> {
  const types = ['A', 'AAAA'] as const;
  const found = await Promise.all(
    types.map(async (type) => (await resolver.resolve(name, type)).map((value) => ({ name, type, value }))),
  );
  return found.flat();
}
