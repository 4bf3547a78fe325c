// The bundle on disk: other containers read the folder, and it always changes as a whole.

import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { join } from 'node:path/posix';
import { type AnchoredFolder, openFolder } from '../src/lib/anchored-folder.ts';
import { makeFolder, whyUnwritable } from '../src/lib/atomic-file.ts';
import { GuardedFileError } from '../src/lib/guarded-file.ts';
import { type Bundle, EvidenceError } from './bundle.ts';

/** The version that is published, as a link: renaming another link over it changes all files at once. */
const CURRENT = '.current';
const VERSIONS = '.versions';
const VERSION = /^\d{8}T\d{9}Z-[0-9a-f]{8}$/;
const TEMPORARY = /^\.link-[0-9a-f]{12}\.tmp$/;
/** Names that the earlier images wrote as plain files. */
const PLAIN_EVIDENCE = /^(acme-account\.json|sha256sum\.txt|quote\.json|cert(-.*)?\.pem)$/;

const PUBLIC_FOLDER = 0o755;
const PUBLIC_FILE = 0o644;

interface PlainFile {
  readonly name: string;
  readonly text: string | Uint8Array;
}

/**
 * `folder` itself cannot be swapped, because it usually is a mount point. So each bundle is a folder of its own in
 * `.versions`, `.current` is a link to the newest, and the names that readers know are links through `.current`. A reader
 * that enters `.current` once (`cd -P .current`) sees a single bundle even while it is replaced, because the previous one
 * is kept until the next. A process killed at any moment leaves the old bundle or the new one.
 *
 * Other containers may write there too. So the folder is opened once and used through that handle, no link is followed, and
 * nothing is removed unless it has a name that is given here.
 *
 * Calls for one folder take turns, and the last one stays. Only one process may use a folder. Rejects with EvidenceError
 * ('not-writable'), and then the old bundle stays.
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

async function replaceBundle(path: string, bundle: Bundle): Promise<void> {
  try {
    await using opened = disposable(await openEvidence(path));
    await using versions = disposable(await opened.folder.ensureFolder(VERSIONS, PUBLIC_FOLDER));
    await replaceIn(opened.folder, versions.folder, bundle);
  } catch (cause) {
    const why = whyUnwritable(cause);
    throw new EvidenceError('not-writable', `the evidence folder ${path} cannot be updated: ${why}`, {
      cause,
    });
  }
}

async function replaceIn(folder: AnchoredFolder, versions: AnchoredFolder, bundle: Bundle): Promise<void> {
  const names = bundle.files.map(({ name }) => name);
  await adoptPlainFiles(folder, versions);
  const before = await currentVersion(folder);
  const version = await writeVersion(versions, bundle.files);
  await linkNames(folder, names);
  await replaceLink(join(VERSIONS, version), folder, CURRENT);
  await unlinkOtherNames(folder, new Set(names));
  await prune(folder, versions, new Set([version, before]));
  await folder.sync();
}

/** Does not change the mode of an existing folder: it may belong to another program. */
async function openEvidence(path: string): Promise<AnchoredFolder> {
  const made = await makeFolder(resolve(path), PUBLIC_FOLDER);
  const folder = await openFolder(path);
  if (made) await folder.chmod(PUBLIC_FOLDER);
  return folder;
}

function disposable(folder: AnchoredFolder) {
  return { folder, [Symbol.asyncDispose]: () => folder.close() };
}

/**
 * Turns the plain files of an older image into a version like any other, with the same content at every moment, so that
 * they too are replaced as a whole.
 */
async function adoptPlainFiles(folder: AnchoredFolder, versions: AnchoredFolder): Promise<void> {
  const plain = await plainFiles(folder);
  if (plain.length === 0) return;
  if ((await currentVersion(folder)) === undefined) {
    const version = await writeVersion(versions, plain);
    await replaceLink(join(VERSIONS, version), folder, CURRENT);
  }
  for (const { name } of plain) await replaceLink(join(CURRENT, name), folder, name);
}

/** A file that cannot be read, or is no plain file when it is opened, is not evidence. */
async function plainFiles(folder: AnchoredFolder): Promise<PlainFile[]> {
  const found: PlainFile[] = [];
  for (const name of (await folder.names()).filter((each) => PLAIN_EVIDENCE.test(each))) {
    if (!(await folder.isFile(name))) continue;
    const text = await folder.read(name).catch(unreadable);
    if (text !== undefined) found.push({ name, text });
  }
  return found;
}

function unreadable(error: unknown): undefined {
  if (error instanceof GuardedFileError) return;
  if (!['ELOOP', 'ENOENT', 'ENXIO'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
}

/** Undefined also for a link that is not ours. */
async function currentVersion(folder: AnchoredFolder): Promise<string | undefined> {
  const [place, version, ...more] = ((await folder.linkTarget(CURRENT)) ?? '').split('/');
  const ours = place === VERSIONS && version !== undefined && VERSION.test(version) && more.length === 0;
  return ours ? version : undefined;
}

/** Complete and on the disk before anything points to it. */
async function writeVersion(versions: AnchoredFolder, files: readonly PlainFile[]): Promise<string> {
  const version = `${new Date().toISOString().replaceAll(/[-:.]/g, '')}-${randomBytes(4).toString('hex')}`;
  await using made = disposable(await versions.makeFolder(version, PUBLIC_FOLDER));
  // The reader is another user in another container.
  for (const { name, text } of files) await made.folder.write(name, text, PUBLIC_FILE);
  await made.folder.sync();
  await versions.sync();
  return version;
}

/** New names are dangling links until `.current` is swapped, and then appear together. */
async function linkNames(folder: AnchoredFolder, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const target = join(CURRENT, name);
    if ((await folder.linkTarget(name)) !== target) await replaceLink(target, folder, name);
  }
}

async function replaceLink(target: string, folder: AnchoredFolder, name: string): Promise<void> {
  const staged = `.link-${randomBytes(6).toString('hex')}.tmp`;
  await folder.link(target, staged);
  await folder.rename(staged, name);
  await folder.sync();
}

async function unlinkOtherNames(folder: AnchoredFolder, names: ReadonlySet<string>): Promise<void> {
  for (const entry of await folder.names()) {
    const isOurs = (await folder.linkTarget(entry)) === join(CURRENT, entry);
    if (isOurs && !names.has(entry)) await folder.remove(entry);
  }
}

/** Also removes what killed runs left. */
async function prune(
  folder: AnchoredFolder,
  versions: AnchoredFolder,
  kept: ReadonlySet<string | undefined>,
): Promise<void> {
  for (const version of await versions.names()) {
    if (VERSION.test(version) && !kept.has(version)) await removeVersion(versions, version);
  }
  for (const entry of await folder.names()) {
    if (TEMPORARY.test(entry)) await folder.remove(entry).catch(notOurs);
  }
}

/** File by file: a version of ours has no folders in it, so nothing deeper is ever removed. */
async function removeVersion(versions: AnchoredFolder, version: string): Promise<void> {
  try {
    await using old = disposable(await versions.folder(version));
    for (const name of await old.folder.names()) await old.folder.remove(name);
    await versions.removeFolder(version);
  } catch (error) {
    notOurs(error as NodeJS.ErrnoException);
  }
}

/** Another program's file under one of our names stays, and the evidence is published all the same. */
function notOurs(error: NodeJS.ErrnoException): void {
  const foreign = ['ENOENT', 'ENOTDIR', 'ELOOP', 'EISDIR', 'EPERM', 'ENOTEMPTY'];
  if (!foreign.includes(error.code ?? '')) throw error;
}
