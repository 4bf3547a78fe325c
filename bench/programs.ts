// The programs that the benchmark needs beside Node: found, installed where that is possible, or said to be missing.

import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

export interface Needed {
  readonly program: string;
  /** Debian's package. */
  readonly package: string;
}

/** Installs what is missing if root on Debian; returns what is missing all the same. */
export function provide(needed: readonly Needed[]): ReadonlySet<string> {
  const missing = needed.filter(({ program }) => !isInstalled(program));
  const packages = [...new Set(missing.map((each) => each.package))];
  if (packages.length > 0 && process.getuid?.() === 0 && isInstalled('apt-get')) install(packages);
  return new Set(needed.map((each) => each.program).filter((program) => !isInstalled(program)));
}

/** What to tell someone who lacks a program. */
export function howToGet({ program, package: name }: Needed): string {
  return `${program} is not installed: apt-get install ${name}`;
}

/** The system's own folders too: an ordinary user's PATH lacks the sbin where servers live. */
export function extendPath(): void {
  const path = (process.env.PATH ?? '').split(delimiter);
  const system = ['/usr/local/sbin', '/usr/sbin', '/sbin'].filter((folder) => !path.includes(folder));
  process.env.PATH = [...path, ...system].join(delimiter);
}

function isInstalled(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function install(packages: readonly string[]): void {
  process.stderr.write(`installing ${packages.join(', ')}\n`);
  const apt = (...args: string[]) =>
    spawnSync('apt-get', args, {
      stdio: ['ignore', 'ignore', 'inherit'],
      // RUNLEVEL=1 keeps the packages from starting their services (invoke-rc.d).
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' },
    });
  apt('update', '-qq');
  apt('install', '-y', '-qq', '--no-install-recommends', ...packages);
}
