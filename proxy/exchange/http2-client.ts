// HTTP/2 connections of clients: their limits and clocks, and each request to where it belongs.

import { Fault, type FaultCode } from '../faults.ts';
import {
  type ConnectionUser,
  type Http2Connection,
  type Http2Stream,
  openHttp2Connection,
} from '../http2/connection.ts';
import { fieldKind, fieldLimitsOf, kindOf } from '../http2/fields.ts';
import { type BlockLimits, createField, type HeaderField } from '../http2/hpack.ts';
import { coveredBy, speaksHttp2 } from '../rules/routes.ts';
import type { Deadline } from '../socket/deadlines.ts';
import { onData } from '../socket/reads.ts';
import { createRoster, type RosterMember } from '../socket/roster.ts';
import { type AccessEntry, createAccessEntry } from './access-log.ts';
import {
  type Acceptor,
  type Connection,
  FIRST_WORDS_MS,
  LAST_REQUEST_MS,
  type ProxyContext,
} from './context.ts';
import { decide, isRefusal } from './decide.ts';
import { forwardedFields, headerLines } from './headers.ts';
import { Http2Answer } from './http2-answer.ts';
import { replyFault } from './http2-reply.ts';
import { type ForwardedFamily, type Http2Request, readRequest } from './http2-request.ts';
import { relayToHttp1 } from './to-http1.ts';
import { relayToHttp2 } from './to-http2.ts';

/** Per stream: at 50 ms of round trip an upload still moves 20 MiB/s. */
const STREAM_WINDOW = 1024 * 1024;
const CONNECTION_WINDOW = 16 * 1024 * 1024;

export interface Http2Acceptor extends Acceptor {
  /** `first`: bytes that were already read from the connection. */
  accept(connection: Connection, first?: Buffer): void;
}

/**
 * An acceptor for connections that negotiated `h2`. A client that breaks RFC 9113, floods, or never sends its
 * preface loses its own connection (GOAWAY) and disturbs no other.
 */
export function createHttp2Acceptor(context: ProxyContext): Http2Acceptor {
  const clients = createRoster<Client>();
  const shared: Shared = { context, fieldLimits: fieldLimitsOf(context.limits), ended: false };
  let draining = false;
  return {
    accept(connection, first) {
      if (connection.socket.destroyed) return;
      const client = createClient(shared, connection, () => clients.remove(client));
      clients.add(client);
      if (first !== undefined) client.http2.receive(first, first.length);
      if (draining) sayGoodbye(client);
    },
    drain() {
      draining = true;
      clients.each(sayGoodbye);
    },
    get open() {
      return clients.size;
    },
    destroyAll() {
      shared.ended = true;
      clients.each(({ http2 }) => http2.destroy());
    },
  };
}

/** What all connections share. */
interface Shared {
  readonly context: ProxyContext;
  readonly fieldLimits: BlockLimits;
  /** Connections are being ended by us, whatever is under way. */
  ended: boolean;
}

interface Client extends RosterMember {
  readonly shared: Shared;
  readonly connection: Connection;
  readonly http2: Http2Connection;
  readonly forwardedFor: (request: Http2Request) => ForwardedFamily;
}

/**
 * RFC 9113 §6.8: first a GOAWAY that refuses nothing, so that requests which crossed it on the way are still answered;
 * the one that counts comes when those must have arrived.
 */
function sayGoodbye({ http2 }: Client): void {
  http2.announceEnd();
  const timer = setTimeout(() => http2.end(), LAST_REQUEST_MS);
  http2.socket.once('close', () => clearTimeout(timer));
}

function createClient(shared: Shared, connection: Connection, closed: () => void): Client {
  const { context } = shared;
  const { deadlines, limits } = context;
  // Asked while the socket is open, or nobody could tell any more.
  const { socket, clientAddress } = connection;
  // Counted from the last stream, not the last byte: PINGs must not hold an idle connection.
  const idle: Deadline = { at: Number.POSITIVE_INFINITY, expired: () => http2.end() };
  const preface: Deadline = {
    at: deadlines.now() + limits.headerTimeoutMs,
    expired: () => http2.destroy(),
  };
  const watchIdle = () => {
    idle.at = deadlines.now() + limits.keepAliveTimeoutMs;
    deadlines.watch(idle);
  };
  const user: ConnectionUser = {
    greeted() {
      deadlines.forget(preface);
      if (http2.openStreams === 0) watchIdle();
    },
    streamOpened(stream, fields, ended, tooLarge) {
      if (http2.openStreams === 1) deadlines.forget(idle);
      takeRequest(client, stream, fields, ended, tooLarge);
    },
    streamClosed(stream) {
      logStream(client, stream);
      if (http2.openStreams === 0 && !http2.closed) watchIdle();
    },
    connectionClosed(error) {
      deadlines.forget(idle);
      deadlines.forget(preface);
      closed();
      if (error !== undefined) context.log.debug({ client: clientAddress, err: error }, 'connection ended');
    },
  };
  const http2 = openHttp2Connection({
    socket,
    role: 'server',
    deadlines,
    user,
    maxConcurrentStreams: limits.maxConcurrentStreams,
    streamWindow: STREAM_WINDOW,
    connectionWindow: CONNECTION_WINDOW,
    fieldLimits: shared.fieldLimits,
  });
  const client: Client = {
    shared,
    connection,
    http2,
    forwardedFor: createForwardedFor(connection),
  };
  connection.holder = {
    idleSince() {
      if (http2.closed) return 0;
      if (http2.openStreams > 0) return Number.POSITIVE_INFINITY;
      if (idle.at !== Number.POSITIVE_INFINITY) return idle.at - limits.keepAliveTimeoutMs;
      return preface.at - limits.headerTimeoutMs + FIRST_WORDS_MS;
    },
    leave: () => http2.leave(),
  };
  deadlines.watch(preface);
  onData(socket, (bytes) => http2.receive(bytes, bytes.length));
  return client;
}

