// Answers dns-persist-01 challenges (draft-ietf-acme-dns-persist) with nothing: their record stands with the domain's others before the order.

import type { Solver } from './issuer.ts';

export function createDnsPersist01Solver(): Solver {
  return {
    type: 'dns-persist-01',
    present: async () => {},
    wait: async () => {},
    cleanUp: async () => {},
  };
}
