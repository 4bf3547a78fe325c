// Replies that the ingress itself gives to a client of HTTP/1.1, whole: to faults, and from local handlers.

import type { TLSSocket } from 'node:tls';
import type { FaultCode } from '../faults.ts';
import { writeJoined } from '../socket/writes.ts';
import type { ProxyContext } from './context.ts';
import { acceptIn, faultReply } from './fault-reply.ts';
import { headerLines } from './headers.ts';
import { asBuffer, hasNoBody } from './local-body.ts';

/** A request of HTTP/1.1 that is answered here, as far as its reply must know it. */
export interface Http1Question {
  readonly context: ProxyContext;
  readonly client: TLSSocket;
  readonly method: string;
  readonly http10: boolean;
  /** What its client is told of it, as a line. */
  readonly replyLine: string;
  /**
   * The reply is about to be written; `sent`: the bytes of its body. `framed`: the client can tell where it ends. True: the
   * connection carries another request.
   */
  beginOwnReply(status: number, sent: number, framed: boolean): boolean;
  /** The reply has been written, whole. */
  endOwnReply(): void;
}

/** `requestText`: the head of the request, as far as it was read; it says which form the client prefers. */
export function writeFault(question: Http1Question, code: FaultCode, requestText: string): void {
  const { status, reason, fields, body } = faultReply(code, acceptIn(requestText));
  writeOwnReply(question, status, reason, headerLines(fields), Buffer.from(body, 'latin1'));
}

export function writeOwnReply(
  question: Http1Question,
  status: number,
  reason: string,
  fields: string,
  body: Uint8Array,
): void {
  const { client, method } = question;
  const size = method === 'HEAD' || hasNoBody(status) ? 0 : body.byteLength;
  const keepAlive = question.beginOwnReply(status, size, true);
  const length = hasNoBody(status) ? '' : `Content-Length: ${body.byteLength}\r\n`;
  const text = ownHead(question, status, reason, fields + length, keepAlive);
  writeJoined(client, text, asBuffer(body), 0, size);
  question.endOwnReply();
}

/** `fields`: complete header lines, the framing among them. */
export function ownHead(
  { http10, replyLine }: Http1Question,
  status: number,
  reason: string,
  fields: string,
  keepAlive: boolean,
): string {
  const connection = keepAlive ? (http10 ? 'Connection: keep-alive\r\n' : '') : 'Connection: close\r\n';
  // RFC 9110 §6.6.1: an origin server with a clock sends Date.
  return `HTTP/1.1 ${status} ${reason}\r\nDate: ${new Date().toUTCString()}\r\n${fields}${replyLine}${connection}\r\n`;
}
