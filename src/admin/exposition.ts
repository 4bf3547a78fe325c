// Metrics as text: in the format of Prometheus, or in that of OpenMetrics for those who ask for it.

import { DURATION_BOUNDS } from '../workers/counters.ts';
import type { Metric } from './metrics.ts';

export interface Sample {
  /** In the order of the metric's labels. */
  readonly labels: readonly string[];
  /** Of a histogram, see counters.ts: the sum in microseconds, then how many lay within each bound and beyond the last. */
  readonly value: number | Float64Array;
}

export interface Family {
  readonly metric: Metric;
  readonly samples: readonly Sample[];
}

export type Format = 'openmetrics' | 'prometheus';

export const contentTypes: Readonly<Record<Format, string>> = {
  openmetrics: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
  prometheus: 'text/plain; version=0.0.4; charset=utf-8',
};

/** By the Accept of a scraper; browsers and curl get plain text. */
export function formatFor(accept: string | undefined): Format {
  const wanted = (accept ?? '').split(',').find((each) => /application\/openmetrics-text/i.test(each));
  return wanted === undefined || /;\s*q=0(\.0*)?\s*(;|$)/i.test(wanted) ? 'prometheus' : 'openmetrics';
}

export function expose(families: readonly Family[], format: Format): string {
  const parts = families.map((family) => exposeFamily(family, format));
  return `${parts.join('')}${format === 'openmetrics' ? '# EOF\n' : ''}`;
}

function exposeFamily({ metric, samples }: Family, format: Format): string {
  // OpenMetrics: the ending belongs to the sample, and not to the name of a counter.
  const family = format === 'openmetrics' ? metric.name.replace(/_total$/, '') : metric.name;
  const head = `# HELP ${family} ${escapedHelp(metric.help)}\n# TYPE ${family} ${metric.type}\n`;
  let text = head;
  for (const { labels, value } of samples) {
    const pairs = metric.labels.map((name, i) => `${name}="${escaped(labels[i]!)}"`).join(',');
    text +=
      typeof value === 'number'
        ? `${withLabels(metric.name, pairs)} ${value}\n`
        : histogram(metric.name, pairs, value);
  }
  return text;
}

const BOUNDS = [
  ...DURATION_BOUNDS.map((bound) => (Number.isInteger(bound) ? `${bound}.0` : `${bound}`)),
  '+Inf',
];

function histogram(name: string, pairs: string, numbers: Float64Array): string {
  const before = pairs === '' ? '' : `${pairs},`;
  let text = '';
  let count = 0;
  for (const [i, bound] of BOUNDS.entries()) {
    count += numbers[i + 1]!;
    text += `${name}_bucket{${before}le="${bound}"} ${count}\n`;
  }
  return `${text}${withLabels(`${name}_sum`, pairs)} ${numbers[0]! / 1_000_000}\n${withLabels(`${name}_count`, pairs)} ${count}\n`;
}

function withLabels(name: string, pairs: string): string {
  return pairs === '' ? name : `${name}{${pairs}}`;
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function escapedHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}
