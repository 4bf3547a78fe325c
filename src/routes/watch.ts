// Follows the routes file: looks at it again and again, and reads it when it has changed.

import { stat } from 'node:fs/promises';
import { unreadable } from '../config/mistake.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import { readGuardedFile } from '../lib/guarded-file.ts';
import { RoutesFileError } from './yaml/file.ts';

export interface RoutesWatchOptions<T> {
  path: string;
  /** What else the parsed whole was read from, after each parse: files that it includes. */
  includes?(): readonly string[];
  /** The text to a whole; throws what goes to onProblem. */
  parse(text: string): T;
  /** Called with what a changed file says, never twice in a row for the same text. */
  onRoutes(parsed: T): void;
  /** The file cannot be read or is refused: what it said before holds. Called once for each such state of the file. */
  onProblem(error: unknown): void;
  /** What was last taken from the file. */
  current?: string;
  intervalMs?: number;
  clock?: Clock;
}

export interface RoutesWatch {
  /** Reads at once, whether or not the file seems changed. */
  reload(): Promise<void>;
  close(): void;
}

/**
 * Looks at the file each interval. Looking works where file-system events do not (bind mounts of one file, network and
 * overlay file systems) and sees writes in place, renames over and swapped symbolic links alike. A change is read only
 * after two looks that agree, so that a file in the middle of being written is left alone.
 */
export function watchRoutesFile<T>(options: RoutesWatchOptions<T>): RoutesWatch {
  const { path, clock = systemClock, intervalMs = 1000 } = options;
  const stop = new AbortController();
  let taken = options.current;
  let refused: string | undefined;

  function take(text: string, includesChanged = false): void {
    if (text === taken && !includesChanged) {
      refused = undefined;
      return;
    }
    try {
      options.onRoutes(options.parse(text));
      taken = text;
      refused = undefined;
    } catch (error) {
      refused = text;
      options.onProblem(error);
    }
  }

  async function read(): Promise<string | undefined> {
    try {
      // Kubernetes exchanges a mounted file by a link: it is followed, wherever it leads.
      const text = (await readGuardedFile(path, { links: 'followed' })).toString('utf8');
      return stop.signal.aborted ? undefined : text;
    } catch (cause) {
      if (!stop.signal.aborted) options.onProblem(cannotRead(path, cause));
      return undefined;
    }
  }

  const includes = () => (options.includes?.() ?? []).filter((each) => each !== path);
  const allPaths = () => [path, ...includes()];

  async function look(): Promise<void> {
    // No file has this fingerprint, so that a change between the caller's reading and the first look is seen too.
    let known = '';
    let before = await fingerprintOf(allPaths());
    let included = await fingerprintOf(includes());
    for (;;) {
      await clock.sleep(intervalMs, stop.signal);
      const now = await fingerprintOf(allPaths());
      if (now !== known && now === before) {
        known = now;
        const text = await read();
        const more = await fingerprintOf(includes());
        const includesChanged = more !== included;
        included = more;
        if (text !== undefined && (text !== refused || includesChanged)) take(text, includesChanged);
      }
      before = now;
    }
  }

  look().catch((error) => {
    if (!stop.signal.aborted) options.onProblem(error);
  });
  return {
    async reload() {
      const text = await read();
      if (text !== undefined) take(text, includes().length > 0);
    },
    close: () => stop.abort(),
  };
}

/** What changes when any of the files or folders does. */
export async function fingerprintOf(paths: readonly string[]): Promise<string> {
  const prints = await Promise.all(paths.map(async (path) => `${path} ${await fingerprint(path)}`));
  return prints.join('\n');
}

/** What changes when the file does; a file that is not there has one too. */
async function fingerprint(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}

function cannotRead(path: string, cause: unknown): RoutesFileError {
  return new RoutesFileError(path, [{ place: { file: path }, ...unreadable(cause) }], { cause });
}
