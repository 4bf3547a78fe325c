// What every engine on a server is told: how to trust it, whose records these are, and how patient to be.

import type { Clock } from '../../src/lib/clock.ts';
import type { Log } from '../../src/lib/log.ts';
import type { LeaseTimes } from './leases.ts';

export interface ServerOptions {
  readonly password?: string | undefined;
  /** PEM of roots, trusted in the place of the public ones. */
  readonly ca?: string | undefined;
  /** Keeps the records of one app from those of others. */
  readonly namespace: string;
  readonly timeoutMs?: number;
  readonly lease?: Partial<LeaseTimes>;
  readonly clock?: Clock;
  readonly log?: Log;
}
