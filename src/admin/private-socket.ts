// Where a running ingress listens for our own commands: a socket in a folder that only its user may enter.

import { chmodSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

type Env = Readonly<Record<string, string | undefined>>;

/**
 * By the environment alone, so that a command beside the ingress finds it without reading the whole configuration. Two of
 * them on one machine have different ports, or different addresses.
 */
export function privateSocketPath(env: Env): string {
  const host = env.LISTEN_ADDRESS?.trim() || 'any';
  const port = env.PORT?.trim() || '443';
  return join(folder(), `${`${host}-${port}`.replace(/[^A-Za-z0-9.-]/g, '_').slice(0, 48)}.sock`);
}

function folder(): string {
  const uid = process.getuid?.() ?? 0;
  return uid === 0 ? '/run/dstack-ingress' : join(tmpdir(), `dstack-ingress-${uid}`);
}

/** Makes the folder, and removes the socket that a killed process left. Throws if the folder is not ours alone. */
export function preparePrivateSocket(path: string): void {
  const place = dirname(path);
  mkdirSync(place, { recursive: true, mode: 0o700 });
  const found = lstatSync(place);
  if (!found.isDirectory() || found.uid !== process.getuid?.())
    throw new Error(`${place} belongs to somebody else`);
  chmodSync(place, 0o700);
  rmSync(path, { force: true });
}
