// Remembers for a while in which zone a name was found.

import { type Clock, monotonicMs, systemClock } from '../../src/lib/clock.ts';
import { DnsError } from '../error.ts';

export interface ZoneCache<Zone> {
  /** Runs `use` with the name's zone. If a remembered zone is gone, looks it up again and runs `use` once more. */
  within<T>(name: string, use: (zone: Zone) => Promise<T>): Promise<T>;
}

const KEEP_MS = 5 * 60_000;

export function createZoneCache<Zone>(
  find: (name: string) => Promise<Zone>,
  clock: Clock = systemClock,
): ZoneCache<Zone> {
  const known = new Map<string, { zone: Zone; until: number }>();
  const lookUp = async (name: string) => {
    const zone = await find(name);
    known.set(name, { zone, until: monotonicMs(clock) + KEEP_MS });
    return zone;
  };
  return {
    async within(name, use) {
      const kept = known.get(name);
      if (kept === undefined || kept.until < monotonicMs(clock)) return use(await lookUp(name));
      try {
        return await use(kept.zone);
      } catch (error) {
        if (!(error instanceof DnsError) || error.code !== 'zone-not-found') throw error;
        known.delete(name);
        return use(await lookUp(name));
      }
    },
  };
}
