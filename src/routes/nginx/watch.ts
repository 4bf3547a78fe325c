// Follows a folder of nginx files with all that they include: reads it again when something in it has changed.

import { type Clock, systemClock } from '../../lib/clock.ts';
import { fingerprintOf } from '../watch.ts';
import type { NginxRules } from './read.ts';

export interface NginxWatchOptions {
  read(): NginxRules;
  /** What is in force. */
  current: NginxRules;
  /** The files say something else than what is in force, and have no mistakes. What it throws goes to onProblem. */
  onRules(read: NginxRules): void;
  /** The files have mistakes: what they said before holds. Called once for each such state of the files. */
  onMistakes(read: NginxRules): void;
  /** What they say cannot be served: what they said before holds. */
  onProblem(error: unknown): void;
  intervalMs?: number;
  clock?: Clock;
}

export interface NginxWatch {
  /** Reads at once, whether or not anything seems changed. */
  reload(): void;
  close(): void;
}

/**
 * Looks at every file and folder that the last reading touched. A change is read only after two looks that agree, so that
 * files in the middle of being written are left alone.
 */
export function watchNginxFiles(options: NginxWatchOptions): NginxWatch {
  const { clock = systemClock, intervalMs = 1000 } = options;
  const stop = new AbortController();
  let watched = options.current.watched;
  let taken = textOf(options.current);
  let refused: string | undefined;

  function reload(): void {
    const read = options.read();
    watched = read.watched;
    const text = textOf(read);
    if (read.mistakes.length > 0) {
      if (text !== refused) options.onMistakes(read);
      refused = text;
      return;
    }
    refused = undefined;
    if (text === taken) return;
    try {
      options.onRules(read);
      taken = text;
    } catch (error) {
      options.onProblem(error);
    }
  }

  async function look(): Promise<void> {
    // No files look like this, so that a change between the caller's reading and the first look is seen too.
    let known = '';
    let before = await fingerprintOf(watched);
    for (;;) {
      await clock.sleep(intervalMs, stop.signal);
      const now = await fingerprintOf(watched);
      if (now !== known && now === before) {
        known = now;
        reload();
      }
      before = now;
    }
  }

  look().catch((error: unknown) => {
    if (!stop.signal.aborted) options.onProblem(error);
  });
  return { reload, close: () => stop.abort() };
}

/** What was read: spaces and comments behind it make no difference. */
function textOf({ rules, mistakes }: NginxRules): string {
  return JSON.stringify(mistakes.length > 0 ? mistakes : rules);
}
