// Reads files that others may exchange: it follows no link unless that is allowed, and reads nothing but regular files.

import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from 'node:fs';
import { type FileHandle, open, readlink, realpath } from 'node:fs/promises';
import { sep } from 'node:path';
import { CodedError } from './coded-error.ts';

export type GuardedFileErrorCode = 'not-a-file' | 'too-large' | 'outside';

export class GuardedFileError extends CodedError<GuardedFileErrorCode> {
  override readonly name = 'GuardedFileError';
}

/** Far above anything that is read whole here, and far below what would fill a machine. */
const LARGEST_FILE = 16 * 1024 * 1024;

/** Without O_NONBLOCK a pipe in the place of a file would be waited for without end (open(2)). */
const READ = constants.O_RDONLY | constants.O_NONBLOCK;

export interface GuardedReadOptions {
  /**
   * Whether a link in the last place is followed. 'within': the file that it leads to must lie in `tree`, as certbot's
   * links into its archive do.
   */
  readonly links?: 'refused' | 'followed' | { readonly within: string };
  /** Refuses a file with a second name (hard link): what others may write cannot be told from what they may read. */
  readonly onlyName?: boolean;
}

/** Rejects with GuardedFileError, and with ELOOP for a link that is refused. */
export async function readGuardedFile(path: string, options: GuardedReadOptions = {}): Promise<Buffer> {
  const { links = 'refused' } = options;
  const file = await open(path, links === 'refused' ? READ | constants.O_NOFOLLOW : READ);
  try {
    judge(path, await file.stat(), options.onlyName === true);
    if (typeof links === 'object') await judgePlace(path, file, links.within);
    return await readBounded(path, file);
  } finally {
    await file.close();
  }
}

/** For a path that the operator chose: its links are followed. */
export function readGuardedFileSync(path: string): string {
  const file = openSync(path, READ);
  try {
    judge(path, fstatSync(file), false);
    return readFileSync(file, 'utf8');
  } finally {
    closeSync(file);
  }
}

function judge(path: string, stats: Stats, onlyName: boolean): void {
  if (stats.isDirectory())
    throw Object.assign(new Error(`${path} is a folder`), { code: 'EISDIR', syscall: 'read', path });
  if (!stats.isFile()) throw new GuardedFileError('not-a-file', `${path} is not a regular file`);
  if (stats.size > LARGEST_FILE) throw tooLarge(path);
  if (onlyName && stats.nlink > 1)
    throw new GuardedFileError('not-a-file', `${path} has a second name elsewhere`);
}

/** It may grow while it is read. */
async function readBounded(path: string, file: FileHandle): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of file.createReadStream({ autoClose: false, start: 0, end: LARGEST_FILE }))
    parts.push(part as Buffer);
  const whole = Buffer.concat(parts);
  if (whole.length > LARGEST_FILE) throw tooLarge(path);
  return whole;
}

function tooLarge(path: string): GuardedFileError {
  return new GuardedFileError('too-large', `${path} has more than ${LARGEST_FILE} bytes`);
}

/** Judges the file that is open: by now its path may lead elsewhere. */
async function judgePlace(path: string, { fd }: FileHandle, tree: string): Promise<void> {
  const place = await readlink(`/proc/self/fd/${fd}`).catch(() => realpath(path));
  const root = await realpath(tree);
  if (!place.startsWith(root.endsWith(sep) ? root : root + sep))
    throw new GuardedFileError('outside', `${path} leads out of ${tree}`);
}
