// The addresses behind a name: what the system says they are, for as long as the DNS says they last.

import { Resolver, lookup as systemLookup } from 'node:dns/promises';
import { isIPv4, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';

export interface Resolution {
  /** At least one, each once. */
  readonly addresses: readonly string[];
  /** How long they may be used without asking again. */
  readonly lifetimeMs: number;
}

export interface Names {
  /** Rejects with the system's error (ENOTFOUND, EAI_AGAIN, ...). Those who ask for one name at one time share an answer. */
  resolve(name: string): Promise<Resolution>;
}

export interface NamesOptions {
  /** The order of nsswitch.conf: /etc/hosts, search domains and all. */
  readonly lookup?: (name: string, options: { all: true }) => Promise<{ address: string }[]>;
  /** Asks the name servers directly, which alone tells TTLs. */
  readonly createResolver?: () => Pick<Resolver, 'resolve4' | 'resolve6' | 'cancel'>;
  /** Whether IPv6 leads anywhere but to this machine. */
  readonly hasIpv6?: () => boolean;
}

/** For what did not come from the DNS, or not with a TTL. */
const WITHOUT_TTL_MS = 5_000;
/** A TTL of 0 would ask for every request. */
const LEAST_MS = 1_000;
/** Docker's name server says 600 s. By then a container may have moved, and another may have its address. */
const MOST_MS = 30_000;
/** The name servers get this long once the addresses are known and only their TTL is not. */
const TTL_PATIENCE_MS = 1_000;

/**
 * Two questions at once. The system's own lookup decides which addresses there are, so that /etc/hosts and search domains
 * count as they do for every other program; the name servers are asked for the TTL, which holds if they know all of those
 * addresses too. Should the lookup fail where they answer, their answer is taken.
 */
export function createNames(options: NamesOptions = {}): Names {
  const {
    lookup = systemLookup,
    createResolver = () => new Resolver({ timeout: 2_000, tries: 2 }),
    hasIpv6 = machineHasIpv6,
  } = options;
  const asking = new Map<string, Promise<Resolution>>();
  return {
    resolve(name) {
      const known = asking.get(name);
      if (known !== undefined) return known;
      const asked = ask(name).finally(() => asking.delete(name));
      asking.set(name, asked);
      return asked;
    },
  };

  async function ask(name: string): Promise<Resolution> {
    // RFC 6761 §6.3: localhost is not a question for the DNS.
    const resolver = /(^|\.)localhost$/.test(name) ? undefined : createResolver();
    const records = resolver === undefined ? Promise.resolve([]) : recordsOf(resolver, name);
    try {
      const addresses = (await lookup(name, { all: true })).map(({ address }) => address);
      return {
        addresses: usable([...new Set(addresses)], hasIpv6),
        lifetimeMs: lifetimeOf(addresses, await within(TTL_PATIENCE_MS, records)),
      };
    } catch (error) {
      const found = await records;
      if (found.length === 0) throw error;
      const addresses = found.map(({ address }) => address);
      return {
        addresses: usable([...new Set(addresses)], hasIpv6),
        lifetimeMs: lifetimeOf(addresses, found),
      };
    } finally {
      resolver?.cancel();
    }
  }
}

interface TimedAddress {
  readonly address: string;
  /** Seconds. */
  readonly ttl: number;
}

/** None if the name servers know none or do not answer. The system's lookup reports that. */
async function recordsOf(
  resolver: Pick<Resolver, 'resolve4' | 'resolve6'>,
  name: string,
): Promise<TimedAddress[]> {
  const answers = await Promise.allSettled([
    resolver.resolve4(name, { ttl: true }),
    resolver.resolve6(name, { ttl: true }),
  ]);
  return answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
}

async function within<T>(ms: number, promise: Promise<T[]>): Promise<T[]> {
  const { promise: late, resolve } = Promise.withResolvers<T[]>();
  const timer = setTimeout(resolve, ms, []);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function lifetimeOf(addresses: readonly string[], records: readonly TimedAddress[]): number {
  const ttls = addresses.map((address) => records.find((record) => record.address === address)?.ttl);
  if (ttls.includes(undefined)) return WITHOUT_TTL_MS;
  return Math.min(Math.max(Math.min(...(ttls as number[])) * 1_000, LEAST_MS), MOST_MS);
}

/** Without a route for IPv6 an IPv6 address beside an IPv4 one could only fail. */
function usable(addresses: readonly string[], hasIpv6: () => boolean): readonly string[] {
  if (!addresses.some(isIPv4) || hasIpv6()) return addresses;
  return addresses.filter((address) => !isIPv6(address) || address === '::1');
}

function machineHasIpv6(): boolean {
  return Object.values(networkInterfaces()).some((list) =>
    list?.some(
      ({ family, internal, address }) => family === 'IPv6' && !internal && !address.startsWith('fe80:'),
    ),
  );
}
