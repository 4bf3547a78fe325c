// Who may ask the admin server what: by the Host of the request, against DNS rebinding, and by the token where one is set.

import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';

/** `private`: a socket that only our own user can open. */
export type Trust = 'private' | { readonly token: string | undefined };

export interface Asking {
  readonly host?: string | undefined;
  readonly authorization?: string | undefined;
}

export type Verdict = 'welcome' | 'wrong-host' | 'needs-token';

/** `open`: health, which is told without the token. */
export function judge({ host, authorization }: Asking, trust: Trust, open: boolean): Verdict {
  if (trust === 'private') return 'welcome';
  const { token } = trust;
  // A page that has rebound its name to our address has no token: browsers keep credentials by origin.
  if (token !== undefined && given(authorization, token)) return 'welcome';
  if (!isOwnHost(host)) return 'wrong-host';
  return token === undefined || open ? 'welcome' : 'needs-token';
}

/** An address or localhost: a name could be anybody's. */
function isOwnHost(host: string | undefined): boolean {
  const name = /^(\[[^\]]*\]|[^:]*)(?::\d{1,5})?$/.exec(host ?? '')?.[1]?.toLowerCase() ?? '';
  return name === 'localhost' || isIP(name.replace(/^\[(.*)\]$/, '$1')) !== 0;
}

/** RFC 6750 §2.1, or the password of RFC 7617, whatever the user is called: that is what browsers can ask for. */
function given(authorization: string | undefined, token: string): boolean {
  const [, scheme, value = ''] = /^(bearer|basic) +(\S+)$/i.exec(authorization ?? '') ?? [];
  if (scheme === undefined) return false;
  if (scheme.toLowerCase() === 'bearer') return equal(value, token);
  const pair = Buffer.from(value, 'base64').toString('utf8');
  return pair.includes(':') && equal(pair.slice(pair.indexOf(':') + 1), token);
}

function equal(one: string, other: string): boolean {
  return timingSafeEqual(digest(one), digest(other));
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
