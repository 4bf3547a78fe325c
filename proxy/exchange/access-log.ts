// The access log: one line for each request, stream or tunnel, written when it has ended, many lines at a time.

import type { HeaderField } from '../http2/hpack.ts';
import {
  type AccessEntry,
  type AccessLogOptions,
  isTrouble,
  plainAccessLog,
  type ShownHeader,
} from './access-entry.ts';
import { createLineWriter } from './access-formats.ts';
import { createShownHeaders } from './access-redaction.ts';

export interface AccessLog {
  /** `endedAt` in the same time as `entry.startedAt`. The entry is read at once and may be used again. */
  write(entry: AccessEntry, endedAt: number): void;
  /** Writes what waits for the end of this turn of the event loop. */
  flush(): void;
  /** Of a request's head as it came, what is to be shown of it; undefined: nothing ever is. */
  readonly shows?: ((head: string | readonly HeaderField[]) => readonly ShownHeader[]) | undefined;
}

/**
 * PIPE_BUF of Linux: what is not longer leaves in one piece (pipe(7)), so that lines of workers that share their stdout
 * never run into each other.
 */
const LONGEST_WRITE = 4_096;
/** `sink` takes ASCII text of whole lines; it must not keep less than all of it. */
export function createAccessLog(
  sink: (lines: string) => void,
  options: AccessLogOptions = plainAccessLog,
  now: () => number = Date.now,
): AccessLog {
  let pending = '';
  let scheduled = false;
  const lineOf = createLineWriter(options);
  const keeps = createSampling(options);
  const shows = createShownHeaders(options);

  const flush = () => {
    scheduled = false;
    if (pending === '') return;
    const lines = pending;
    pending = '';
    sink(lines);
  };

  return {
    flush,
    ...(shows !== undefined && { shows }),
    write(entry, endedAt) {
      if (!keeps(entry, endedAt)) return;
      const line = lineOf(entry, now(), endedAt);
      if (pending.length + line.length > LONGEST_WRITE) {
        const lines = pending;
        pending = '';
        sink(lines);
      }
      pending += line;
      if (scheduled) return;
      scheduled = true;
      setImmediate(flush);
    },
  };
}

/** Of what is not kept for itself every so many-th is: evenly, whatever the traffic. */
function createSampling({ sample, slowMs }: AccessLogOptions) {
  if (sample >= 1) return () => true;
  let due = 0;
  return (entry: AccessEntry, endedAt: number) => {
    if (entry.fault !== undefined || endedAt - entry.startedAt >= slowMs || isTrouble(entry)) return true;
    due += sample;
    if (due < 1) return false;
    due -= 1;
    return true;
  };
}
