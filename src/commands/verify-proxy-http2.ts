// HTTP/2 of local programs without TLS, as gRPC clients speak it: each stream becomes one of a session with the host.

import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { refusalBody, refusalOf } from './verify-proxy-refusal.ts';
import type { Standing } from './verify-proxy-standing.ts';

/** Connections come by its `connection` event. */
export function createHttp2Side(standing: Standing, authority: string): Http2Server {
  const server = createServer();
  server.on('sessionError', () => {});
  server.on('session', (session) => {
    const hostSession = sessionsOver(standing, authority, session);
    session.on('stream', (stream, headers) => {
      stream.on('error', () => {});
      if (headers[':method'] === 'CONNECT') {
        stream.respond({ ':status': 501 }, { endStream: true });
        return;
      }
      hostSession().then(
        (upstream) => {
          if (!stream.destroyed) forward(stream, headers, upstream, authority);
        },
        (error) => refuse(stream, headers, error),
      );
    });
  });
  return server;
}

/** The session that belongs to a local one; made when it is needed, and made anew when it has ended. */
function sessionsOver(
  standing: Standing,
  authority: string,
  local: ServerHttp2Session,
): () => Promise<ClientHttp2Session> {
  let session: ClientHttp2Session | undefined;
  let coming: Promise<ClientHttp2Session> | undefined;
  local.on('close', () => session?.destroy());
  const open = async (): Promise<ClientHttp2Session> => {
    const socket = await standing.connect('h2');
    if (local.destroyed || socket.alpnProtocol !== 'h2') {
      socket.destroy();
      throw new Error('it does not speak HTTP/2');
    }
    session = connect(`https://${authority}`, {
      createConnection: () => socket,
      settings: { enablePush: false },
    });
    // Its streams are told what happened to them.
    session.on('error', () => {});
    return session;
  };
  return async () => {
    if (session !== undefined && !session.closed && !session.destroyed) return session;
    coming ??= open().finally(() => {
      coming = undefined;
    });
    return coming;
  };
}

function forward(
  local: ServerHttp2Stream,
  { host: _, ...headers }: IncomingHttpHeaders,
  session: ClientHttp2Session,
  authority: string,
): void {
  const own = { ...headers, ':authority': authority, ':scheme': 'https' };
  let upstream: ClientHttp2Stream;
  try {
    const endStream = local.readableEnded || local.endAfterHeaders;
    upstream = session.request(own, { endStream, waitForTrailers: !endStream });
  } catch (error) {
    // The session has ended since it was looked at.
    refuse(local, headers, error);
    return;
  }
  passTrailers(local, upstream);
  passReply(upstream, local);
  upstream.on('error', (error) => {
    if (!local.headersSent && !local.destroyed && upstream.rstCode === constants.NGHTTP2_NO_ERROR)
      refuse(local, headers, error);
  });
  upstream.on('close', () => end(local, upstream.rstCode));
  local.on('close', () => end(upstream, local.rstCode));
  if (!local.endAfterHeaders) local.pipe(upstream);
}

function passReply(upstream: ClientHttp2Stream, local: ServerHttp2Stream): void {
  upstream.on('headers', (interim) => {
    if (!local.headersSent && !local.destroyed) local.additionalHeaders(interim);
  });
  upstream.on('response', (headers, flags) => {
    if (local.destroyed) return;
    const endStream = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
    passTrailers(upstream, local);
    local.respond(headers, { endStream, waitForTrailers: !endStream });
    if (!endStream) upstream.pipe(local);
  });
}

type Stream = ServerHttp2Stream | ClientHttp2Stream;

/** They come before the end of what they follow, and are asked for once that has been written. */
function passTrailers(from: Stream, to: Stream): void {
  let trailers: IncomingHttpHeaders = {};
  from.on('trailers', (fields: IncomingHttpHeaders) => {
    trailers = fields;
  });
  to.on('wantTrailers', () => {
    if (!to.destroyed) to.sendTrailers(trailers);
  });
}

/** A stream that was whole has ended by itself; one that was cut must not look whole. */
function end(stream: Stream, code: number): void {
  if (stream.closed || stream.destroyed) return;
  if (code !== constants.NGHTTP2_NO_ERROR) stream.close(code);
  else if (!stream.writableEnded) stream.close(constants.NGHTTP2_CANCEL);
}

const GRPC_UNAVAILABLE = '14';

function refuse(local: ServerHttp2Stream, headers: IncomingHttpHeaders, error: unknown): void {
  if (local.destroyed || local.headersSent) return;
  if (/^application\/grpc\b/.test(headers['content-type'] ?? '')) {
    const message = encodeURIComponent(refusalOf(error).error).replaceAll('%20', ' ');
    const status = { 'grpc-status': GRPC_UNAVAILABLE, 'grpc-message': message };
    local.respond({ ':status': 200, 'content-type': 'application/grpc', ...status }, { endStream: true });
    return;
  }
  local.respond({ ':status': 502, 'content-type': 'application/json' });
  local.end(refusalBody(error));
}
