// Keeps the certificates and records of one plan at a time; the next plan takes over only once it has read the disk.

import type { Manager } from '../acme/manager.ts';
import type { Issuance } from './issuance.ts';
import type { RoutingPlan } from './routes/plan.ts';

export interface Renewing {
  /** Rejects, and the plan before goes on, if the disk cannot be read. */
  keep(plan: RoutingPlan): Promise<void>;
  /** Whether these are the certificates that are kept. */
  keeps(plan: RoutingPlan): boolean;
  /** Renews every certificate, due or not. */
  renewNow(): void;
}

interface Kept {
  readonly plan: RoutingPlan;
  readonly until: AbortController;
  readonly manager: Pick<Manager, 'renewNow' | 'asked'>;
}

export function createRenewing(
  issuance: Pick<Issuance, 'keep'>,
  hooks: Parameters<Issuance['keep']>[1],
  stopping: AbortSignal,
): Renewing {
  let kept: Kept | undefined;
  let timesAsked = 0;

  return {
    async keep(plan) {
      const askedBefore = timesAsked;
      const until = new AbortController();
      const manager = await issuance.keep(plan, hooks, AbortSignal.any([stopping, until.signal]));
      const before = kept;
      kept = { plan, until, manager };
      before?.until.abort();
      // What an operator asked for while this manager was made is for its names as well.
      const asked = timesAsked === askedBefore ? (before?.manager.asked() ?? []) : undefined;
      if (asked?.length !== 0) manager.renewNow(asked);
    },
    keeps: (plan) => JSON.stringify(plan.certificates) === JSON.stringify(kept?.plan.certificates),
    renewNow() {
      timesAsked += 1;
      kept?.manager.renewNow();
    },
  };
}
