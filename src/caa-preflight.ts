// Before an order: does CAA let this account have it? A refusal that is sure stops the order and says what to change.

import { type CaaQuestion, type CaaVerdict, checkCaa } from '../acme/caa.ts';
import type { Store } from '../acme/store.ts';
import { formatCaa } from '../dns/presentation.ts';
import type { Resolver } from '../dns/resolver.ts';
import { type Clock, systemClock } from './lib/clock.ts';
import { baseOf, type Domain, isWildcard } from './lib/domain.ts';
import type { Log } from './lib/log.ts';

const WATCH_INTERVAL_MS = 86_400_000;

export interface CaaPreflightOptions {
  readonly resolver: Resolver;
  readonly challenge: CaaQuestion['method'];
  /** By which names the CA goes in CAA; empty where that cannot be known, and then nothing can be judged. */
  identities(signal: AbortSignal): Promise<readonly string[]>;
  /** Where the verdicts are kept for those who want to know later. */
  readonly store: Pick<Store, 'readVerdicts' | 'writeVerdicts'>;
  readonly log: Log;
  readonly clock?: Clock;
}

export interface CaaPreflight {
  /** Rejects with CaaError if an order for one of these would be refused. */
  check(domains: readonly Domain[], accountUrl: string, signal: AbortSignal): Promise<void>;
  /** The same at once and daily, for what would stop the next order; never rejects. Without an account there is none to check. */
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
 * A lookup that fails stops nothing: our resolvers may be out of reach where the CA's are not, and a refused order is
 * waited out. The same goes for a refusal seen through an alias, beside which a record of ours may stand unseen.
 */
export function createCaaPreflight(options: CaaPreflightOptions): CaaPreflight {
  const { challenge: method, log, store, clock = systemClock } = options;

  async function judge(question: CaaQuestion): Promise<string | undefined> {
    const { domain } = question;
    const view = closestView(options.resolver);
    let verdict: CaaVerdict;
    try {
      verdict = await checkCaa(view, question);
    } catch (err) {
      log.warn({ domain, err }, 'CAA cannot be looked up, the CA will see for itself');
      return undefined;
    }
    await remember(question, verdict);
    const { allowed, pinned, decidedBy, findings } = verdict;
    if (allowed && (pinned || decidedBy === undefined)) return undefined;
    const about = { domain, name: decidedBy, findings };
    if (allowed) log.warn(about, 'CAA lets others issue as well');
    else if (view.throughAlias())
      log.warn(about, 'CAA seen through an alias forbids the order, trying it all the same');
    else return explain(question, verdict);
    return undefined;
  }

  async function remember({ domain, identities }: CaaQuestion, verdict: CaaVerdict): Promise<void> {
    try {
      const checkedAt = clock.now().toISOString();
      const { allowed, pinned, decidedBy, findings } = verdict;
      const fresh = { allowed, pinned, findings: [...findings], identities: [...identities], checkedAt };
      const verdicts = await store.readVerdicts();
      await store.writeVerdicts({
        ...verdicts,
        [domain]: { ...fresh, ...(decidedBy !== undefined && { decidedBy }) },
      });
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

function explain(
  { domain, identities, accountUrl, method }: CaaQuestion,
  { decidedBy, findings }: CaaVerdict,
) {
  const allowing = formatCaa({
    flags: 0,
    tag: isWildcard(domain) ? 'issuewild' : 'issue',
    value: `${identities[0]};accounturi=${accountUrl};validationmethods=${method}`,
  });
  return (
    `CAA at ${decidedBy} forbids a certificate for ${domain}: ${findings.join(', ')}; ` +
    `correct or remove that, or let this account issue with: ${baseOf(domain)} CAA ${allowing}`
  );
}

/** The zones' own servers where they answer, or else the resolvers, which may remember an alias and see nothing beside it. */
export function closestView(resolver: Resolver): Resolver & { throughAlias(): boolean } {
  let aliased = false;
  return {
    throughAlias: () => aliased,
    async resolve(name, type) {
      const own = await askZone(resolver, name, type);
      if (own !== undefined) return own;
      if ((await resolver.resolve(name, 'CNAME')).length > 0) aliased = true;
      return resolver.resolve(name, type);
    },
  };
}

async function askZone(
  { authority }: Resolver,
  ...[name, type]: Parameters<Resolver['resolve']>
): Promise<string[] | undefined> {
  try {
    const views = (await authority?.viewsOf(name)) ?? [];
    return await Promise.any(views.map((view) => view.resolve(name, type)));
  } catch {
    return undefined;
  }
}
