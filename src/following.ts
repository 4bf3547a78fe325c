// Follows routes that change while the ingress runs: they are served at once, then their certificates and records are kept.

import type { Store } from '../acme/store.ts';
import type { Deployment } from './deployment.ts';
import { systemClock } from './lib/clock.ts';
import type { Log } from './lib/log.ts';
import { newestWins } from './lib/newest-wins.ts';
import type { Renewing } from './renewing.ts';
import { describeRoutes, type RoutingPlan } from './routes/plan.ts';

export interface FollowingParts {
  readonly store: Pick<Store, 'readCertificates'>;
  readonly deployment: Pick<Deployment, 'follow'>;
  readonly renewing: Renewing;
  readonly stopping: AbortSignal;
  /** Called once changed routes are served. */
  onFollowed?(): void;
  readonly log: Log;
}

const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 60_000;

/** Returns what follows a plan: it is tried until it has worked, or until there is a newer one. */
export function createFollowing(
  first: RoutingPlan,
  { store, deployment, renewing, stopping, onFollowed, log }: FollowingParts,
): (plan: RoutingPlan) => Promise<void> {
  let newest = first;

  const catchUp = newestWins(async () => {
    const next = newest;
    const sameNames = renewing.keeps(next);
    // Routes do not wait for a disk that cannot be read. Where names have changed, `keep` fails on it and is tried again.
    const stored = await store.readCertificates().catch(() => []);
    await deployment.follow(next, stored);
    log.info(
      { hosts: next.routes.length + (next.rules?.sites.length ?? 0), routes: describeRoutes(next) },
      'routes replaced',
    );
    onFollowed?.();
    if (!sameNames) await renewing.keep(next);
  });

  return async (next) => {
    newest = next;
    for (let retryMs = FIRST_RETRY_MS; newest === next && !stopping.aborted; ) {
      try {
        return await catchUp();
      } catch (err) {
        log.error({ err, retryMs }, 'new routes cannot be followed');
      }
      await systemClock.sleep(retryMs, stopping).catch(() => {});
      retryMs = Math.min(retryMs * 2, LAST_RETRY_MS);
    }
  };
}
