// What all workers have counted together, including those that have ended.

import type { BlockLayout, BlockReport } from './counters.ts';
import { setRanges } from './counters.ts';

/** Block -> name -> number. */
export type Counts = Readonly<Record<string, Readonly<Record<string, number>>>>;

export interface Totals {
  /** Takes the report in, or says why no honest worker sends it. */
  take(worker: object, report: BlockReport): string | undefined;
  /** What an ended worker has counted stays in the sum; what it had open does not. */
  gone(worker: object): void;
  of(worker: object): Counts;
  all(): Counts;
}

interface Column {
  readonly layout: BlockLayout;
  /** Of the workers that have ended. */
  readonly past: Float64Array;
  readonly living: Map<object, Float64Array>;
}

export function createTotals(layouts: readonly BlockLayout[]): Totals {
  const columns = new Map(
    layouts.map((layout): [string, Column] => [
      layout.id,
      { layout, past: new Float64Array(layout.names.length), living: new Map() },
    ]),
  );

  function tell(numbersOf: (column: Column) => readonly Float64Array[]): Counts {
    return Object.fromEntries(
      [...columns].map(([id, column]) => [id, sumByName(column.layout, numbersOf(column))]),
    );
  }

  return {
    take(worker, report) {
      const column = columns.get(report.block);
      if (column === undefined) return 'numbers of a block that there is not';
      const { layout, living } = column;
      if (report.version !== layout.version) return 'numbers under a version that there is not';
      const known = living.get(worker) ?? new Float64Array(layout.names.length);
      const why = faultOf(report, layout, known);
      if (why !== undefined) return why;
      setRanges(known, report.ranges);
      living.set(worker, known);
      return undefined;
    },
    gone(worker) {
      for (const { layout, past, living } of columns.values()) {
        const numbers = living.get(worker);
        living.delete(worker);
        numbers?.forEach((number, at) => {
          if (!layout.gauges.includes(layout.names[at]!)) past[at]! += number;
        });
      }
    },
    of: (worker) => tell(({ living }) => [living.get(worker) ?? new Float64Array()]),
    all: () => tell(({ past, living }) => [past, ...living.values()]),
  };
}

function faultOf({ ranges }: BlockReport, layout: BlockLayout, known: Float64Array): string | undefined {
  for (const [start, values] of ranges) {
    if (start + values.length > known.length) return 'numbers beyond the end of their block';
    for (const [offset, value] of values.entries()) {
      const at = start + offset;
      if (value < known[at]! && !layout.gauges.includes(layout.names[at]!))
        return `a number that fell: ${layout.names[at]}`;
    }
  }
  return undefined;
}

function sumByName({ names }: BlockLayout, all: readonly Float64Array[]): Record<string, number> {
  return Object.fromEntries(
    names.map((name, at) => [name, all.reduce((sum, numbers) => sum + (numbers[at] ?? 0), 0)]),
  );
}
