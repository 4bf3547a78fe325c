// What `top` draws: a report as lines of text, as wide and as high as the terminal; colours by hand (ECMA-48 §8.3.117).

import type { HostTraffic } from '../admin/history.ts';
import type { LiveReport } from '../admin/report.ts';

export interface Canvas {
  readonly columns: number;
  readonly rows: number;
  readonly colours: boolean;
}

/** Requests of each second, oldest first. */
export type Seconds = ReadonlyMap<string, readonly number[]>;

const STYLES = { bold: '1', dim: '2', red: '31', green: '32', yellow: '33', reverse: '7' } as const;
type Style = keyof typeof STYLES;

/** A piece of a line: it is measured without its colours. */
interface Piece {
  readonly text: string;
  readonly style?: Style | undefined;
}

type Line = readonly Piece[];

const DAY_MS = 86_400_000;
export const SPARK_SECONDS = 20;
const BLOCKS = '▁▂▃▄▅▆▇█';

export function drawTop(report: LiveReport, seconds: Seconds, canvas: Canvas, now = Date.now()): string[] {
  const lines: Line[] = [
    header(report),
    summary(report),
    [],
    ...trafficLines(report.hosts, seconds, canvas.columns),
    [],
    ...certificateLines(report, canvas.columns, now),
    [],
    ...upstreamLines(report),
    ...workerLines(report),
    ...newsLines(report),
  ];
  return lines.slice(0, canvas.rows).map((line) => paint(line, canvas));
}

function header({ version, readiness, upSeconds }: LiveReport): Line {
  const broken = readiness.conditions.filter(({ holds }) => !holds).map(({ name, why }) => `${name}: ${why}`);
  return [
    { text: 'dstack-ingress', style: 'bold' },
    { text: ` ${version.split(' ', 1)[0]}, up ${spanOf(upSeconds * 1_000)}  ` },
    readiness.ready
      ? { text: 'ready', style: 'green' }
      : { text: `not ready: ${broken.join('; ')}`, style: 'red' },
  ];
}

function summary({ hosts, connections }: LiveReport): Line {
  const sum = (of: (host: HostTraffic) => number) => hosts.reduce((total, host) => total + of(host), 0);
  const errors = sum(({ serverErrorsPerSecond }) => serverErrorsPerSecond);
  return [
    { text: `${rate(sum(({ perSecond }) => perSecond))} requests/s, ` },
    { text: `${rate(errors)} errors/s`, style: errors > 0 ? 'red' : undefined },
    { text: `, ${sum(({ inFlight }) => inFlight)} in flight, ${connections.open} connections` },
  ];
}

// --- Traffic ---

/** Each with its width. */
const FIGURES = [
  ['rps', 8],
  ['p50', 9],
  ['p99', 9],
  ['4xx', 8],
  ['5xx', 8],
  ['in flight', 11],
] as const;
const FIGURES_WIDTH = FIGURES.reduce((sum, [, width]) => sum + width, 0);
const LEAST_NAME = 14;
const MOST_NAME = 40;

function trafficLines(hosts: readonly HostTraffic[], seconds: Seconds, columns: number): Line[] {
  const room = columns - FIGURES_WIDTH - LEAST_NAME - 2;
  // Of a narrow terminal the sparks take less, or nothing.
  const sparks = room >= SPARK_SECONDS ? SPARK_SECONDS : room >= SPARK_SECONDS / 2 ? SPARK_SECONDS / 2 : 0;
  const width = Math.min(MOST_NAME, Math.max(LEAST_NAME, columns - FIGURES_WIDTH - sparks - 2));
  const names = FIGURES.map(([name, wide]) => name.padStart(wide)).join('');
  const head = `${fit('host', width)}${sparks > 0 ? ` ${fit(`last ${sparks} s`, sparks)} ` : ''}${names}`;
  const sorted = [...hosts].sort((a, b) => b.perSecond - a.perSecond || (a.host < b.host ? -1 : 1));
  return [
    [{ text: head, style: 'dim' }],
    ...sorted.map((host) => trafficLine(host, seconds.get(host.host) ?? [], width, sparks)),
    ...(sorted.length === 0 ? [[{ text: 'no host yet', style: 'dim' } as const]] : []),
  ];
}

function trafficLine(host: HostTraffic, seconds: readonly number[], width: number, sparks: number): Line {
  const figures: readonly (readonly [text: string, style?: Style])[] = [
    [rate(host.perSecond), 'bold'],
    [duration(host.p50)],
    [duration(host.p99)],
    [rate(host.clientErrorsPerSecond), 'yellow'],
    [rate(host.serverErrorsPerSecond), 'red'],
    [String(host.inFlight)],
  ];
  return [
    { text: fit(host.host, width) },
    ...(sparks > 0 ? [{ text: ` ${spark(seconds, sparks)} `, style: 'green' as const }] : []),
    ...figures.map(([text, style], i) => ({
      text: text.padStart(FIGURES[i]![1]),
      style: text === '0' || text === '-' ? ('dim' as const) : style,
    })),
  ];
}

