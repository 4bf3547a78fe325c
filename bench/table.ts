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
  readonly rows: readonly ReportRow[];
  readonly peers: readonly { readonly id: string; readonly title: string; readonly version: string }[];
  readonly cells: readonly Cell[];
  /** What could not take part, and what would let it. */
  readonly leftOut: readonly string[];
}

export interface ReportRow {
  readonly id: string;
  readonly title: string;
  readonly unit: string;
  /** The row that it is to be compared with, measured in the same turns. */
  readonly beside?: string;
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

/** Markdown: medians, in brackets ours divided by the peer's, and how far apart these ratios were at most. */
export function renderTable(report: Report): string {
  const header = ['work', ...report.peers.map((peer) => peer.title), 'spread'];
  const lines = [header, header.map((_, index) => (index === 0 ? '---' : '---:'))];
  for (const row of report.rows) {
    const cells = report.peers.map((peer) => renderCell(report, row, peer.id));
    const worst = spreadOfRow(report, row);
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
      `after ${report.warmUpMs / 1_000} s of warm-up, ${report.startedAt}; in brackets ours divided by theirs, the median of the runs' ratios (below 1 ours is cheaper).`,
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
  const spreads = report.rows.flatMap((row) => spreadsOf(report, row));
  if (spreads.length === 0) return `unknown from a single run; ${around}`;
  const worst = percent(Math.max(...spreads));
  return `the ratios of a cell's runs were ${percent(median(spreads))} apart in the median and ${worst} at worst; ${around}`;
}

function renderCell(report: Report, row: ReportRow, peer: string): string {
  const cell = cellOf(report, row.id, peer);
  if (cell === undefined || cell.values.length === 0) return cell?.failure === undefined ? '–' : 'failed';
  const value = number(median(cell.values));
  const ratios = ratiosOf(report, row, peer);
  return ratios === undefined ? value : `${value} (${median(ratios).toFixed(2)})`;
}

/**
 * Ours divided by the peer's, run by run: what slows a run down slows both. Of ours itself, divided by ours in the row
 * that this one is beside. Undefined where there is nothing to divide by.
 */
function ratiosOf(report: Report, row: ReportRow, peer: string): readonly number[] | undefined {
  if (peer === OURS && row.beside === undefined) return undefined;
  const ours = cellOf(report, row.id, OURS)?.values ?? [];
  const theirs = cellOf(report, peer === OURS ? row.beside! : row.id, peer)?.values ?? [];
  if (ours.length === 0 || ours.length !== theirs.length) return undefined;
  return ours.map((value, run) => value / theirs[run]!);
}

/** Of the ratios of each cell; where there are none, of its values. Nothing of what was measured only once. */
function spreadsOf(report: Report, row: ReportRow): readonly number[] {
  const alone = report.cells.every(({ row: id, peer }) => id !== row.id || peer === OURS);
  return report.cells
    .filter((cell) => cell.row === row.id && cell.values.length > 1)
    .map(
      (cell) => ratiosOf(report, row, cell.peer) ?? (cell.peer !== OURS || alone ? cell.values : undefined),
    )
    .filter((values) => values !== undefined)
    .map(spread);
}

/** The largest spread of a row's cells; undefined if none was measured more than once. */
function spreadOfRow(report: Report, row: ReportRow): number | undefined {
  const spreads = spreadsOf(report, row);
  return spreads.length === 0 ? undefined : Math.max(...spreads);
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
