// The servers that hold a name's zone, and what each of them answers: a CA sees this before any cache does.

import { DnsError } from './error.ts';
import { lookUpOnce } from './lookup.ts';
import type { RecordType } from './provider.ts';
import type { Authority, ResolverView } from './views.ts';
import { createPlainExchange, type Exchange } from './wire/exchange.ts';
import { normalizeName } from './wire/presentation.ts';
import { possibleZones } from './zone.ts';

export interface AuthorityOptions {
  readonly nameServers: (zone: string) => Promise<string[]>;
  readonly addresses: (host: string, type: 'A' | 'AAAA') => Promise<string[]>;
  /** Default: port 53 over UDP and TCP, without recursion. */
  readonly exchangeWith?: (address: string) => Exchange;
  readonly timeoutMs?: number;
}

/** Longer chains of aliases are loops. */
const DEEPEST = 8;

export function createAuthority(options: AuthorityOptions): Authority {
  const { timeoutMs = 5_000 } = options;
  const exchangeWith =
    options.exchangeWith ?? ((address) => createPlainExchange(address, { timeoutMs, recursion: false }));

  async function viewsAt(name: string, depth: number): Promise<ResolverView[]> {
    const servers = await serversOf(name, options);
    return servers.map(({ host, address }) => {
      const exchange = exchangeWith(address);
      return {
        server: `${host} (${address})`,
        resolve: (asked: string, type: RecordType) => ask(exchange, asked, type, depth),
      };
    });
  }

  /** Follows an alias into another zone, asks all servers of that zone, and returns the values that all of them have. */
  async function ask(exchange: Exchange, name: string, type: RecordType, depth: number): Promise<string[]> {
    const chain = [normalizeName(name)];
    const { values, authoritative } = await lookUpOnce(exchange, chain, type);
    if (!authoritative) throw new DnsError('refused', `${exchange.server} does not hold the zone of ${name}`);
    const end = chain.at(-1)!;
    if (values.length > 0 || end === chain[0]) return values;
    if (depth >= DEEPEST) throw new DnsError('unintelligible', `the CNAMEs of ${name} lead nowhere`);
    const views = await viewsAt(end, depth + 1);
    const answers = await Promise.all(views.map((view) => view.resolve(end, type)));
    return (answers[0] ?? []).filter((value) => answers.every((answer) => answer.includes(value)));
  }

  return { viewsOf: (name) => viewsAt(normalizeName(name), 0) };
}

/** One address of each server: IPv6 only if there is no IPv4, because many containers have no IPv6. */
async function serversOf(name: string, { nameServers, addresses }: AuthorityOptions) {
  // A resolver that is asked about a name too early remembers that it does not exist.
  const [own = '', ...parents] = possibleZones(name);
  for (const zone of own.startsWith('_') ? parents : [own, ...parents]) {
    const hosts = await nameServers(zone);
    if (hosts.length === 0) continue;
    const found = await Promise.all(
      hosts.map(async (host) => {
        const [address] = [...(await addresses(host, 'A')), ...(await addresses(host, 'AAAA'))];
        return address === undefined ? [] : [{ host, address }];
      }),
    );
    if (found.flat().length > 0) return found.flat();
  }
  throw new DnsError('unreachable', `no name server of ${name} can be found`);
}
