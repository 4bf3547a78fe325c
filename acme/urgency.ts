// How urgent a failure is: an operator must act when nothing serves, and may wait while something does.

import { isPassing, needsOperator } from '../dns/error.ts';
import type { Certificate } from '../src/lib/certificate.ts';

export type Urgency = 'warn' | 'error';

/** A certificate that ends sooner counts as none: whatever keeps it from being renewed is urgent. */
const SOON_MS = 3 * 86_400_000;

/** Whether visitors are served now and for some more days. */
export function servesOn(certificate: Pick<Certificate, 'notAfter'> | undefined, now: Date): boolean {
  return certificate !== undefined && certificate.notAfter.getTime() - now.getTime() > SOON_MS;
}

/** For a failure before the order, such as records or CAA. */
export function urgencyOfPreparation(err: unknown, serves: boolean): Urgency {
  return serves || isPassing(err) ? 'warn' : 'error';
}

/** For an order that has failed `failures` times in a row. */
export function urgencyOfOrder(err: unknown, failures: number, serves: boolean): Urgency {
  if (needsOperator(err)) return serves ? 'warn' : 'error';
  return failures > 1 ? 'error' : 'warn';
}
