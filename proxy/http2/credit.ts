// What the peer may still send (RFC 9113 §6.9): it gets credit for bytes as they are taken.

import { frameType, writeNumbers } from './frames.ts';
import { growWindow } from './growth.ts';
import { letGo } from './held.ts';
import { schedule } from './output.ts';
import type { Http2ConnectionState, StreamState } from './state.ts';

/** `size` bytes of the stream need no room any more. A session to an upstream got the connection's credit on receipt. */
export function take(stream: StreamState, size: number): void {
  const { connection } = stream;
  if (connection.isServer) refund(connection, size);
  stream.credit += size;
  if (stream.credit < stream.window / 2 || stream.remoteEnded || stream.closed) return;
  const growth = stream.window < connection.largestWindow ? growWindow(stream) : 0;
  const increment = stream.credit + growth;
  writeNumbers(connection.out, frameType.windowUpdate, 0, stream.id, increment);
  stream.receiveWindow += increment;
  stream.credit = 0;
  schedule(connection);
}

/** What arrived while the stream was paused is taken after all. */
export function release(stream: StreamState): void {
  const { withheld } = stream;
  if (withheld === 0) return;
  stream.withheld = 0;
  letGo(stream.connection, withheld);
  take(stream, withheld);
}

/** Gives the connection's credit for `size` bytes. */
export function refund(connection: Http2ConnectionState, size: number): void {
  connection.credit += size;
  if (connection.credit < connection.connectionWindow / 2 || connection.closed) return;
  writeNumbers(connection.out, frameType.windowUpdate, 0, 0, connection.credit);
  connection.receiveWindow += connection.credit;
  connection.credit = 0;
  schedule(connection);
}
