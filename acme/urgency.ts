// How loudly a failure is told: an operator must act where nothing serves, and may wait while something does.

import { isPassing, needsOperator } from '../dns/error.ts';
import type { Certificate } from '../src/lib/certificate.ts';

export type Urgency = 'warn' | 'error';

/** A certificate that ends sooner is as good as none: what keeps it from being renewed has to be mended now. */
const SOON_MS = 3 * 86_400_000;

/** Whether visitors are served, and will be for some days. */
export function servesOn(certificate: Pick<Certificate, 'notAfter'> | undefined, now: Date): boolean {
  return certificate !== undefined && certificate.notAfter.getTime() - now.getTime() > SOON_MS;
}

/** Of a failure before the order: records, CAA, whatever it depends on. */
export function urgencyOfPreparation(err: unknown, serves: boolean): Urgency {
  return serves || isPassing(err) ? 'warn' : 'error';
}

/** Of an order that failed, `failures` times in a row. */
export function urgencyOfOrder(err: unknown, failures: number, serves: boolean): Urgency {
  if (needsOperator(err)) return serves ? 'warn' : 'error';
  return failures > 1 ? 'error' : 'warn';
}
