// The figures of the ingress as families of metrics, taken from their sources when they are asked for.

import type { SpanCounts } from '../tracing/exporter.ts';
import { HISTOGRAM_PLACES, REQUEST, UPSTREAM } from '../workers/counters.ts';
import type { TotalRow } from '../workers/totals.ts';
import type { Family, Sample } from './exposition.ts';
import { type Metric, metrics } from './metrics.ts';
import { expiryOf, readinessOf } from './readiness.ts';
import type { Sources } from './sources.ts';

export function familiesOf(sources: Sources): Family[] {
  return [
    ...aboutProgram(sources),
    ...aboutRequests(sources),
    ...aboutConnections(sources),
    ...aboutUpstreams(sources),
    ...aboutCertificates(sources),
    ...aboutTraces(sources),
    ...aboutLogFile(sources),
    ...aboutStore(sources),
    ...aboutProcesses(sources),
  ];
}

const single = (value: number): Sample[] => [{ labels: [], value }];

function family(metric: Metric, samples: readonly Sample[]): Family {
  return { metric, samples };
}

function aboutProgram(sources: Sources): Family[] {
  const { version, tally } = sources;
  const { conditions } = readinessOf(sources);
  return [
    family(metrics.buildInfo, [{ labels: [version, process.versions.node], value: 1 }]),
    family(
      metrics.ready,
      conditions
        .filter(({ needed }) => needed)
        .map(({ name, holds }) => ({ labels: [name], value: holds ? 1 : 0 })),
    ),
    family(metrics.configReloads, countsOf(tally.reloads)),
    family(metrics.certificateRenewals, countsOf(tally.renewals)),
  ];
}

function countsOf(counts: Readonly<Record<string, number>>): Sample[] {
  return Object.entries(counts).map(([label, value]) => ({ labels: [label], value }));
}

function aboutRequests({ workers }: Sources): Family[] {
  const requests = workers.rows('requests');
  const one = (place: number) => samplesOf(requests, ({ numbers }) => numbers[place]!);
  return [
    family(metrics.requests, one(REQUEST.requests)),
    family(metrics.duration, histogramsOf(requests, REQUEST.duration)),
    family(metrics.firstByte, histogramsOf(requests, REQUEST.firstByte)),
    family(metrics.requestBytes, byRoute(requests, REQUEST.received)),
    family(metrics.responseBytes, byRoute(requests, REQUEST.sent)),
    family(
      metrics.inFlight,
      samplesOf(workers.rows('hosts'), ({ numbers }) => numbers[0]!),
    ),
    family(
      metrics.faults,
      samplesOf(workers.rows('faults'), ({ numbers }) => numbers[0]!),
    ),
  ];
}

function samplesOf(rows: readonly TotalRow[], value: (row: TotalRow) => Sample['value']): Sample[] {
  return rows.map((row) => ({ labels: row.labels, value: value(row) }));
}

function histogramsOf(rows: readonly TotalRow[], place: number): Sample[] {
  return samplesOf(rows, ({ numbers }) => numbers.subarray(place, place + HISTOGRAM_PLACES));
}

/** Method and code added up. */
function byRoute(rows: readonly TotalRow[], place: number): Sample[] {
  const sums = new Map<string, { labels: string[]; value: number }>();
  for (const { labels, numbers } of rows) {
    const [host, route] = [labels[0]!, labels[1]!];
    const key = `${host}\n${route}`;
    const sum = sums.get(key) ?? { labels: [host, route], value: 0 };
    sum.value += numbers[place]!;
    sums.set(key, sum);
  }
  return [...sums.values()];
}

function aboutConnections({ workers }: Sources): Family[] {
  const counts = workers.state().totals.connections!;
  const count = (name: string) => counts[name]!;
  const handshake = (version: string, resumed: string, result: string, value: number) => ({
    labels: [version, resumed, result],
    value,
  });
  return [
    family(metrics.connections, single(count('open'))),
    family(metrics.connectionsAccepted, [
      { labels: ['accepted'], value: count('accepted') },
      { labels: ['refused'], value: count('refused') },
    ]),
    family(metrics.connectionBytes, [
      { labels: ['received'], value: count('received') },
      { labels: ['sent'], value: count('sent') },
    ]),
    family(metrics.handshakes, [
      handshake('1.2', 'no', 'ok', count('tls12')),
      handshake('1.2', 'yes', 'ok', count('tls12Resumed')),
      handshake('1.3', 'no', 'ok', count('tls13')),
      handshake('1.3', 'yes', 'ok', count('tls13Resumed')),
      handshake('none', 'no', 'failed', count('failedHandshakes') - count('handshakeTimeouts')),
      handshake('none', 'no', 'timeout', count('handshakeTimeouts')),
    ]),
  ];
}

