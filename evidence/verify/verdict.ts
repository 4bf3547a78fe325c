// What one check came to: it holds, it does not, or it could not be run, and why.

export interface Verdict {
  readonly verdict: 'pass' | 'fail' | 'not-run';
  /** One sentence without a full stop, never empty. */
  readonly reason: string;
}

export const pass = (reason: string): Verdict => ({ verdict: 'pass', reason: plain(reason) });

/** The input was there, and what it should prove does not hold. */
export const fail = (reason: string): Verdict => ({ verdict: 'fail', reason: plain(reason) });

/** An input is missing, or is itself unproven. */
export const notRun = (reason: string): Verdict => ({ verdict: 'not-run', reason: plain(reason) });

/** All that is compared fits in. */
const LONGEST_REASON = 2_000;

/** Reasons quote strangers: none of it may move a cursor, turn the direction of the text, or fill the screen. */
function plain(reason: string): string {
  const shown = reason.length > LONGEST_REASON ? `${reason.slice(0, LONGEST_REASON)}…` : reason;
  return shown.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]+/gu, ' ');
}
