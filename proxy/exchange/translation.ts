// HTTP/2 fields to HTTP/1.1 heads and back (RFC 9113 §8.1 to §8.3, RFC 8441).

import { connectionDrops, dropsFromReply, dropsFromTrailers } from '../http1/drops.ts';
import { field } from '../http1/known-fields.ts';
import { LINE, lowerName, type MessageHead, valueAt } from '../http1/message.ts';
import { replyLength } from '../http1/reply-head.ts';
import type { Http2Stream } from '../http2/connection.ts';
import { fieldKind, kindOf, lineOf } from '../http2/fields.ts';
import { createField, type HeaderField } from '../http2/hpack.ts';
import type { Loss } from '../upstream/http1-pool.ts';
import { REQUEST_ID } from './exchange.ts';
import { isEditedAway, ownFields, type ReplyEdits } from './head-fields.ts';
import type { Forwarding } from './http2-request.ts';

/** How the body of the HTTP/1.1 request is framed; never left to the method (RFC 9112 §6.3). */
export type RequestFraming = 'none' | 'length' | 'chunked';

export function requestFraming({ request }: Forwarding): RequestFraming {
  if (request.endStream) return 'none';
  return request.contentLength >= 0 ? 'length' : 'chunked';
}

const MAY_EXPECT_A_LENGTH = new Set(['POST', 'PUT', 'PATCH']);

/** The whole head, its empty line included. */
export function requestHeadText(exchange: Forwarding): string {
  const { request } = exchange;
  const head = `${request.method} ${request.path} HTTP/1.1\r\nhost: ${request.authority}\r\n${fieldLines(exchange)}`;
  switch (requestFraming(exchange)) {
    case 'chunked':
      return `${head}transfer-encoding: chunked\r\n\r\n`;
    case 'length':
      return `${head}content-length: ${request.contentLength}\r\n\r\n`;
    default:
      // RFC 9110 §8.6: said where a body would be no surprise.
      return request.contentLength === 0 || MAY_EXPECT_A_LENGTH.has(request.method)
        ? `${head}content-length: 0\r\n\r\n`
        : `${head}\r\n`;
  }
}

/** The handshake that stands for an extended CONNECT (RFC 8441 §5.1, RFC 6455 §4.1); `key` is the ingress's own. */
export function upgradeHeadText(exchange: Forwarding, key: string): string {
  const { request } = exchange;
  return (
    `GET ${request.path} HTTP/1.1\r\nhost: ${request.authority}\r\n${fieldLines(exchange, 'sec-websocket-key')}` +
    `connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ${key}\r\n\r\n`
  );
}

function fieldLines({ request, forwarded }: Forwarding, without = ''): string {
  const { fields } = request;
  let lines = '';
  for (let i = 0; i < fields.length; i++) {
    if (fields[i]!.name !== without) lines += lineOf(fields[i]!);
  }
  return lines + forwarded.lines;
}

const statusTexts = Array.from({ length: 1000 }, (_, status) => String(status));

/**
 * Sends a reply's fields, its status first; what concerns the upstream's connection is left out (RFC 9113 §8.2.2), and
 * so is `without`, a name in lower case. `id`: of the request; empty: nothing is said of it.
 */
export function sendReplyHead(
  stream: Http2Stream,
  head: MessageHead,
  kind: 'interim' | 'open' | 'last',
  id = '',
  status = head.status,
  without = '',
  edits?: ReplyEdits,
): void {
  const { lines, count, nominated, lengthRewritten } = head;
  stream.beginHead();
  stream.addField(':status', statusTexts[status]!);
  for (let line = 0; line < count; line++) {
    const id = lines[line * LINE + 4]!;
    if (connectionDrops[id] === 1) continue;
    // RFC 9110 §8.6: no Content-Length in 1xx and 204.
    if (id === field.contentLength && (lengthRewritten || status < 200 || status === 204 || status === 205))
      continue;
    const name = lowerName(head, line);
    if (name === without || (nominated.length > 0 && nominated.includes(name))) continue;
    if (edits !== undefined && isEditedAway(edits, name)) continue;
    stream.addField(name, valueAt(head, line));
  }
  if (edits !== undefined) for (const [name, value] of ownFields(edits)) stream.addField(name, value);
  // Of this one message: it must not push out of the tables what will come again.
  if (id !== '') stream.addField(REQUEST_ID, id, true);
  if (lengthRewritten && status >= 200 && status !== 204 && status !== 205) {
    stream.addField('content-length', String(head.contentLength));
  }
  stream.endHead(kind);
}

const NOTHING: readonly string[] = [];

/**
 * The trailer section of a chunked message, without what has no place there (RFC 9110 §6.5.1), and without the names that
 * the message's Connection nominated.
 */
export function trailersOf(head: MessageHead | undefined, nominated = NOTHING): HeaderField[] {
  const fields: HeaderField[] = [];
  for (let line = 0; line < (head?.count ?? 0); line++) {
    const name = lowerName(head!, line);
    if (dropsFromTrailers(name) || nominated.includes(name)) continue;
    fields.push(createField(name, valueAt(head!, line)));
  }
  return fields;
}

/** The end of a chunked request body, with the trailers that the client sent. */
export function lastChunk(trailers: readonly HeaderField[]): string {
  let lines = '';
  for (const trailer of trailers) if (!dropsFromTrailers(trailer.name)) lines += lineOf(trailer);
  return `0\r\n${lines}\r\n`;
}

/** A client's trailers for an HTTP/2 upstream. */
export function requestTrailers(trailers: readonly HeaderField[]): HeaderField[] {
  return trailers.filter(({ name }) => !dropsFromTrailers(name));
}

/** An HTTP/2 upstream's trailers for the client: gRPC's status and metadata, whatever their names. */
export function replyTrailers(trailers: readonly HeaderField[]): HeaderField[] {
  return trailers.filter(({ name }) => !dropsFromReply(name));
}

/** RFC 9110 §6.4.1: whatever length is named, none comes. */
export function hasNoBody(method: string, status: number): boolean {
  return method === 'HEAD' || status === 204 || status === 304;
}

/** The Content-Length of an HTTP/2 reply. -1: none; undefined: no number, or two (RFC 9110 §8.6). */
export function replyLengthOf(fields: readonly HeaderField[]): number | undefined {
  let length = -1;
  for (const field of fields) {
    if (kindOf(field) !== fieldKind.contentLength) continue;
    const said = replyLength(field.value);
    if (said === -1 || (length !== -1 && said !== length)) return undefined;
    length = said;
  }
  return length;
}

/** A reset of this one stream, or one for what came in it, is the answer of an upstream that is alive. */
export function lossOf({ end }: Http2Stream): Loss {
  if (end === 'refused') return 'unbegun';
  return end === 'lost' ? 'unheard' : 'answered';
}
