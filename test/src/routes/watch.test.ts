// The routes file that changes: what is taken, what is refused while the old routes go on, and what is not announced.

import assert from 'node:assert/strict';
import { appendFile, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Route } from '../../../proxy/rules/routes.ts';
import { type Clock, systemClock } from '../../../src/lib/clock.ts';
import { watchRoutesFile } from '../../../src/routes/watch.ts';
import { parseRoutesFile } from '../../support/plain-routes.ts';

const timeouts = { connectTimeoutMs: 10_000, readTimeoutMs: 60_000, sendTimeoutMs: 30_000 };

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'routes-file-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const fileFor = (port: number) => `routes:\n  - host: app.example.com\n    upstream: http://app:${port}\n`;
const portOf = (routes: Route[]) => routes[0]!.paths[0]!.upstream.addresses[0]!.port;

/** A watch whose reports can be awaited one by one. */
function watched(path: string, current: string, clock: Clock = systemClock) {
  const reports: (number | string)[] = [];
  let wake: (() => void) | undefined;
  const report = (what: number | string) => {
    reports.push(what);
    wake?.();
  };
  const watch = watchRoutesFile({
    path,
    parse: (text) => parseRoutesFile(text, path, timeouts),
    onRoutes: (routes) => report(portOf(routes)),
    onProblem: (error) => report((error as Error).message.replaceAll(folder, '')),
    intervalMs: 20,
    current,
    clock,
  });
  return {
    ...watch,
    reports,
    async next(): Promise<number | string> {
      while (reports.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      return reports.shift()!;
    },
  };
}

test('a change is taken, a bad file is refused with its line while the old routes go on, and a good one follows', async (t) => {
  const path = join(folder, 'changing.yaml');
  await writeFile(path, fileFor(1));
  const watch = watched(path, fileFor(1));
  t.after(() => watch.close());
  await writeFile(path, fileFor(2));
  assert.equal(await watch.next(), 2);
  await writeFile(path, fileFor(3).replace('http://', 'htp://'));
  assert.match(String(await watch.next()), /^\/changing\.yaml:3:15: "htp:\/\/" is not an upstream scheme/);
  await writeFile(path, fileFor(4));
  assert.equal(await watch.next(), 4);
  assert.deepEqual(watch.reports, []);
});

test('a file renamed over the old one is taken', async (t) => {
  const path = join(folder, 'renamed.yaml');
  await writeFile(path, fileFor(1));
  const watch = watched(path, fileFor(1));
  t.after(() => watch.close());
  await writeFile(`${path}.new`, fileFor(2));
  await rename(`${path}.new`, path);
  assert.equal(await watch.next(), 2);
});

test('a swapped symbolic link, as Kubernetes updates its volumes, is taken', async (t) => {
  const volume = join(folder, 'volume');
  for (const port of [1, 2]) {
    await mkdir(join(volume, `..v${port}`), { recursive: true });
    await writeFile(join(volume, `..v${port}`, 'routes.yaml'), fileFor(port));
  }
  await symlink('..v1', join(volume, '..data'));
  await symlink('..data/routes.yaml', join(volume, 'routes.yaml'));
  const watch = watched(join(volume, 'routes.yaml'), fileFor(1));
  t.after(() => watch.close());
  await symlink('..v2', join(volume, '..next'));
  await rename(join(volume, '..next'), join(volume, '..data'));
  assert.equal(await watch.next(), 2);
});

test('a file that vanishes is told once, and taken when it is back', async (t) => {
  const path = join(folder, 'vanishing.yaml');
  await writeFile(path, fileFor(1));
  const watch = watched(path, fileFor(1));
  t.after(() => watch.close());
  await rm(path);
  assert.equal(
    await watch.next(),
    '/vanishing.yaml: cannot be read: ENOENT: there is nothing of that name, is it mounted?',
  );
  await writeFile(path, fileFor(2));
  assert.equal(await watch.next(), 2);
  assert.deepEqual(watch.reports, []);
});

test('what was written before the first look is not missed, and an unchanged file is not announced', async (t) => {
  const path = join(folder, 'early.yaml');
  await writeFile(path, fileFor(2));
  const late = watched(path, fileFor(1));
  t.after(() => late.close());
  assert.equal(await late.next(), 2);
  const same = watched(path, fileFor(2));
  t.after(() => same.close());
  await writeFile(path, fileFor(2));
  await writeFile(path, fileFor(3));
  assert.equal(await same.next(), 3);
});

/** Time that passes one look at a time. */
function steppedClock() {
  let asleep = Promise.withResolvers<void>();
  let wake = () => {};
  const clock: Clock = {
    now: () => new Date(0),
    sleep: () => {
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      asleep.resolve();
      return woken;
    },
  };
  return {
    clock,
    /** Returns when the look has been taken. */
    async step() {
      await asleep.promise;
      asleep = Promise.withResolvers();
      wake();
      await asleep.promise;
    },
  };
}

test('a file that is still being written is left alone until two looks agree', async (t) => {
  const path = join(folder, 'growing.yaml');
  const { clock, step } = steppedClock();
  await writeFile(path, fileFor(1));
  const watch = watched(path, fileFor(1), clock);
  t.after(() => watch.close());
  await step();
  await writeFile(path, 'routes:\n  - host: app.example.com\n');
  for (let i = 0; i < 20; i++) {
    await step();
    await appendFile(path, `# ${i}\n`);
  }
  await appendFile(path, '    upstream: http://app:2\n');
  await step();
  assert.deepEqual(watch.reports, []);
  await step();
  assert.deepEqual(watch.reports, [2]);
});

test('reload reads at once and tells a refused file again', async (t) => {
  const path = join(folder, 'signalled.yaml');
  await writeFile(path, 'routes: []\n');
  const watch = watched(path, 'routes: []\n# before\n');
  t.after(() => watch.close());
  const problem = await watch.next();
  await watch.reload();
  assert.deepEqual(watch.reports, [problem]);
  await writeFile(path, fileFor(5));
  await watch.reload();
  assert.deepEqual(watch.reports, [problem, 5]);
});

test('nothing is reported after close', async () => {
  const path = join(folder, 'closed.yaml');
  await writeFile(path, fileFor(1));
  const watch = watched(path, fileFor(1));
  watch.close();
  await writeFile(path, fileFor(2));
  await watch.reload();
  assert.deepEqual(watch.reports, []);
});
