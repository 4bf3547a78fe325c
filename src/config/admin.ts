// Where the ingress shows itself, and to whom.

import { isIP, isIPv4 } from 'node:net';
import type { Environment } from './environment.ts';
import { parsePath } from './files.ts';
import { parseAddress, quote, ValueError } from './values.ts';

export type AdminAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number; readonly loopback: boolean };

export interface AdminSettings {
  /** Undefined: nothing listens beside the socket for our own commands. */
  readonly address: AdminAddress | undefined;
  readonly token: string | undefined;
}

/** What can be guessed at a thousand tries a second must not be a token. */
const SHORTEST_TOKEN = 16;

export function readAdmin(environment: Environment): AdminSettings {
  const address = environment.read('ADMIN_ADDRESS', parseAdminAddress);
  const token = environment.read('ADMIN_TOKEN', parseToken);
  if (isPublic(address) && token === undefined && !environment.isWrong('ADMIN_TOKEN')) {
    environment.refuse(
      'ADMIN_ADDRESS',
      'can be reached from other machines, and ADMIN_TOKEN is not set',
      'wants 127.0.0.1, [::1] or unix:/path, or a token',
    );
  }
  return { address: address ?? undefined, token };
}

function isPublic(address: AdminAddress | null | undefined): boolean {
  return address != null && 'host' in address && !address.loopback;
}

/** As workers reach it: a socket they cannot. */
export function upstreamOfAdmin({ address, token }: AdminSettings) {
  if (address === undefined || 'path' in address) return undefined;
  const { host, port } = address;
  return { host: host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host, port, token };
}

/** Null: switched off. */
export function parseAdminAddress(text: string): AdminAddress | null {
  if (/^(off|no|false|0)$/i.test(text)) return null;
  const socket = /^unix:(.*)$/.exec(text);
  if (socket !== null) return { path: parseSocketPath(socket[1]!) };
  const { host, port } = parseAddress(text);
  if (host === 'localhost') return { host: '127.0.0.1', port, loopback: true };
  // A name may lead elsewhere tomorrow.
  if (isIP(host) === 0)
    throw new ValueError(`${quote(host)} is a name`, 'wants an address as in 127.0.0.1:9180, or unix:/path');
  return { host, port, loopback: isIPv4(host) ? host.startsWith('127.') : host === '::1' };
}

/** sun_path of unix(7) has room for 107 bytes. */
const LONGEST_SOCKET_PATH = 107;

function parseSocketPath(text: string): string {
  const path = parsePath(text);
  if (!path.startsWith('/') || Buffer.byteLength(path) > LONGEST_SOCKET_PATH)
    throw new ValueError(
      `${quote(text)} is no path of a socket`,
      `wants an absolute one of ${LONGEST_SOCKET_PATH} bytes at most`,
    );
  return path;
}

function parseToken(text: string): string {
  if (!/^[\x21-\x7e]+$/.test(text))
    throw new ValueError('has a space or another character that no header carries', 'wants visible ASCII');
  if (text.length < SHORTEST_TOKEN)
    throw new ValueError(`has ${text.length} characters`, `wants at least ${SHORTEST_TOKEN}`);
  return text;
}
