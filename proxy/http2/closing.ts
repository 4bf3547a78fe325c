// How streams and connections end: GOAWAY, the last frames, and who is told (RFC 9113 §6.8).

import type { StreamEnd } from './contract.ts';
import { refund } from './credit.ts';
import { errorCode, frameType, LARGEST_STREAM_ID, writeNumbers } from './frames.ts';
import { letGo } from './held.ts';
import { flush, schedule } from './output.ts';
import { type Http2ConnectionState, NO_USER, type StreamState } from './state.ts';

/** How long a peer has to take our last frames. */
const LINGER_MS = 1_000;

export function closeStream(stream: StreamState, end: StreamEnd, code: number): void {
  if (stream.closed) return;
  const { connection } = stream;
  connection.streams.delete(stream.id);
  stream.closed = true;
  stream.end = end;
  stream.code = code;
  letGo(connection, stream.queued + stream.withheld);
  connection.growth -= stream.window - connection.streamWindow;
  stream.queue?.clear();
  stream.queue = undefined;
  stream.queued = 0;
  if (connection.isServer && stream.withheld > 0) refund(connection, stream.withheld);
  stream.user.streamClosed(stream);
  stream.user = NO_USER;
  connection.user.streamClosed?.(stream);
  finishIfIdle(connection);
}

export function announceEnd(connection: Http2ConnectionState): void {
  if (connection.closed || connection.leaving) return;
  sayGoaway(connection, LARGEST_STREAM_ID, errorCode.noError);
}

export function end(connection: Http2ConnectionState): void {
  if (connection.closed) return;
  if (connection.isServer && connection.lastServed === LARGEST_STREAM_ID) {
    connection.lastServed = connection.lastPeerStream;
    sayGoaway(connection, connection.lastServed, errorCode.noError);
  }
  connection.leaving = true;
  finishIfIdle(connection);
}

export function leave(connection: Http2ConnectionState): void {
  if (connection.closed) connection.socket.destroy();
  connection.hurried = true;
  end(connection);
}

export function fail(connection: Http2ConnectionState, code: number, reason: string): void {
  if (connection.closed) return;
  connection.error ??= new Error(reason);
  sayGoaway(connection, connection.lastPeerStream, code);
  finish(connection);
}

export function destroy(connection: Http2ConnectionState, error: Error | undefined): void {
  if (error !== undefined) connection.error ??= error;
  close(connection);
  connection.socket.destroy();
}

function sayGoaway(connection: Http2ConnectionState, lastStream: number, code: number): void {
  writeNumbers(connection.out, frameType.goaway, 0, 0, lastStream, code);
  schedule(connection);
}

export function finishIfIdle(connection: Http2ConnectionState): void {
  if (connection.leaving && connection.streams.size === 0 && !connection.closed) finish(connection);
}

/** Sends what is written already and nothing more; the peer has a moment to take it. */
export function finish(connection: Http2ConnectionState): void {
  if (connection.finished) return;
  connection.finished = true;
  close(connection);
  if (connection.out.length > 0) flush(connection);
  else if (connection.inFlight === undefined) endSocket(connection);
  connection.linger.at = connection.deadlines.now() + LINGER_MS;
  if (!connection.socket.destroyed) connection.deadlines.watch(connection.linger);
}

export function endSocket({ socket, hurried }: Http2ConnectionState): void {
  if (hurried) socket.destroySoon();
  else socket.end();
}

/** Streams end with their connection; nothing that arrives is read any more. */
export function close(connection: Http2ConnectionState): void {
  if (connection.closed) return;
  connection.closed = true;
  connection.leaving = true;
  connection.partial = undefined;
  connection.blockParts = [];
  const firstUnsent = connection.isServer ? Number.POSITIVE_INFINITY : connection.nextUnsent;
  // What has not left stays here: then it is certain that the peer has not begun with it.
  if (firstUnsent < connection.nextStream) connection.out.length = 0;
  for (const stream of connection.streams.list()) {
    closeStream(stream, stream.id >= firstUnsent ? 'refused' : 'lost', errorCode.cancel);
  }
  connection.user.connectionClosed(connection.error);
}
