// The rows of a block that has labels: made when they are first counted in, and told once they have changed.

import { type BlockLayout, MOST_ROWS, OTHER, type Row } from './counters.ts';

export interface Rows {
  readonly layout: BlockLayout;
  /** Rows with numbers that were not told yet, in the order in which they changed. */
  readonly waiting: Row[];
  /** A new row; the one for all that is left once there are too many. */
  add(...labels: readonly string[]): Row;
  /** The one for all that has none of its own. */
  rest(): Row;
  /** It has been counted in. */
  touch(row: Row): void;
}

export function createRows(layout: BlockLayout, most = MOST_ROWS): Rows {
  const waiting: Row[] = [];
  let count = 0;
  let rest: Row | undefined;
  const make = (labels: readonly string[]): Row => ({
    layout,
    labels,
    numbers: new Float64Array(layout.names.length),
    // Nothing equals it: of a new row everything is told, zeros too.
    told: new Float64Array(layout.names.length).fill(Number.NaN),
    waits: false,
  });
  const restOf = () => (rest ??= make((layout.labels ?? []).map(() => OTHER)));
  return {
    layout,
    waiting,
    rest: restOf,
    add(...labels) {
      if (count >= most - 1) return restOf();
      count++;
      return make(labels);
    },
    touch(row) {
      if (row.waits) return;
      row.waits = true;
      waiting.push(row);
    },
  };
}
