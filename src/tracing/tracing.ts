// Traces of a running ingress: what workers record and the supervisor does becomes spans, and goes to the collector.

import { randomUUID } from 'node:crypto';
import type { TracingConfig } from '../config/tracing.ts';
import type { Log } from '../lib/log.ts';
import type { RecordedRequest } from '../workers/messages.ts';
import { createExporter, type SpanCounts } from './exporter.ts';
import { createTracer, type Tracer } from './own-spans.ts';
import { spansOf } from './request-spans.ts';

export interface Traces {
  take(requests: readonly RecordedRequest[]): void;
  readonly tracer: Tracer;
  counts(): SpanCounts;
  readonly queued: number;
  close(withinMs: number): Promise<void>;
}

export function createTraces({ collector, resource }: TracingConfig, version: string, log: Log): Traces {
  const attributes = new Map([
    ['service.version', version],
    ['service.instance.id', randomUUID()],
    ...resource,
  ]);
  const exporter = createExporter({
    collector,
    resource: [...attributes],
    scope: { name: 'dstack-ingress', version },
    log,
  });
  return {
    take: (requests) => exporter.take(requests.flatMap(spansOf)),
    tracer: createTracer(exporter.take.bind(exporter)),
    counts: () => exporter.counts(),
    get queued() {
      return exporter.queued;
    },
    close: (withinMs) => exporter.close(withinMs),
  };
}
