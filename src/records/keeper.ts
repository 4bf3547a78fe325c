// Keeps the domains' DNS records true: before the first order, at every start, and until it has worked.

import type { ChallengeType } from '../../acme/issuer.ts';
import { urgencyOfPreparation } from '../../acme/urgency.ts';
import type { DnsRecord } from '../../dns/provider.ts';
import type { DnsSettings } from '../config/dns.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import type { Domain } from '../lib/domain.ts';
import type { Log } from '../lib/log.ts';
import type { PersistentValidation } from './persistent-validation.ts';
import { addressee, connectsToUs, delegationRecords, recordsFor } from './records.ts';
import type { RecordsSetup } from './setup.ts';
import type { WrittenPins } from './written-pins.ts';

export interface RecordsKeeperOptions {
  readonly dns: Pick<
    DnsSettings,
    'gatewayDomain' | 'publicPort' | 'appId' | 'txtPrefix' | 'setCaa' | 'settleMs' | 'delegationZone'
  >;
  readonly challenge: ChallengeType;
  /** Who we are to the gateway; asked only where the configuration does not say. */
  identity(): Promise<{ appId: string; instanceId: string }>;
  /** The account that is on disk, if any. */
  accountUri(): Promise<string | undefined>;
  /** The CA's names in CAA records. */
  caaIdentities(signal: AbortSignal): Promise<readonly string[]>;
  /** With dns-persist-01: who is to be let in. */
  persistence?(signal: AbortSignal): Promise<PersistentValidation>;
  /** For the records of the domains, or in their place those in the delegation zone. */
  readonly setup: RecordsSetup;
  /** For the aliases into the delegation zone. */
  readonly aliases?: RecordsSetup;
  /** Where `setup` writes: which pins it wrote before. */
  readonly pins?: WrittenPins;
  /** Whether visitors of all these are served, and will be for some days. Default: no. */
  serves?(domains: readonly Domain[]): Promise<boolean>;
  readonly log: Log;
  readonly clock?: Clock;
}

export interface RecordsKeeper {
  /** Resolves once the records of all domains are there and seen, with CAA for this account. */
  ensure(domains: readonly Domain[], accountUri: string, signal: AbortSignal): Promise<void>;
  /**
   * The same for the account on disk, tried until it works. An upgraded app has a certificate and need not order one, but
   * its id may have changed since the records were written. Without an account nothing is done: the first order does it.
   */
  keep(domains: readonly Domain[], signal: AbortSignal): Promise<void>;
}

const FIRST_RETRY_MS = 10_000;
const LAST_RETRY_MS = 15 * 60_000;

export function createRecordsKeeper(options: RecordsKeeperOptions): RecordsKeeper {
  const { dns, setup, log, clock = systemClock } = options;
  let turn: Promise<unknown> = Promise.resolve();

  async function makeTrue(domains: readonly Domain[], accountUri: string, signal: AbortSignal) {
    const records = await wantedRecords(options, domains, accountUri, signal);
    if (records.length === 0) return;
    const outlived = (await options.pins?.outlived(records)) ?? [];
    await options.pins?.remember(records);
    await setup.ensure(records, signal, outlived);
    await options.pins?.forget(outlived);
    // Last: resolvers would remember that an alias leads to a name that does not exist yet.
    const aliases = wantedAliases(options, domains);
    if (aliases.length > 0) await options.aliases?.ensure(aliases, signal);
    log.info({ domains }, 'DNS records are in place');
  }

  function ensure(domains: readonly Domain[], accountUri: string, signal: AbortSignal): Promise<void> {
    // One at a time: two passes that write the same record would each see a half of the other's work.
    const mine = turn.then(() => makeTrue(domains, accountUri, signal));
    turn = mine.catch(() => {});
    return mine;
  }

  return {
    async ensure(domains, accountUri, signal) {
      await ensure(domains, accountUri, signal);
      // The CA reaches us through the gateway, which may remember for a while that there was no such record.
      if (connectsToUs(options.challenge) && dns.settleMs > 0) await clock.sleep(dns.settleMs, signal);
    },
    async keep(domains, signal) {
      for (let retryMs = FIRST_RETRY_MS; !signal.aborted; retryMs = Math.min(retryMs * 2, LAST_RETRY_MS)) {
        try {
          const accountUri = await options.accountUri();
          if (accountUri !== undefined) await ensure(domains, accountUri, signal);
          return;
        } catch (err) {
          if (signal.aborted) return;
          const serves = (await options.serves?.(domains).catch(() => false)) ?? false;
          log[urgencyOfPreparation(err, serves)]({ err, retryMs }, 'DNS records cannot be checked');
          await clock.sleep(retryMs, signal).catch(() => {});
        }
      }
    },
  };
}

type Wanted = Pick<RecordsKeeperOptions, 'dns' | 'challenge' | 'identity' | 'caaIdentities' | 'persistence'>;

/** What has to be true for these domains; nothing where no gateway is known. Rejects as `identity` and `caaIdentities` do. */
export async function wantedRecords(
  { dns, challenge, identity, caaIdentities, persistence }: Wanted,
  domains: readonly Domain[],
  accountUri: string,
  signal: AbortSignal,
): Promise<DnsRecord[]> {
  const { gatewayDomain, delegationZone } = dns;
  if (gatewayDomain === undefined) return [];
  const caa = dns.setCaa && {
    identities: await caaIdentities(signal),
    accountUri,
    methods: [challenge],
  };
  return recordsFor(domains, {
    gatewayDomain,
    addressee: dns.appId ?? addressee(challenge, await identity()),
    port: dns.publicPort,
    txtPrefix: dns.txtPrefix,
    ...(caa && { caa }),
    ...(persistence && { persistence: await persistence(signal) }),
    ...(delegationZone !== undefined && { delegationZone }),
  });
}

/** The aliases into the delegation zone, if there is one. */
export function wantedAliases(
  { dns, challenge }: Pick<Wanted, 'dns' | 'challenge'>,
  domains: readonly Domain[],
): DnsRecord[] {
  const { delegationZone, txtPrefix } = dns;
  if (delegationZone === undefined) return [];
  return delegationRecords(domains, { delegationZone, txtPrefix, challenges: challenge === 'dns-01' });
}
