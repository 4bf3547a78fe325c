// A challenge that every replica is to answer: it must have arrived in the store before the CA is told.

import type { Clock } from '../src/lib/clock.ts';
import type { Domain } from '../src/lib/domain.ts';
import { StorageError } from './storage.ts';
import type { Store } from './store.ts';

/** How long a replica remembers that there was no challenge: strangers may ask for one at any rate. */
export const REMEMBERED_MS = 1_000;

/** Rejects unless what was shared is what another replica would read. */
export async function isThere(
  store: Pick<Store, 'sharedChallenge'>,
  domain: Domain,
  keyAuthorization: string,
): Promise<void> {
  if ((await store.sharedChallenge(domain)) === keyAuthorization) return;
  throw new StorageError('overtaken', `the challenge for ${domain} in the store is another one`);
}

export function untilNobodyRemembers(clock: Clock, signal: AbortSignal): Promise<void> {
  return clock.sleep(REMEMBERED_MS + 100, signal);
}
