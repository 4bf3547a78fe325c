// Answers http-01 challenges (RFC 8555 §8.3): the plain HTTP listeners serve a text under the challenge's token.

import type { Challenge, Solver } from './issuer.ts';

export interface Http01Options {
  /** Resolves once every listener serves the key authorization under this token, or stops serving it (undefined). */
  serve(token: string, keyAuthorization: string | undefined): void | Promise<void>;
}

export function createHttp01Solver({ serve }: Http01Options): Solver {
  return {
    type: 'http-01',
    async present({ keyAuthorization }) {
      await serve(tokenOf(keyAuthorization), keyAuthorization);
    },
    // The listeners answer as soon as `serve` has returned.
    wait: async () => {},
    async cleanUp({ keyAuthorization }) {
      await serve(tokenOf(keyAuthorization), undefined);
    },
  };
}

/** RFC 8555 §8.1: a token contains no dot, and a dot follows it. */
function tokenOf(keyAuthorization: Challenge['keyAuthorization']): string {
  return keyAuthorization.slice(0, keyAuthorization.indexOf('.'));
}
