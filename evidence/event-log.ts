// The event log of a dstack machine: what was measured into RTMR0 to RTMR3, and the replay that proves it.

import { createHash } from 'node:crypto';
import * as z from 'zod';
import { CodedError } from '../src/lib/coded-error.ts';
import { parseStrictJson } from './strict-json.ts';

/** One measurement. `digest` is what extends the register, computed here where the log carries the content. */
export interface LogEvent {
  readonly imr: number;
  readonly type: number;
  readonly name: string;
  /** Lower-case hex; agents from 0.5.6 on leave it out for RTMR0 to RTMR2. */
  readonly payload: string;
  readonly digest: string;
}

export type EventLogErrorCode = 'unintelligible' | 'digest-mismatch';

export class EventLogError extends CodedError<EventLogErrorCode> {
  override readonly name = 'EventLogError';
}

/** The type of the events that dstack itself measures at run time, all of them into RTMR3. */
export const RUNTIME_EVENT = 0x08000001;

/** The last event of the system. */
const READY = 'system-ready';

const hex = z
  .string()
  .regex(/^([0-9a-f]{2})*$/i, 'must be hexadecimal')
  .transform((text) => text.toLowerCase());

const logSchema = z.array(
  z.object({
    imr: z.int().min(0).max(3),
    event_type: z.int().min(0).max(0xffffffff),
    digest: hex.refine((text) => text === '' || text.length === 96, 'must be a SHA-384 digest or empty'),
    event: z.string(),
    event_payload: hex,
    version: z.int().optional(),
  }),
);

type RawEvent = z.infer<typeof logSchema>[number];

/**
 * Takes the `event_log` of a quote: a JSON text. Digests of runtime events are computed from their content, because
 * agents from 0.5.6 on leave them out, and a digest that is given must agree. Throws EventLogError.
 */
export function parseEventLog(text: string): LogEvent[] {
  return readLog(text).map((event, index) => ({
    imr: event.imr,
    type: event.event_type,
    name: event.event,
    payload: event.event_payload,
    digest: digestOf(event, index),
  }));
}

/** RTMR0 to RTMR3 as hex after all events, from 48 zero bytes each: RTMR = SHA-384(RTMR || digest). */
export function replay(events: readonly LogEvent[]): readonly [string, string, string, string] {
  const register = (imr: number) =>
    events
      .filter((event) => event.imr === imr)
      .reduce<Buffer>((value, event) => sha384(value, Buffer.from(event.digest, 'hex')), Buffer.alloc(48))
      .toString('hex');
  return [register(0), register(1), register(2), register(3)];
}

/**
 * The payload of the first event of this name that the system measured, as hex. Events after `system-ready` are ignored:
 * the app adds them, and may give them any name.
 */
export function systemEvent(events: readonly LogEvent[], name: string): string | undefined {
  return systemEvents(events).find((event) => event.name === name)?.payload;
}

/** What makes it doubtful which of the events the system has measured. */
export type EventLogFinding =
  /** Where the system's events end is not said: the app may have added any of them. */
  | { readonly code: 'no-system-ready' }
  | { readonly code: 'missing'; readonly name: string }
  /** Readers differ in which one they take. */
  | { readonly code: 'repeated'; readonly name: string; readonly times: number };

/** Each of them the system measures once, before it is ready. */
const IDENTIFYING = ['app-id', 'compose-hash', 'instance-id', 'key-provider'] as const;

/** Nothing where all is as it should be. A log with findings replays like any other: what they mean is for policy to say. */
export function logFindings(events: readonly LogEvent[]): EventLogFinding[] {
  const ofSystem = systemEvents(events);
  const isReady = ofSystem.at(-1)?.name === READY;
  const counts = IDENTIFYING.flatMap((name): EventLogFinding[] => {
    const times = ofSystem.filter((event) => event.name === name).length;
    if (times === 1) return [];
    return [times === 0 ? { code: 'missing', name } : { code: 'repeated', name, times }];
  });
  return [...(isReady ? [] : [{ code: 'no-system-ready' } as const]), ...counts];
}

/** Of the runtime events those up to `system-ready`, all of them if it is not there. */
function systemEvents(events: readonly LogEvent[]): LogEvent[] {
  const runtime = events.filter((event) => event.imr === 3 && event.type === RUNTIME_EVENT);
  const ready = runtime.findIndex((event) => event.name === READY);
  return ready === -1 ? runtime : runtime.slice(0, ready + 1);
}

/**
 * The same log with the digests that agents from 0.5.6 on leave out: a reader who replays `digest` as it stands gets the
 * registers of the quote. Nothing else changes, and a log that is whole is returned as it is, to the byte. Throws
 * EventLogError.
 */
export function withDigests(text: string): string {
  const digests = readLog(text).map(digestOf);
  const raw = JSON.parse(text) as { digest: string }[];
  if (raw.every(({ digest }) => digest !== '')) return text;
  return JSON.stringify(raw.map((event, index) => ({ ...event, digest: event.digest || digests[index] })));
}

/** SHA-384 over type (32 bits, little endian), colon, name, colon, payload. */
export function runtimeDigest(name: string, payload: Uint8Array, type = RUNTIME_EVENT): string {
  const typeBytes = Buffer.alloc(4);
  typeBytes.writeUInt32LE(type);
  return sha384(typeBytes, Buffer.from(`:${name}:`), payload).toString('hex');
}

/** The second version, which an app chooses: SHA-384 over the canonical JSON (RFC 8785) of name, payload in hex, type. */
function runtimeDigestV2(event: RawEvent): string {
  const canonical = JSON.stringify({
    name: event.event,
    payload: event.event_payload,
    type: event.event_type,
  });
  return sha384(Buffer.from(canonical)).toString('hex');
}

function digestOf(event: RawEvent, index: number): string {
  const subject = `event ${index} (${JSON.stringify(event.event)}, RTMR${event.imr})`;
  if (event.imr !== 3 || event.event_type !== RUNTIME_EVENT) {
    if (event.digest === '') throw new EventLogError('unintelligible', `${subject} has no digest`);
    return event.digest;
  }
  const computed =
    event.version === 2
      ? runtimeDigestV2(event)
      : runtimeDigest(event.event, Buffer.from(event.event_payload, 'hex'), event.event_type);
  if (event.digest !== '' && event.digest !== computed) {
    throw new EventLogError(
      'digest-mismatch',
      `${subject} says its digest is ${event.digest}, its content has ${computed}`,
    );
  }
  return computed;
}

function readLog(text: string): RawEvent[] {
  try {
    return logSchema.parse(parseStrictJson(text));
  } catch (cause) {
    throw new EventLogError('unintelligible', 'the event log is not the JSON list that it should be', {
      cause,
    });
  }
}

function sha384(...parts: Uint8Array[]): Buffer {
  const hash = createHash('sha384');
  for (const part of parts) hash.update(part);
  return hash.digest();
}
