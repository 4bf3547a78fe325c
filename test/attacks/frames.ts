// An HTTP/2 connection of an attacker: frames as it likes them, replies read and thrown away, or not read.

import { once } from 'node:events';
import { connect, type TLSSocket } from 'node:tls';
import { headersFrame, PREFACE, settingsFrame, windowUpdateFrame } from '../support/http2-frames.ts';
import type { Target } from './attack.ts';

export interface AttackConnection {
  readonly socket: TLSSocket;
  /** Resolves when it has been taken by the socket, or the connection is gone. */
  send(...frames: readonly Buffer[]): Promise<void>;
  readonly closed: boolean;
  close(): void;
}

export async function attackConnection(
  { port, ca }: Target,
  host: string,
  settings: readonly (readonly [id: number, value: number])[] = [],
): Promise<AttackConnection> {
  const socket = connect({ host: '127.0.0.1', port, ca, servername: host, ALPNProtocols: ['h2'] });
  socket.on('error', () => {});
  await Promise.race([once(socket, 'secureConnect'), once(socket, 'close')]).catch(() => {});
  socket.resume();
  const connection: AttackConnection = {
    socket,
    get closed() {
      return socket.destroyed || !socket.writable;
    },
    async send(...frames) {
      if (connection.closed) return;
      const taken = Promise.withResolvers<void>();
      const done = () => taken.resolve();
      socket.once('close', done);
      socket.write(Buffer.concat(frames), done);
      await taken.promise;
      socket.off('close', done);
    },
    close: () => void socket.destroy(),
  };
  await connection.send(PREFACE, settingsFrame(settings), windowUpdateFrame(0, 2 ** 30));
  return connection;
}

export function requestFrame(
  streamId: number,
  host: string,
  path: string,
  { method = 'GET', flags, more = [] }: RequestOptions = {},
): Buffer {
  const fields = [
    [':method', method],
    [':scheme', 'https'],
    [':authority', host],
    [':path', path],
    ...more,
  ] as const;
  return headersFrame(streamId, fields, flags);
}

export interface RequestOptions {
  readonly method?: string;
  readonly flags?: number;
  readonly more?: readonly (readonly [string, string])[];
}
