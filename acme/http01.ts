// Answers http-01 challenges (RFC 8555 §8.3): the plain HTTP listeners serve a text under the challenge's token.

import { type Clock, systemClock } from '../src/lib/clock.ts';
import { isThere, untilNobodyRemembers } from './fleet-challenge.ts';
import type { Challenge, Solver } from './issuer.ts';
import type { Store } from './store.ts';

export interface Http01Options {
  /** Resolves once every listener serves the key authorization under this token, or stops serving it (undefined). */
  serve(token: string, keyAuthorization: string | undefined): void | Promise<void>;
  /** Where replicas on other machines find it, because the CA may connect to any of them. */
  store?: Pick<Store, 'shareChallenge' | 'unshareChallenge' | 'sharedChallenge' | 'shared'>;
  clock?: Clock;
}

export function createHttp01Solver({ serve, store, clock = systemClock }: Http01Options): Solver {
  const others = store?.shared === true ? store : undefined;
  return {
    type: 'http-01',
    async present({ domain, keyAuthorization }) {
      await others?.shareChallenge(domain, keyAuthorization);
      if (others !== undefined) await isThere(others, domain, keyAuthorization);
      await serve(tokenOf(keyAuthorization), keyAuthorization);
    },
    // The listeners answer as soon as `serve` has returned.
    wait: async (_, signal) => {
      if (others !== undefined) await untilNobodyRemembers(clock, signal);
    },
    async cleanUp({ domain, keyAuthorization }) {
      await serve(tokenOf(keyAuthorization), undefined);
      await others?.unshareChallenge(domain);
    },
  };
}

/** RFC 8555 §8.1: a token contains no dot, and a dot follows it. */
function tokenOf(keyAuthorization: Challenge['keyAuthorization']): string {
  return keyAuthorization.slice(0, keyAuthorization.indexOf('.'));
}
