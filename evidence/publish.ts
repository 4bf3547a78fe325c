// The bundle on disk: a folder that other containers read, and that changes as a whole.

import { randomBytes } from 'node:crypto';
import {
  chmod,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  unlink,
} from 'node:fs/promises';
import { basename, join } from 'node:path';
import { syncFolder } from '../src/lib/atomic-file.ts';
import { type Bundle, EvidenceError } from './bundle.ts';

/** The version that is published, as a link: renaming another link over it changes all files at once. */
const CURRENT = '.current';
const VERSIONS = '.versions';
const TEMPORARY = /^\.link-[0-9a-f]+\.tmp$/;
/** What the images of old wrote as plain files. */
const PLAIN_EVIDENCE = /^(acme-account\.json|sha256sum\.txt|quote\.json|cert(-.*)?\.pem)$/;

interface PlainFile {
  readonly name: string;
  readonly text: string | Uint8Array;
}

/**
 * `folder` itself cannot be swapped, as it is a mount point as a rule. So each bundle is a folder of its own in
 * `.versions`, `.current` is a link to the one that counts, and the names that readers know are links through
 * `.current`. A reader who goes through `.current` once (`cd -P .current`) sees one bundle only, also while it is
 * replaced: the one before stays until the next. Killed at any moment, it leaves the old bundle or the new one.
 *
 * Calls for one folder take turns, the last one called stays. One process for a folder. Rejects with EvidenceError
 * ('not-writable'), and then the old bundle stands.
 */
export function publishBundle(folder: string, bundle: Bundle): Promise<void> {
  const before = turns.get(folder) ?? Promise.resolve();
  const turn = before.then(() => replaceBundle(folder, bundle));
  const settled = turn.catch(() => undefined);
  turns.set(folder, settled);
  void settled.then(() => {
    if (turns.get(folder) === settled) turns.delete(folder);
  });
  return turn;
}

/** Folder -> the end of the last call for it. */
const turns = new Map<string, Promise<void>>();

async function replaceBundle(folder: string, bundle: Bundle): Promise<void> {
  try {
    await ensureFolders(folder);
    await adoptPlainFiles(folder);
    const before = await currentVersion(folder);
    const version = await writeVersion(folder, bundle.files);
    await linkNames(
      folder,
      bundle.files.map(({ name }) => name),
    );
    await replaceLink(join(VERSIONS, version), folder, CURRENT);
    await unlinkOtherNames(folder, new Set(bundle.files.map(({ name }) => name)));
    await prune(folder, new Set([version, before]));
    await syncFolder(folder);
  } catch (cause) {
    const why = (cause as Error).message;
    throw new EvidenceError('not-writable', `the evidence folder ${folder} cannot be updated: ${why}`, {
      cause,
    });
  }
}

/** Leaves the mode of a folder that was there: it may be somebody else's. */
async function ensureFolders(folder: string): Promise<void> {
  const made = await mkdir(folder, { recursive: true });
  if (made !== undefined) await chmod(folder, 0o755);
  const versions = join(folder, VERSIONS);
  if ((await mkdir(versions, { recursive: true })) !== undefined) await chmod(versions, 0o755);
}

/**
 * Turns the plain files of an older image into a version like any other, with the same content at every moment, so that
 * they too are replaced as a whole.
 */
async function adoptPlainFiles(folder: string): Promise<void> {
  const plain = await plainFiles(folder);
  if (plain.length === 0) return;
  if ((await currentVersion(folder)) === undefined) {
    const version = await writeVersion(folder, plain);
    await replaceLink(join(VERSIONS, version), folder, CURRENT);
  }
  for (const { name } of plain) await replaceLink(join(CURRENT, name), folder, name);
}

async function plainFiles(folder: string): Promise<PlainFile[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const names = entries
    .filter((entry) => entry.isFile() && PLAIN_EVIDENCE.test(entry.name))
    .map(({ name }) => name);
  return Promise.all(names.map(async (name) => ({ name, text: await readFile(join(folder, name)) })));
}

async function currentVersion(folder: string): Promise<string | undefined> {
  const target = await linkTarget(join(folder, CURRENT));
  return target === undefined ? undefined : basename(target);
}

/** Complete and on the disk before anything points to it. */
async function writeVersion(folder: string, files: readonly PlainFile[]): Promise<string> {
  const version = `${new Date().toISOString().replaceAll(/[-:.]/g, '')}-${randomBytes(4).toString('hex')}`;
  const path = join(folder, VERSIONS, version);
  await mkdir(path);
  await chmod(path, 0o755);
  for (const { name, text } of files) await writePublicFile(join(path, name), text);
  await syncFolder(path);
  await syncFolder(join(folder, VERSIONS));
  return version;
}

async function writePublicFile(path: string, text: string | Uint8Array): Promise<void> {
  const file = await open(path, 'wx', 0o644);
  try {
    await file.writeFile(text);
    // Whoever reads the evidence is another user in another container; the umask must not stand in the way.
    await file.chmod(0o644);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Names new in this bundle lead nowhere until `.current` is swapped: they appear together with it. */
async function linkNames(folder: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const target = join(CURRENT, name);
    if ((await linkTarget(join(folder, name))) !== target) await replaceLink(target, folder, name);
  }
}

async function replaceLink(target: string, folder: string, name: string): Promise<void> {
  const staged = join(folder, `.link-${randomBytes(6).toString('hex')}.tmp`);
  await symlink(target, staged);
  await rename(staged, join(folder, name));
  await syncFolder(folder);
}

async function unlinkOtherNames(folder: string, names: ReadonlySet<string>): Promise<void> {
  for (const entry of await readdir(folder)) {
    const isOurs = (await linkTarget(join(folder, entry))) === join(CURRENT, entry);
    if (isOurs && !names.has(entry)) await unlink(join(folder, entry));
  }
}

/** Leftovers of runs that were killed go too. */
async function prune(folder: string, kept: ReadonlySet<string | undefined>): Promise<void> {
  for (const version of await readdir(join(folder, VERSIONS))) {
    if (!kept.has(version)) await rm(join(folder, VERSIONS, version), { recursive: true, force: true });
  }
  for (const entry of await readdir(folder)) {
    if (TEMPORARY.test(entry)) await rm(join(folder, entry), { force: true });
  }
}

/** Where the link leads; undefined if there is none, or something that is not a link. */
async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return (await lstat(path)).isSymbolicLink() ? await readlink(path) : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
