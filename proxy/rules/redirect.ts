// Where a redirect points to: absolute, with the host that was asked for, unless rules say otherwise.

import { percent } from './bytes.ts';
import type { Run } from './compiled.ts';

/** A location of our own for the client. */
export function redirectTarget(run: Run, location: string): string {
  const safe = safeLocation(location);
  const { absolute, port, serverName } = run.place.settings.redirects;
  if (!absolute || !safe.startsWith('/')) return safe;
  const { scheme, serverPort } = run.facts;
  const usual = scheme === 'https' ? 443 : 80;
  const host = serverName ? run.site.label : run.host;
  return `${scheme}://${host}${port && serverPort !== usual ? `:${serverPort}` : ''}${safe}`;
}

/** Decoded bytes of a client must not begin another line: they go as escapes (RFC 9110 §10.2.2). */
function safeLocation(location: string): string {
  if (!/[\x00-\x20\x7f]/.test(location)) return location;
  return location.replaceAll(/[\x00-\x20\x7f]/g, (byte) => percent[byte.charCodeAt(0)]!);
}
