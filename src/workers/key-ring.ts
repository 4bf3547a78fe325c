// The private keys that a worker serves with, by the certificates that they belong to.

import { createPrivateKey, type KeyObject } from 'node:crypto';
import type { ServedCertificate } from '../../proxy/listener/listener.ts';
import { splitChain } from '../lib/certificate.ts';

export interface KeyRing {
  /** Those of before stay until the next time: connections that began with them are still open. */
  set(certificates: readonly ServedCertificate[]): void;
  /** By the PEM of the leaf. */
  readonly keyOf: (pem: string) => KeyObject | undefined;
}

/** Reads nothing until a key is asked for, and then parses no certificate: there may be thousands. */
export function createKeyRing(): KeyRing {
  let current: readonly ServedCertificate[] = [];
  let before: readonly ServedCertificate[] = [];
  let pems: ReadonlyMap<string, string> | undefined;
  const keys = new Map<string, KeyObject>();

  return {
    set(certificates) {
      before = current;
      current = certificates;
      pems = undefined;
      keys.clear();
    },
    keyOf(pem) {
      const leaf = contentOf(pem);
      const known = keys.get(leaf);
      if (known !== undefined) return known;
      pems ??= new Map(
        [...before, ...current].map(({ chain, key }) => [contentOf(splitChain(chain)[0] ?? ''), key]),
      );
      const found = pems.get(leaf);
      if (found === undefined) return undefined;
      const key = createPrivateKey(found);
      keys.set(leaf, key);
      return key;
    },
  };
}

/** However its lines are broken. */
function contentOf(pem: string): string {
  return pem.replaceAll(/-----[A-Z ]+-----|\s/g, '');
}