/** What is said of an untrusted client changes only with the host asked, and a connection rarely asks two. */
function createForwardedFor(connection: Connection): (request: Http2Request) => ForwardedFamily {
  let lastAuthority: string | undefined;
  let last: ForwardedFamily = { fields: [], lines: '' };
  return ({ authority, forwarded }) => {
    const trusted = connection.trustedClient && forwarded !== undefined;
    if (!trusted && authority === lastAuthority) return last;
    const pairs = forwardedFields(connection, authority, forwarded ?? {});
    const family = {
      fields: pairs.map(([name, value]) => createField(name, value)),
      lines: headerLines(pairs),
    };
    if (trusted) return family;
    lastAuthority = authority;
    last = family;
    return last;
  };
}

function takeRequest(
  client: Client,
  stream: Http2Stream,
  fields: readonly HeaderField[],
  ended: boolean,
  tooLarge: boolean,
) {
  const { context } = client.shared;
  const access = context.accessLog === undefined ? undefined : beginAccess(client, stream, fields);
  const request = tooLarge ? 'headers-too-large' : readRequest(fields, ended);
  if (request === 'malformed') {
    if (access !== undefined) access.fault = 'bad-request';
    return stream.resetMalformed();
  }
  if (typeof request === 'string') return refuse(stream, request, access);
  if (access !== undefined) access.host = request.host;
  if (request.contentLength >= 0) stream.expects = request.contentLength;
  const covered = coveredBy(client.connection.certificateNames, request.host);
  const decision = decide(request, covered, context);
  if (isRefusal(decision)) return refuse(stream, decision, access, request);
  const { connection, forwardedFor } = client;
  if (decision.answeredBy !== undefined) {
    const { maxBodyBytes } = decision;
    const answer = new Http2Answer({ stream, request, connection, context, maxBodyBytes, access });
    return answer.begin(context.localHandlers[decision.answeredBy]!);
  }
  const forwarded = forwardedFor(request);
  const { upstream } = decision;
  const exchange = { stream, request, connection, match: decision, upstream, context, forwarded, access };
  if (speaksHttp2(upstream.protocol)) relayToHttp2(exchange);
  else relayToHttp1(exchange);
}

const UNREAD = { method: 'GET', grpc: false, fields: [] };

function refuse(
  stream: Http2Stream,
  code: FaultCode,
  access: AccessEntry | undefined,
  request: Pick<Http2Request, 'method' | 'grpc' | 'fields'> = UNREAD,
): void {
  if (access !== undefined) access.fault = code;
  replyFault(stream, request, new Fault(code), access);
}

// --- The access log ---

function beginAccess({ connection, shared }: Client, stream: Http2Stream, fields: readonly HeaderField[]) {
  const access = createAccessEntry('h2', connection.clientAddress, shared.context.deadlines.now());
  for (const field of fields) {
    const kind = kindOf(field);
    if (kind === fieldKind.method) access.method = field.value;
    else if (kind === fieldKind.path) access.target = field.value;
    else if (kind === fieldKind.authority) access.host = field.value;
  }
  stream.note = access;
  return access;
}

/** Written when the stream has closed, however it did. */
function logStream({ shared }: Client, stream: Http2Stream): void {
  const access = stream.note as AccessEntry | undefined;
  if (access === undefined) return;
  const { accessLog, deadlines } = shared.context;
  if (stream.end !== 'complete') access.fault ??= shared.ended ? 'draining' : 'client-closed';
  if (access.fault === 'client-closed' && access.status === 0) access.status = 499;
  accessLog?.write(access, deadlines.now());
}