function spark(seconds: readonly number[], width: number): string {
  const last = seconds.slice(-width);
  const top = Math.max(1, ...last);
  const bars = last.map((value) =>
    value === 0 ? ' ' : BLOCKS[Math.ceil((value / top) * BLOCKS.length) - 1]!,
  );
  return bars.join('').padStart(width);
}

// --- The rest ---

const BAR_WIDTH = 30;

function certificateLines({ certificates, evidenceAt }: LiveReport, columns: number, now: number): Line[] {
  const width = Math.max(12, Math.min(40, columns - BAR_WIDTH - 20));
  const quote = evidenceAt === undefined ? 'none' : `${spanOf(now - Date.parse(evidenceAt))} old`;
  return [
    [
      { text: fit('certificate', width), style: 'dim' },
      { text: ' left of its life', style: 'dim' },
    ],
    ...certificates.map(({ domain, notBefore, notAfter }): Line => {
      if (notBefore === undefined || notAfter === undefined)
        return [{ text: fit(domain, width) }, { text: ' none', style: 'red' }];
      const [from, to] = [Date.parse(notBefore), Date.parse(notAfter)];
      const share = Math.min(1, Math.max(0, (to - now) / (to - from)));
      const full = Math.round(share * BAR_WIDTH);
      const style = share < 0.1 ? 'red' : share < 0.25 ? 'yellow' : 'green';
      const left = to <= now ? `expired ${spanOf(now - to)} ago` : spanOf(to - now);
      return [
        { text: `${fit(domain, width)} ` },
        { text: '█'.repeat(full), style },
        { text: '░'.repeat(BAR_WIDTH - full), style: 'dim' },
        { text: ` ${left}` },
      ];
    }),
    [{ text: `evidence: ${quote}`, style: evidenceAt === undefined ? 'yellow' : 'dim' }],
  ];
}

function upstreamLines({ upstreams }: LiveReport): Line[] {
  return upstreams.map(
    ({ upstream, healthy, perSecond, p50, p99 }): Line => [
      { text: healthy ? '● ' : '✖ ', style: healthy ? 'green' : 'red' },
      { text: upstream },
      healthy
        ? { text: `  ${rate(perSecond)}/s, p50 ${duration(p50)}, p99 ${duration(p99)}`, style: 'dim' }
        : { text: '  fails', style: 'red' },
    ],
  );
}

function workerLines({ workers, restarts, store }: LiveReport): Line[] {
  const each = workers.map(
    ({ place, ready, load, residentBytes }) =>
      `${place}: ${ready ? `${Math.round(100 * load)} %` : 'starting'} ${Math.round(residentBytes / 1e6)} MB`,
  );
  const replaced = restarts > 0 ? `, ${restarts} replaced` : '';
  const lines: Line[] = [[{ text: `workers ${each.join(', ')}${replaced}`, style: 'dim' }]];
  if (store?.answers === false)
    lines.push([{ text: `store (${store.engine}) does not answer: ${store.why}`, style: 'red' }]);
  else if (store !== undefined) lines.push([{ text: `store (${store.engine}) answers`, style: 'dim' }]);
  return [...lines, []];
}

function newsLines({ news }: LiveReport): Line[] {
  const shown = [...news].reverse().slice(0, 20);
  return shown.map(
    ({ at, level, msg, fields }): Line => [
      { text: `${at.slice(11, 19)} `, style: 'dim' },
      { text: `${level.padEnd(5)} `, style: level === 'error' ? 'red' : level === 'warn' ? 'yellow' : 'dim' },
      { text: `${msg} ` },
      { text: fields, style: 'dim' },
    ],
  );
}

// --- Text ---

/** Cut to the width of the terminal; what is no plain character of ours does not reach it. */
function paint(line: Line, { columns, colours }: Canvas): string {
  let left = columns;
  let text = '';
  for (const { text: raw, style } of line) {
    const part = [...raw.replace(/\p{C}/gu, '?')].slice(0, left).join('');
    left -= [...part].length;
    text += style === undefined || !colours || part === '' ? part : `\x1b[${STYLES[style]}m${part}\x1b[0m`;
  }
  return text;
}

function fit(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, width - 1)}…` : text.padEnd(width);
}

function rate(value: number): string {
  if (value === 0) return '0';
  if (value >= 10_000) return `${(value / 1_000).toFixed(1)}k`;
  if (value >= 100) return String(Math.round(value));
  return value < 0.1 ? '<0.1' : value.toFixed(1);
}

function duration(ms: number | undefined): string {
  if (ms === undefined) return '-';
  if (ms < 10) return `${ms.toFixed(1)}ms`;
  return ms < 1_000 ? `${Math.round(ms)}ms` : `${(ms / 1_000).toFixed(1)}s`;
}

function spanOf(ms: number): string {
  const [size, unit] = (
    [
      [DAY_MS, 'd'],
      [3_600_000, 'h'],
      [60_000, 'm'],
    ] as const
  ).find(([each]) => ms >= 2 * each) ?? [1_000, 's'];
  return `${Math.floor(ms / size)}${unit}`;
}
