// What the doctor finds of the folders for state and evidence: whether they can be written, who may read them, what room there is.

import { constants } from 'node:fs';
import { access, lstat, readdir, readFile, stat, statfs } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import type { Config } from '../config/config.ts';
import { whyUnwritable } from '../lib/atomic-file.ts';
import { type Finding, findingsOf, told } from './doctor-report.ts';

/** What the disk is asked; tests answer in its place. */
export interface Disk {
  /** Bytes and files that may still be made there. */
  room(path: string): Promise<{ readonly bytes: number; readonly files: number }>;
  /** As /proc/self/mountinfo has it (proc(5)); empty: not known. */
  mounts(): Promise<string>;
}

export const thisDisk: Disk = {
  async room(path) {
    const { bavail, bsize, ffree, files } = await statfs(path);
    // Some file systems count no files.
    return { bytes: bavail * bsize, files: files === 0 ? Number.POSITIVE_INFINITY : ffree };
  },
  mounts: () => readFile('/proc/self/mountinfo', 'utf8').catch(() => ''),
};

const { ok, warn, fail } = findingsOf('folders');

export async function folderFindings(config: Config, disk: Disk): Promise<Finding[]> {
  const { stateDir, evidence } = config;
  const kept = [
    ...(await stateFindings(stateDir)),
    ...(await volumeFindings(stateDir, await disk.mounts())),
    ...(await evidenceFindings(evidence.dir)),
    ...overlapFindings(stateDir, evidence.dir),
  ];
  return kept.length > 0
    ? kept
    : [ok(`${stateDir}, ${evidence.dir}`, 'can be written, and are private as they should be')];
}

async function stateFindings(stateDir: string): Promise<Finding[]> {
  const why = 'without it there is no account, no certificate is kept, and every start orders new ones';
  const found = await writability(stateDir, 'STATE_DIR', why);
  if (found.length > 0) return found;
  const own = join(stateDir, 'dstack-ingress');
  return [...(await privacyFindings(own)), ...(await linkFindings(own))];
}

/** Of the folder itself, or of the nearest one above it that there is. */
async function writability(path: string, setting: string, why: string): Promise<Finding[]> {
  const subject = `${setting}=${path}`;
  try {
    const nearest = await existing(path);
    if (!(await stat(nearest)).isDirectory())
      return [fail(subject, `${nearest} is not a folder`, why, `mount a volume at ${path}`)];
    await access(nearest, constants.W_OK | constants.X_OK);
    return [];
  } catch (error) {
    const cure = `make ${path} writable for user ${process.getuid?.() ?? ''}, or mount a volume there`;
    return [fail(subject, `cannot be written: ${whyUnwritable(error)}`, why, cure)];
  }
}

async function existing(path: string): Promise<string> {
  for (let each = path; ; each = dirname(each)) {
    const found = await lstat(each).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' && dirname(each) !== each) return undefined;
      throw error;
    });
    if (found !== undefined) return each;
  }
}

async function privacyFindings(own: string): Promise<Finding[]> {
  const found = await stat(own).catch(() => undefined);
  if (found === undefined || (found.mode & 0o077) === 0) return [];
  return [
    fail(
      own,
      `its mode is ${(found.mode & 0o777).toString(8)}`,
      'private keys lie in it, and others on this machine may read them',
      `chmod 700 ${own}, and take a new account key (rollover) and new certificates if others had access`,
    ),
  ];
}

/** A link would be followed by nobody here, and what it leads to would not be found. */
async function linkFindings(own: string): Promise<Finding[]> {
  const entries = await readdir(own, { withFileTypes: true, recursive: true }).catch(() => []);
  const links = entries
    .filter((entry) => entry.isSymbolicLink())
    .map((entry) => join(entry.parentPath, entry.name));
  if (links.length === 0) return [];
  return [
    fail(
      links[0]!,
      'is a link',
      'links in the state folder are not followed, so what lies behind is as good as lost',
      'put the file itself in its place',
    ),
  ];
}

/** The layer of a container goes with the container. */
async function volumeFindings(stateDir: string, mounts: string): Promise<Finding[]> {
  if (fileSystemOf(stateDir, mounts) !== 'overlay') return [];
  return [
    warn(
      `STATE_DIR=${stateDir}`,
      "is in the container's own layer, not on a volume",
      'the next deployment orders all certificates anew, and CAs allow five a week for the same names',
      `mount a named volume at ${stateDir}`,
    ),
  ];
}

/** Of the mount that is nearest above the path. */
function fileSystemOf(path: string, mounts: string): string | undefined {
  const found = mounts.split('\n').flatMap((line) => {
    const [own = '', more = ''] = line.split(' - ');
    const point = (own.split(' ')[4] ?? '').replaceAll('\\040', ' ');
    const type = more.split(' ')[0] ?? '';
    return point !== '' && isWithin(path, point) ? [{ point, type }] : [];
  });
  return found.toSorted((a, b) => b.point.length - a.point.length)[0]?.type;
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

async function evidenceFindings(dir: string): Promise<Finding[]> {
  const why = 'the evidence is not written, and apps that read it find nothing or what was true once';
  const link = await lstat(dir).catch(() => undefined);
  if (link?.isSymbolicLink()) {
    return [
      fail(
        `EVIDENCE_DIR=${dir}`,
        'is a link',
        `links are not followed there: ${why}`,
        'name the folder itself',
      ),
    ];
  }
  return writability(dir, 'EVIDENCE_DIR', why);
}

function overlapFindings(stateDir: string, evidenceDir: string): Finding[] {
  if (!isWithin(stateDir, evidenceDir) && !isWithin(evidenceDir, stateDir)) return [];
  return [
    fail(
      `EVIDENCE_DIR=${evidenceDir}`,
      `and STATE_DIR=${stateDir} lie in each other`,
      'evidence is mounted into other containers, and private keys would go with it',
      'give each a volume of its own',
    ),
  ];
}

const MIB = 1024 * 1024;
/** Certificates, orders and evidence of some hundred domains want less. */
const LITTLE_BYTES = 64 * MIB;
const NOTHING_BYTES = 4 * MIB;
const FEW_FILES = 1_000;

export async function diskFindings(config: Config, disk: Disk): Promise<Finding[]> {
  const folders = new Map([
    ['STATE_DIR', config.stateDir],
    ['EVIDENCE_DIR', config.evidence.dir],
  ]);
  const findings = await Promise.all([...folders].map(([setting, path]) => roomFinding(setting, path, disk)));
  return findings;
}

async function roomFinding(setting: string, path: string, disk: Disk): Promise<Finding> {
  const { ok: fine, warn: little, fail: none } = findingsOf('disk');
  const subject = `${setting}=${path}`;
  try {
    const { bytes, files } = await disk.room(await existing(path));
    const left = `${Math.floor(bytes / MIB)} MiB and ${files === Number.POSITIVE_INFINITY ? 'any number of' : files} files are left`;
    if (bytes >= LITTLE_BYTES && files >= FEW_FILES) return fine(subject, left);
    const why = 'on a full disk no renewed certificate can be kept';
    const cure = 'make room on that disk, or give it a larger one';
    return (bytes < NOTHING_BYTES || files < 10 ? none : little)(subject, left, why, cure);
  } catch (error) {
    return little(
      subject,
      `what room there is cannot be told: ${told(error)}`,
      'it may be full',
      'see df for it',
    );
  }
}
