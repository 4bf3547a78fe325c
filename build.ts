// Bundles the program into dist/: dstack-ingress.mjs, worker.mjs for the processes that serve, the parts that they share, and what the page of the evidence loads.

import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { type BuildOptions, build, type Metafile, type Plugin } from 'esbuild';

const root = fileURLToPath(new URL('.', import.meta.url));

/** Exports of node:http that load its HTTP client. */
const OF_ITS_CLIENT = new Set(['CloseEvent', 'MessageEvent', 'WebSocket']);

/** Of everything that is bundled for Node. */
export const bundleSettings = {
  absWorkingDir: root,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  format: 'esm',
  // What a command does not need is not parsed: it is there sooner. All lie beside each other, see workers.ts.
  splitting: true,
  chunkNames: '[name]-[hash]',
  // An auditor can read what is measured.
  minify: false,
  // The licences of what is bundled stay with it.
  legalComments: 'inline',
  // CommonJS packages require node's own modules, which an ES module cannot do by itself.
  banner: {
    js: "import { createRequire as createRequireForBundle } from 'node:module';\nconst require = createRequireForBundle(import.meta.url);",
  },
  plugins: [quickToStart()],
  define: { BUILD_VERSION: JSON.stringify(`${manifestVersion()} (${gitRevision()})`) },
  logLevel: 'warning',
} as const satisfies BuildOptions;

/**
 * Leaves out what a start would load and nobody calls. `import 'node:http'` reads each export of the module; for WebSocket
 * and its two events Node loads an HTTP client of its own, a tenth of a worker's start. So the other exports are taken by
 * name. acme-client loads axios and node-forge; we use neither, but our own transport and Node's crypto.
 */
function quickToStart(): Plugin {
  const names = Object.keys(http).filter((name) => !OF_ITS_CLIENT.has(name));
  const byName = `const http = process.getBuiltinModule('node:http');\nexport const { ${names.join(', ')} } = http;\nexport default http;\n`;
  return {
    name: 'quick-to-start',
    setup(building) {
      building.onResolve({ filter: /^(node:)?http$/ }, ({ kind }) =>
        kind === 'import-statement' ? { path: 'http', namespace: 'by-name' } : undefined,
      );
      building.onLoad({ filter: /.*/, namespace: 'by-name' }, () => ({ contents: byName }));
      building.onLoad({ filter: /\/acme-client\/src\/(axios|crypto\/forge)\.js$/ }, () => ({
        contents: 'module.exports = {};',
      }));
    },
  };
}

async function bundle(outdir: string): Promise<void> {
  const { metafile } = await build({
    ...bundleSettings,
    // The memory of workers and of their helper holds none of the code that handles accounts and DNS tokens.
    entryPoints: {
      'dstack-ingress': 'src/main.ts',
      worker: 'src/workers/worker.ts',
      'password-checker': 'src/workers/password-checker.ts',
    },
    outdir,
    target: 'node26',
    metafile: true,
  });
  const lost = lostNames(metafile.inputs);
  if (lost.length > 0) throw new Error(lost.join('\n'));
  const place = resolve(root, outdir);
  for (const path of Object.keys(metafile.outputs)) commentsInAscii(join(root, path));
  copyFileSync(join(root, 'src/admin/status-page.html'), join(place, 'status-page.html'));
  await bundlePage(place);
}

/**
 * One sign beyond ASCII makes V8 decode the whole file, and keep two bytes for each letter. esbuild escapes them in strings;
 * these are in comments.
 */
function commentsInAscii(path: string): void {
  const text = readFileSync(path, 'utf8');
  const plain = text.replace(/^[ \t]*(?:\/\/|\/?\*).*$/gm, (line) =>
    line.replace(/[§–—‘’…]/g, (sign) => IN_ASCII[sign]!),
  );
  if (plain !== text) writeFileSync(path, plain);
}

const IN_ASCII: Readonly<Record<string, string>> = {
  '§': 'section ',
  '–': '-',
  '—': '-',
  '‘': "'",
  '’': "'",
  '…': '...',
};

/** Beside the program, plain and compressed: evidence/page/assets.ts looks for them there. */
async function bundlePage(outdir: string): Promise<void> {
  const own = ['page.css', 'page.js', 'page.svg'];
  for (const name of own) copyFileSync(join(root, 'evidence/page', name), join(outdir, name));
  await bundleForBrowser(join(outdir, 'verifier.js'));
  for (const name of [...own, 'verifier.js']) {
    const content = readFileSync(join(outdir, name));
    writeFileSync(join(outdir, `${name}.br`), brotliCompressSync(content));
    writeFileSync(join(outdir, `${name}.gz`), gzipSync(content, { level: 9 }));
  }
}

/** What a page verifies with: one script without eval, whose functions are in `dstackIngressVerify`. */
export async function bundleForBrowser(outfile: string): Promise<void> {
  await build({
    absWorkingDir: root,
    entryPoints: ['evidence/verify/browser.ts'],
    outfile,
    bundle: true,
    platform: 'browser',
    // A page that lies on a disk cannot load modules.
    format: 'iife',
    globalName: 'dstackIngressVerify',
    target: 'es2022',
    minify: true,
    legalComments: 'linked',
    inject: ['evidence/verify/browser-globals.ts'],
    define: { global: 'globalThis' },
    alias: {
      'node:crypto': './evidence/verify/browser-crypto.ts',
      // For browsers that have Map and WeakMap of their own.
      'reflect-metadata': 'reflect-metadata/lite',
    },
    plugins: [lighter()],
    logLevel: 'warning',
  });
}

/**
 * What is never called: curves and digests that no quote has, requests that the page makes itself, certificate requests and
 * signed mail, schemas written as JSON.
 */
const needless = [
  /\/elliptic\/lib\/elliptic\/(precomputed\/secp256k1|curve\/(mont|edwards)|eddsa\/index)\.js$/,
  /\/hash\.js\/lib\/hash\/(ripemd|hmac|sha\/(1|224|384|512))\.js$/,
  /\/(hmac-drbg\/lib\/hmac-drbg|brorand\/index)\.js$/,
  /\/dcap-qvl\/src\/collateral\.js$/,
  /\/@peculiar\/asn1-(cms|csr|pkcs9|x509-post-quantum)\/build\/es2015\/index\.js$/,
  /\/zod\/v4\/core\/(json-schema-processors|to-json-schema)\.js$/,
];

/** Numbers of curves, which do not compress. */
const OTHER_CURVES = /^defineCurve\('(?!p256')[\s\S]*?^\}\);$/gm;

/** What a script for pages does without, so that it is fetched in a moment. */
function lighter(): Plugin {
  return {
    name: 'lighter',
    setup(building) {
      // Three copies of one package.
      building.onResolve({ filter: /^bn\.js$/ }, ({ kind, resolveDir }) =>
        resolveDir.includes('elliptic')
          ? undefined
          : building.resolve('bn.js', { kind, resolveDir: join(root, 'node_modules/elliptic') }),
      );
      for (const filter of needless)
        building.onLoad({ filter }, () => ({ contents: 'module.exports = {};' }));
      building.onLoad({ filter: /\/elliptic\/lib\/elliptic\/curves\.js$/ }, ({ path }) => ({
        contents: readFileSync(path, 'utf8').replace(OTHER_CURVES, ''),
      }));
    },
  };
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

if (import.meta.main) {
  if (process.argv[2] === '--browser') await bundleForBrowser(process.argv[3] ?? 'dist/browser/verifier.js');
  else await bundle(process.argv[2] ?? 'dist');
}
