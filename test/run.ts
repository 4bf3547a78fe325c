// Runs the test files, or those that are named: the long ones first, so that none is left over when the others are done.

import { globSync } from 'node:fs';
import { join, relative } from 'node:path';
import { stdout } from 'node:process';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Those that take longest on two cores, the longest first; the order of the others hardly matters. */
const LONG = [
  'test/fuzz/fuzz.test.ts',
  'test/attacks/short.test.ts',
  'test/e2e/fleet.test.ts',
  'test/acme/crash.test.ts',
  'test/acme/year.test.ts',
  'test/acme/storage/conformance.test.ts',
  'test/e2e/deployments.test.ts',
  'test/e2e/documented-commands.test.ts',
  'test/image-built.test.ts',
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

/** Twice the cores that are to be had at least: many tests wait most of their time. */
const AT_ONCE = 4;
/** Of a file: that of the fuzz targets alone takes three minutes of CPU. */
const LONGEST_MS = 600_000;

// What a process has compiled, and stripped of its types, the next one need not.
process.env.NODE_COMPILE_CACHE ??= join(root, 'node_modules/.cache/node-compile-cache');

const named = process.argv.slice(2);
const files = globSync(named.length > 0 ? named : 'test/**/*.test.ts', { cwd: root }).sort(byLength);
if (files.length === 0) throw new Error(`no test file is called ${named.join(' or ')}`);

run({ files: files.map((file) => join(root, file)), concurrency: AT_ONCE, timeout: LONGEST_MS, cwd: root })
  .on('test:fail', ({ todo }) => {
    if (todo === undefined || todo === false) process.exitCode = 1;
  })
  .compose(spec)
  .pipe(stdout);

function byLength(a: string, b: string): number {
  return rank(a) - rank(b) || (a < b ? -1 : 1);
}

function rank(file: string): number {
  const place = LONG.indexOf(relative(root, join(root, file)));
  return place === -1 ? LONG.length : place;
}
