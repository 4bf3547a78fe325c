// The npm package: what `npm pack` makes is installed elsewhere, runs, and holds the verifier and nothing of what serves.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { checkIds } from '../evidence/verify/index.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));

describe('the package that npm pack makes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'package-'));
  const installed = join(folder, 'node_modules/dstack-ingress');
  const program = join(installed, 'dist-package/dstack-ingress.mjs');
  before(async () => {
    // A copy, so that nothing of this folder is built anew under those who test it.
    const copy = join(folder, 'checkout');
    cpSync(root, copy, {
      recursive: true,
      filter: (path) => !/[/\\](node_modules|\.git|dist[^/\\]*)$/.test(path),
    });
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
    const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: copy });
    const [packed] = Object.values(
      JSON.parse(stdout.slice(stdout.search(/^[[{]/m))) as { filename: string }[],
    );
    mkdirSync(installed, { recursive: true });
    await run('tar', ['-xzf', join(folder, packed!.filename), '-C', installed, '--strip-components=1']);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('has what its bin and its exports name', () => {
    const { bin, exports } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
    for (const path of [bin['dstack-ingress'], exports['./verify'].types, exports['./verify'].default])
      assert.ok(readFileSync(join(installed, path)).length > 0, path);
    assert.match(readFileSync(program, 'utf8'), /^#!\/usr\/bin\/env node\n/);
  });

  it('verifies, and says which version it is', async () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    const { stdout } = await run(process.execPath, [program, '--version'], { cwd: folder });
    assert.ok(stdout.startsWith(`dstack-ingress ${version} (`), stdout);
    const failed = await run(process.execPath, [program, 'verify', '--json', 'https://localhost:1'], {
      cwd: folder,
    }).catch((error: { code: number; stdout: string }) => error);
    assert.equal((failed as { code: number }).code, 3);
    const document = JSON.parse(failed.stdout) as { checks: { id: string }[] };
    assert.deepEqual(document.checks.map(({ id }) => id).sort(), [...checkIds].sort());
  });

  it('lets local programs reach a host that is proven, and no other', async () => {
    const args = ['verify', 'proxy', '--listen', '127.0.0.1:0', 'https://localhost:1'];
    await assert.rejects(
      run(process.execPath, [program, ...args], { cwd: folder }),
      (error: { code: number; stderr: string }) => {
        assert.equal(error.code, 3);
        assert.match(error.stderr, /localhost:1 is not proven, nothing is served: /);
        return true;
      },
    );
  });

  it('says of the commands that serve that they are elsewhere', async () => {
    await assert.rejects(
      run(process.execPath, [program, 'serve']),
      (error: { code: number; stderr: string }) => {
        assert.equal(error.code, 2);
        assert.match(error.stderr, /not in this package/);
        return true;
      },
    );
  });

  it('holds no ACME client, no DNS vendor and no proxy: an auditor reads the verifier alone', () => {
    const modules = globSync('dist-package/*.mjs', { cwd: installed }).flatMap((file) =>
      [
        ...readFileSync(join(installed, file), 'utf8').matchAll(
          /^\/\/ ((?:src|proxy|acme|dns|evidence)\/\S+)$/gm,
        ),
      ].map(([, name]) => name!),
    );
    assert.ok(modules.includes('evidence/verify/verify.ts'));
    assert.deepEqual(
      modules.filter((name) => /^(proxy|acme|dns\/providers|src\/(workers|admin|demo|records))\//.test(name)),
      [],
    );
  });

  it('has types under which a program compiles, and the program runs', async () => {
    const source = `import { type Report, type CheckId, verify } from 'dstack-ingress/verify';
const report: Report = await verify({ url: 'https://localhost:1' });
const first: CheckId = report.checks[0]!.id;
console.log(report.verdict, first);
`;
    for (const name of ['zod', 'undici', '@types'])
      symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name));
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    writeFileSync(join(folder, 'program.ts'), source);
    const compiler = join(
      dirname(createRequire(import.meta.url).resolve('typescript/package.json')),
      'bin/tsc',
    );
    const options = [
      '--module',
      'nodenext',
      '--target',
      'es2024',
      '--strict',
      '--types',
      'node',
      'program.ts',
    ];
    await run(process.execPath, [compiler, ...options], { cwd: folder }).catch((error: { stdout: string }) =>
      assert.fail(error.stdout),
    );
    const { stdout } = await run(process.execPath, ['program.js'], { cwd: folder });
    assert.equal(stdout, 'unknown tls.chain\n');
  });
});
