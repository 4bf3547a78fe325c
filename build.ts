// Bundles the program into dist/: dstack-ingress.mjs, worker.mjs for the processes that serve, and the parts that they share.

import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Metafile } from 'esbuild';

const root = fileURLToPath(new URL('.', import.meta.url));

if (import.meta.main) await bundle(process.argv[2] ?? 'dist');

async function bundle(outdir: string): Promise<void> {
  const { metafile } = await build({
    absWorkingDir: root,
    // The memory of workers and of their helper holds none of the code that handles accounts and DNS tokens.
    entryPoints: {
      'dstack-ingress': 'src/main.ts',
      worker: 'src/workers/worker.ts',
      'password-checker': 'src/workers/password-checker.ts',
    },
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    // What a command does not need is not parsed: serve is there sooner. All lie beside each other, see workers.ts.
    splitting: true,
    chunkNames: '[name]-[hash]',
    target: 'node26',
    // An auditor can read what is measured.
    minify: false,
    // The licences of what is bundled stay with it.
    legalComments: 'inline',
    // CommonJS packages require node's own modules, which an ES module cannot do by itself.
    banner: {
      js: "import { createRequire as createRequireForBundle } from 'node:module';\nconst require = createRequireForBundle(import.meta.url);",
    },
    define: { BUILD_VERSION: JSON.stringify(`${manifestVersion()} (${gitRevision()})`) },
    logLevel: 'warning',
    metafile: true,
  });
  const lost = lostNames(metafile.inputs);
  if (lost.length > 0) throw new Error(lost.join('\n'));
  copyFileSync(join(root, 'src/admin/status-page.html'), resolve(root, outdir, 'status-page.html'));
}

/**
 * What import() gives of a CommonJS module has in a bundle of several parts only a `default`, though from source it has
 * names. A module of ours that exports by name what it imports by name has them in both.
 */
export function lostNames(inputs: Metafile['inputs']): string[] {
  return Object.entries(inputs).flatMap(([file, { imports }]) =>
    imports
      .filter(({ kind, path }) => kind === 'dynamic-import' && inputs[path]?.format === 'cjs')
      .map(
        ({ path }) =>
          `${file} loads ${path} on demand and would find no names in it: let it load a module that exports them by name`,
      ),
  );
}

function manifestVersion(): string {
  const manifest = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return manifest.version;
}

/** Inside an image's build there is no repository: GIT_REVISION says it there. */
function gitRevision(): string {
  const given = process.env.GIT_REVISION;
  if (given !== undefined && given !== '') return given;
  try {
    return execFileSync('git', ['rev-parse', 'HEAD'], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return 'unknown revision';
  }
}
