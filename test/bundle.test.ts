// The bundle that the image ships: whole, the same every time, and independent of where it was built.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));

let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bundle-test-'));
  await Promise.all(['first', 'second'].map(bundleInto));
});

after(() => rm(folder, { recursive: true }));

async function bundleInto(name: string): Promise<void> {
  const env = { ...process.env, GIT_REVISION: '0123456789abcdef' };
  await run(process.execPath, [join(root, 'build.ts'), join(folder, name)], { env });
}

test('two builds are the same to the byte, and name no place on the machine that built them', async () => {
  const files = await readdir(join(folder, 'first'));
  for (const entry of ['dstack-ingress.mjs', 'worker.mjs']) assert.ok(files.includes(entry), entry);
  assert.deepEqual(files.sort(), (await readdir(join(folder, 'second'))).sort());
  for (const file of files) {
    const [first, second] = await Promise.all(
      ['first', 'second'].map((build) => readFile(join(folder, build, file))),
    );
    assert.ok(first!.equals(second!), file);
    for (const place of [root, folder]) assert.ok(!first!.includes(place), `${file} names ${place}`);
  }
});

test('the bundle runs without its repository or any package beside it, and says what it was built from', async () => {
  const program = join(folder, 'first', 'dstack-ingress.mjs');
  const { stdout, stderr } = await run(process.execPath, [program, '--version'], { cwd: folder, env: {} });
  assert.match(stdout, /^dstack-ingress \d+\.\d+\.\d+ \(0123456789abcdef\)\n$/);
  assert.equal(stderr, '');
});

test('the bundled program refuses an empty configuration as the source does, and not for want of a module', async () => {
  const program = join(folder, 'first', 'dstack-ingress.mjs');
  const refusal = await run(process.execPath, [program, 'serve'], { cwd: folder, env: {} }).then(
    () => assert.fail('an empty environment cannot be served'),
    (error: { code: number; stderr: string }) => error,
  );
  assert.equal(refusal.code, 78);
  assert.match(refusal.stderr, /DOMAIN/);
});

test('what a worker loads holds no ACME or DNS code', async () => {
  const texts = await loadedBy('worker.mjs');
  // esbuild heads each module with its path.
  const modules = [...texts.matchAll(/^\s*\/\/ (\S+\.[cm]?[jt]s)$/gm)].map(([, path]) => path!);
  assert.ok(modules.includes('src/worker.ts'));
  assert.deepEqual(
    modules.filter((path) =>
      /^(acme|dns|src\/demo)\/|node_modules\/(acme-client|cloudflare|@linode)\//.test(path),
    ),
    [],
  );
});

/** The entry and every part that it imports, statically or not. */
async function loadedBy(entry: string, texts = new Map<string, string>()): Promise<string> {
  if (!texts.has(entry)) {
    const text = await readFile(join(folder, 'first', entry), 'utf8');
    texts.set(entry, text);
    for (const [, part] of text.matchAll(/(?:from|import)\s*\(?\s*"\.\/([\w.-]+\.mjs)"/g))
      await loadedBy(part!, texts);
  }
  return [...texts.values()].join('\n');
}
