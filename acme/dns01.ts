// Answers dns-01 challenges (RFC 8555 §8.4) through a provider, and leaves nothing behind, even when killed.

import { createHash } from 'node:crypto';
import type { DnsProvider, DnsRecord } from '../dns/provider.ts';
import { baseOf, type Domain } from '../src/lib/domain.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import type { Challenge, Solver } from './issuer.ts';
import type { Store } from './store.ts';

export interface Dns01Options {
  provider: Pick<DnsProvider, 'add' | 'remove'>;
  /** Resolves once these records are visible. */
  wait(records: readonly DnsRecord[], signal: AbortSignal): Promise<void>;
  /** Notes each TXT value before it is set, until it is removed. */
  store: Pick<Store, 'readChallenges' | 'addChallenge' | 'dropChallenge'>;
  /** The record's name, if `_acme-challenge` is delegated elsewhere by a CNAME. */
  recordName?: (domain: Domain) => string;
  ttlSeconds?: number;
  log?: Log;
}

/** An apex and its wildcard are proven together, so one name may need several values. */
export function createDns01Solver(options: Dns01Options): Solver {
  const { provider, store, ttlSeconds = 60, log = silentLog } = options;
  const recordName = options.recordName ?? challengeName;

  const recordOf = (challenge: Challenge): DnsRecord => ({
    name: recordName(challenge.domain),
    type: 'TXT',
    value: challengeValue(challenge.keyAuthorization),
  });

  async function remove(name: string, value: string): Promise<void> {
    await provider.remove({ name, type: 'TXT', value });
    // If the note stays, the next start removes the value again, which does no harm.
    await store.dropChallenge({ name, value }).catch(() => {});
  }

  return {
    type: 'dns-01',
    async present(challenge) {
      const record = recordOf(challenge);
      await store.addChallenge({ name: record.name, value: record.value }).catch((err: unknown) => {
        log.error({ domain: challenge.domain, err }, 'challenge record could not be noted');
      });
      await provider.add(record, ttlSeconds);
      log.info({ domain: challenge.domain, record: record.name }, 'challenge record set');
    },
    wait: (challenge, signal) => options.wait([recordOf(challenge)], signal),
    cleanUp(challenge) {
      const { name, value } = recordOf(challenge);
      return remove(name, value);
    },
    async recover() {
      for (const { name, value } of await store.readChallenges()) {
        try {
          await remove(name, value);
          log.info({ record: name }, 'challenge record of a killed process removed');
        } catch (err) {
          log.warn({ record: name, err }, 'challenge record of a killed process could not be removed');
        }
      }
    },
  };
}

export function challengeName(domain: Domain): string {
  return `_acme-challenge.${baseOf(domain)}`;
}

/** RFC 8555 §8.4 */
export function challengeValue(keyAuthorization: string): string {
  return createHash('sha256').update(keyAuthorization).digest('base64url');
}
