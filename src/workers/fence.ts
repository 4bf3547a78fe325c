// The fence between the workers and the supervisor: a user of their own, where this process may give them one.

import { chmodSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Neither user nor group needs an entry in /etc/passwd. No system gives this id to anyone: it lies above what Debian and
 * systemd allocate, below `nobody`, and inside the 65,536 ids that user namespaces of containers usually have.
 */
export const WORKER_ID = 65_530;

/** Bits of CapEff, capabilities(7). KILL is needed to end a process of another user. */
const NEEDED_CAPABILITIES = { KILL: 5, SETGID: 6, SETUID: 7 } as const;

/** What a worker reads beside its program: how names are resolved. */
const RESOLVER_FILES = ['/etc/hosts', '/etc/resolv.conf'];

export type Fence = { readonly raised: true } | { readonly raised: false; readonly why: string };

/** `programs` are the files that a worker is started from. Touches nothing. */
export function judgeFence(programs: readonly string[]): Fence {
  if (process.getuid?.() !== 0) return none('it was not started as root');
  const missing = missingCapabilities();
  if (missing === undefined) return none('/proc does not say which capabilities it has');
  if (missing.length > 0) return none(`it has no capability ${missing.join(', ')}`);
  const closed = [...programs, ...RESOLVER_FILES].find((file) => !isOpenToAll(file));
  if (closed !== undefined) return none(`${closed} cannot be read by other users`);
  return { raised: true };
}

function none(why: string): Fence {
  return { raised: false, why };
}

function missingCapabilities(): string[] | undefined {
  const bits = /^CapEff:\s*([0-9a-f]+)$/m.exec(textOf('/proc/self/status'))?.[1];
  if (bits === undefined) return undefined;
  const held = BigInt(`0x${bits}`);
  return Object.entries(NEEDED_CAPABILITIES)
    .filter(([, bit]) => ((held >> BigInt(bit)) & 1n) === 0n)
    .map(([name]) => name);
}

/** A file that does not exist counts as open. */
function isOpenToAll(file: string): boolean {
  try {
    const path = realpathSync(file);
    return (statSync(path).mode & 0o004) !== 0 && isWayOpenToAll(path);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

function isWayOpenToAll(path: string): boolean {
  const folder = dirname(path);
  if ((statSync(folder).mode & 0o001) === 0) return false;
  return folder === path || folder === '/' || isWayOpenToAll(folder);
}

/** Ports below this one need NET_BIND_SERVICE, which a user other than root does not have (ip(7)). */
export function firstUnprivilegedPort(): number {
  const said = Number.parseInt(textOf('/proc/sys/net/ipv4/ip_unprivileged_port_start'), 10);
  return Number.isNaN(said) ? 1024 : said;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/**
 * The guest agent's socket is open to all on the host, and keeps its mode when it is mounted. Whoever reaches it can
 * derive the app's keys. As the first process of a container we close the folder around it to all but root, but only if
 * the folder is the container's own: a mounted folder is used by others too. Returns the sockets that workers can still
 * reach.
 */
export function hideSockets(paths: readonly string[]): string[] {
  const reachable = [...new Set(paths.map(reachablePlace).filter((place) => place !== undefined))];
  return reachable.filter((place) => !hide(dirname(place)));
}

function reachablePlace(path: string): string | undefined {
  try {
    const place = realpathSync(path);
    const open = (statSync(place).mode & 0o002) !== 0 && isWayOpenToAll(place);
    return open ? place : undefined;
  } catch {
    return undefined;
  }
}

function hide(folder: string): boolean {
  try {
    const { mode, dev } = statSync(folder);
    // Two sockets may lie in one folder.
    if ((mode & 0o001) === 0) return true;
    const isOurs = process.pid === 1 && folder !== '/' && dev === statSync('/').dev;
    const isNeeded = RESOLVER_FILES.some((file) => realPlace(file).startsWith(`${folder}/`));
    if (!isOurs || isNeeded) return false;
    chmodSync(folder, mode & 0o7770);
    return true;
  } catch {
    return false;
  }
}

function realPlace(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return file;
  }
}
