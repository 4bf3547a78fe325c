// What crosses from the supervisor to a worker and back: plain data, and nothing that a worker does not need.

import * as z from 'zod';
import type { RoundAnswer } from '../../evidence/attest-rounds.ts';
import type { AccessLogOptions } from '../../proxy/exchange/access-entry.ts';
import { LONGEST_PASSWORD_BYTES } from '../../proxy/exchange/password-hashes.ts';
import type { Sampling } from '../../proxy/exchange/tracing.ts';
import { type FaultCode, faultCodes } from '../../proxy/faults.ts';
import type { ListenerLimits } from '../../proxy/limits.ts';
import type { ChallengeCertificate } from '../lib/certificate.ts';
import type { LogLevel } from '../lib/log.ts';
import type { Generations, Serving, Snapshot } from './serving.ts';

export interface WorkerSettings {
  /** Undefined: every address of the machine. */
  readonly host: string | undefined;
  readonly port: number;
  /** Undefined: plain HTTP is not listened for. */
  readonly plainHttp: { readonly port: number; readonly httpsPort: number } | undefined;
  readonly alpn: readonly ('h2' | 'http/1.1')[];
  readonly proxyProtocol: boolean;
  readonly trustedProxies: readonly string[];
  readonly trustedForwarders: readonly string[];
  readonly limits: ListenerLimits;
  /** PEM of CAs trusted for upstreams beside the system's. */
  readonly upstreamCa: string | undefined;
  /** Whether /evidences/ is answered. */
  readonly evidence: boolean;
  /** Whether a challenge that this instance does not know may be another's: the worker then asks. */
  readonly sharedChallenges: boolean;
  /** The same for http-01. */
  readonly sharedHttpChallenges?: boolean;
  /** One line for each request, so; undefined: none. */
  readonly accessLog: AccessLogSettings | undefined;
  /** Whether each request has an id. */
  readonly requestIds: boolean;
  /** Which requests are recorded as spans; undefined: none, and traces pass as they come. */
  readonly tracing?: TracingSettings | undefined;
  readonly logLevel: LogLevel;
  readonly readableLog: boolean;
}

export interface AccessLogSettings extends AccessLogOptions {
  readonly toStdout: boolean;
  /** To the supervisor, which has the file. */
  readonly toFile: boolean;
}

export interface TracingSettings extends Sampling {
  /** What spans show of queries; undefined: nothing. */
  readonly query: { readonly redact: readonly string[] } | undefined;
}

/** What the CA is to be shown: a certificate for tls-alpn-01, or the text for http-01 (RFC 8555 §8.1). */
export type FoundChallenge = ChallengeCertificate | { readonly keyAuthorization: string };

export type Order =
  | {
      readonly type: 'start';
      readonly settings: WorkerSettings;
      readonly serving: Serving;
      readonly generations: Generations;
      /** Whether sockets that listen were handed over, from FIRST_SOCKET_FD on, where the worker may not bind the ports. */
      readonly bound?: boolean;
    }
  /** Answered with the generation that is served then: this one, or the newer one that was there. */
  | { readonly type: 'serve'; readonly snapshot: Snapshot }
  | {
      readonly type: 'found-challenge';
      readonly domain: string;
      readonly found: FoundChallenge | undefined;
    }
  /** To one message of `limits`, in any order. */
  | { readonly type: 'charged'; readonly answers: readonly LimitAnswer[] }
  /** Undefined: nobody could compare it. */
  | { readonly type: 'compared-password'; readonly question: number; readonly right: boolean | undefined }
  /** Undefined: there is no quote for now. */
  | { readonly type: 'attested'; readonly question: number; readonly answer: RoundAnswer | undefined }
  | { readonly type: 'drain'; readonly timeoutMs: number };

/** May it pass, and when? For how long a refusal certainly holds, and which charge was too much; or no seat was free. */
export type LimitAnswer = { readonly id: number } & (
  | { readonly waitMs: number }
  | { readonly sameForMs: number; readonly which: number }
  | { readonly full: true }
);

/** Every order is answered once by its number. */
export type ToWorker = Order & { readonly id: number };

/** A name as a visitor's handshake has it (RFC 6066 §3). */
const NameSchema = z.string().min(1).max(255);
/** Ends up in our log. */
const TextSchema = z.string().max(2_000);

/** A change of an upstream; the code is one of proxy/faults.ts. */
const UpstreamEventSchema = z.strictObject({
  kind: z.literal('upstream'),
  upstream: TextSchema,
  state: z.enum(['failing', 'well', 'gone']),
  code: z
    .string()
    .max(100)
    .transform((code) => code as FaultCode)
    .optional(),
  reason: TextSchema.optional(),
  failed: z.int().min(0),
});

const NumberSchema = z.number().min(0).max(Number.MAX_SAFE_INTEGER);
const RangeSchema = z.tuple([z.int().min(0), z.array(NumberSchema).min(1)]);

const BlockSchema = z.strictObject({
  block: z.string().min(1).max(64),
  version: z.int().positive(),
  /** Of a row: what tells it apart. */
  labels: z.array(z.string().min(1).max(600)).max(4).optional(),
  ranges: z.array(RangeSchema).min(1),
});

/** How long its lists may be is bounded by the length of the message, see LONGEST_FROM_WORKER. */
const TelemetrySchema = z.strictObject({
  events: z.array(z.discriminatedUnion('kind', [UpstreamEventSchema])),
  counters: z.array(BlockSchema),
  /** Events that there was no room to keep. */
  lost: z.int().min(0),
});

