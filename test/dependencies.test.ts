// What is installed is what was chosen: exact versions with their hashes, from whichever registry, and none known to be vulnerable.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import manifest from '../package.json' with { type: 'json' };
import lockfile from '../package-lock.json' with { type: 'json' };
import { NODE_FLOOR_AS_OF, nodeFault, nodeFloors } from '../src/lib/node-floor.ts';

interface Locked {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
}

/** By the folder that it is installed in. */
const locked = Object.entries(lockfile.packages as Readonly<Record<string, Locked>>).filter(
  ([path]) => path !== '',
);

interface Vulnerable {
  readonly name: string;
  readonly before: string;
  readonly why: string;
}

/**
 * Packages of ours whose older versions have published holes: what an older npm, or a careless update, would bring back.
 * As of 2026-11-30.
 */
const vulnerable: readonly Vulnerable[] = [
  {
    name: 'axios',
    before: '1.16.0',
    why: 'CVE-2026-25639, CVE-2025-62718, CVE-2026-40175, CVE-2026-44492, CVE-2026-44494; 1.14.1 was malware',
  },
  { name: 'follow-redirects', before: '1.16.2', why: 'CVE-2026-116689' },
  { name: 'protobufjs', before: '7.5.6', why: 'CVE-2026-44291, CVE-2026-44293' },
  { name: 'undici', before: '8.10.2', why: 'CVE-2026-85024, or is the 7 that an older npm picks' },
  { name: 'ws', before: '8.21.0', why: 'CVE-2026-48779' },
];

function holesOf(name: string, version: string): string[] {
  return vulnerable
    .filter((hole) => hole.name === name && isBefore(version, hole.before))
    .map(({ before, why }) => `${name} ${version}: below ${before} it has ${why}`);
}

function isBefore(version: string, other: string): boolean {
  const [a, b] = [version, other].map((text) => text.split('-')[0]!.split('.').map(Number));
  const index = a!.findIndex((part, place) => part !== b![place]);
  return index >= 0 && a![index]! < b![index]!;
}

describe('the lockfile', () => {
  test('names no registry, and has a version and a hash for every package, those of other systems too', () => {
    assert.ok(locked.length > 50);
    assert.deepEqual(
      locked.filter(([, { resolved }]) => resolved !== undefined),
      [],
    );
    assert.deepEqual(
      locked.filter(([, { version, integrity }]) => !version || !/^sha512-/.test(integrity ?? '')),
      [],
    );
  });

  test('holds no version that is known to be vulnerable', () => {
    assert.equal(holesOf('axios', '1.13.6').length, 1);
    assert.equal(holesOf('undici', '8.10.1').length, 1);
    assert.deepEqual([holesOf('axios', '1.21.1'), holesOf('undici', '8.10.2')], [[], []]);
    const found = locked.flatMap(([path, { version }]) =>
      holesOf(path.split('node_modules/').at(-1)!, version!),
    );
    assert.deepEqual(found, []);
  });

  test('has every list entry in use, so that the list stays short', () => {
    const names = new Set(locked.map(([path]) => path.split('node_modules/').at(-1)));
    assert.deepEqual(
      vulnerable.filter(({ name }) => !names.has(name)),
      [],
    );
  });

  test('is that of package.json, whose versions are exact', () => {
    const wanted = { ...manifest.dependencies, ...manifest.devDependencies };
    for (const [name, version] of Object.entries(wanted)) {
      assert.match(version, /^\d+\.\d+\.\d+$/, name);
      const entry = locked.find(([path]) => path === `node_modules/${name}`);
      assert.equal(entry?.[1].version, version, name);
    }
    for (const [name, version] of Object.entries(manifest.overrides)) {
      const everywhere = locked.filter(([path]) => path.endsWith(`node_modules/${name}`));
      assert.ok(everywhere.length > 0, `${name} is overridden and not there`);
      const exact = version.startsWith('$') ? wanted[version.slice(1) as keyof typeof wanted] : version;
      for (const [path, entry] of everywhere) assert.equal(entry.version, exact, path);
    }
  });
});

describe('Node', () => {
  test('is one without published holes: the one that is installed, that runs the tests, and that the image names', () => {
    assert.equal(nodeFault(manifest.devDependencies.node), undefined);
    assert.equal(nodeFault(process.versions.node), undefined);
    const lines =
      readFileSync(new URL('../Dockerfile', import.meta.url), 'utf8').match(/^FROM .*node.*$/gm) ?? [];
    assert.equal(lines.length, 2);
    const newest = nodeFloors.at(-1)!.major;
    for (const line of lines) {
      assert.match(
        line,
        new RegExp(`node(js)?:?${newest}\\b.*@sha256:`),
        'the newest line of the list, by digest',
      );
    }
  });

  test('is told apart by its version, and lines that have ended are too old whatever the version', () => {
    assert.match(NODE_FLOOR_AS_OF, /^20\d\d-\d\d-\d\d$/);
    assert.deepEqual(
      ['24.12.0', '24.18.0', '25.9.0', '22.23.2', '26.9.0'].filter(
        (version) => nodeFault(version) === undefined,
      ),
      [],
    );
    assert.deepEqual(
      ['24.18.1', '24.19.0', '26.10.0', '26.11.0', '27.0.0'].filter(
        (version) => nodeFault(version) !== undefined,
      ),
      [],
    );
    assert.match(nodeFault('24.12.0')!.why, /CVE-/);
  });
});
