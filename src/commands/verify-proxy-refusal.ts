// What a local program is told when nothing could be passed on.

import { UnprovenError } from './verify-proxy-standing.ts';

export interface Refusal {
  readonly error: string;
  /** Empty if it is not for want of proof. */
  readonly checks: readonly { readonly id: string; readonly verdict: string; readonly reason: string }[];
}

export function refusalOf(error: unknown): Refusal {
  if (error instanceof UnprovenError) {
    const checks = error.checks.map(({ id, verdict, reason }) => ({ id, verdict, reason }));
    return { error: error.message, checks };
  }
  const { code, message } = error as NodeJS.ErrnoException;
  return { error: `the host could not be reached: ${code ?? message}`, checks: [] };
}

export function refusalBody(error: unknown): string {
  return `${JSON.stringify(refusalOf(error))}\n`;
}
