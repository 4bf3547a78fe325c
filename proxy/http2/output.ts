// When frames leave: all that is written in one turn of the event loop in one write, and one write at a time.

import { takeOut } from '../socket/outbox.ts';
import type { Http2ConnectionState } from './state.ts';

const dirtyConnections: Http2ConnectionState[] = [];

export function schedule(connection: Http2ConnectionState): void {
  if (connection.dirty || connection.inFlight !== undefined) return;
  connection.dirty = true;
  if (dirtyConnections.push(connection) === 1) setImmediate(flushAll);
}

function flushAll(): void {
  // A write may make other connections dirty: they are flushed in the next turn.
  const connections = dirtyConnections.splice(0);
  for (const connection of connections) {
    connection.dirty = false;
    flush(connection);
  }
}

export function flush(connection: Http2ConnectionState): void {
  const { socket, out } = connection;
  if (connection.inFlight !== undefined || out.length === 0 || socket.destroyed) return;
  connection.inFlight = takeOut(out);
  connection.nextUnsent = connection.nextStream;
  socket.write(connection.inFlight, connection.written);
}
