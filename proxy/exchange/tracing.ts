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
const ID_BYTES = TRACE_BYTES + SPAN_BYTES;
/** Roots that are made at once. */
const BATCH = 256;
const EMPTY_ROOT = `00-${'0'.repeat(32)}-${'0'.repeat(16)}-00`;
const ROOT_LENGTH = EMPTY_ROOT.length;
const DIGITS = Buffer.from('0123456789abcdef', 'latin1');
const ONE = '1'.charCodeAt(0);

/** `fill`: random bytes. */
export function createTracing(
  { followsParent, ratio }: Sampling,
  fill: (bytes: Buffer) => void = randomFillSync,
): Tracing {
  // As OpenTelemetry's SDK for Go decides, and to 32 bits of what it looks at: the same traces are recorded there.
  const bound = ratio * 2 ** 32;
  const random = Buffer.alloc(BATCH * ID_BYTES);
  const text = Buffer.from(EMPTY_ROOT.repeat(BATCH), 'latin1');
  let roots = '';
  let at = BATCH;
  const spans = Buffer.alloc(BATCH * SPAN_BYTES);
  let spanAt = BATCH;

  /** One long text, of which each root is a piece: that costs a quarter of putting each together. */
  function makeRoots(): void {
    fill(random);
    for (let root = 0; root < BATCH; root++) {
      const bytes = root * ID_BYTES;
      const start = root * ROOT_LENGTH;
      writeHex(random, bytes, TRACE_BYTES, text, start + TRACE.start);
      writeHex(random, bytes + TRACE_BYTES, SPAN_BYTES, text, start + SPAN.start);
      const chosen = random.readUInt32BE(bytes + TRACE_BYTES / 2) < bound;
      text[start + FLAGS + 1] = chosen ? ONE : ONE - 1;
    }
    roots = text.toString('latin1');
    at = 0;
  }

  function root(): string {
    for (;;) {
      if (at === BATCH) makeRoots();
      const bytes = at * ID_BYTES;
      const start = at++ * ROOT_LENGTH;
      // Trace Context §3.2.2.3: an id of zeros is none.
      if (isZero(random, bytes, TRACE_BYTES) || isZero(random, bytes + TRACE_BYTES, SPAN_BYTES)) continue;
      return roots.slice(start, start + ROOT_LENGTH);
    }
  }

  function newSpan(): string {
    for (;;) {
      if (spanAt === BATCH) {
        fill(spans);
        spanAt = 0;
      }
      const start = spanAt++ * SPAN_BYTES;
      if (!isZero(spans, start, SPAN_BYTES)) return spans.toString('hex', start, start + SPAN_BYTES);
    }
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

function writeHex(from: Buffer, start: number, count: number, to: Buffer, place: number): void {
  for (let i = 0; i < count; i++) {
    const byte = from[start + i]!;
    to[place + 2 * i] = DIGITS[byte >> 4]!;
    to[place + 2 * i + 1] = DIGITS[byte & 15]!;
  }
}

/** Nearly always the first byte tells. */
function isZero(bytes: Buffer, start: number, count: number): boolean {
  for (let i = start; i < start + count; i++) if (bytes[i] !== 0) return false;
  return true;
}
