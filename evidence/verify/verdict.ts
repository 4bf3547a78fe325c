// What one check came to: it holds, it does not, or it could not be run, and why.

export interface Verdict {
  readonly verdict: 'pass' | 'fail' | 'not-run';
  /** One sentence without a full stop, never empty. */
  readonly reason: string;
}

export const pass = (reason: string): Verdict => ({ verdict: 'pass', reason });

/** The input was there, and what it should prove does not hold. */
export const fail = (reason: string): Verdict => ({ verdict: 'fail', reason });

/** An input is missing, or is itself unproven. */
export const notRun = (reason: string): Verdict => ({ verdict: 'not-run', reason });
