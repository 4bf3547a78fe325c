// Challenges of other replicas, looked up when the CA comes here: remembered for a moment, because anyone can ask.

import { REMEMBERED_MS } from '../acme/fleet-challenge.ts';
import type { Store } from '../acme/store.ts';
import { type Clock, monotonicMs, systemClock } from './lib/clock.ts';
import type { Domain } from './lib/domain.ts';

type Look = (store: Pick<Store, 'sharedChallenge'>, domain: Domain) => Promise<string | undefined>;

/** Each domain of ours has one memory: their number is bounded. */
export function createChallengeLook(clock: Clock = systemClock): Look {
  const known = new Map<Domain, { at: number; found: Promise<string | undefined> }>();
  return (store, domain) => {
    const now = monotonicMs(clock);
    const before = known.get(domain);
    if (before !== undefined && now - before.at < REMEMBERED_MS) return before.found;
    const found = store.sharedChallenge(domain);
    known.set(domain, { at: now, found });
    return found;
  };
}
