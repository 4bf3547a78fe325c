// HTTP/2 connections of clients: sessions with their limits, and each stream to where it belongs.

import {
  constants,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type ServerOptions,
} from 'node:http2';
import type { LocalHandler } from '../src/lib/local-handler.ts';
import { type AccessEntry, createAccessEntry } from './access-log.ts';
import {
  type Acceptor,
  type Connection,
  LAST_REQUEST_MS,
  type ListenerLimits,
  type ProxyContext,
} from './connection.ts';
import type { Deadline } from './deadlines.ts';
import { Fault, type FaultCode } from './errors.ts';
import { relayToHttp2 } from './grpc.ts';
import { forwardedFields } from './headers.ts';
import { relayToHttp1 } from './http2-relay.ts';
import { replyFault, replyLocal } from './http2-reply.ts';
import { type ForwardedFamily, type Http2Exchange, type Http2Request, readRequest } from './http2-request.ts';
import { createHttp2Upstreams, type Http2Upstreams } from './http2-upstream.ts';
import { coveredBy } from './routes.ts';

const { NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_FLAG_END_STREAM, NGHTTP2_NO_ERROR } = constants;

/** Per stream: at 50 ms of round trip an upload still moves 20 MiB/s. */
const STREAM_WINDOW = 1024 * 1024;
const SESSION_WINDOW = 16 * 1024 * 1024;
/** PING and SETTINGS frames that a client may send in each window of time: each makes us answer. */
const CONTROL_FRAMES = 500;
const CONTROL_WINDOW_MS = 10_000;
/** Between GOAWAY and the end of a connection on which nothing happens. */
const GOODBYE_MS = 1_000;

/**
 * An acceptor for connections that negotiated `h2`. A client that breaks RFC 9113, floods, or never sends its
 * preface loses its own connection (GOAWAY) and disturbs no other.
 */
export function createHttp2Acceptor(context: ProxyContext): Acceptor {
  const upstreams = createHttp2Upstreams({ deadlines: context.deadlines, upstreams: context.upstreams });
  const sessions = new Set<ServerHttp2Session>();
  const options = sessionOptions(context.limits);
  let draining = false;
  let ended = false;
  return {
    accept(connection) {
      if (connection.socket.destroyed) return;
      const session = performServerHandshake(connection.socket, options);
      sessions.add(session);
      session.on('close', () => sessions.delete(session));
      serve(session, connection, context, upstreams, () => ended);
      if (draining) sayGoodbye(session);
    },
    drain() {
      draining = true;
      for (const session of sessions) sayGoodbye(session);
      upstreams.drain();
    },
    get open() {
      return sessions.size;
    },
    destroyAll() {
      ended = true;
      for (const session of sessions) session.destroy();
      upstreams.destroyAll();
    },
  };
}

/**
 * RFC 9113 §6.8: first a GOAWAY that refuses nothing, so that requests which crossed it on the way are still answered;
 * the one that counts comes when those must have arrived.
 */
function sayGoodbye(session: ServerHttp2Session): void {
  if (session.destroyed) return;
  session.goaway(NGHTTP2_NO_ERROR, 2 ** 31 - 1);
  const timer = setTimeout(() => session.close(), LAST_REQUEST_MS);
  session.once('close', () => clearTimeout(timer));
}

function sessionOptions(limits: ListenerLimits): ServerOptions {
  return {
    settings: {
      maxConcurrentStreams: limits.maxConcurrentStreams,
      initialWindowSize: STREAM_WINDOW,
      maxHeaderListSize: limits.maxHeaderBytes,
      enableConnectProtocol: true,
    },
    // The four or five pseudo-header fields come on top of what is counted as lines in HTTP/1.1.
    maxHeaderListPairs: limits.maxHeaderCount + 5,
    maxSessionInvalidFrames: 100,
    maxSessionRejectedStreams: 100,
    // Browsers cancel whole pages of requests at once; more than this is rapid reset (CVE-2023-44487).
    streamResetBurst: 500,
    streamResetRate: 33,
    strictSingleValueFields: false,
  };
}

/** What all streams of one connection share. */
interface ClientSession {
  readonly connection: Connection;
  readonly context: ProxyContext;
  readonly upstreams: Http2Upstreams;
  readonly forwardedFor: (request: Http2Request) => ForwardedFamily;
}

