// What the log says of a stranger's text: of targets never the query or credentials, of names only what a terminal can show.

/** Of a target in one line: what is longer says nothing more. */
const LONGEST_TARGET = 2_000;
/** RFC 1035 §2.3.4. */
const LONGEST_NAME = 253;

/**
 * The path of a request target. A query carries tokens, user information is a password, a fragment has no business there
 * at all; and logs are read by many.
 */
export function loggedTarget(target: string): string {
  const query = target.indexOf('?');
  const path = query === -1 ? target : target.slice(0, query);
  const fragment = path.indexOf('#');
  const kept = fragment === -1 ? path : path.slice(0, fragment);
  const bare = kept.startsWith('/') ? kept : withoutUserInfo(kept);
  return bare.length > LONGEST_TARGET ? `${bare.slice(0, LONGEST_TARGET)}...` : bare;
}

/** RFC 3986 §3.2.1: of a target in absolute form or authority form; the last @ before the path ends it. */
function withoutUserInfo(target: string): string {
  return target.replace(/^([a-z][a-z0-9+.-]*:\/\/)?[^/]*@/i, '$1');
}

/** Of the start line of a request that was read (RFC 9112 §3). */
export function loggedRequestLine(requestText: string): string {
  const [method = '', target = ''] = requestText.slice(0, requestText.indexOf('\r')).split(' ');
  return `${method} ${loggedTarget(target)}`;
}

/** A name that a client gave in its handshake. */
export function loggedName(name: string): string {
  const shown = name.replace(/[^\x21-\x7e]/g, '?');
  return shown.length > LONGEST_NAME ? `${shown.slice(0, LONGEST_NAME)}...` : shown;
}
