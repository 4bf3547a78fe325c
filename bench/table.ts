// What was measured, as a table that people read.

import { median, spread } from './statistics.ts';

export interface Cell {
  readonly row: string;
  readonly peer: string;
  /** One for each run, in the row's unit. */
  readonly values: readonly number[];
  /** Why there is no value. */
  readonly failure?: string;
}

export interface Report {
  /** ISO 8601. */
  readonly startedAt: string;
  readonly machine: Machine;
  readonly runs: number;
  readonly warmUpMs: number;
  readonly windowMs: number;
  readonly rows: readonly { readonly id: string; readonly title: string; readonly unit: string }[];
  readonly peers: readonly { readonly id: string; readonly title: string; readonly version: string }[];
  readonly cells: readonly Cell[];
  /** What could not take part, and what would let it. */
  readonly leftOut: readonly string[];
}

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly kernel: string;
  readonly node: string;
  /** Share of the time that the hypervisor gave to others while this was measured. */
  readonly stolen: number;
  /** Processes that were ready to run on average over the last minute, when it began. */
  readonly loadAtStart: number;
}

const OURS = 'ours';

/** Markdown: medians, in brackets ours divided by the peer's, and how far apart the runs of a row were at most. */
export function renderTable(report: Report): string {
  const header = ['work', ...report.peers.map((peer) => peer.title), 'spread'];
  const lines = [header, header.map((_, index) => (index === 0 ? '---' : '---:'))];
  for (const row of report.rows) {
    const cells = report.peers.map((peer) => renderCell(report, row.id, peer.id));
    const worst = spreadOfRow(report, row.id);
    lines.push([`${row.title}, ${row.unit}`, ...cells, worst === undefined ? '' : `${percent(worst)}`]);
  }
  return lines.map((line) => `| ${line.join(' | ')} |`).join('\n');
}

/** What the table's reader must know to judge it: machine, versions, noise, what is missing. */
export function renderNotes(report: Report): string {
  const { machine } = report;
  const failures = report.cells
    .filter((cell) => cell.failure !== undefined)
    .map((cell) => `- FAILED: ${cell.peer}, ${cell.row}: ${cell.failure}`);
  return [
    `Median of ${report.runs} ${report.runs === 1 ? 'run' : 'runs'}, in each ${report.windowMs / 1_000} s of turns for every peer ` +
      `after ${report.warmUpMs / 1_000} s of warm-up, ${report.startedAt}; in brackets ours divided by theirs (below 1 ours is cheaper).`,
    '',
    `- machine: ${machine.processor}, ${machine.cores} cores, Linux ${machine.kernel}, Node ${machine.node}`,
    ...report.peers.map((peer) => `- ${peer.title}: ${peer.version}`),
    `- noise: ${renderNoise(report)}`,
    ...report.leftOut.map((text) => `- left out: ${text}`),
    ...failures,
  ].join('\n');
}

function renderNoise(report: Report): string {
  const { machine } = report;
  const around = `load ${machine.loadAtStart.toFixed(2)} at the start, ${percent(machine.stolen)} of the time stolen by the hypervisor`;
  const spreads = report.cells.filter((cell) => cell.values.length > 1).map((cell) => spread(cell.values));
  if (spreads.length === 0) return `unknown from a single run; ${around}`;
  const worst = percent(Math.max(...spreads));
  return `the runs of a cell were ${percent(median(spreads))} apart in the median and ${worst} at worst; ${around}`;
}

function renderCell(report: Report, row: string, peer: string): string {
  const value = medianOf(report, row, peer);
  if (value === undefined) return cellOf(report, row, peer)?.failure === undefined ? '–' : 'failed';
  const ours = medianOf(report, row, OURS);
  if (peer === OURS || ours === undefined) return number(value);
  return `${number(value)} (${(ours / value).toFixed(2)})`;
}

/** The largest spread of a row's cells; undefined if none was measured more than once. */
function spreadOfRow(report: Report, row: string): number | undefined {
  const repeated = report.cells.filter((cell) => cell.row === row && cell.values.length > 1);
  if (repeated.length === 0) return undefined;
  return Math.max(...repeated.map((cell) => spread(cell.values)));
}

function medianOf(report: Report, row: string, peer: string): number | undefined {
  const values = cellOf(report, row, peer)?.values ?? [];
  return values.length === 0 ? undefined : median(values);
}

function cellOf(report: Report, row: string, peer: string): Cell | undefined {
  return report.cells.find((cell) => cell.row === row && cell.peer === peer);
}

/** Three significant digits are what the measurement is good for. */
function number(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en');
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}
