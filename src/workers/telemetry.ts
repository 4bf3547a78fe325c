// What a worker tells of itself: events and numbers that changed, in one message of bounded size, one a second at most.

import { type Block, type BlockReport, changedRanges, setRanges } from './counters.ts';
import type { Telemetry, WorkerEvent } from './messages.ts';
import type { Rows } from './rows.ts';

export interface TelemetrySender {
  /** Sent at once, unless a message has left within the last second. */
  report(event: WorkerEvent): void;
  /** Sends all that is waiting, in as many messages as it takes. For the end of a worker. */
  flush(): void;
}

export interface TelemetryOptions {
  readonly blocks: readonly Block[];
  readonly rows?: readonly Rows[];
  /** Called before the numbers of a second are looked at. */
  sample?(): void;
  send(message: Telemetry): void;
  readonly everyMs?: number;
  /** Milliseconds that only rise. */
  readonly now?: () => number;
}

const EVERY_MS = 1_000;
/** Bytes of JSON; with what is around them both fit into one message, see LONGEST_FROM_WORKER. */
const LONGEST_EVENTS = 32 * 1024;
const MOST_NUMBERS = 800;
/** The same of rows: enough for some five hundred that have changed. */
const LONGEST_ROWS = 64 * 1024;
/** Upstreams have names of ours: more than this only wait if thousands of them fail within one second. */
const MOST_WAITING = 5_000;

export function createTelemetrySender(options: TelemetryOptions): TelemetrySender {
  const { everyMs = EVERY_MS, now = () => performance.now(), send } = options;
  const waiting: WorkerEvent[] = [];
  const blocks = options.blocks.map((block) => ({
    ...block,
    sent: new Float64Array(block.numbers.length),
  }));
  let lost = 0;
  let lastSent = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout;
  lookIn(everyMs);

  function lookIn(ms: number): void {
    clearTimeout(timer);
    timer = setTimeout(look, ms).unref();
  }

  /** Whether there was anything to send. */
  function sendNext(): boolean {
    const events = takeEvents(waiting);
    const counters = [...takeNumbers(blocks), ...takeRows(options.rows ?? [])];
    if (events.length === 0 && counters.length === 0) return false;
    send({ events, counters, lost });
    lost = 0;
    lastSent = now();
    return true;
  }

  function look(): void {
    options.sample?.();
    sendNext();
    lookIn(everyMs);
  }

  return {
    report(event) {
      if (waiting.length < MOST_WAITING) waiting.push(event);
      else lost++;
      lookIn(Math.max(0, lastSent + everyMs - now()));
    },
    flush() {
      options.sample?.();
      while (sendNext());
    },
  };
}

/** As many of the first as fit. */
function takeEvents(waiting: WorkerEvent[]): WorkerEvent[] {
  let bytes = 0;
  const tooMany = waiting.findIndex((event) => {
    bytes += Buffer.byteLength(JSON.stringify(event)) + 1;
    return bytes > LONGEST_EVENTS;
  });
  return waiting.splice(0, tooMany === -1 ? waiting.length : tooMany);
}

/** Numbers that find no room have still changed when the next message is put together. */
function takeNumbers(blocks: readonly (Block & { readonly sent: Float64Array })[]): BlockReport[] {
  let left = MOST_NUMBERS;
  const reports: BlockReport[] = [];
  for (const { layout, numbers, sent } of blocks) {
    const ranges = changedRanges(numbers, sent, left);
    if (ranges.length === 0) continue;
    left -= ranges.reduce((sum, [, values]) => sum + values.length, 0);
    setRanges(sent, ranges);
    reports.push({ block: layout.id, version: layout.version, ranges });
  }
  return reports;
}

/** Those that have waited longest; the others wait on. */
function takeRows(all: readonly Rows[]): BlockReport[] {
  let left = LONGEST_ROWS;
  const reports: BlockReport[] = [];
  for (const { layout, waiting } of all) {
    let taken = 0;
    for (const row of waiting) {
      const ranges = changedRanges(row.numbers, row.told, row.numbers.length);
      const report = { block: layout.id, version: layout.version, labels: [...row.labels], ranges };
      left -= ranges.length === 0 ? 0 : Buffer.byteLength(JSON.stringify(report)) + 1;
      if (left < 0) break;
      taken++;
      row.waits = false;
      setRanges(row.told, ranges);
      if (ranges.length > 0) reports.push(report);
    }
    waiting.splice(0, taken);
    if (left < 0) break;
  }
  return reports;
}