function serve(
  session: ServerHttp2Session,
  connection: Connection,
  context: ProxyContext,
  upstreams: Http2Upstreams,
  endedByUs: () => boolean,
): void {
  const { deadlines, limits } = context;
  const client: ClientSession = {
    connection,
    context,
    upstreams,
    forwardedFor: createForwardedFor(connection),
  };
  let open = 0;
  let strikes = 0;
  let strikesSince = deadlines.now();
  // Counted from the last stream, not the last byte: PINGs must not hold an idle connection.
  const idle: Deadline = { at: Number.POSITIVE_INFINITY, expired: onIdle };
  const preface: Deadline = {
    at: deadlines.now() + limits.headerTimeoutMs,
    expired: () => session.destroy(),
  };
  deadlines.watch(preface);
  session.setLocalWindowSize(SESSION_WINDOW);

  const onStreamClose = () => {
    open--;
    if (open === 0 && !session.destroyed) watchIdle();
  };
  session.on('stream', (stream, _headers, flags, raw) => {
    open++;
    deadlines.forget(idle);
    stream.on('close', onStreamClose);
    stream.on('error', ignore);
    const access =
      context.accessLog === undefined ? undefined : logAtClose(stream, raw, connection, context, endedByUs);
    const request = readRequest(raw, (flags & NGHTTP2_FLAG_END_STREAM) !== 0, limits.maxHeaderBytes);
    handle(stream, request, client, access);
    // There is nothing to read: that it has ended is noted now, and the stream can be let go as soon as it has closed.
    if ((flags & NGHTTP2_FLAG_END_STREAM) !== 0) stream.read();
  });
  session.once('remoteSettings', () => {
    deadlines.forget(preface);
    if (open === 0) watchIdle();
  });
  session.on('remoteSettings', strike);
  session.on('ping', strike);
  session.on('error', (err) =>
    context.log.debug({ client: connection.clientAddress, err }, 'connection ended'),
  );
  session.on('close', () => {
    deadlines.forget(idle);
    deadlines.forget(preface);
  });

  function onIdle() {
    // A header block that never ends keeps a session from closing by itself, a client that never ends its socket.
    if (session.closed) {
      connection.socket.destroy();
      return;
    }
    session.close();
    idle.at = deadlines.now() + GOODBYE_MS;
    deadlines.watch(idle);
  }

  function watchIdle(): void {
    idle.at = deadlines.now() + limits.keepAliveTimeoutMs;
    deadlines.watch(idle);
  }

  function strike(): void {
    const now = deadlines.now();
    if (now - strikesSince > CONTROL_WINDOW_MS) {
      strikesSince = now;
      strikes = 0;
    }
    if (++strikes > CONTROL_FRAMES && !session.destroyed) session.destroy(NGHTTP2_ENHANCE_YOUR_CALM as never);
  }
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
      fields: pairs.flat(),
      lines: pairs.map(([name, value]) => `${name}: ${value}\r\n`).join(''),
    };
    if (trusted) return family;
    lastAuthority = authority;
    last = family;
    return last;
  };
}

/** A reset of a stream reaches those concerned as its `close` event. */
function ignore(): void {}

function handle(
  stream: ServerHttp2Stream,
  request: Http2Request | FaultCode,
  { connection, context, upstreams, forwardedFor }: ClientSession,
  access: AccessEntry | undefined,
) {
  if (typeof request === 'string') return refuse(stream, request, access);
  if (access !== undefined) access.host = request.host;
  if (!coveredBy(connection.certificateNames, request.host))
    return refuse(stream, 'misdirected', access, request);
  const path = pathOf(request.path);
  for (const handler of context.localHandlers) {
    if (handler.matches(path)) return void answer(stream, request, path, handler, context, access);
  }
  const upstream = context.routes().find(request.host, path);
  if (upstream === undefined) return refuse(stream, 'no-route', access, request);
  const { maxBodyBytes } = context.limits;
  if (maxBodyBytes > 0 && request.contentLength > maxBodyBytes) {
    return refuse(stream, 'body-too-large', access, request);
  }
  const forwarded = forwardedFor(request);
  dispatch({ stream, request, connection, upstream, context, forwarded, access }, upstreams);
}

