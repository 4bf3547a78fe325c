// When a server wants to be asked again: the Retry-After of its reply.

const DAY_MS = 24 * 3_600_000;

/** Seconds or an HTTP date (RFC 9110 §10.2.3) as a delay between 0 and one day; undefined if it is neither. */
export function parseRetryAfter(value: string | undefined, now: Date): number | undefined {
  if (value === undefined) return undefined;
  const ms = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - now.getTime();
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), DAY_MS);
}
