// A TCP relay on loopback whose link can be cut without a word, as a network does: nothing passes, and nothing is closed.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface Relay {
  readonly port: number;
  /** From now on bytes of open and of new connections go nowhere. */
  cut(): void;
  /** New connections pass again; what was open when the link was cut stays dead. */
  mend(): void;
  stop(): Promise<void>;
}

export async function startRelay(to: number): Promise<Relay> {
  let passes = true;
  const open = new Set<Socket>();
  const track = (socket: Socket) => {
    open.add(socket);
    socket.on('error', () => {}).on('close', () => open.delete(socket));
  };
  const server = createServer({ allowHalfOpen: true }, (client) => {
    track(client);
    if (!passes) return;
    const upstream = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true });
    track(upstream);
    client.on('close', () => passes && upstream.destroy());
    upstream.on('close', () => passes && client.destroy());
    client.pipe(upstream);
    upstream.pipe(client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      passes = false;
      for (const socket of open) socket.unpipe().pause();
    },
    mend() {
      passes = true;
    },
    async stop() {
      server.close();
      for (const socket of open) socket.destroy();
      await once(server, 'close');
    },
  };
}
