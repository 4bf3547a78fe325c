// Traffic by host over the last minute and the last hour: what the workers have counted, looked at once a second.

import { DURATION_BOUNDS, OTHER, REQUEST } from '../workers/counters.ts';
import type { TotalRow } from '../workers/totals.ts';

/** What happened within a span of time. */
export interface Span {
  readonly requests: number;
  /** Replies of 400 to 499, and of 500 and above. */
  readonly clientErrors: number;
  readonly serverErrors: number;
}

export interface HostTraffic {
  readonly host: string;
  readonly inFlight: number;
  /** Of the last minute. */
  readonly perSecond: number;
  readonly clientErrorsPerSecond: number;
  readonly serverErrorsPerSecond: number;
  /** Milliseconds, of the last minute; undefined: there was no request. */
  readonly p50: number | undefined;
  readonly p95: number | undefined;
  readonly p99: number | undefined;
  /** The last second. */
  readonly now: Span;
}

/** Requests, and the errors among them as in Span. */
export type Slot = readonly [requests: number, clientErrors: number, serverErrors: number];

export interface HourOfHost {
  readonly host: string;
  /** Oldest first, SLOT_SECONDS each; the last one is under way. */
  readonly slots: readonly Slot[];
}

export interface History {
  /** To be called once a second. */
  look(requests: readonly TotalRow[], hosts: readonly TotalRow[]): void;
  traffic(): readonly HostTraffic[];
  hour(): readonly HourOfHost[];
}

export const SLOT_SECONDS = 10;
const SLOTS = 3_600 / SLOT_SECONDS;
const SECONDS = 60;
/** The others are counted together. */
const MOST_HOSTS = 100;

const REQUESTS = 0;
const CLIENT_ERRORS = 1;
const SERVER_ERRORS = 2;
const BUCKETS = 3;
const WIDTH = BUCKETS + DURATION_BOUNDS.length + 1;

interface Kept {
  /** What the workers had counted when it was looked at last. */
  readonly counted: Float64Array;
  readonly seconds: Float64Array[];
  readonly slots: Float64Array[];
  inFlight: number;
}

export function createHistory(): History {
  const kept = new Map<string, Kept>();
  let looks = 0;

  function placeOf(host: string): Kept {
    const known = kept.get(host);
    if (known !== undefined) return known;
    if (kept.size >= MOST_HOSTS && host !== OTHER) return placeOf(OTHER);
    const fresh: Kept = { counted: new Float64Array(WIDTH), seconds: [], slots: [], inFlight: 0 };
    kept.set(host, fresh);
    return fresh;
  }

  return {
    look(requests, hosts) {
      const counted = new Map<Kept, Float64Array>();
      for (const row of requests) {
        const place = placeOf(row.labels[0]!);
        const sum = counted.get(place) ?? new Float64Array(WIDTH);
        counted.set(place, sum);
        add(sum, row);
      }
      for (const each of kept.values()) each.inFlight = 0;
      for (const { labels, numbers } of hosts) placeOf(labels[0]!).inFlight += numbers[0]!;
      const newSlot = looks++ % SLOT_SECONDS === 0;
      for (const each of kept.values()) advance(each, counted.get(each) ?? each.counted, newSlot);
    },
    traffic: () => [...kept].map(([host, each]) => trafficOf(host, each)).filter(isShown),
    hour: () => [...kept].map(([host, { slots }]) => ({ host, slots: slots.map(slotOf) })),
  };
}

/** Nobody needs a line for what never comes. */
function isShown({ host, perSecond, inFlight }: HostTraffic): boolean {
  return host !== OTHER || perSecond > 0 || inFlight > 0;
}

function add(sum: Float64Array, { labels, numbers }: TotalRow): void {
  const count = numbers[REQUEST.requests]!;
  const code = Number(labels[3]);
  sum[REQUESTS]! += count;
  if (code >= 400 && code < 500) sum[CLIENT_ERRORS]! += count;
  if (code >= 500) sum[SERVER_ERRORS]! += count;
  for (let i = BUCKETS; i < WIDTH; i++) sum[i]! += numbers[REQUEST.duration + 1 + i - BUCKETS]!;
}

function advance(kept: Kept, counted: Float64Array, newSlot: boolean): void {
  const second = counted.map((number, i) => number - kept.counted[i]!);
  kept.counted.set(counted);
  kept.seconds.push(second);
  if (kept.seconds.length > SECONDS) kept.seconds.shift();
  if (newSlot || kept.slots.length === 0) kept.slots.push(new Float64Array(WIDTH));
  if (kept.slots.length > SLOTS) kept.slots.shift();
  addAll(kept.slots.at(-1)!, second);
}

function addAll(sum: Float64Array, more: Float64Array): void {
  for (let i = 0; i < WIDTH; i++) sum[i]! += more[i]!;
}

function spanOf(numbers: Float64Array): Span {
  return {
    requests: numbers[REQUESTS]!,
    clientErrors: numbers[CLIENT_ERRORS]!,
    serverErrors: numbers[SERVER_ERRORS]!,
  };
}

function slotOf(numbers: Float64Array): Slot {
  return [numbers[REQUESTS]!, numbers[CLIENT_ERRORS]!, numbers[SERVER_ERRORS]!];
}

function trafficOf(host: string, { seconds, inFlight }: Kept): HostTraffic {
  const minute = new Float64Array(WIDTH);
  for (const second of seconds) addAll(minute, second);
  const { requests, clientErrors, serverErrors } = spanOf(minute);
  const passed = Math.max(1, seconds.length);
  return {
    host,
    inFlight,
    perSecond: requests / passed,
    clientErrorsPerSecond: clientErrors / passed,
    serverErrorsPerSecond: serverErrors / passed,
    p50: percentile(minute, 0.5),
    p95: percentile(minute, 0.95),
    p99: percentile(minute, 0.99),
    now: spanOf(seconds.at(-1) ?? new Float64Array(WIDTH)),
  };
}

function percentile(numbers: Float64Array, part: number): number | undefined {
  return percentileOf(numbers.subarray(BUCKETS), part);
}

/** Milliseconds, within a bucket by its share: as Prometheus' histogram_quantile has it. Beyond the last bound: that bound. */
export function percentileOf(buckets: Float64Array, part: number): number | undefined {
  const total = buckets.reduce((sum, count) => sum + count, 0);
  if (total === 0) return undefined;
  let left = total * part;
  for (let i = 0; i < DURATION_BOUNDS.length; i++) {
    const count = buckets[i]!;
    if (left <= count && count > 0) {
      const from = i === 0 ? 0 : DURATION_BOUNDS[i - 1]!;
      return 1_000 * (from + (DURATION_BOUNDS[i]! - from) * (left / count));
    }
    left -= count;
  }
  return 1_000 * DURATION_BOUNDS.at(-1)!;
}
