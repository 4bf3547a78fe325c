// Bundles the program into dist/: dstack-ingress.mjs, worker.mjs for the processes that serve, and the parts that they share.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('.', import.meta.url));

await build({
  absWorkingDir: root,
  // Two entries, so that a worker's memory holds none of the code that handles accounts and DNS tokens.
  entryPoints: { 'dstack-ingress': 'src/main.ts', worker: 'src/worker.ts' },
  outdir: process.argv[2] ?? 'dist',
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
});

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
