// Where a worker's lines of the access log go: to stdout, and to the supervisor, which writes them to a file.

import { Socket } from 'node:net';
import { LINES_FD } from './channel.ts';
import type { AccessLogSettings } from './messages.ts';

/** What waits for a supervisor that does not keep up; more is lost. */
const MOST_WAITING = 1024 * 1024;
const NEW_LINE = '\n';

/** `lost`: lines that were, in its first place. Takes whole lines of ASCII. */
export function createLineSink(
  { toStdout, toFile }: Pick<AccessLogSettings, 'toStdout' | 'toFile'>,
  lost: Float64Array,
): (lines: string) => void {
  const toOut = (lines: string) => void process.stdout.write(lines);
  if (!toFile) return toOut;
  const pipe = new Socket({ fd: LINES_FD, readable: false, writable: true });
  // Without its supervisor a worker ends anyway.
  pipe.on('error', () => {});
  const toSupervisor = (lines: string) => {
    if (pipe.writable && pipe.writableLength <= MOST_WAITING) pipe.write(lines, 'latin1');
    else lost[0]! += lines.split(NEW_LINE).length - 1;
  };
  if (!toStdout) return toSupervisor;
  return (lines) => {
    toOut(lines);
    toSupervisor(lines);
  };
}
