// Before the tests: the programs they drive, which are looked for, installed where we may, or else asked for.

import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

interface Prerequisite {
  readonly command: string;
  /** Debian's; with what it depends on, it brings all that the tests need beside the command. */
  readonly debianPackage: string;
  readonly whatFor: string;
}

export const prerequisites: readonly Prerequisite[] = [
  { command: 'pebble', debianPackage: 'pebble', whatFor: 'the ACME CA' },
  { command: 'pebble-challtestsrv', debianPackage: 'pebble', whatFor: 'the DNS server that the CA asks' },
  { command: 'certbot', debianPackage: 'certbot', whatFor: 'the volumes that are taken over' },
  { command: 'lego', debianPackage: 'lego', whatFor: 'the volumes that are taken over' },
  { command: 'nginx', debianPackage: 'nginx', whatFor: 'the HTTP upstream' },
  { command: 'knotd', debianPackage: 'knot', whatFor: 'the DNS server that takes signed updates' },
  { command: 'pdns_server', debianPackage: 'pdns-backend-sqlite3', whatFor: 'the DNS server with an API' },
  { command: 'pg_ctlcluster', debianPackage: 'postgresql', whatFor: 'the database that replicas share' },
  {
    command: 'redis-server',
    debianPackage: 'redis-server',
    whatFor: 'the key-value store that replicas share',
  },
  { command: 'curl', debianPackage: 'curl', whatFor: 'the client of the demo and of the evidence' },
  { command: 'jq', debianPackage: 'jq', whatFor: 'the steps by hand in docs/verification.md' },
  { command: 'xxd', debianPackage: 'xxd', whatFor: 'the steps by hand in docs/verification.md' },
  {
    command: 'promtool',
    debianPackage: 'prometheus',
    whatFor: 'the second opinion on metrics and alert rules',
  },
  { command: 'ip', debianPackage: 'iproute2', whatFor: 'the machines on which whole deployments run' },
  { command: 'openssl', debianPackage: 'openssl', whatFor: 'the second opinion on TLS and certificates' },
  { command: 'jq', debianPackage: 'jq', whatFor: 'the evidence, checked by hand as its page says' },
  { command: 'buildah', debianPackage: 'buildah', whatFor: 'the image, built as its Dockerfile says' },
  { command: 'chromium', debianPackage: 'chromium', whatFor: 'the pages as people see them' },
];

export interface System {
  /** Folders in which programs are looked for. */
  readonly folders: readonly string[];
  readonly isRoot: boolean;
  /** Returns the exit code. Its output is the user's to see. */
  run(command: string, args: readonly string[], env: Readonly<Record<string, string>>): number;
  /** Where Debian's packages ask whether they may start a service. */
  readonly servicePolicy: string;
  say(text: string): void;
}

/** Whether all of it is there in the end. Installs what is missing if we are root on a Debian; never starts a service. */
export function ensurePrerequisites(system: System): boolean {
  const missing = missingFrom(system);
  if (missing.length === 0) return true;
  for (const { command, whatFor } of missing) system.say(`the tests need ${command}: ${whatFor}`);
  const packages = [...new Set(missing.map(({ debianPackage }) => debianPackage))];
  if (!system.isRoot || !isThere('apt-get', system)) {
    system.say(
      `install it and run the tests again; on Debian or Ubuntu:\n  sudo apt-get install ${packages.join(' ')}`,
    );
    return false;
  }
  if (!withoutStartingServices(system, () => install(packages, system))) {
    system.say(`could not install ${packages.join(' ')}: see what apt-get says above`);
    return false;
  }
  const still = missingFrom(system);
  for (const { command, debianPackage } of still)
    system.say(`${debianPackage} is installed, but has no ${command}`);
  return still.length === 0;
}

function missingFrom(system: System): Prerequisite[] {
  return prerequisites.filter(({ command }) => !isThere(command, system));
}

function isThere(command: string, { folders }: System): boolean {
  return folders.some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function install(packages: readonly string[], system: System): boolean {
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  system.say(`installing ${packages.join(' ')}`);
  // Lists that are too old name packages that are gone; a repository that is down need not matter here.
  system.run('apt-get', ['update', '-qq'], env);
  const options = ['install', '-y', '-qq', '--no-install-recommends'];
  return system.run('apt-get', [...options, ...packages], env) === 0;
}

/** nginx would take port 80 when it is installed: 101 is Debian's "not allowed" (invoke-rc.d(8)). */
function withoutStartingServices(system: System, act: () => boolean): boolean {
  if (existsSync(system.servicePolicy)) return act();
  writeFileSync(system.servicePolicy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    return act();
  } finally {
    rmSync(system.servicePolicy, { force: true });
  }
}

if (import.meta.main) {
  const enough = ensurePrerequisites({
    // Debian keeps nginx where only root's PATH leads.
    folders: [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'],
    isRoot: process.getuid?.() === 0,
    run: (command, args, env) =>
      spawnSync(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 2, 2] }).status ?? 1,
    servicePolicy: '/usr/sbin/policy-rc.d',
    say: (text) => process.stderr.write(`${text}\n`),
  });
  process.exitCode = enough ? 0 : 1;
}
