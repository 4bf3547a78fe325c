// What all workers have counted together, including those that have ended.

import { type BlockLayout, type BlockReport, MOST_ROWS, OTHER, setRanges } from './counters.ts';

/** Block -> name -> number, of the blocks that are one row. */
export type Counts = Readonly<Record<string, Readonly<Record<string, number>>>>;

export interface TotalRow {
  readonly labels: readonly string[];
  /** In the order of the layout's names. Not to be changed. */
  readonly numbers: Float64Array;
}

export interface Totals {
  /** Takes the report in, or says why no honest worker sends it. */
  take(worker: object, report: BlockReport): string | undefined;
  /** What an ended worker has counted stays in the sum; what it had open does not. */
  gone(worker: object): void;
  of(worker: object): Counts;
  all(): Counts;
  /** Of a block with labels: each row, added up. What is beyond the most rows is one row. */
  rows(block: string): TotalRow[];
}

/** Whether a label of that name can have this value. */
export type KnowsLabel = (name: string, value: string) => boolean;

interface Column {
  readonly layout: BlockLayout;
  /** Of the workers that have ended, by key. */
  readonly past: Map<string, TotalRow>;
  readonly living: Map<object, Map<string, TotalRow>>;
  /** The keys that have a row of their own. */
  readonly admitted: Set<string>;
}

const LABELS_END = '\u0000';

export function createTotals(layouts: readonly BlockLayout[], knows: KnowsLabel = () => true): Totals {
  const columns = new Map(
    layouts.map((layout): [string, Column] => [
      layout.id,
      { layout, past: new Map(), living: new Map(), admitted: new Set() },
    ]),
  );
  const single = [...columns].filter(([, { layout }]) => layout.labels === undefined);

  function tell(rowsOf: (column: Column) => readonly (TotalRow | undefined)[]): Counts {
    return Object.fromEntries(single.map(([id, column]) => [id, sumByName(column.layout, rowsOf(column))]));
  }

  return {
    take(worker, report) {
      const column = columns.get(report.block);
      if (column === undefined) return 'numbers of a block that there is not';
      const { layout, living } = column;
      if (report.version !== layout.version) return 'numbers under a version that there is not';
      const { labels = [] } = report;
      if (!fits(labels, layout, knows)) return 'numbers under a label that there is not';
      const rows = living.get(worker) ?? new Map<string, TotalRow>();
      const key = labels.join(LABELS_END);
      const row = rows.get(key) ?? emptyRow(layout, labels);
      const why = faultOf(report, layout, row.numbers);
      if (why !== undefined) return why;
      if (rows.size >= MOST_ROWS && !rows.has(key)) return 'more rows than it can have';
      setRanges(row.numbers, report.ranges);
      rows.set(key, row);
      living.set(worker, rows);
      if (column.admitted.size < MOST_ROWS) column.admitted.add(key);
      return undefined;
    },
    gone(worker) {
      for (const column of columns.values()) {
        const rows = column.living.get(worker);
        column.living.delete(worker);
        for (const [key, row] of rows ?? [])
          addTo(column.past, column, key, withoutGauges(column.layout, row));
      }
    },
    of: (worker) => tell(({ living }) => [...(living.get(worker)?.values() ?? [])]),
    all: () =>
      tell(({ past, living }) => [past.get(''), ...[...living.values()].map((rows) => rows.get(''))]),
    rows(block) {
      const column = columns.get(block)!;
      const sums = new Map<string, TotalRow>();
      for (const [key, row] of column.past) addTo(sums, column, key, row);
      for (const rows of column.living.values()) for (const [key, row] of rows) addTo(sums, column, key, row);
      return [...sums.values()];
    },
  };
}

function fits(labels: readonly string[], layout: BlockLayout, knows: KnowsLabel): boolean {
  const names = layout.labels ?? [];
  return (
    labels.length === names.length && labels.every((label, i) => label === OTHER || knows(names[i]!, label))
  );
}

function emptyRow({ names }: BlockLayout, labels: readonly string[]): TotalRow {
  return { labels, numbers: new Float64Array(names.length) };
}

/** Under its own key, or with the others that have no row. */
function addTo(sums: Map<string, TotalRow>, { layout, admitted }: Column, key: string, row: TotalRow): void {
  const own = admitted.has(key);
  const labels = own ? row.labels : row.labels.map(() => OTHER);
  const place = own ? key : labels.join(LABELS_END);
  const sum = sums.get(place) ?? emptyRow(layout, labels);
  row.numbers.forEach((number, at) => {
    sum.numbers[at]! += number;
  });
  sums.set(place, sum);
}

function withoutGauges({ names, gauges }: BlockLayout, { labels, numbers }: TotalRow): TotalRow {
  return { labels, numbers: numbers.map((number, at) => (gauges.includes(names[at]!) ? 0 : number)) };
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

function sumByName({ names }: BlockLayout, rows: readonly (TotalRow | undefined)[]): Record<string, number> {
  return Object.fromEntries(
    names.map((name, at) => [name, rows.reduce((sum, row) => sum + (row?.numbers[at] ?? 0), 0)]),
  );
}
