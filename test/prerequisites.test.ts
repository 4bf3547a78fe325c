// What happens before the tests where a program is missing.

import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { ensurePrerequisites, prerequisites } from './support/prerequisites.ts';

let folder: string;
let ran: string[];
let said: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'prerequisites-test-'));
  ran = [];
  said = '';
});

afterEach(() => rm(folder, { recursive: true }));

async function machineWith(commands: readonly string[], isRoot: boolean, onInstall = () => 0) {
  for (const command of commands) await writeFile(join(folder, command), '#!/bin/sh\n', { mode: 0o755 });
  return {
    folders: [folder],
    isRoot,
    servicePolicy: join(folder, 'policy-rc.d'),
    say: (text: string) => {
      said += `${text}\n`;
    },
    run: (command: string, args: readonly string[], env: Readonly<Record<string, string>>) => {
      ran.push([command, ...args].join(' '));
      assert.equal(env.DEBIAN_FRONTEND, 'noninteractive');
      return args[0] === 'install' ? onInstall() : 0;
    },
  };
}

const all = prerequisites.map(({ command }) => command);
const allBut = (...missing: string[]) => all.filter((name) => !missing.includes(name));

test('nothing is said or run where everything is there', async () => {
  assert.equal(ensurePrerequisites(await machineWith(all, true)), true);
  assert.deepEqual([ran, said], [[], '']);
});

test('a user who is not root is told the one command that helps', async () => {
  const machine = await machineWith(['apt-get', ...allBut('pebble', 'pebble-challtestsrv')], false);
  assert.equal(ensurePrerequisites(machine), false);
  assert.deepEqual(ran, []);
  assert.match(said, /apt-get install pebble$/m);
});

test('root on another system is told too, and nothing is run', async () => {
  assert.equal(
    ensurePrerequisites(await machineWith(allBut('pebble', 'pebble-challtestsrv', 'nginx'), true)),
    false,
  );
  assert.deepEqual(ran, []);
  assert.match(said, /apt-get install pebble nginx$/m);
});

test('root on Debian gets what is missing, each package once, and no service is started by it', async () => {
  const machine = await machineWith(
    ['apt-get', ...allBut('pebble', 'pebble-challtestsrv', 'nginx')],
    true,
    () => {
      assert.ok(existsSync(join(folder, 'policy-rc.d')), 'services are forbidden during the installation');
      for (const name of all) writeFileSync(join(folder, name), '#!/bin/sh\n', { mode: 0o755 });
      return 0;
    },
  );
  assert.equal(ensurePrerequisites(machine), true);
  assert.deepEqual(ran, [
    'apt-get update -qq',
    'apt-get install -y -qq --no-install-recommends pebble nginx',
  ]);
  assert.equal(existsSync(join(folder, 'policy-rc.d')), false, 'the policy is gone afterwards');
});

test('a failed installation is a failure, and leaves no policy behind', async () => {
  const machine = await machineWith(['apt-get'], true, () => 100);
  assert.equal(ensurePrerequisites(machine), false);
  assert.match(said, /could not install/);
  assert.equal(existsSync(machine.servicePolicy), false);
});

test('a policy that was there before is kept as it was', async () => {
  const machine = await machineWith(['apt-get'], true, () => 100);
  await writeFile(machine.servicePolicy, '#!/bin/sh\nexit 0\n');
  await chmod(machine.servicePolicy, 0o700);
  ensurePrerequisites(machine);
  assert.equal((await stat(machine.servicePolicy)).mode & 0o777, 0o700);
});
