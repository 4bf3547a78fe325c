// When an address is left out because requests to it fail, and when it is asked again.

import type { ServerShare } from '../rules/routes.ts';

/** What requests have shown of an address. */
export interface Standing {
  failures: number;
  failedAt: number;
  ejections: number;
  /** 0: it was not left out since it last worked. */
  ejectedUntil: number;
}

/** What a rule says: nginx's max_fails and fail_timeout. */
export interface Leaving {
  readonly maxFails: number;
  readonly failTimeoutMs: number;
}

const FAILURES_TO_EJECT = 3;
const FIRST_EJECTION_MS = 1_000;
const LONGEST_EJECTION_MS = 60_000;
const USUAL_FAIL_TIMEOUT_MS = 10_000;

export function createStanding(): Standing {
  return { failures: 0, failedAt: 0, ejections: 0, ejectedUntil: 0 };
}

/** Undefined: as on a route that says nothing of it. */
export function leavingOf(share: ServerShare | undefined): Leaving | undefined {
  if (share?.maxFails === undefined) return undefined;
  return { maxFails: share.maxFails, failTimeoutMs: share.failTimeoutMs ?? USUAL_FAIL_TIMEOUT_MS };
}

export function reinstate(standing: Standing): void {
  standing.failures = 0;
  standing.ejections = 0;
  standing.ejectedUntil = 0;
}

export function noteFailure(
  standing: Standing,
  leaving: Leaving | undefined,
  unreachable: boolean,
  now: number,
) {
  if (leaving !== undefined) return noteByRule(standing, leaving, now);
  standing.failures = unreachable ? FAILURES_TO_EJECT : standing.failures + 1;
  if (standing.failures < FAILURES_TO_EJECT) return;
  // Requests that were under way at the same time fail together, and count as one ejection.
  if (standing.ejectedUntil > now) return;
  standing.ejectedUntil = now + Math.min(FIRST_EJECTION_MS * 2 ** standing.ejections, LONGEST_EJECTION_MS);
  standing.ejections++;
  // After its return one more failure ejects it again, for longer.
  standing.failures = FAILURES_TO_EJECT - 1;
}

function noteByRule(standing: Standing, { maxFails, failTimeoutMs }: Leaving, now: number) {
  if (maxFails === 0) return;
  standing.failures++;
  standing.failedAt = now;
  if (standing.failures >= maxFails) standing.ejectedUntil = now + failTimeoutMs;
}

/** With a rule as nginx has it: success within the time that failures count for does not outweigh them. */
export function noteWell(standing: Standing, leaving: Leaving | undefined, now: number): void {
  if (leaving === undefined || now - standing.failedAt > leaving.failTimeoutMs) reinstate(standing);
}

/** It is chosen. If it was left out until a moment ago, one request tries it; the others wait for what comes of that. */
export function tryOnce(standing: Standing, leaving: Leaving | undefined, now: number): void {
  if (leaving === undefined || standing.ejectedUntil === 0 || standing.ejectedUntil > now) return;
  standing.ejectedUntil = now + leaving.failTimeoutMs;
}
