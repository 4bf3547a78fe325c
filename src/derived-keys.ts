// FLEET=derived: the key of each certificate is derived from the app's own key, so that whoever finds the chain can serve it.

import { createHash, createPrivateKey, type X509Certificate } from 'node:crypto';
import type { Agent } from '../evidence/agent.ts';
import { p256KeyFrom } from './account-key.ts';
import type { Domain } from './lib/domain.ts';

export interface DerivedKeys {
  /** PEM, PKCS#8: what a certificate that is ordered at this time has. Rejects with AgentError. */
  keyAt(names: readonly Domain[], orderedAt: Date): Promise<string>;
  /** The key of this certificate, if it is one of ours for these names. Rejects with AgentError. */
  keyOf(names: readonly Domain[], certificate: X509Certificate): Promise<string | undefined>;
}

const DAY_MS = 86_400_000;
/** Certificates live for 90 days or fewer: almost every renewal has another key. */
const EPOCH_MS = 30 * DAY_MS;
/** An order is finished within its life of some days. A CA dates back by an hour or so, and clocks differ. */
const LONGEST_ORDER_MS = 8 * DAY_MS;
const LONGEST_BACKDATING_MS = DAY_MS;

export function createDerivedKeys(agent: Pick<Agent, 'deriveKey'>, directoryUrl: string): DerivedKeys {
  const known = new Map<string, Promise<string>>();

  function derive(names: readonly Domain[], epoch: number): Promise<string> {
    const path = keyPath(directoryUrl, names, epoch);
    const before = known.get(path);
    if (before !== undefined) return before;
    const key = agent
      .deriveKey(path, 'certificate')
      .then((derived) => p256KeyFrom(derived.key, 'certificate'));
    known.set(path, key);
    key.catch(() => known.delete(path));
    return key;
  }

  return {
    keyAt: (names, orderedAt) => derive(names, epochOf(orderedAt.getTime())),
    async keyOf(names, certificate) {
      const from = Date.parse(certificate.validFrom);
      const first = epochOf(from - LONGEST_ORDER_MS);
      const last = epochOf(from + LONGEST_BACKDATING_MS);
      for (let epoch = last; epoch >= first; epoch -= 1) {
        const key = await derive(names, epoch);
        if (certificate.checkPrivateKey(createPrivateKey(key))) return key;
      }
      return undefined;
    },
  };
}

function epochOf(timeMs: number): number {
  return Math.floor(timeMs / EPOCH_MS);
}

function keyPath(directoryUrl: string, names: readonly Domain[], epoch: number): string {
  const { host, pathname, search } = new URL(directoryUrl);
  const digest = createHash('sha256')
    .update([...names].sort().join('\n'))
    .digest('hex');
  return `dstack-ingress/certificate/v1/${host}${pathname}${search}/${digest}/${epoch}`;
}
