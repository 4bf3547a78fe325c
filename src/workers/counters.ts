// Numbers that workers count, in blocks: what a block looks like, and which of its numbers have changed.

import { connectionCounts } from '../../proxy/listener/counts.ts';

export interface BlockLayout {
  readonly id: string;
  /** Rises when a place gets another meaning: numbers under another version are not added up. */
  readonly version: number;
  /** In the order of their places in the array. */
  readonly names: readonly string[];
  /** Those of `names` that also fall, such as what is open now. All others only rise. */
  readonly gauges: readonly string[];
}

export interface Block {
  readonly layout: BlockLayout;
  readonly numbers: Float64Array;
}

/** Where the first of these numbers stands, and the numbers from there on. */
export type Range = [start: number, numbers: number[]];

/** Of one block, the numbers that have changed since the last report. */
export interface BlockReport {
  readonly block: string;
  readonly version: number;
  readonly ranges: Range[];
}

/** Every block that a worker has. */
export const layouts: readonly BlockLayout[] = [
  { id: 'connections', version: 2, names: connectionCounts, gauges: ['open'] },
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
