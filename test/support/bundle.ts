// The program as the image ships it: bundled once for each state of the sources, and started by the words of the Dockerfile.

import { execFileSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import {
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** What the bundle is made of, and what makes it. The hidden lockfile is what npm has really installed. */
const INGREDIENTS = [
  'build.ts',
  'package.json',
  'node_modules/.package-lock.json',
  '{src,proxy,acme,dns,evidence}/**/*.{ts,html}',
  'evidence/page/page.*',
];

/** What `--version` of a bundle under test says that it was built from. */
export const TESTED_REVISION = 'the sources under test';

const FORGOTTEN_AFTER_MS = 24 * 3_600_000;

export interface Start {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

/** As a container of the image would start: its ENTRYPOINT and these arguments, its environment, in no folder of ours. */
export function startOfImage(args: readonly string[], folder = bundle()): Start {
  const [program, ...first] = entrypoint().map((word) =>
    word.replace(/^\/nodejs\/bin\/node$/, process.execPath).replaceAll('/app/', `${folder}/`),
  );
  return { program: program!, args: [...first, ...args], env: environment(), cwd: '/' };
}

/** For a test that says itself how it is started. */
export function bundledProgram(): string {
  return join(bundle(), 'dstack-ingress.mjs');
}

let folder: string | undefined;

/** The folder of the bundle, outside the repository: none of its packages can be reached from there. */
export function bundle(): string {
  folder ??= kept();
  return folder;
}

function kept(): string {
  const shelf = privateFolder(join(tmpdir(), `dstack-ingress-bundles-${process.getuid?.() ?? ''}`));
  const place = join(shelf, hashOfIngredients());
  if (!existsSync(place)) {
    forgetOld(shelf);
    // Whole under a name of its own before it gets the one that others look for.
    const making = join(shelf, `making-${randomUUID()}`);
    const env = { ...process.env, GIT_REVISION: TESTED_REVISION };
    execFileSync(process.execPath, [join(root, 'build.ts'), making], { env, stdio: ['ignore', 2, 2] });
    putInPlace(making, place);
  }
  utimesSync(place, new Date(), new Date());
  return place;
}

/** Another process may have been faster: it made the same, to the byte. */
function putInPlace(making: string, place: string): void {
  try {
    renameSync(making, place);
  } catch (error) {
    rmSync(making, { recursive: true });
    if (!existsSync(place)) throw error;
  }
}

/** Only this process can have put programs there. */
function privateFolder(path: string): string {
  mkdirSync(path, { recursive: true, mode: 0o755 });
  const found = lstatSync(path);
  const ours = process.getuid === undefined || found.uid === process.getuid();
  if (!found.isDirectory() || !ours || (found.mode & 0o022) !== 0)
    throw new Error(`${path} can be written by others: remove it`);
  return path;
}

function forgetOld(shelf: string): void {
  for (const name of readdirSync(shelf)) {
    const path = join(shelf, name);
    const age = Date.now() - (lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
    if (age > FORGOTTEN_AFTER_MS) rmSync(path, { recursive: true, force: true });
  }
}

function hashOfIngredients(): string {
  const hash = createHash('sha256').update(process.version);
  const files = INGREDIENTS.flatMap((pattern) => globSync(pattern, { cwd: root })).sort();
  for (const file of files) {
    const content = readFileSync(join(root, file));
    hash.update(`\n${file} ${content.length}\n`).update(content);
  }
  return hash.digest('hex').slice(0, 32);
}

/** The last stage of the Dockerfile, which is the image. */
function lastStage(): string {
  return readFileSync(join(root, 'Dockerfile'), 'utf8')
    .split(/^FROM /m)
    .at(-1)!;
}

function entrypoint(): string[] {
  const [, list] = /^ENTRYPOINT (\[.*\])$/m.exec(lastStage())!;
  return JSON.parse(list!) as string[];
}

function environment(): Record<string, string> {
  const lines = [...lastStage().matchAll(/^ENV (\w+)=(\S+)$/gm)];
  return Object.fromEntries(lines.map(([, name, value]) => [name!, value!]));
}
