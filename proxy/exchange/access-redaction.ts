// What the access log shows of headers and queries: those that were asked for, and of secrets only that they were there.

import type { HeaderField } from '../http2/hpack.ts';
import type { AccessLogOptions, ShownHeader } from './access-entry.ts';

/** Never shown, whatever is asked for. */
const SECRETS = [
  ...['authorization', 'proxy-authorization', 'cookie', 'set-cookie', 'x-api-key', 'x-auth-token'],
  ...['token', 'access_token', 'id_token', 'refresh_token', 'auth', 'jwt', 'session', 'sid', 'code', 'state'],
  ...['key', 'api_key', 'apikey', 'password', 'passwd', 'secret', 'client_secret', 'sig', 'signature'],
  ...['x-amz-signature', 'x-amz-credential', 'x-amz-security-token', 'x-goog-signature'],
] as const;

const HIDDEN = '***';

function hiddenNames({ redact }: Pick<AccessLogOptions, 'redact'>): ReadonlySet<string> {
  return new Set([...SECRETS, ...redact]);
}

/** A query with its question mark taken off. Names are compared as they would be read: decoded, in lower case. */
export function createQueryRedaction(options: Pick<AccessLogOptions, 'redact'>): (query: string) => string {
  const hidden = hiddenNames(options);
  return (query) =>
    query
      .split(/([&;])/)
      .map((part) => {
        const equals = part.indexOf('=');
        if (equals === -1) return part;
        return hidden.has(decoded(part.slice(0, equals))) ? `${part.slice(0, equals)}=${HIDDEN}` : part;
      })
      .join('');
}

/** `token[]`, `%74oken` and `TOKEN` are names of a token as well. */
function decoded(name: string): string {
  const plain = name.replaceAll('+', ' ').toLowerCase();
  try {
    return decodeURIComponent(plain).toLowerCase().replace(/\[.*$/s, '');
  } catch {
    return plain;
  }
}

/** Undefined: no header is shown. */
export function createShownHeaders(
  options: Pick<AccessLogOptions, 'headers' | 'redact'>,
): ((head: string | readonly HeaderField[]) => readonly ShownHeader[]) | undefined {
  const { headers } = options;
  if (headers.length === 0) return undefined;
  const hidden = hiddenNames(options);
  const lines = headers.map(
    (name) => new RegExp(`\\r\\n${name.replace(/[^a-z0-9-]/g, '\\$&')}:([^\\r]*)`, 'gi'),
  );
  const valuesOf = (head: string | readonly HeaderField[], index: number): string[] =>
    typeof head === 'string'
      ? Array.from(head.matchAll(lines[index]!), ([, value]) => value!.trim())
      : head.filter(({ name }) => name === headers[index]).map(({ value }) => value);
  return (head) =>
    headers.flatMap((name, index): ShownHeader[] => {
      const values = valuesOf(head, index);
      return values.length === 0 ? [] : [[name, hidden.has(name) ? HIDDEN : values.join(', ')]];
    });
}
