// Before an order: does CAA let this account have it? A refusal that is sure stops the order and says what to change.

import type { Store } from '../../acme/store.ts';
import type { CaaQuestion } from '../../dns/caa.ts';
import type { Resolver } from '../../dns/resolver.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import type { Domain } from '../lib/domain.ts';
import type { Log } from '../lib/log.ts';
import { type CaaSight, seeCaa } from './caa-sight.ts';

const WATCH_INTERVAL_MS = 86_400_000;

export interface CaaPreflightOptions {
  readonly resolver: Resolver;
  readonly challenge: CaaQuestion['method'];
  /** Whether a record for this account should be there: SET_CAA. */
  readonly pins?: boolean;
  /** The CA's names in CAA records; empty if they cannot be known: then nothing can be judged. */
  identities(signal: AbortSignal): Promise<readonly string[]>;
  /** Keeps the verdicts for the status command. */
  readonly store: Pick<Store, 'readVerdicts' | 'writeVerdicts'>;
  readonly log: Log;
  readonly clock?: Clock;
}

export interface CaaPreflight {
  /** Rejects with CaaError if an order for one of these would be refused. */
  check(domains: readonly Domain[], accountUrl: string, signal: AbortSignal): Promise<void>;
  /** The same at once and daily, to know early what would stop the next order. Never rejects; waits for an account. */
  watch(
    domains: readonly Domain[],
    account: () => Promise<string | undefined>,
    signal: AbortSignal,
  ): Promise<void>;
}

/** One or more domains have CAA records that forbid what we are about to do. */
export class CaaError extends Error {
  override readonly name = 'CaaError';
  readonly code = 'caa-forbids';
}

/**
 * A lookup that fails stops nothing: the CA's resolvers may work where ours do not, and a refused order only costs time.
 * A refusal that is seen through an alias stops nothing either: a record of ours may stand beside the alias, unseen.
 */
export function createCaaPreflight(options: CaaPreflightOptions): CaaPreflight {
  const { challenge: method, pins = false, log, store, clock = systemClock } = options;

  async function judge(question: CaaQuestion): Promise<string | undefined> {
    const { domain } = question;
    let sight: CaaSight;
    try {
      sight = await seeCaa(options.resolver, question, pins);
    } catch (err) {
      log.warn({ domain, err }, 'CAA cannot be looked up, the CA will see for itself');
      return undefined;
    }
    await remember(question, sight);
    const { state, verdict, cause, cure } = sight;
    const about = { domain, name: verdict.decidedBy, findings: verdict.findings, cause, cure };
    switch (state) {
      case 'pinned':
        return undefined;
      case 'open':
        // Nobody asked for a pin, and nothing is there that could be mistaken for one.
        if (!pins && verdict.decidedBy === undefined) return undefined;
        log.warn(about, 'CAA lets others issue as well');
        return undefined;
      case 'hidden':
        if (verdict.allowed) log.warn(about, 'CAA cannot be seen through an alias');
        else log.warn(about, 'CAA seen through an alias forbids the order, trying it all the same');
        return undefined;
      case 'forbids':
        return `CAA at ${verdict.decidedBy} forbids a certificate for ${domain}: ${verdict.findings.join(', ')}; ${cure}`;
    }
  }

  async function remember(
    { domain, identities }: CaaQuestion,
    { state, verdict, cause, cure }: CaaSight,
  ): Promise<void> {
    try {
      const checkedAt = clock.now().toISOString();
      const { allowed, pinned, decidedBy, findings } = verdict;
      const fresh = { allowed, pinned, findings: [...findings], identities: [...identities], checkedAt };
      const seen = {
        ...fresh,
        ...(decidedBy !== undefined && { decidedBy }),
        ...(state === 'hidden' && { unsure: cause }),
        ...(cure !== undefined && { cure }),
      };
      await store.writeVerdicts({ ...(await store.readVerdicts()), [domain]: seen }, [domain]);
    } catch (err) {
      log.warn({ domain, err }, 'CAA verdict not stored');
    }
  }

  async function check(domains: readonly Domain[], accountUrl: string, signal: AbortSignal): Promise<void> {
    const identities = await options.identities(signal);
    if (identities.length === 0) return;
    const refusals: string[] = [];
    for (const domain of domains) {
      signal.throwIfAborted();
      const refusal = await judge({ domain, identities, accountUrl, method });
      if (refusal !== undefined) refusals.push(refusal);
    }
    if (refusals.length > 0) throw new CaaError(refusals.join('; '));
  }

  return {
    check,
    async watch(domains, account, signal) {
      while (!signal.aborted) {
        try {
          const url = await account();
          if (url !== undefined) await check(domains, url, signal);
        } catch (err) {
          if (signal.aborted) return;
          if (err instanceof CaaError) log.error({ err }, 'CAA forbids the next renewal');
          else log.warn({ err }, 'CAA cannot be checked');
        }
        await clock.sleep(WATCH_INTERVAL_MS, signal).catch(() => {});
      }
    },
  };
}
