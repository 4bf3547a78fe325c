// Replies that the ingress itself gives to a client of HTTP/1.1: to faults, and from local handlers.

import type { TLSSocket } from 'node:tls';
import type { LocalHandler, LocalReply, LocalRequest } from '../../src/lib/local-handler.ts';
import type { FaultCode } from '../faults.ts';
import { type MessageHead, nameAt, valueAt } from '../http1/message.ts';
import { writeJoined } from '../socket/writes.ts';
import type { ProxyContext } from './context.ts';
import { pathOf, queryOf } from './decide.ts';
import { acceptIn, faultReply } from './fault-reply.ts';
import { headerLines } from './headers.ts';
import { loggedTarget } from './logged.ts';

/** A request of HTTP/1.1 that is answered here, as far as its answer must know it. */
export interface Http1Question {
  readonly context: ProxyContext;
  readonly client: TLSSocket;
  readonly method: string;
  readonly http10: boolean;
  /** The client still waits for a reply. */
  isUnanswered(): boolean;
  /** Reads nothing more of the client until the reply has been written. */
  awaitOwnReply(): void;
  /** No upstream can hang the exchange any more, but its reply may take its time. */
  stopClock(): void;
  /** The reply is about to be written; `sent`: the bytes of its body. True: the connection carries another request. */
  beginOwnReply(status: number, sent: number): boolean;
  /** The reply has been written, whole. */
  endOwnReply(): void;
  /** A local handler could not answer. */
  answerFailed(): void;
}

/** `host` as it was parsed, `target` in origin form. */
export function localRequest(head: MessageHead, target: string, host: string): LocalRequest {
  const headers: Record<string, string> = Object.create(null);
  for (let line = 0; line < head.count; line++) {
    const name = nameAt(head, line).toLowerCase();
    const value = valueAt(head, line);
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  return { method: head.method, path: pathOf(target), query: queryOf(target), host, headers };
}

export function answerLocally(question: Http1Question, handler: LocalHandler, request: LocalRequest) {
  question.stopClock();
  const failed = (error: unknown) => {
    question.context.log.error({ err: error, path: loggedTarget(request.path) }, 'local handler failed');
    question.answerFailed();
  };
  try {
    const reply = handler.handle(request);
    if (!(reply instanceof Promise)) return replyLocally(question, reply);
    question.awaitOwnReply();
    reply.then((answer) => replyLocally(question, answer), failed);
  } catch (error) {
    failed(error);
  }
}

function replyLocally(question: Http1Question, reply: LocalReply): void {
  if (!question.isUnanswered()) return;
  writeOwnReply(question, reply.status, '', headerLines(Object.entries(reply.headers)), reply.body);
}

/** `requestText`: the head of the request, as far as it was read; it says which form the client prefers. */
export function writeFault(question: Http1Question, code: FaultCode, requestText: string): void {
  const { status, reason, fields, body } = faultReply(code, acceptIn(requestText));
  writeOwnReply(question, status, reason, headerLines(fields), Buffer.from(body, 'latin1'));
}

function writeOwnReply(
  question: Http1Question,
  status: number,
  reason: string,
  fields: string,
  body: Uint8Array,
): void {
  const { client, method, http10 } = question;
  const bare = method === 'HEAD' || status === 204 || status === 304;
  const size = bare ? 0 : body.byteLength;
  const keepAlive = question.beginOwnReply(status, size);
  const connection = keepAlive ? (http10 ? 'Connection: keep-alive\r\n' : '') : 'Connection: close\r\n';
  // RFC 9110 §6.6.1: an origin server with a clock sends Date.
  const text = `HTTP/1.1 ${status} ${reason}\r\nDate: ${new Date().toUTCString()}\r\n${fields}${lengthLine(status, body)}${connection}\r\n`;
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  writeJoined(client, text, bytes, 0, size);
  question.endOwnReply();
}

/** RFC 9110 §8.6: not in 204; in 304 it would have to be that of the 200. */
function lengthLine(status: number, body: Uint8Array): string {
  return status === 204 || status === 304 ? '' : `Content-Length: ${body.byteLength}\r\n`;
}
