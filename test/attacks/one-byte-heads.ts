// Request heads as large as they may be, each byte in a TLS record of its own.

import { once } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { type Attack, inLoops } from './attack.ts';

const LOOPS = 4;
const HEAD_BYTES = 15_000;
/** Written in one turn: as many records. */
const AT_ONCE = 500;

export const oneByteHeads: Attack = {
  name: 'one-byte-heads',
  does: `request heads of ${HEAD_BYTES} bytes in records of one byte`,
  async start(target) {
    const { port, ca } = target;
    const host = target.hosts.http1;
    const head = Buffer.from(`GET / HTTP/1.1\r\nHost: ${host}\r\nX: ${'x'.repeat(HEAD_BYTES)}\r\n\r\n`);
    return inLoops(target, LOOPS, async (stopped) => {
      const socket = connectTls({
        host: '127.0.0.1',
        port,
        servername: host,
        ca,
        ALPNProtocols: ['http/1.1'],
      });
      socket.on('error', () => {});
      const ready = await Promise.race([
        once(socket, 'secureConnect').then(
          () => true,
          () => false,
        ),
        once(socket, 'close').then(
          () => false,
          () => false,
        ),
      ]);
      if (ready) await send(socket, head, stopped);
      socket.destroy();
    });
  },
};

async function send(socket: TLSSocket, head: Buffer, stopped: AbortSignal): Promise<void> {
  for (let at = 0; at < head.length && !socket.destroyed && !stopped.aborted; at++) {
    socket.write(head.subarray(at, at + 1));
    if (at % AT_ONCE !== 0) continue;
    while (socket.writableLength > 0 && !socket.destroyed) await nextTurn();
  }
  if (socket.destroyed) return;
  await new Promise<void>((resolve) => {
    socket.once('data', () => resolve());
    socket.once('close', () => resolve());
  });
}
