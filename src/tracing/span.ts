// A span as it is exported, whatever made it (OpenTelemetry's data model).

/** Whole numbers alone. */
export type AttributeValue = string | number | boolean;
export type Attributes = readonly (readonly [name: string, value: AttributeValue])[];

/** SpanKind of opentelemetry/proto/trace/v1/trace.proto. */
export const spanKind = { internal: 1, server: 2, client: 3 } as const;

export interface Span {
  /** Hex, as in a traceparent. */
  readonly trace: string;
  readonly span: string;
  /** Empty: it is the first of its trace. */
  readonly parent: string;
  /** The parent is another program's. */
  readonly parentIsRemote: boolean;
  readonly name: string;
  readonly kind: (typeof spanKind)[keyof typeof spanKind];
  /** Nanoseconds since 1970. */
  readonly start: bigint;
  readonly end: bigint;
  readonly attributes: Attributes;
  /** It failed; a text, which may be empty, says how. Undefined: it did not. */
  readonly error: string | undefined;
}

/** Sampled; and that it is said whether the parent is remote: SpanFlags of trace.proto. */
const SAMPLED = 0x001;
const SAYS_REMOTE = 0x100;
const IS_REMOTE = 0x200;

export function flagsOf({ parentIsRemote }: Span): number {
  return SAMPLED | SAYS_REMOTE | (parentIsRemote ? IS_REMOTE : 0);
}

/** `ms`: since 1970, to the microsecond, which is what a double has room for. */
export function nanoseconds(ms: number): bigint {
  return BigInt(Math.round(ms * 1_000)) * 1_000n;
}