const ZoneSchema = z.int().min(0).max(10_000);
/** A keyed digest of what is limited: the supervisor reads no byte of a stranger. */
const DigestSchema = z.string().regex(/^[A-Za-z0-9_-]{22}$/);
const CountSchema = z.number().min(0).max(1_000_000_000);

const LimitsSchema = z.strictObject({
  /** Number of the question, charges (zone, key, burst, delay), seats (zone and key in one, most). */
  asks: z
    .array(
      z.tuple([
        z.int().positive(),
        z.array(z.tuple([ZoneSchema, DigestSchema, CountSchema, CountSchema])).max(32),
        z.array(z.tuple([DigestSchema, CountSchema])).max(32),
      ]),
    )
    .max(128),
  leaves: z.array(DigestSchema).max(128),
});

export type LimitQuestions = z.infer<typeof LimitsSchema>;

/** Hashes and passwords that are taken are no longer, see password-hashes.ts. */
export const ComparisonSchema = z.strictObject({
  question: z.int().positive(),
  hash: z.string().min(1).max(1_024),
  password: z.string().max(LONGEST_PASSWORD_BYTES),
});

const AttestSchema = z.strictObject({
  question: z.int().positive(),
  /** Over all that visitors of this worker have asked. */
  hash: z.string().regex(/^[0-9a-f]{64}$/),
});

const TraceIdSchema = z.string().regex(/^[0-9a-f]{32}$/);
const SpanIdSchema = z.string().regex(/^[0-9a-f]{16}$/);
const FaultSchema = z.enum(faultCodes);
const StatusSchema = z.int().min(0).max(999);
const PortSchema = z.int().min(0).max(65_535);
/** Ten years: connections do not live longer. */
const SpanMsSchema = z.number().min(0).max(315_576_000_000);
const AddressTextSchema = z.string().max(300);

/** One upstream that was asked. */
const TrySchema = z.strictObject({
  span: SpanIdSchema,
  /** From 1 on. */
  number: z.int().positive(),
  /** From the beginning of the request. */
  afterMs: SpanMsSchema,
  ms: SpanMsSchema,
  host: AddressTextSchema,
  port: PortSchema,
  tls: z.boolean(),
  /** 0: it did not answer. */
  status: StatusSchema,
  fault: FaultSchema.optional(),
});

/** A request whose spans are wanted. What a stranger wrote into it is carried and never read. */
const RecordedSchema = z.strictObject({
  trace: TraceIdSchema,
  span: SpanIdSchema,
  /** Empty: the trace began here. */
  parent: z.union([SpanIdSchema, z.literal('')]),
  /** Milliseconds since 1970. */
  at: z.number().min(0).max(Number.MAX_SAFE_INTEGER),
  ms: SpanMsSchema,
  /** `_OTHER`: none that is known; then `sentMethod` is the one that was sent. */
  method: z.string().min(1).max(10),
  sentMethod: z.string().max(64).optional(),
  path: z.string().max(2_010),
  query: z.string().max(1_000).optional(),
  host: AddressTextSchema,
  port: PortSchema,
  client: z.string().max(64),
  userAgent: z.string().max(500),
  protocol: z.enum(['http/1.1', 'h2', 'websocket']),
  tls: z.string().max(16),
  /** Empty: none was found. */
  route: z.string().max(600),
  status: StatusSchema,
  /** -1: it is none of gRPC. */
  grpcStatus: z.int().min(-1).max(999),
  received: NumberSchema,
  sent: NumberSchema,
  /** Somebody should look at it. */
  trouble: z.boolean(),
  fault: FaultSchema.optional(),
  attempts: z.int().min(0),
  tries: z.array(TrySchema).max(10),
});

/**
 * What a worker may say. Strangers' bytes may have taken it over: everything is checked, and a worker that says anything
 * else is ended, see worker-link.ts.
 */
export const FromWorkerSchema = z.union([
  /** Asks whether another instance is proving this domain; answered by `found-challenge`. */
  z.strictObject({ findChallenge: NameSchema }),
  /** Answered by `compared-password`. */
  z.strictObject({ comparePassword: ComparisonSchema }),
  /** May these requests pass? Answered by one `charged`. */
  z.strictObject({ limits: LimitsSchema }),
  /** Asks for a fresh quote; answered by `attested`, and the next is asked only then. */
  z.strictObject({ attest: AttestSchema }),
  /** What has happened and changed since the last one; at most one a second, see telemetry.ts. */
  z.strictObject({ telemetry: TelemetrySchema }),
  /** Requests whose spans are wanted; at most four a second, see spans.ts. */
  z.strictObject({ recorded: z.array(RecordedSchema).min(1) }),
  z.strictObject({
    id: z.int().positive(),
    done: z.literal(true),
    /** Of `start`. */
    address: z.strictObject({ address: z.string().max(64), port: z.int().min(1).max(65_535) }).optional(),
    /** Of `serve`. */
    generation: z.int().positive().optional(),
  }),
  z.strictObject({
    id: z.int().positive(),
    done: z.literal(false),
    message: TextSchema,
    code: z.string().max(100).optional(),
  }),
]);

export type FromWorker = z.infer<typeof FromWorkerSchema>;
export type Comparison = z.infer<typeof ComparisonSchema>;
export type AttestQuestion = z.infer<typeof AttestSchema>;
export type Telemetry = z.infer<typeof TelemetrySchema>;
export type RecordedRequest = z.infer<typeof RecordedSchema>;
export type RecordedTry = z.infer<typeof TrySchema>;
export type WorkerEvent = Telemetry['events'][number];
export type Reply = Extract<FromWorker, { id: number }>;
export type DoneReply = Extract<Reply, { done: true }>;
