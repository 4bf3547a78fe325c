// The one reply to a fault, for HTTP by Accept and for gRPC.

import { STATUS_CODES } from 'node:http';
import { type FaultCode, factsOf } from '../faults.ts';
import { errorPage, PAGE_POLICY, prefersHtml, statusPage } from './error-page.ts';

export interface FaultReply {
  readonly status: number;
  readonly reason: string;
  /** In lower case, as both protocols take them. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  /** ASCII: JSON as in `{"error":"upstream-refused","message":"..."}`, or a page for those who prefer HTML. */
  readonly body: string;
}

/** Every form of a reply: what is told depends on what was asked, and holds for this moment only (RFC 9110 §12.5.5). */
const EACH_REPLY = [
  ['cache-control', 'no-store'],
  ['vary', 'accept'],
] as const;
const JSON_FIELDS = [['content-type', 'application/json'], ...EACH_REPLY] as const;
const PAGE_FIELDS = [
  ['content-type', 'text/html; charset=utf-8'],
  ...EACH_REPLY,
  ['content-security-policy', PAGE_POLICY],
  ['x-content-type-options', 'nosniff'],
] as const;

/** The HTTP reply to a fault. `accept`: the request's field, if it was read. For gRPC see faultTrailers(). */
export function faultReply(code: FaultCode, accept: string | undefined, now = new Date()): FaultReply {
  const { status, side, message } = factsOf(code);
  const reason = STATUS_CODES[status] ?? 'Error';
  if (prefersHtml(accept)) {
    return { status, reason, fields: PAGE_FIELDS, body: errorPage(code, { status, reason, side, now }) };
  }
  return { status, reason, fields: JSON_FIELDS, body: `${JSON.stringify({ error: code, message })}\n` };
}

/** The same for a status that rules say and that no fault has. */
export function statusReply(status: number, accept: string | undefined, now = new Date()): FaultReply {
  const reason = STATUS_CODES[status] ?? 'Error';
  if (prefersHtml(accept))
    return { status, reason, fields: PAGE_FIELDS, body: statusPage(status, reason, now) };
  const error = reason.toLowerCase().replaceAll(' ', '-');
  return { status, reason, fields: JSON_FIELDS, body: `${JSON.stringify({ error, message: reason })}\n` };
}

/** The Accept of an HTTP/1.1 head, looked up only once it matters: several lines are one list (RFC 9110 §5.3). */
export function acceptIn(head: string): string {
  return Array.from(head.matchAll(/\r\naccept:([^\r]*)/gi), ([, value]) => value!).join(',');
}

/** The whole of it, as HTTP/1.1, to a connection that no exchange owns and that ends with it. */
export function lastReply(code: FaultCode): string {
  const { status, reason, fields, body } = faultReply(code, undefined);
  const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  // RFC 9110 §6.6.1: an origin server with a clock sends Date.
  return `HTTP/1.1 ${status} ${reason}\r\nDate: ${new Date().toUTCString()}\r\n${lines}Content-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`;
}

/** What a gRPC client is told: trailers-only (gRPC over HTTP2, Responses); the message is percent-safe ASCII. */
export function faultTrailers(code: FaultCode): { 'grpc-status': string; 'grpc-message': string } {
  const { grpc, message } = factsOf(code);
  return { 'grpc-status': String(grpc), 'grpc-message': message };
}
