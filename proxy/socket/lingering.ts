// How long a client that was answered in the middle of its request may go on sending, so that it comes to read the answer.

import type { Deadlines } from './deadlines.ts';

/** A client that sends nothing for so long has read what there is to read. */
export const LINGER_MS = 2_000;
/** One that goes on is listened to for so long in all, and no further than so many bytes. */
const MOST_LINGER_MS = 30_000;
const MOST_LINGER_BYTES = 64 * 1024 * 1024;

/**
 * RFC 9112 §9.6 and RFC 9113 §8.1: a reset in the middle of what a client sends may overtake the reply to it, and many
 * clients take a stream that ends so for broken. Most stop when they have read the reply, and need but a moment.
 */
export class Lingering {
  private readonly deadlines: Deadlines;
  private readonly until: number;
  private left = MOST_LINGER_BYTES;

  constructor(deadlines: Deadlines) {
    this.deadlines = deadlines;
    this.until = deadlines.now() + MOST_LINGER_MS;
  }

  /** Whether `size` more bytes are one's patience's end. */
  tires(size: number): boolean {
    this.left -= size;
    return this.left < 0;
  }

  /** When to give up, should nothing more come. */
  get at(): number {
    return Math.min(this.deadlines.after(LINGER_MS), this.until);
  }
}
