// Windows that grow: a stream that takes a whole window within about a round trip is given twice as much (RFC 9113 §6.9).

import type { Http2ConnectionState, StreamState } from './state.ts';

/**
 * Beyond what each stream has from the beginning, the streams of a connection grow by no more than this together: as much
 * as 256 streams have anyway, so that clients that stop reading make us hold at most twice as much.
 */
const MOST_GROWTH = 16 * 1024 * 1024;
/** A peer that waits for credit uses its window once in each round trip; the second one allows for delays. */
const ROUND_TRIPS = 2;

/** The bytes to add to the stream's window now that `stream.credit` bytes were taken. */
export function growWindow(stream: StreamState): number {
  const { connection } = stream;
  stream.measured += stream.credit;
  const began = stream.measuredSince !== 0;
  if (began && stream.measured < stream.window) return 0;
  const now = ticksOf(connection);
  const quick = began && ((now - stream.measuredSince) | 0) < ROUND_TRIPS * connection.roundTrip;
  stream.measured = 0;
  stream.measuredSince = now;
  if (!quick) return 0;
  const { largestWindow, growth } = connection;
  const more = Math.min(stream.window, largestWindow - stream.window, MOST_GROWTH - growth);
  stream.window += more;
  connection.growth += more;
  return more;
}

/** Sixteenths of a millisecond as a small integer, never 0: in each stream, a fraction would be an object of its own. */
export function ticksOf({ deadlines }: Http2ConnectionState): number {
  return (deadlines.instant() * 16) | 1;
}

/** The peer has answered what we sent at `sentAt` (by ticksOf()). The shortest time counts: longer ones include waits. */
export function noteRoundTrip(connection: Http2ConnectionState, sentAt: number): void {
  const ticks = Math.max(1, (ticksOf(connection) - sentAt) | 0);
  if (connection.roundTrip === 0 || ticks < connection.roundTrip) connection.roundTrip = ticks;
}