function dispatch(exchange: Http2Exchange, upstreams: Http2Upstreams) {
  const { stream, request, upstream, access } = exchange;
  if (request.protocol !== undefined && !carriesWebsockets(exchange)) {
    return refuse(stream, 'not-implemented', access, request);
  }
  switch (upstream.protocol) {
    case 'h2c':
    case 'grpc':
    case 'grpcs':
      return relayToHttp2(exchange, upstreams);
    case 'tcp':
      // Raw bytes are what this host serves, and a connection that negotiated h2 cannot carry them.
      return refuse(stream, 'misdirected', access, request);
    default:
      return relayToHttp1(exchange);
  }
}

/** RFC 8441 §4: of all the protocols that an extended CONNECT could ask for, WebSocket over HTTP/1.1 is carried. */
function carriesWebsockets({ request, upstream }: Http2Exchange): boolean {
  const { protocol } = upstream;
  return (
    request.protocol === 'websocket' && (protocol === 'http' || protocol === 'https' || protocol === 'auto')
  );
}

async function answer(
  stream: ServerHttp2Stream,
  request: Http2Request,
  path: string,
  handler: LocalHandler,
  context: ProxyContext,
  access: AccessEntry | undefined,
): Promise<void> {
  const { method, host, fields } = request;
  const query = request.path.slice(path.length + 1);
  try {
    const reply = await handler.handle({ method, path, query, host, headers: joinFields(fields) });
    const sent = replyLocal(stream, request, reply);
    if (access !== undefined) access.sent = sent;
  } catch (err) {
    context.log.error({ path, err }, 'local handler failed');
    if (access !== undefined) access.fault = 'failed';
    replyFault(stream, request, new Fault('failed', undefined, { cause: err }));
  }
}

function refuse(
  stream: ServerHttp2Stream,
  code: FaultCode,
  access: AccessEntry | undefined,
  request?: Http2Request,
): void {
  const answered = request ?? { method: 'GET', endStream: stream.readableEnded, grpc: false };
  const sent = replyFault(stream, answered, new Fault(code));
  if (access === undefined) return;
  access.fault = code;
  access.sent = sent;
}

/** The entry for a stream that has just begun, and is written when the stream has closed. */
function logAtClose(
  stream: ServerHttp2Stream,
  raw: readonly string[],
  { clientAddress }: Connection,
  { accessLog, deadlines }: ProxyContext,
  endedByUs: () => boolean,
): AccessEntry {
  const access = createAccessEntry('h2', clientAddress, deadlines.now());
  for (let i = 0; i < raw.length; i += 2) {
    const value = raw[i + 1]!;
    if (raw[i] === ':method') access.method = value;
    else if (raw[i] === ':path') access.target = value;
    else if (raw[i] === ':authority') access.host = value;
  }
  stream.on('close', () => {
    noteOutcome(stream, access, endedByUs());
    accessLog?.write(access, deadlines.now());
  });
  return access;
}

/** Status and grpc-status are what was sent, whoever said it. */
function noteOutcome(stream: ServerHttp2Stream, access: AccessEntry, endedByUs: boolean): void {
  const { sentHeaders, sentTrailers } = stream;
  const whole = stream.headersSent && stream.writableEnded && stream.rstCode === NGHTTP2_NO_ERROR;
  if (!whole) access.fault ??= endedByUs ? 'draining' : 'client-closed';
  if (stream.headersSent) {
    access.status = Number(sentHeaders[':status']);
    const grpcStatus = Number(sentTrailers?.['grpc-status'] ?? sentHeaders['grpc-status'] ?? -1);
    if (Number.isInteger(grpcStatus)) access.grpcStatus = grpcStatus;
  } else if (access.fault === 'client-closed') access.status = 499;
}

function pathOf(target: string): string {
  const question = target.indexOf('?');
  return question < 0 ? target : target.slice(0, question);
}

function joinFields(fields: readonly string[]): Record<string, string> {
  const joined: Record<string, string> = Object.create(null);
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!;
    const value = fields[i + 1]!;
    joined[name] = joined[name] === undefined ? value : `${joined[name]}, ${value}`;
  }
  return joined;
}
