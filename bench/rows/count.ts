// Counting a load: warm-up, window, end.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Load } from '../load/children.ts';
import { cpuPerUnit } from '../measure.ts';
import type { Measurement } from './row.ts';

/** µs of the proxy's CPU per unit of a load that has just begun. Rejects if anything in the whole load failed. */
export async function count(measurement: Measurement, load: Load): Promise<number> {
  await sleep(measurement.warmUpMs);
  const { pid } = measurement.subject;
  const [counted] = await Promise.allSettled([cpuPerUnit(pid, load.units, measurement.windowMs)]);
  // What the load saw says more than that nothing could be counted.
  await load.end();
  if (counted.status === 'rejected') throw counted.reason;
  return counted.value;
}
