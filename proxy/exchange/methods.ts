// What a request's method says of it (RFC 9110 §9.2).

const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']);

/**
 * RFC 9110 §9.2.2: sent twice, it does what it does once; such a request may be tried again after a lost connection.
 * TRACE, which is idempotent too, never gets as far.
 */
export function isIdempotent(method: string): boolean {
  return IDEMPOTENT.has(method);
}
