// The client's address where a trusted proxy says it.

import { isIP } from 'node:net';
import { isIn, plainAddress } from './addresses.ts';
import type { Fields, RealIp } from './compiled.ts';

/** `peer` if it is not trusted, or what it says is no address. */
export function realAddress({ trusted, header, recursive }: RealIp, peer: string, headers: Fields): string {
  if (!isIn(trusted, peer)) return peer;
  const said = headers.all(header).join(',').split(',');
  let client = peer;
  for (let i = said.length - 1; i >= 0; i--) {
    const address = bareAddress(said[i]!.trim());
    if (address === undefined) return client;
    client = address;
    if (!recursive || !isIn(trusted, client)) return client;
  }
  return client;
}

/** Without brackets and port. Undefined: it is none. */
function bareAddress(text: string): string | undefined {
  const bracketed = /^\[([^\]]+)\](?::\d+)?$/.exec(text)?.[1];
  const address = bracketed ?? (/^[\d.]+:\d+$/.test(text) ? text.slice(0, text.indexOf(':')) : text);
  return isIP(address) === 0 ? undefined : plainAddress(address);
}
