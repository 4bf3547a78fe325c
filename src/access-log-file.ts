// ACCESS_LOG_FILE: lines of all workers in one file, opened anew when it is rotated; a disk that is full or slow loses lines, and nobody waits for it.

import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import type { Log } from './lib/log.ts';

export interface LogFileCounts {
  readonly written: number;
  readonly lost: number;
}

export interface AccessLogFile {
  /** Bytes of one worker, in order; a line may come in pieces. The bytes are kept until they are written. */
  take(from: object, bytes: Buffer): void;
  /** The worker is gone: what there is of a last line is no line. */
  gone(from: object): void;
  /** Opens the file of that name now: it has been moved away. */
  reopen(): void;
  /** Lines. */
  counts(): LogFileCounts;
  /** Writes what waits, for so long at most. */
  close(withinMs: number): Promise<void>;
}

export interface AccessLogFileOptions {
  readonly path: string;
  readonly log: Log;
  /** Milliseconds that only rise. */
  readonly now?: () => number;
}

const NEW_LINE = 10;
/** A line of ours has 4,096 bytes at most, see access-log.ts. */
const LONGEST_LINE = 16 * 1024;
/** What waits for a disk that is slow. */
const MOST_WAITING = 8 * 1024 * 1024;
/** How often it is looked whether the file of that name is still the one that is written, and a failed open is tried again. */
const LOOK_EVERY_MS = 1_000;
const MODE = 0o600;

export function createAccessLogFile(options: AccessLogFileOptions): AccessLogFile {
  return new RotatedFile(options);
}

class RotatedFile implements AccessLogFile {
  private readonly path: string;
  private readonly log: Log;
  private readonly now: () => number;
  private readonly unfinished = new Map<object, Buffer>();
  private waiting: Buffer[] = [];
  private bytes = 0;
  private written = 0;
  private lost = 0;
  private handle: FileHandle | undefined;
  private lookedAt = Number.NEGATIVE_INFINITY;
  /** The file of that name is another one. */
  private moved = false;
  /** A line was written in part: the next one must not run into it. */
  private torn = false;
  private writing: Promise<void> | undefined;
  /** Lines that were lost since it last went well; it is said once. */
  private failing: { readonly since: number } | undefined;

  constructor({ path, log, now = () => performance.now() }: AccessLogFileOptions) {
    this.path = path;
    this.log = log;
    this.now = now;
    // A path that is wrong is told at the start, and not with the first request.
    this.write();
  }

  take(from: object, bytes: Buffer): void {
    const before = this.unfinished.get(from);
    const all = before === undefined ? bytes : Buffer.concat([before, bytes]);
    const end = all.lastIndexOf(NEW_LINE) + 1;
    const rest = all.subarray(end);
    // No line of ours is so long.
    if (rest.length > 0 && rest.length <= LONGEST_LINE) this.unfinished.set(from, rest);
    else this.unfinished.delete(from);
    if (end > 0) this.keep(all.subarray(0, end));
  }

  gone(from: object): void {
    this.unfinished.delete(from);
  }

  reopen(): void {
    this.moved = true;
    this.write();
  }

  counts(): LogFileCounts {
    return { written: this.written, lost: this.lost };
  }

  async close(withinMs: number): Promise<void> {
    let over = false;
    const last = Promise.withResolvers<void>();
    const timer = setTimeout(() => {
      over = true;
      last.resolve();
    }, withinMs);
    while (this.writing !== undefined && !over) await Promise.race([this.writing, last.promise]);
    clearTimeout(timer);
    this.lost += linesIn(this.waiting);
    this.waiting = [];
    // One that hangs is left to the end of the process.
    if (this.writing === undefined) await this.handle?.close().catch(() => {});
  }

  private keep(lines: Buffer): void {
    if (this.bytes + lines.length > MOST_WAITING) {
      this.lost += linesIn([lines]);
      this.fail(new Error(`more than ${MOST_WAITING} bytes wait for the disk`));
      return;
    }
    this.bytes += lines.length;
    this.waiting.push(lines);
    this.write();
  }

  private write(): void {
    this.writing ??= this.writeAll().finally(() => {
      this.writing = undefined;
      if (this.waiting.length > 0) this.write();
    });
  }

  private async writeAll(): Promise<void> {
    const handle = await this.current();
    const lines = this.waiting;
    this.waiting = [];
    this.bytes = 0;
    if (lines.length === 0) return;
    if (handle === undefined) {
      this.lost += linesIn(lines);
      return;
    }
    const left = await this.append(handle, Buffer.concat(lines));
    const lost = linesIn([left]);
    this.lost += lost;
    this.written += linesIn(lines) - lost;
  }

  /** Returns what was not written. */
  private async append(handle: FileHandle, bytes: Buffer): Promise<Buffer> {
    let left = bytes;
    try {
      if (this.torn) await handle.write('\n');
      this.torn = false;
      while (left.length > 0) {
        const { bytesWritten } = await handle.write(left);
        left = left.subarray(bytesWritten);
      }
      this.recover();
    } catch (error) {
      const done = bytes.length - left.length;
      this.torn ||= done > 0 && bytes[done - 1] !== NEW_LINE;
      this.fail(error);
    }
    return left;
  }

  /** Undefined: there is none that can be written. */
  private async current(): Promise<FileHandle | undefined> {
    const now = this.now();
    if (!this.moved && now - this.lookedAt < LOOK_EVERY_MS) return this.handle;
    this.lookedAt = now;
    const asked = this.moved;
    this.moved = false;
    if (this.handle !== undefined && !asked && (await this.isSame(this.handle))) return this.handle;
    const before = this.handle;
    this.handle = undefined;
    await before?.close().catch(() => {});
    this.torn = false;
    try {
      this.handle = await openToAppend(this.path);
    } catch (error) {
      this.fail(error);
    }
    return this.handle;
  }

  private async isSame(handle: FileHandle): Promise<boolean> {
    const [there, ours] = await Promise.all([stat(this.path).catch(() => undefined), handle.stat()]);
    return there !== undefined && there.ino === ours.ino && there.dev === ours.dev;
  }

  private fail(err: unknown): void {
    if (this.failing !== undefined) return;
    this.failing = { since: this.lost };
    this.log.error(
      { err, path: this.path },
      'lines of the access log cannot be written to their file, and are lost',
    );
  }

  private recover(): void {
    if (this.failing === undefined) return;
    const lost = this.lost - this.failing.since;
    this.failing = undefined;
    this.log.warn({ lost, path: this.path }, 'the access log is written again');
  }
}

/** No link, pipe or device is written to: what stands in its place was not put there by us. */
async function openToAppend(path: string): Promise<FileHandle> {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  const handle = await open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, MODE);
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new Error(`${path} is no file`);
}

function linesIn(pieces: readonly Buffer[]): number {
  let lines = 0;
  for (const bytes of pieces)
    for (let at = bytes.indexOf(NEW_LINE); at !== -1; at = bytes.indexOf(NEW_LINE, at + 1)) lines++;
  return lines;
}
