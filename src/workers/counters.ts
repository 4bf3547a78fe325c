// Numbers that workers count, in blocks: what a block looks like, and which of its numbers have changed.

import { connectionCounts } from '../../proxy/listener/counts.ts';

export interface BlockLayout {
  readonly id: string;
  /** Rises when a place gets another meaning: numbers under another version are not added up. */
  readonly version: number;
  /** What tells the rows of this block apart. Default: it is one row. */
  readonly labels?: readonly string[];
  /** In the order of their places in the array. */
  readonly names: readonly string[];
  /** Those of `names` that also fall, such as what is open now. All others only rise. */
  readonly gauges: readonly string[];
}

export interface Block {
  readonly layout: BlockLayout;
  readonly numbers: Float64Array;
}

/** One of the rows of a block that has labels. */
export interface Row extends Block {
  readonly labels: readonly string[];
  /** What has been told of it. */
  readonly told: Float64Array;
  /** It waits to be told. */
  waits: boolean;
}

/** Where the first of these numbers stands, and the numbers from there on. */
export type Range = [start: number, numbers: number[]];

/** Of one block or row, the numbers that have changed since the last report. */
export interface BlockReport {
  readonly block: string;
  readonly version: number;
  /** Of a row: what tells it apart. */
  readonly labels?: string[] | undefined;
  readonly ranges: Range[];
}

/** Seconds; those of OpenTelemetry's http.server.request.duration. */
export const DURATION_BOUNDS = [
  0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
] as const;

/** The sum in microseconds, and how many lay within each bound and beyond the last. */
export const HISTOGRAM_PLACES = 1 + DURATION_BOUNDS.length + 1;

function histogram(name: string): string[] {
  return [`${name}Us`, ...DURATION_BOUNDS.map((bound) => `${name}${bound}`), `${name}Inf`];
}

/** What has no label of its own is counted under this one. */
export const OTHER = 'other';
/** Of each block with labels, in one worker and in all together. */
export const MOST_ROWS = 2_000;

export const connectionLayout: BlockLayout = {
  id: 'connections',
  version: 3,
  names: connectionCounts,
  gauges: ['open'],
};

export const processLayout: BlockLayout = {
  id: 'process',
  version: 1,
  names: ['cpuMs', 'residentBytes', 'lagMs'],
  gauges: ['residentBytes', 'lagMs'],
};

export const requestLayout: BlockLayout = {
  id: 'requests',
  version: 1,
  labels: ['host', 'route', 'method', 'code'],
  names: ['requests', 'received', 'sent', ...histogram('duration'), ...histogram('firstByte')],
  gauges: [],
};

/** Places of requestLayout. */
export const REQUEST = { requests: 0, received: 1, sent: 2, duration: 3, firstByte: 3 + HISTOGRAM_PLACES };

export const hostLayout: BlockLayout = {
  id: 'hosts',
  version: 1,
  labels: ['host'],
  names: ['inFlight'],
  gauges: ['inFlight'],
};

export const faultLayout: BlockLayout = {
  id: 'faults',
  version: 1,
  labels: ['host', 'fault'],
  names: ['faults'],
  gauges: [],
};

export const upstreamLayout: BlockLayout = {
  id: 'upstreams',
  version: 1,
  labels: ['upstream'],
  names: ['fails', 'retries', ...histogram('duration')],
  gauges: ['fails'],
};

/** Places of upstreamLayout. */
export const UPSTREAM = { fails: 0, retries: 1, duration: 2 };

export const spanLayout: BlockLayout = {
  id: 'spans',
  version: 1,
  names: ['recorded', 'dropped'],
  gauges: [],
};

/** Places of spanLayout. */
export const SPANS = { recorded: 0, dropped: 1 };

/** Lines of the access log for its file that a worker could not hand over. */
export const linesLayout: BlockLayout = {
  id: 'lines',
  version: 1,
  names: ['lost'],
  gauges: [],
};

/** Every block that a worker has. */
export const layouts: readonly BlockLayout[] = [
  connectionLayout,
  processLayout,
  requestLayout,
  hostLayout,
  faultLayout,
  upstreamLayout,
  spanLayout,
  linesLayout,
];

/** Where `numbers` differ from `known`, from the front, `most` numbers at most. Changes neither. */
export function changedRanges(numbers: Float64Array, known: Float64Array, most: number): Range[] {
  const ranges: Range[] = [];
  let left = most;
  for (let at = 0; at < numbers.length && left > 0; at++) {
    if (Object.is(numbers[at], known[at])) continue;
    const last = ranges.at(-1);
    if (last !== undefined && last[0] + last[1].length === at) last[1].push(numbers[at]!);
    else ranges.push([at, [numbers[at]!]]);
    left--;
  }
  return ranges;
}

export function setRanges(numbers: Float64Array, ranges: readonly Range[]): void {
  for (const [start, values] of ranges) numbers.set(values, start);
}

/** `ms` in the histogram that begins at `place`. */
export function observe(numbers: Float64Array, place: number, ms: number): void {
  numbers[place]! += Math.round(ms * 1_000);
  let bucket = 0;
  while (bucket < DURATION_BOUNDS.length && ms > BOUNDS_MS[bucket]!) bucket++;
  numbers[place + 1 + bucket]!++;
}

const BOUNDS_MS = Float64Array.from(DURATION_BOUNDS, (seconds) => seconds * 1_000);
