// Remembers which sizes of heads make an upstream end a whole HTTP/2 session.

export interface HeadMemory {
  /** Whether a head of this size is known to end a session with all that is in it. */
  refuses(bytes: number): boolean;
  /** A large head was answered. */
  taken(): void;
  /** The upstream has ended a session by a GOAWAY with an error, and this head was unanswered. */
  refused(bytes: number): void;
  /** A session was lost without a word, and this head was unanswered. */
  suspected(bytes: number): void;
}

/** Then it is forgotten, as the upstream may have been configured anew. */
const REMEMBERED_MS = 600_000;
/** Sizes are rounded to this. Otherwise a client that tries sizes one by one would end a session with each. */
const GRAIN = 1_024;

export function createHeadMemory(now: () => number): HeadMemory {
  let least = Number.POSITIVE_INFINITY;
  let until = 0;
  let suspicionUntil = 0;
  return { refuses, taken, refused, suspected };

  function refuses(bytes: number): boolean {
    if (bytes < least) return false;
    if (now() < until) return true;
    least = Number.POSITIVE_INFINITY;
    return false;
  }

  function taken(): void {
    suspicionUntil = 0;
  }

  function refused(bytes: number): void {
    least = Math.min(least, Math.floor(bytes / GRAIN) * GRAIN);
    until = now() + REMEMBERED_MS;
  }

  /** Upstreams also die for other reasons, so it takes two losses with no large head answered in between. */
  function suspected(bytes: number): void {
    if (now() < suspicionUntil) refused(bytes);
    else suspicionUntil = now() + REMEMBERED_MS;
  }
}
