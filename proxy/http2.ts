// HTTP/2 connections of clients: sessions with their limits, and each stream to where it belongs.

import {
  constants,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type ServerOptions,
} from 'node:http2';
import type { LocalHandler } from '../src/lib/local-handler.ts';
import type { Acceptor, Connection, ListenerLimits, ProxyContext } from './connection.ts';
import type { Deadline } from './deadlines.ts';
import { Fault, type FaultCode } from './errors.ts';
import { relayToHttp2 } from './grpc.ts';
import { forwardedFields } from './headers.ts';
import { relayToHttp1 } from './http2-relay.ts';
import { replyFault, replyLocal } from './http2-reply.ts';
import { type ForwardedFamily, type Http2Exchange, type Http2Request, readRequest } from './http2-request.ts';
import { createHttp2Upstreams, type Http2Upstreams } from './http2-upstream.ts';
import { coveredBy } from './routes.ts';

const { NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_FLAG_END_STREAM } = constants;

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
  return {
    accept(connection) {
      if (connection.socket.destroyed) return;
      const session = performServerHandshake(connection.socket, options);
      sessions.add(session);
      session.on('close', () => sessions.delete(session));
      serve(session, connection, context, upstreams);
      if (draining) session.close();
    },
    drain() {
      draining = true;
      for (const session of sessions) session.close();
      upstreams.drain();
    },
    get open() {
      return sessions.size;
    },
    destroyAll() {
      for (const session of sessions) session.destroy();
      upstreams.destroyAll();
    },
  };
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
    handle(stream, readRequest(raw, (flags & NGHTTP2_FLAG_END_STREAM) !== 0, limits.maxHeaderBytes), client);
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
    // A header block that never ends keeps a session from closing by itself.
    if (session.closed) return session.destroy();
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
) {
  if (typeof request === 'string') return refuse(stream, request);
  if (!coveredBy(connection.certificateNames, request.host)) return refuse(stream, 'misdirected', request);
  const path = pathOf(request.path);
  for (const handler of context.localHandlers) {
    if (handler.matches(path)) return void answer(stream, request, path, handler, context);
  }
  const upstream = context.routes().find(request.host, path);
  if (upstream === undefined) return refuse(stream, 'no-route', request);
  const { maxBodyBytes } = context.limits;
  if (maxBodyBytes > 0 && request.contentLength > maxBodyBytes) {
    return refuse(stream, 'body-too-large', request);
  }
  const forwarded = forwardedFor(request);
  dispatch({ stream, request, connection, upstream, context, forwarded }, upstreams);
}

function dispatch(exchange: Http2Exchange, upstreams: Http2Upstreams) {
  const { stream, request, upstream } = exchange;
  if (request.protocol !== undefined && !carriesWebsockets(exchange)) {
    return refuse(stream, 'not-implemented', request);
  }
  switch (upstream.protocol) {
    case 'h2c':
    case 'grpc':
    case 'grpcs':
      return relayToHttp2(exchange, upstreams);
    case 'tcp':
      // Raw bytes are what this host serves, and a connection that negotiated h2 cannot carry them.
      return refuse(stream, 'misdirected', request);
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
): Promise<void> {
  const { method, host, fields } = request;
  const query = request.path.slice(path.length + 1);
  try {
    const reply = await handler.handle({ method, path, query, host, headers: joinFields(fields) });
    replyLocal(stream, request, reply);
  } catch (err) {
    context.log.error({ path, err }, 'local handler failed');
    replyFault(stream, request, new Fault('failed', undefined, { cause: err }));
  }
}

function refuse(stream: ServerHttp2Stream, code: FaultCode, request?: Http2Request): void {
  const answered = request ?? { method: 'GET', endStream: stream.readableEnded, grpc: false };
  replyFault(stream, answered, new Fault(code));
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
