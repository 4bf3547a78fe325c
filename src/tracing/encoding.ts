// Spans as a collector takes them: ExportTraceServiceRequest of OTLP, as JSON or as protobuf; and what it answers.

import { type Attributes, type AttributeValue, flagsOf, type Span } from './span.ts';

export interface Batch {
  /** Of the program. */
  readonly resource: Attributes;
  /** Of who made the spans. */
  readonly scope: { readonly name: string; readonly version: string };
  readonly spans: readonly Span[];
}

/** What a collector did not take of a batch that it answered with 200. */
export interface PartialSuccess {
  readonly rejected: number;
  /** Its own words. */
  readonly message: string;
}

export interface Encoding {
  readonly contentType: string;
  encode(batch: Batch): Buffer;
  /** Undefined: it took all, or its answer says nothing that can be understood. */
  readAnswer(body: Buffer): PartialSuccess | undefined;
}

/** Status.code of trace.proto. */
const STATUS_ERROR = 2;

// --- JSON: protobuf's own mapping, but ids in hex and enums as numbers (OTLP, "JSON Protobuf Encoding") ---

export const json: Encoding = {
  contentType: 'application/json',
  encode({ resource, scope, spans }) {
    const scopeSpans = [{ scope, spans: spans.map(jsonSpan) }];
    const resourceSpans = [{ resource: { attributes: jsonAttributes(resource) }, scopeSpans }];
    return Buffer.from(JSON.stringify({ resourceSpans }));
  },
  readAnswer(body) {
    try {
      const { partialSuccess } = JSON.parse(body.toString('utf8')) as { partialSuccess?: unknown };
      const { rejectedSpans, errorMessage } = (partialSuccess ?? {}) as Record<string, unknown>;
      return partial(Number(rejectedSpans), errorMessage);
    } catch {
      return undefined;
    }
  },
};

function jsonSpan(span: Span) {
  const { trace, parent, name, kind, start, end, attributes, error } = span;
  return {
    traceId: trace,
    spanId: span.span,
    ...(parent !== '' && { parentSpanId: parent }),
    name,
    kind,
    startTimeUnixNano: String(start),
    endTimeUnixNano: String(end),
    attributes: jsonAttributes(attributes),
    ...(error !== undefined && { status: { code: STATUS_ERROR, ...(error !== '' && { message: error }) } }),
    flags: flagsOf(span),
  };
}

function jsonAttributes(attributes: Attributes) {
  return attributes.map(([key, value]) => ({ key, value: jsonValue(value) }));
}

/** 64 bits are a text in protobuf's JSON. */
function jsonValue(value: AttributeValue) {
  if (typeof value === 'string') return { stringValue: value };
  return typeof value === 'number' ? { intValue: String(Math.round(value)) } : { boolValue: value };
}

function partial(rejected: number, message: unknown): PartialSuccess | undefined {
  const text = typeof message === 'string' ? message : '';
  const count = Number.isFinite(rejected) && rejected > 0 ? Math.floor(rejected) : 0;
  return count === 0 && text === '' ? undefined : { rejected: count, message: text };
}

// --- Protobuf: the numbers are those of opentelemetry/proto/{trace,common,resource,collector/trace}/v1 ---

export const protobuf: Encoding = {
  contentType: 'application/x-protobuf',
  encode({ resource, scope, spans }) {
    const scopeSpans = [
      message(1, [text(1, scope.name), text(2, scope.version)]),
      ...spans.map((span) => message(2, protobufSpan(span))),
    ];
    const parts = [message(1, protobufAttributes(1, resource)), message(2, scopeSpans)];
    return message(1, parts);
  },
  readAnswer(body) {
    const success = fieldsOf(body).find(({ number, bytes }) => number === 1 && bytes !== undefined)?.bytes;
    if (success === undefined) return undefined;
    const fields = fieldsOf(success);
    const rejected = Number(fields.find(({ number }) => number === 1)?.value ?? 0n);
    return partial(rejected, fields.find(({ number }) => number === 2)?.bytes?.toString('utf8'));
  },
};

