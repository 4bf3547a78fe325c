// HTTP/2 fields to HTTP/1.1 heads and back (RFC 9113 §8.1 to §8.3, RFC 8441).

import { createHash, randomBytes } from 'node:crypto';
import { dropsFromReply, dropsFromTrailers } from './headers.ts';
import { FIELD_KINDS, field, LINE, type MessageHead, nameAt, valueAt } from './http1.ts';
import type { Http2Exchange } from './http2-request.ts';

/** Of the fields that repeat, each value apart: Node's own object form would join them. */
export type FieldObject = Record<string, string | string[]>;

/** How the body of the HTTP/1.1 request is framed; never left to the method (RFC 9112 §6.3). */
export type RequestFraming = 'none' | 'length' | 'chunked';

export function requestFraming({ request }: Http2Exchange): RequestFraming {
  if (request.endStream) return 'none';
  return request.contentLength >= 0 ? 'length' : 'chunked';
}

const MAY_EXPECT_A_LENGTH = new Set(['POST', 'PUT', 'PATCH']);

/** The whole head, its empty line included. */
export function requestHeadText(exchange: Http2Exchange): string {
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
export function upgradeHeadText(exchange: Http2Exchange, key: string): string {
  const { request } = exchange;
  return (
    `GET ${request.path} HTTP/1.1\r\nhost: ${request.authority}\r\n${fieldLines(exchange, 'sec-websocket-key')}` +
    `connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ${key}\r\n\r\n`
  );
}

export function websocketKey(): string {
  return randomBytes(16).toString('base64');
}

/** Whether a 101 completes the handshake (RFC 6455 §4.1, client requirements 2 to 4). */
export function acceptsWebsocket(head: MessageHead, key: string): boolean {
  if (!head.upgrade || head.upgradeTo.toLowerCase() !== 'websocket') return false;
  const wanted = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  for (let line = 0; line < head.count; line++) {
    if (nameAt(head, line).toLowerCase() === 'sec-websocket-accept') return valueAt(head, line) === wanted;
  }
  return false;
}

function fieldLines({ request, forwarded }: Http2Exchange, without = ''): string {
  const { fields } = request;
  let lines = '';
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] !== without) lines += `${fields[i]}: ${fields[i + 1]}\r\n`;
  }
  return lines + forwarded.lines;
}

const connectionFields = new Uint8Array(FIELD_KINDS);
for (const id of [
  field.connection,
  field.keepAlive,
  field.proxyConnection,
  field.te,
  field.upgrade,
  field.transferEncoding,
  field.http2Settings,
  field.proxyAuthenticate,
  field.proxyAuthorization,
  field.proxyAuthenticationInfo,
]) {
  connectionFields[id] = 1;
}

/** A reply's fields, flat, its status first; what concerns the upstream's connection is left out (RFC 9113 §8.2.2). */
export function replyFields(head: MessageHead, status = head.status): string[] {
  const { lines, count, nominated } = head;
  const fields = [':status', String(status)];
  for (let line = 0; line < count; line++) {
    const id = lines[line * LINE + 4]!;
    if (connectionFields[id] === 1) continue;
    // RFC 9110 §8.6: no Content-Length in 1xx and 204.
    if (id === field.contentLength && (status < 200 || status === 204 || status === 205)) continue;
    const name = nameAt(head, line).toLowerCase();
    if (nominated.length > 0 && nominated.includes(name)) continue;
    fields.push(name, valueAt(head, line));
  }
  return fields;
}

export function announcesTrailers(head: MessageHead): boolean {
  for (let line = 0; line < head.count; line++) {
    if (head.lines[line * LINE + 4] === field.trailer) return true;
  }
  return false;
}

/** The trailer section of a chunked reply, without what has no place there (RFC 9110 §6.5.1). */
export function trailersOf(head: MessageHead | undefined): FieldObject {
  const flat: string[] = [];
  for (let line = 0; line < (head?.count ?? 0); line++) {
    const name = nameAt(head!, line).toLowerCase();
    if (!dropsFromTrailers(name)) flat.push(name, valueAt(head!, line));
  }
  return fieldObject(flat);
}

/** The end of a chunked request body, with the trailers that the client sent. */
export function lastChunk(trailers: readonly string[]): string {
  let lines = '';
  for (let i = 0; i < trailers.length; i += 2) {
    if (!dropsFromTrailers(trailers[i]!)) lines += `${trailers[i]}: ${trailers[i + 1]}\r\n`;
  }
  return `0\r\n${lines}\r\n`;
}

/** A client's trailers for an HTTP/2 upstream. */
export function requestTrailers(raw: readonly string[]): FieldObject {
  return fieldObject(without(raw, dropsFromTrailers));
}

/** An HTTP/2 upstream's trailers for the client: gRPC's status and metadata, whatever their names. */
export function replyTrailers(raw: readonly string[]): FieldObject {
  return fieldObject(without(raw, dropsFromReply));
}

/** Node throws at what may not be sent, and nghttp2 lets some of it in. */
function without(raw: readonly string[], drops: (name: string) => boolean): string[] {
  const kept: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!;
    if (!drops(name)) kept.push(name, raw[i + 1]!);
  }
  return kept;
}

export function fieldObject(flat: readonly string[]): FieldObject {
  const fields: FieldObject = Object.create(null);
  for (let i = 0; i < flat.length; i += 2) {
    const name = flat[i]!;
    const value = flat[i + 1]!;
    const known = fields[name];
    if (known === undefined) fields[name] = value;
    else fields[name] = Array.isArray(known) ? [...known, value] : [known, value];
  }
  return fields;
}
