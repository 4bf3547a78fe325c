// FLEET=derived: who orders. Replicas put claims beside each other in DNS; of renewals the CA takes one all the same.

import { randomBytes } from 'node:crypto';
import { challengeName } from '../acme/dns01.ts';
import { type Issuer, IssuerError } from '../acme/issuer.ts';
import type { Store } from '../acme/store.ts';
import type { DnsProvider } from '../dns/provider.ts';
import type { Peers } from './derived-peers.ts';
import type { Certificate } from './lib/certificate.ts';
import { type Clock, systemClock } from './lib/clock.ts';
import type { Domain } from './lib/domain.ts';
import type { Log } from './lib/log.ts';

export interface TurnsOptions {
  readonly issuer: Issuer;
  readonly peers: Peers;
  readonly provider: Pick<DnsProvider, 'list' | 'add' | 'remove' | 'challengesOnly'>;
  /** A claim is noted as a challenge is: the next start removes what a killed process has left. */
  readonly store: Pick<Store, 'readCertificates' | 'addChallenge' | 'dropChallenge'>;
  /** See Dns01Options. */
  readonly recordName?: (domain: Domain) => string;
  readonly pauseMs?: number;
  readonly clock?: Clock;
  readonly log: Log;
}

const PREFIX = 'dstack-ingress-order';
/** An attempt lasts half an hour at most: an older claim is that of a process that was killed. */
const CLAIM_MS = 35 * 60_000;
/** Until a certificate that was obtained is served, with its evidence, where the others find it. */
const UNTIL_FOUND_LOOKS = 10;
const PAUSE_MS = 3_000;
const CLAIM_TTL_SECONDS = 60;

/** Obtains from another replica before it obtains from the CA. */
export function createIssuerInTurn(options: TurnsOptions): Issuer {
  const { issuer, peers, store, pauseMs = PAUSE_MS, clock = systemClock, log } = options;

  async function newer(names: readonly Domain[]): Promise<Certificate | undefined> {
    const found = await peers.served(names);
    if (found === undefined) return undefined;
    const own = (await store.readCertificates()).filter((each) => each.names[0] === names[0]);
    if (found.notAfter <= clock.now() || own.some(({ notAfter }) => notAfter >= found.notAfter))
      return undefined;
    log.info({ domain: names[0], serial: found.serial }, 'certificate found at another replica');
    return found;
  }

  /** The gateway may lead to ourselves as well as to the one that has it. */
  async function sought(names: readonly Domain[], signal: AbortSignal): Promise<Certificate | undefined> {
    for (let looks = 0; looks < UNTIL_FOUND_LOOKS; looks += 1) {
      const found = await newer(names);
      if (found !== undefined) return found;
      await clock.sleep(pauseMs, signal);
    }
    return undefined;
  }

  /** The CA takes one renewal of a certificate (RFC 9773 §5), whatever became of the claims. */
  async function fromCa(...[names, signal, extras]: Parameters<Issuer['obtain']>): Promise<Certificate> {
    try {
      return await issuer.obtain(names, signal, extras);
    } catch (error) {
      if (!(error instanceof IssuerError && error.code === 'replaced-elsewhere')) throw error;
      const found = await sought(names, signal);
      if (found === undefined) throw error;
      return found;
    }
  }

  return {
    async obtain(names, signal, extras) {
      const there = await newer(names);
      if (there !== undefined) return there;
      if (options.provider.challengesOnly) return fromCa(names, signal, extras);
      const claim = await claimed(names, signal, options, { newer, sought });
      if ('serial' in claim) return claim;
      let restMs = 0;
      try {
        const certificate = await fromCa(names, signal, extras);
        restMs = UNTIL_FOUND_LOOKS * pauseMs;
        return certificate;
      } finally {
        void clock
          .sleep(restMs, signal)
          .catch(() => {})
          .then(claim.withdraw);
      }
    },
  };
}

interface Claim {
  withdraw(): Promise<void>;
}

interface Seeing {
  newer(names: readonly Domain[]): Promise<Certificate | undefined>;
  /** Looks for longer. */
  sought(names: readonly Domain[], signal: AbortSignal): Promise<Certificate | undefined>;
}

/** Resolves to our claim once there is no other, or to the certificate that whoever had one has obtained. */
async function claimed(
  names: readonly Domain[],
  signal: AbortSignal,
  options: TurnsOptions,
  { newer, sought }: Seeing,
): Promise<Claim | Certificate> {
  const { pauseMs = PAUSE_MS, clock = systemClock, log } = options;
  const record = (options.recordName ?? challengeName)(names[0]!);
  for (let round = 1; ; round += 1) {
    const claim = await claimAlone(record, options);
    if (claim !== undefined) {
      // Who had it before may have ended well, and be about to serve.
      const found = await (round > 1 ? sought(names, signal) : newer(names)).catch(() => undefined);
      if (found === undefined && !signal.aborted) return claim;
      await claim.withdraw();
      signal.throwIfAborted();
      return found!;
    }
    if (round === 1) log.info({ domain: names[0], record }, 'another replica orders, waiting');
    await clock.sleep(pauseMs * (0.5 + Math.random() * Math.min(round, 10)), signal);
    const found = await newer(names);
    if (found !== undefined) return found;
  }
}

/**
 * Each writes his claim and then looks: of two, the one who writes later sees the other. Whoever sees another withdraws,
 * and comes again after a while of his own. It saves orders; nothing that must not go wrong depends on it.
 */
async function claimAlone(name: string, options: TurnsOptions): Promise<Claim | undefined> {
  const { provider, store, clock = systemClock, log } = options;
  const value = `${PREFIX} ${clock.now().getTime()} ${randomBytes(8).toString('hex')}`;
  const record = { name, type: 'TXT' as const, value };
  const claims = async () =>
    (await provider.list(name, 'TXT')).map((each) => each.value).filter(isFresh(clock.now()));
  if ((await claims()).length > 0) return undefined;
  async function withdraw(): Promise<void> {
    try {
      await provider.remove(record);
      await store.dropChallenge({ name, value });
    } catch (err) {
      log.warn({ record: name, err }, 'claim to order could not be removed');
    }
  }
  await store.addChallenge({ name, value }).catch(() => {});
  await provider.add(record, CLAIM_TTL_SECONDS);
  const seen = await claims();
  if (seen.length === 1 && seen[0] === value) return { withdraw };
  await withdraw();
  return undefined;
}

function isFresh(now: Date): (value: string) => boolean {
  return (value) => {
    const [prefix, madeAt] = value.split(' ');
    return prefix === PREFIX && Math.abs(now.getTime() - Number(madeAt)) < CLAIM_MS;
  };
}
