// RST_STREAM, and what may still arrive for a stream that has closed (RFC 9113 §5.1 and §6.4).

import { countOwnReset, countReset, strike } from './abuse.ts';
import { closeStream, fail } from './closing.ts';
import type { StreamEnd } from './contract.ts';
import { errorCode, frameType, readUint32, writeNumbers } from './frames.ts';
import { schedule } from './output.ts';
import type { Http2ConnectionState, StreamState } from './state.ts';

/** Streams that we have reset and of which a client may not know yet. */
const MOST_RESET_KNOWN = 1_000;

export function resetStream(stream: StreamState, code: number, end: StreamEnd): void {
  const { connection } = stream;
  if (connection.closed) return;
  sendReset(connection, stream.id, code);
  closeStream(stream, end, code);
  if (!connection.isServer) countOwnReset(connection);
  else if (end === 'malformed') countReset(connection);
}

/** Of a stream that was not begun. */
export function refuseStream(connection: Http2ConnectionState, id: number): void {
  sendReset(connection, id, errorCode.refusedStream);
  countReset(connection);
}

function sendReset(connection: Http2ConnectionState, id: number, code: number): void {
  writeNumbers(connection.out, frameType.rstStream, 0, id, code);
  schedule(connection);
  noteReset(connection, id);
}

/** The stream is closed, and its peer may not know yet. */
export function noteReset(connection: Http2ConnectionState, id: number): void {
  if (!connection.isServer) return;
  connection.resetByUs ??= new Set();
  const { resetByUs } = connection;
  resetByUs.add(id);
  if (resetByUs.size <= MOST_RESET_KNOWN) return;
  for (const oldest of resetByUs) {
    resetByUs.delete(oldest);
    break;
  }
}

/** Whether the peer may not know yet that the stream is closed. */
export function mayLagBehind(connection: Http2ConnectionState, id: number): boolean {
  return !connection.isServer || connection.resetByUs?.has(id) === true;
}

/** Whether the stream was never begun. */
export function isIdle(connection: Http2ConnectionState, id: number): boolean {
  // Even numbers are the server's to begin (RFC 9113 §5.1.1), and no server does so here.
  if (connection.isServer) return id % 2 === 0 || id > connection.lastPeerStream;
  return id % 2 === 0 || id >= connection.nextStream;
}

export function receiveReset(
  connection: Http2ConnectionState,
  id: number,
  bytes: Buffer,
  start: number,
  end: number,
) {
  if (id === 0) return fail(connection, errorCode.protocolError, 'RST_STREAM without a stream');
  if (end - start !== 4) return fail(connection, errorCode.frameSizeError, 'RST_STREAM of the wrong size');
  const stream = connection.streams.get(id);
  if (stream === undefined) {
    if (isIdle(connection, id))
      return fail(connection, errorCode.protocolError, 'RST_STREAM of an idle stream');
    return strike(connection);
  }
  const code = readUint32(bytes, start);
  // A client that has its whole reply may stop sending.
  if (connection.isServer && stream.localEnded) closeStream(stream, 'complete', code);
  else closeStream(stream, code === errorCode.refusedStream ? 'refused' : 'reset', code);
  if (connection.isServer) countReset(connection);
}
