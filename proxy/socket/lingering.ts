// How long a client that was answered in the middle of its request may go on sending, so that it has time to read the answer.

import type { Deadlines } from './deadlines.ts';

/** A client that has sent nothing for this long has read its answer. */
export const LINGER_MS = 2_000;
/** The most time in all, and the most bytes, that are spent on a client that goes on sending. */
const MOST_LINGER_MS = 30_000;
const MOST_LINGER_BYTES = 64 * 1024 * 1024;

/**
 * RFC 9112 §9.6 and RFC 9113 §8.1: a reset in the middle of what a client sends may overtake the reply to it, and many
 * clients then report a broken stream. Most clients stop sending as soon as they have read the reply.
 */
export class Lingering {
  private readonly deadlines: Deadlines;
  private readonly until: number;
  private left = MOST_LINGER_BYTES;

  constructor(deadlines: Deadlines) {
    this.deadlines = deadlines;
    this.until = deadlines.now() + MOST_LINGER_MS;
  }

  /** Whether `size` more bytes are too many. */
  tires(size: number): boolean {
    this.left -= size;
    return this.left < 0;
  }

  /** When to give up, should nothing more come. */
  get at(): number {
    return Math.min(this.deadlines.after(LINGER_MS), this.until);
  }
}
