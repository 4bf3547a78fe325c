// Distributed traces (W3C Trace Context): the trace that a request belongs to, the span that is ours, and whether it is recorded.

import { randomFillSync } from 'node:crypto';

/** What is recorded; the names are those of OTEL_TRACES_SAMPLER. */
export interface Sampling {
  /** Whether a trusted peer's choice is kept. Without one, or with none that came, the rest decides. */
  readonly followsParent: boolean;
  /** The part of the traces that is recorded, from 0 to 1. */
  readonly ratio: number;
}

/** Spans are told apart by their traceparent: version, trace, span, flags. */
export interface Tracing {
  /** The traceparent of our span. `parent`: of a peer whose trace is continued, sound; empty: a trace begins. */
  begin(parent: string): string;
  /** That of another span of the same trace. */
  next(traceparent: string): string;
}

const TRACE = { start: 3, end: 35 } as const;
const SPAN = { start: 36, end: 52 } as const;
const FLAGS = 53;

export function traceIdOf(traceparent: string): string {
  return traceparent.slice(TRACE.start, TRACE.end);
}

export function spanIdOf(traceparent: string): string {
  return traceparent.slice(SPAN.start, SPAN.end);
}

/** Of one that this program has made. */
export function isSampled(traceparent: string): boolean {
  // The last digit of the flags; the lowest bit of a hexadecimal digit is that of its character code up to 9.
  return (traceparent.charCodeAt(FLAGS + 1) & 1) === 1;
}

const TRACE_BYTES = 16;
const SPAN_BYTES = 8;
const POOL_BYTES = 6_144;
/** Trace Context §3.2.2.3: an id of zeros is none. */
const NO_TRACE = '0'.repeat(2 * TRACE_BYTES);
const NO_SPAN = '0'.repeat(2 * SPAN_BYTES);

/** `fill`: random bytes. Ids are cut from a long text of them: one costs no more than to cut it. */
export function createTracing(
  { followsParent, ratio }: Sampling,
  fill: (bytes: Buffer) => void = randomFillSync,
): Tracing {
  const pool = Buffer.alloc(POOL_BYTES);
  let digits = '';
  let at = POOL_BYTES;
  // As OpenTelemetry's SDK for Go decides, and to 32 bits of what it looks at: the same traces are recorded there.
  const bound = ratio * 2 ** 32;

  function need(bytes: number): void {
    if (at + bytes <= POOL_BYTES) return;
    fill(pool);
    digits = pool.toString('hex');
    at = 0;
  }

  function cut(bytes: number): string {
    const text = digits.slice(2 * at, 2 * (at + bytes));
    at += bytes;
    return text;
  }

  function newSpan(): string {
    for (;;) {
      need(SPAN_BYTES);
      const id = cut(SPAN_BYTES);
      if (id !== NO_SPAN) return id;
    }
  }

  function root(): string {
    need(TRACE_BYTES + SPAN_BYTES);
    const chosen = pool.readUInt32BE(at + TRACE_BYTES / 2) < bound;
    const trace = cut(TRACE_BYTES);
    const span = cut(SPAN_BYTES);
    if (trace === NO_TRACE || span === NO_SPAN) return root();
    return `00-${trace}-${span}-${chosen ? '01' : '00'}`;
  }

  function continued(parent: string): string {
    const trace = traceIdOf(parent);
    const flags = Number.parseInt(parent.slice(FLAGS, FLAGS + 2), 16);
    const chosen = followsParent ? (flags & 1) === 1 : Number.parseInt(trace.slice(16, 24), 16) < bound;
    // Level 2, §3.2.2.5.2: whether the id is random stays true of it. Of other flags nothing is known.
    return `00-${trace}-${newSpan()}-0${(flags & 2) | (chosen ? 1 : 0)}`;
  }

  return {
    begin: (parent) => (parent === '' ? root() : continued(parent)),
    next: (traceparent) =>
      `${traceparent.slice(0, SPAN.start)}${newSpan()}${traceparent.slice(SPAN.end, FLAGS + 2)}`,
  };
}
