// All that talks to the CA and writes to DNS; loaded once the listener serves, so that what is on disk waits for none of it.

import { type Acme, createAcme } from '../acme/connect.ts';
import { createDns01Solver } from '../acme/dns01.ts';
import type { Solver } from '../acme/issuer.ts';
import { createManager, type Manager, type ManagerOptions } from '../acme/manager.ts';
import type { Store } from '../acme/store.ts';
import { createTlsAlpn01Solver } from '../acme/tls-alpn01.ts';
import type { DnsProvider } from '../dns/provider.ts';
import { createResolver, type Resolver, waitForRecords } from '../dns/resolver.ts';
import type { Agent } from '../evidence/agent.ts';
import type { Config } from './config.ts';
import { systemClock } from './lib/clock.ts';
import type { Log } from './lib/log.ts';
import { createRecordsKeeper, type RecordsKeeper } from './records-keeper.ts';
import { createRecordsSetup } from './records-setup.ts';
import type { RoutingPlan } from './routing.ts';
import type { ChallengeCertificate } from './worker-messages.ts';

export interface IssuanceOptions {
  readonly config: Config;
  readonly store: Store;
  /** Why no account may be made where we have none. */
  readonly refuseToRegister: string | undefined;
  readonly agent: Pick<Agent, 'info'>;
  /** Resolves once every worker answers the challenge so. */
  setChallenge(domain: string, certificate: ChallengeCertificate | undefined): Promise<void>;
  readonly log: Log;
}

export interface Issuance {
  /** Starts to keep the certificates and records of this plan, until aborted. Reads the disk first, rejects if it cannot. */
  keep(
    plan: RoutingPlan,
    hooks: Pick<ManagerOptions, 'deploy' | 'onAccount'>,
    signal: AbortSignal,
  ): Promise<Pick<Manager, 'renewNow'>>;
  close(): Promise<void>;
}

interface Parts extends IssuanceOptions {
  readonly resolver: Resolver;
  readonly provider: DnsProvider | undefined;
}

export function createIssuance(options: IssuanceOptions): Issuance {
  const { config, store, log } = options;
  const { resolvers, dohResolvers, provider } = config.dns;
  const parts: Parts = {
    ...options,
    resolver: createResolver({
      ...(resolvers.length > 0 && { servers: resolvers }),
      ...(dohResolvers.length > 0 && { doh: dohResolvers }),
    }),
    provider: provider?.kind.create(provider.credentials),
  };
  const acme = createAcme({
    directoryUrl: config.acme.directoryUrl,
    caPem: config.acme.ca,
    email: config.acme.email,
    externalAccount: config.acme.eab,
    profile: config.acme.profile,
    refuseToRegister: options.refuseToRegister,
    store,
    solver: createSolver(parts),
    log,
  });
  const records = createRecords(parts, acme);
  const { renewIntervalMs, renewDaysBefore } = config.acme;
  return {
    async keep(plan, hooks, signal) {
      const manager = createManager({
        wanted: plan.certificates,
        store,
        connect: (abort) => acme.connect(abort),
        renewalInfo: (certificate, abort) => acme.renewalInfo(certificate, abort),
        recover: () => acme.recover(),
        prepare: (account, abort) => records.ensure(plan.domains, account.url, abort),
        ...hooks,
        intervalMs: renewIntervalMs,
        renewal: { ...(renewDaysBefore !== undefined && { daysBefore: renewDaysBefore }) },
        log,
      });
      await manager.load();
      void manager.run(signal);
      void records.keep(plan.domains, signal);
      return manager;
    },
    close: () => acme.close(),
  };
}

function createSolver({ config, store, resolver, provider, setChallenge, log }: Parts): Solver {
  if (config.acme.challenge === 'tls-alpn-01') return createTlsAlpn01Solver({ serve: setChallenge });
  if (provider === undefined) throw new Error('dns-01 needs a DNS provider');
  const { propagationTimeoutMs: timeoutMs, propagationIntervalMs: intervalMs } = config.dns;
  return createDns01Solver({
    provider,
    store,
    wait: (records, signal) =>
      waitForRecords(records, { resolver, timeoutMs, intervalMs, clock: systemClock, log, signal }),
    log,
  });
}

function createRecords({ config, store, agent, resolver, provider, log }: Parts, acme: Acme): RecordsKeeper {
  const { propagationTimeoutMs: timeoutMs, propagationIntervalMs: intervalMs, setup: mode } = config.dns;
  return createRecordsKeeper({
    dns: config.dns,
    challenge: config.acme.challenge,
    identity: () => agent.info(),
    accountUri: async () => (await store.readAccount())?.url,
    caaIdentities: async (signal) => {
      const { meta } = await acme.transport.directory(signal);
      return meta.caaIdentities ?? [new URL(config.acme.directoryUrl).hostname];
    },
    setup: createRecordsSetup({
      mode,
      ...(provider !== undefined && { provider }),
      resolver,
      timeoutMs,
      intervalMs,
      log,
    }),
    log,
  });
}