function aboutUpstreams({ workers }: Sources): Family[] {
  const rows = workers.rows('upstreams');
  const one = (value: (numbers: Float64Array) => number) => samplesOf(rows, ({ numbers }) => value(numbers));
  return [
    family(
      metrics.upstreamHealthy,
      one((numbers) => (numbers[UPSTREAM.fails]! > 0 ? 0 : 1)),
    ),
    family(metrics.upstreamDuration, histogramsOf(rows, UPSTREAM.duration)),
    family(
      metrics.upstreamRetries,
      one((numbers) => numbers[UPSTREAM.retries]!),
    ),
  ];
}

function aboutCertificates(sources: Sources): Family[] {
  const quoted = sources.evidenceAt();
  return [
    family(
      metrics.certificateNotAfter,
      sources.domains().map((domain) => ({ labels: [domain], value: expiryOf(sources, domain) / 1_000 })),
    ),
    family(metrics.evidenceQuoted, single(quoted === undefined ? 0 : Date.parse(quoted) / 1_000)),
  ];
}

const NO_SPANS: SpanCounts = { exported: 0, rejected: 0, failed: 0, dropped: 0 };

function aboutTraces({ workers, traces }: Sources): Family[] {
  const counts = traces?.counts() ?? NO_SPANS;
  const { dropped: droppedByWorkers = 0 } = workers.state().totals.spans!;
  return [
    family(metrics.spans, countsOf({ ...counts, dropped: counts.dropped + droppedByWorkers })),
    family(metrics.spansQueued, single(traces?.queued ?? 0)),
  ];
}

function aboutLogFile({ workers, logFile }: Sources): Family[] {
  const { written, lost } = logFile?.counts() ?? { written: 0, lost: 0 };
  const { lost: lostByWorkers = 0 } = workers.state().totals.lines!;
  return [family(metrics.logFileLines, countsOf({ written, lost: lost + lostByWorkers }))];
}

function aboutStore({ store }: Sources): Family[] {
  if (store === undefined)
    return [family(metrics.storeUp, []), family(metrics.storeCalls, []), family(metrics.storeDuration, [])];
  const { engine, answers } = store.state();
  return [
    family(metrics.storeUp, [{ labels: [engine], value: answers === false ? 0 : 1 }]),
    family(
      metrics.storeCalls,
      store.counts().map(({ operation, result, calls }) => ({ labels: [operation, result], value: calls })),
    ),
    family(
      metrics.storeDuration,
      store.durations().map(({ operation, numbers }) => ({ labels: [operation], value: numbers })),
    ),
  ];
}

const STARTED_AT = (Date.now() - process.uptime() * 1_000) / 1_000;

function aboutProcesses({ workers, figures }: Sources): Family[] {
  const { living, restarts, totals } = workers.state();
  const [cpuMs = 0, residentBytes = 0, lagMs = 0] = figures.numbers;
  const perWorker = (name: string) =>
    living.map(({ place, counts }) => ({ labels: [String(place)], value: counts.process![name]! }));
  const lags = perWorker('lagMs').map(({ labels: [place], value }) => ({
    labels: [`worker-${place}`],
    value: value / 1_000,
  }));
  const { cpuMs: theirCpuMs = 0, residentBytes: theirBytes = 0 } = totals.process!;
  return [
    family(metrics.workers, single(living.filter(({ ready }) => ready).length)),
    family(metrics.workerRestarts, single(restarts)),
    family(metrics.workerMemory, perWorker('residentBytes')),
    family(metrics.eventLoopLag, [{ labels: ['supervisor'], value: lagMs / 1_000 }, ...lags]),
    family(metrics.processCpu, single((cpuMs + theirCpuMs) / 1_000)),
    family(metrics.processMemory, single(residentBytes + theirBytes)),
    family(metrics.processStart, single(STARTED_AT)),
  ];
}
