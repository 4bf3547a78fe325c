// Builds what `npm pack` puts into the package: the verify command and the library behind it, as JavaScript with declarations.

import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { bundleSettings } from './build.ts';

const root = fileURLToPath(new URL('.', import.meta.url));

if (import.meta.main) await buildPackage(process.argv[2] ?? 'dist-package');

/** Node strips no types below node_modules, and older ones strip none at all. */
async function buildPackage(outdir: string): Promise<void> {
  rmSync(join(root, outdir), { recursive: true, force: true });
  await build({
    ...bundleSettings,
    entryPoints: { 'dstack-ingress': 'src/verify-program.ts', verify: 'evidence/verify/index.ts' },
    outdir,
    target: 'node22',
  });
  declare(join(outdir, 'types'));
}

function declare(outdir: string): void {
  const compiler = join(
    dirname(createRequire(import.meta.url).resolve('typescript/package.json')),
    'bin/tsc',
  );
  const options = [
    '--declaration',
    '--emitDeclarationOnly',
    '--noEmit',
    'false',
    '--rewriteRelativeImportExtensions',
  ];
  execFileSync(
    process.execPath,
    [compiler, '-p', join(root, 'tsconfig.package.json'), ...options, '--rootDir', root, '--outDir', outdir],
    { cwd: root, stdio: ['ignore', 2, 2] },
  );
}
