// What a header field of HTTP/2 is to a proxy, and whether it is well-formed (RFC 9113 §8.2).

import { dropsFromRequest } from '../http1/drops.ts';
import type { HeadLimits } from '../http1/message.ts';
import { MOST_REPLY_LINES } from '../http1/reply-head.ts';
import type { BlockLimits, HeaderField } from './hpack.ts';

/** RFC 9113 §6.5.2 counts 32 for each field; the four or five pseudo-header fields are no lines of HTTP/1.1. */
export function fieldLimitsOf({ maxHeaderBytes, maxHeaderCount }: HeadLimits): BlockLimits {
  return { bytes: maxHeaderBytes, count: maxHeaderCount + 5 };
}

/** Replies are trusted with more lines than requests, as over HTTP/1.1. */
export function replyFieldLimitsOf({ bytes, count }: BlockLimits): BlockLimits {
  return { bytes, count: Math.max(count, MOST_REPLY_LINES) };
}

export const fieldKind = {
  unknown: 0,
  /** Its name or value breaks RFC 9113 §8.2.1, or it is specific to HTTP/1.1 (§8.2.2). Its message is malformed too. */
  malformed: 1,
  /** Passed on as it is. */
  plain: 2,
  method: 3,
  scheme: 4,
  authority: 5,
  path: 6,
  protocol: 7,
  status: 8,
  otherPseudo: 9,
  host: 10,
  cookie: 11,
  contentLength: 12,
  expect: 13,
  te: 14,
  contentType: 15,
  /** With an underscore in its name: CGI and its successors take that for a hyphen. */
  underscored: 16,
  /** X-Forwarded-*, X-Real-IP and Forwarded: believed from trusted clients only. */
  forwarded: 17,
  /** Meant for one hop, though HTTP/2 does not forbid it. */
  hopByHop: 18,
  /** Passed on as they are, unless they are kept or made here. */
  userAgent: 19,
  requestId: 20,
  traceparent: 21,
  tracestate: 22,
} as const;

const known = new Map<string, number>([
  [':method', fieldKind.method],
  [':scheme', fieldKind.scheme],
  [':authority', fieldKind.authority],
  [':path', fieldKind.path],
  [':protocol', fieldKind.protocol],
  [':status', fieldKind.status],
  ['host', fieldKind.host],
  ['cookie', fieldKind.cookie],
  ['content-length', fieldKind.contentLength],
  ['expect', fieldKind.expect],
  ['te', fieldKind.te],
  ['content-type', fieldKind.contentType],
  ['user-agent', fieldKind.userAgent],
  ['x-request-id', fieldKind.requestId],
  ['traceparent', fieldKind.traceparent],
  ['tracestate', fieldKind.tracestate],
  ['connection', fieldKind.malformed],
  ['keep-alive', fieldKind.malformed],
  ['proxy-connection', fieldKind.malformed],
  ['transfer-encoding', fieldKind.malformed],
  ['upgrade', fieldKind.malformed],
]);

// RFC 9110 §5.6.2, without upper case (RFC 9113 §8.2).
const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
// RFC 9110 §5.5: no controls but HTAB, and no white space at either end.
const VALUE = /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/;

/** One of `fieldKind`, found out once for each field: the tables bring the same field again and again. */
export function kindOf(field: HeaderField): number {
  if (field.kind === fieldKind.unknown) field.kind = judge(field);
  return field.kind;
}

export function isPseudo(kind: number): boolean {
  return kind >= fieldKind.method && kind <= fieldKind.otherPseudo;
}

function judge({ name, value }: HeaderField): number {
  if (!VALUE.test(value)) return fieldKind.malformed;
  const kind = known.get(name);
  // RFC 9113 §8.2.2 allows this one value.
  if (kind === fieldKind.te && value.toLowerCase() !== 'trailers') return fieldKind.malformed;
  if (kind !== undefined) return kind;
  if (name.startsWith(':')) return fieldKind.otherPseudo;
  if (!NAME.test(name)) return fieldKind.malformed;
  if (name.includes('_')) return fieldKind.underscored;
  if (!dropsFromRequest(name)) return fieldKind.plain;
  return name.startsWith('x-') || name === 'forwarded' ? fieldKind.forwarded : fieldKind.hopByHop;
}

/** As a line of HTTP/1.1. */
export function lineOf(field: HeaderField): string {
  if (field.line === '') field.line = `${field.name}: ${field.value}\r\n`;
  return field.line;
}
