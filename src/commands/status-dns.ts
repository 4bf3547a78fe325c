// What the status command sees in the DNS: one look, short of patience.

import { DnsError } from '../../dns/error.ts';
import { createResolver, waitForRecords } from '../../dns/resolver.ts';
import { createAgent } from '../../evidence/agent.ts';
import type { Config } from '../config/config.ts';
import type { Domain } from '../lib/domain.ts';
import { type CaaSight, seeCaa } from '../records/caa-sight.ts';
import { wantedAliases, wantedRecords } from '../records/keeper.ts';
import { seenByAll } from '../records/setup.ts';

export interface DnsLook {
  /** Rejects with DnsError. */
  caa(domain: Domain, identities: readonly string[], account: string): Promise<CaaSight>;
  /** What is not there, in words; undefined if all is. Rejects with DnsError, or AgentError where the app id is unknown. */
  missing(
    domains: readonly Domain[],
    account: string,
    identities: readonly string[] | undefined,
  ): Promise<string | undefined>;
}

const TIMEOUT_MS = 5_000;

/** Asks nobody yet. */
export function createDnsLook(config: Config): DnsLook {
  const { dns, acme, evidence } = config;
  const { resolvers, dohResolvers } = dns;
  const resolver = createResolver({
    ...(resolvers.length > 0 && { servers: resolvers }),
    ...(dohResolvers.length > 0 && { doh: dohResolvers }),
    timeoutMs: TIMEOUT_MS,
  });
  const { agentEndpoint: endpoint } = evidence;
  const agent = createAgent({ timeoutMs: TIMEOUT_MS, ...(endpoint !== undefined && { endpoint }) });
  const { challenge } = acme;
  // It contacts nobody: what it can do is all that is asked.
  const writer = dns.provider?.kind.create(dns.provider.credentials);
  return {
    caa: (domain, identities, accountUrl) =>
      seeCaa(resolver, { domain, identities, accountUrl, method: challenge }, dns.setCaa),
    async missing(domains, account, identities) {
      const wanted = {
        // Which CAA records are wanted is known once the CA has been asked for its names.
        dns: { ...dns, setCaa: dns.setCaa && identities !== undefined },
        challenge,
        identity: () => agent.info(),
        caaIdentities: async () => identities ?? [],
      };
      const signal = AbortSignal.timeout(4 * TIMEOUT_MS);
      const records = [
        ...seenByAll(await wantedRecords(wanted, domains, account, signal), writer),
        ...wantedAliases(wanted, domains),
      ];
      if (records.length === 0) throw new DnsError('unsupported', 'GATEWAY_DOMAIN is not set');
      try {
        await waitForRecords(records, { resolver, timeoutMs: 0, signal });
        return undefined;
      } catch (error) {
        if (error instanceof DnsError && error.code === 'not-visible') return error.message;
        throw error;
      }
    },
  };
}
