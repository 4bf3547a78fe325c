// Anti-replay nonces (RFC 8555 §6.5): kept from every answer, and how patiently a refused one is replaced.

const LARGEST_POOL = 32;
/** RFC 8555 §6.5 wants the first attempts at once; a CA that keeps refusing is given time. */
const NONCES_REFUSED_AT_ONCE = 3;
const NONCE_PAUSE_MS = 20;
const LONGEST_NONCE_PAUSE_MS = 200;
const MOST_NONCES_REFUSED = 100;
/** After a request that failed for its nonces, the next one tries less often. */
const MOST_NONCES_REFUSED_AGAIN = 5;

export interface NoncePool {
  take(): string | undefined;
  put(nonce: string | undefined): void;
  /** How many refusals in a row one request may meet before it fails. */
  mostRefused(): number;
  /** Notes whether the last answer to a request still refused its nonce. */
  noteEnd(refused: boolean): void;
}

export function createNoncePool(): NoncePool {
  const pool: string[] = [];
  let exhausted = false;
  return {
    // The newest first: the CA is likeliest to have forgotten the oldest.
    take: () => pool.pop(),
    put(nonce) {
      if (!isNonce(nonce)) return;
      pool.push(nonce);
      if (pool.length > LARGEST_POOL) pool.shift();
    },
    mostRefused: () => (exhausted ? MOST_NONCES_REFUSED_AGAIN : MOST_NONCES_REFUSED),
    noteEnd(refused) {
      exhausted = refused;
    },
  };
}

/** RFC 8555 §6.5.1: other values must be ignored. */
export function isNonce(value: string | undefined): value is string {
  return value !== undefined && /^[A-Za-z0-9_-]+$/.test(value);
}

/** How long to wait after this many refusals; the CA's own wish counts, up to two seconds. */
export function noncePauseMs(refused: number, askedMs: number | undefined): number {
  if (refused <= NONCES_REFUSED_AT_ONCE) return 0;
  const ownMs = Math.min(NONCE_PAUSE_MS * (refused - NONCES_REFUSED_AT_ONCE), LONGEST_NONCE_PAUSE_MS);
  return Math.max(ownMs, Math.min(askedMs ?? 0, 10 * LONGEST_NONCE_PAUSE_MS));
}