function protobufSpan(span: Span): Buffer[] {
  const { trace, parent, name, kind, start, end, attributes, error } = span;
  return [
    bytes(1, Buffer.from(trace, 'hex')),
    bytes(2, Buffer.from(span.span, 'hex')),
    bytes(4, Buffer.from(parent, 'hex')),
    text(5, name),
    varintField(6, BigInt(kind)),
    fixed64(7, start),
    fixed64(8, end),
    ...protobufAttributes(9, attributes),
    error === undefined ? NOTHING : message(15, [text(2, error), varintField(3, BigInt(STATUS_ERROR))]),
    fixed32(16, flagsOf(span)),
  ];
}

function protobufAttributes(field: number, attributes: Attributes): Buffer[] {
  return attributes.map(([key, value]) => message(field, [text(1, key), message(2, [protobufValue(value)])]));
}

/** AnyValue is a oneof: what is empty or 0 is said all the same. */
function protobufValue(value: AttributeValue): Buffer {
  if (typeof value === 'string') return lengthDelimited(1, Buffer.from(value, 'utf8'));
  if (typeof value === 'boolean') return varintField(2, value ? 1n : 0n);
  return varintField(3, BigInt(Math.round(value)));
}

const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;
const NOTHING = Buffer.alloc(0);

function tag(field: number, type: number): Buffer {
  return varint(BigInt((field << 3) | type));
}

function varint(value: bigint): Buffer {
  const digits: number[] = [];
  for (let left = BigInt.asUintN(64, value); ; left >>= 7n) {
    const low = Number(left & 0x7fn);
    if (left < 0x80n) return Buffer.from([...digits, low]);
    digits.push(low | 0x80);
  }
}

function varintField(field: number, value: bigint): Buffer {
  return Buffer.concat([tag(field, VARINT), varint(value)]);
}

function fixed64(field: number, value: bigint): Buffer {
  const number = Buffer.alloc(8);
  number.writeBigUInt64LE(value);
  return Buffer.concat([tag(field, FIXED64), number]);
}

function fixed32(field: number, value: number): Buffer {
  const number = Buffer.alloc(4);
  number.writeUInt32LE(value);
  return Buffer.concat([tag(field, FIXED32), number]);
}

function lengthDelimited(field: number, content: Buffer): Buffer {
  return Buffer.concat([tag(field, LENGTH_DELIMITED), varint(BigInt(content.length)), content]);
}

function message(field: number, parts: readonly Buffer[]): Buffer {
  return lengthDelimited(field, Buffer.concat(parts));
}

/** Left out where it is empty, as protobuf does. */
function bytes(field: number, content: Buffer): Buffer {
  return content.length === 0 ? NOTHING : lengthDelimited(field, content);
}

function text(field: number, content: string): Buffer {
  return bytes(field, Buffer.from(content, 'utf8'));
}

interface Field {
  readonly number: number;
  readonly value?: bigint;
  readonly bytes?: Buffer;
}

/** Up to the first byte that is not understood. */
function fieldsOf(body: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const next = (): bigint | undefined => {
    let value = 0n;
    for (let shift = 0n; at < body.length && shift < 70n; shift += 7n) {
      const byte = body[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(64, value);
    }
    return undefined;
  };
  while (at < body.length) {
    const key = next();
    const value = key === undefined ? undefined : next();
    if (key === undefined || value === undefined) return fields;
    const number = Number(key >> 3n);
    const type = Number(key & 7n);
    if (type === VARINT) fields.push({ number, value });
    else if (type === LENGTH_DELIMITED && value >= 0n && value <= BigInt(body.length - at)) {
      fields.push({ number, bytes: body.subarray(at, at + Number(value)) });
      at += Number(value);
    } else return fields;
  }
  return fields;
}
