// Runs the test files, or those that are named: the long ones first, so that none is left over when the others are done.
// Those that need no process of their own share some: half of what a short file costs is the start of its process.

import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { stdout } from 'node:process';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Those that take longest on two cores, the longest first; the order of the others hardly matters. */
const LONG = [
  'test/e2e/derived-fleet.test.ts',
  'test/image-built.test.ts',
  'test/fuzz/fuzz.test.ts',
  'test/attacks/short.test.ts',
  'test/e2e/fleet.test.ts',
  'test/acme/model/model.test.ts',
  'test/acme/crash.test.ts',
  'test/acme/year.test.ts',
  'test/acme/storage/conformance.test.ts',
  'test/e2e/deployments.test.ts',
  'test/e2e/documented-commands.test.ts',
  'test/side-by-side/nginx.test.ts',
  'test/evidence/verify/checks.test.ts',
  'test/e2e/on-demand.test.ts',
  'test/src/start-failures.test.ts',
  'test/e2e/challenges.test.ts',
  'test/e2e/adoption.test.ts',
  'test/e2e/demo.test.ts',
  'test/acme/answers.test.ts',
  'test/proxy/exchange/matrix.test.ts',
  'test/proxy/exchange/http2-client.test.ts',
  'test/proxy/exchange/faults.test.ts',
];

/**
 * What a file, and what it uses of the tests, must not have to share a process: programs that it starts, what it changes of
 * the process, of a module or of time, hooks around each test (they would be run around those of other files), and its own
 * memory or CPU time as the measure.
 */
const NEEDS_A_PROCESS =
  /child_process|support\/(bundle|chromium|knot|linear|nginx|pebble|postgres|powerdns|redis|world)|\b(mock\.|(before|after)Each\(|process\.(chdir|cpuUsage|env|exit|memoryUsage|on|once)\b)/;
/** Files in folders whose tests take their time on their own. */
const TAKES_ITS_TIME = /^test\/(acme\/(answers|year)|attacks|bench|e2e|fuzz|side-by-side)/;
/** Twice as many as are run at once: the last of them begins early, and none is much longer than the others. */
const SHARED_PROCESSES = 8;

/** Twice the cores that are to be had at least: many tests wait most of their time. */
const AT_ONCE = 4;
/** Of a file: that of the fuzz targets alone takes three minutes of CPU. */
const LONGEST_MS = 600_000;

// What a process has compiled, and stripped of its types, the next one need not.
process.env.NODE_COMPILE_CACHE ??= join(root, 'node_modules/.cache/node-compile-cache');

const named = process.argv.slice(2);
const files = globSync(named.length > 0 ? named : 'test/**/*.test.ts', { cwd: root }).sort(byLength);
if (files.length === 0) throw new Error(`no test file is called ${named.join(' or ')}`);

const together = mkdtempSync(join(tmpdir(), 'tests-together-'));
process.once('exit', () => rmSync(together, { recursive: true, force: true }));

run({ files: inProcesses(files), concurrency: AT_ONCE, timeout: LONGEST_MS, cwd: root })
  .on('test:fail', ({ todo }) => {
    if (todo === undefined || todo === false) process.exitCode = 1;
  })
  .compose(spec)
  .pipe(stdout);

/** One path for each process that is to be started. */
function inProcesses(all: readonly string[]): string[] {
  const shares = named.length === 0 ? all.filter(canShare) : [];
  const alone = all.filter((file) => !shares.includes(file));
  const shared = Array.from({ length: SHARED_PROCESSES }, (_, i) =>
    shares.filter((_file, at) => at % SHARED_PROCESSES === i),
  ).filter(({ length }) => length > 0);
  const written = shared.map((some, i) => {
    const path = join(together, `together-${i + 1}.test.mjs`);
    writeFileSync(path, some.map((file) => `import ${JSON.stringify(join(root, file))};\n`).join(''));
    return path;
  });
  return [...written, ...alone.map((file) => join(root, file))];
}

function canShare(file: string): boolean {
  return !TAKES_ITS_TIME.test(file) && !partsOf(join(root, file)).some((text) => NEEDS_A_PROCESS.test(text));
}

/** The file, and what it takes from elsewhere in test/. */
function partsOf(path: string, known = new Set<string>()): string[] {
  if (known.has(path)) return [];
  known.add(path);
  const text = readFileSync(path, 'utf8');
  const used = [...text.matchAll(/^(?:import .*|\}) from '(\.[^']+)';$/gm)].map(([, where]) =>
    join(dirname(path), where!),
  );
  return [text, ...used.filter(isTest).flatMap((each) => partsOf(each, known))];
}

function isTest(path: string): boolean {
  return path.startsWith(join(root, 'test/'));
}

function byLength(a: string, b: string): number {
  return rank(a) - rank(b) || (a < b ? -1 : 1);
}

function rank(file: string): number {
  const place = LONG.indexOf(relative(root, join(root, file)));
  return place === -1 ? LONG.length : place;
}
