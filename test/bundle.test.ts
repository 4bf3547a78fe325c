// The bundle that the image ships: whole, the same every time, and independent of where it was built.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { lostNames } from '../build.ts';
import { bundle, startOfImage, TESTED_REVISION } from './support/bundle.ts';

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
  for (const entry of ['dstack-ingress.mjs', 'worker.mjs', 'password-checker.mjs'])
    assert.ok(files.includes(entry), entry);
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

test('a package that would come without its names is found while it is bundled, whoever loads it', async () => {
  const program = join(folder, 'program');
  await mkdir(program);
  await writeFile(join(program, 'package.cjs'), 'exports.request = () => {};');
  await writeFile(join(program, 'by-name.mjs'), "export { request } from './package.cjs';");
  for (const [loaded, found] of [
    ['package.cjs', 1],
    ['by-name.mjs', 0],
  ] as const) {
    await writeFile(join(program, 'main.mjs'), `const { request } = await import('./${loaded}'); request();`);
    const { metafile } = await build({
      absWorkingDir: program,
      entryPoints: ['main.mjs'],
      outdir: 'dist',
      bundle: true,
      format: 'esm',
      platform: 'node',
      splitting: true,
      metafile: true,
    });
    assert.equal(lostNames(metafile.inputs).length, found, loaded);
    const runs = run(process.execPath, [join(program, 'dist', 'main.js')]);
    if (found === 0) await runs;
    else await assert.rejects(runs, /request is not a function/);
  }
});

test('what is tested end to end is the bundle: nothing there starts the source', async () => {
  for (const place of ['e2e', 'support']) {
    const names = await readdir(join(root, 'test', place), { recursive: true });
    for (const file of names.filter((name) => name.endsWith('.ts'))) {
      const text = await readFile(join(root, 'test', place, file), 'utf8');
      assert.doesNotMatch(text, /\bmain\.ts|\bworker\.ts/, file);
    }
  }
});

test('the bundle under test lies where no package can be reached, and is of these sources', async () => {
  const { program, args } = startOfImage(['--version']);
  const { stdout } = await run(program, args);
  assert.ok(stdout.includes(TESTED_REVISION), stdout);
  for (let place = bundle(); place !== dirname(place); place = dirname(place))
    assert.ok(!existsSync(join(place, 'node_modules')), place);
});

test('what a worker loads holds no ACME or DNS code', async () => {
  const texts = await loadedBy('worker.mjs');
  // esbuild heads each module with its path.
  const modules = [...texts.matchAll(/^\s*\/\/ (\S+\.[cm]?[jt]s)$/gm)].map(([, path]) => path!);
  assert.ok(modules.includes('src/workers/worker.ts'));
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
