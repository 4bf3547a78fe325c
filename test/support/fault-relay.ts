// A TCP relay on loopback for a link with faults: slow, closed, or silent in one direction or in both, without a word.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export type LinkState =
  | 'whole'
  /** Nothing passes, nothing is closed. */
  | 'silent'
  /** What is asked arrives, and its answer does not. */
  | 'no answers'
  /** What is asked does not arrive. */
  | 'no questions'
  /** Open connections end, and new ones at once. */
  | 'closed';

export interface FaultRelay {
  readonly port: number;
  set(state: LinkState): void;
  /** Of everything that passes, each way. */
  delay(ms: number): void;
  stop(): Promise<void>;
}

export async function startFaultRelay(to: number): Promise<FaultRelay> {
  let state: LinkState = 'whole';
  let delayMs = 0;
  const open = new Set<Socket>();
  const track = (socket: Socket) =>
    void open.add(
      socket
        .setNoDelay(true)
        .on('error', () => {})
        .on('close', () => open.delete(socket)),
    );

  function carry(from: Socket, into: Socket, blocked: LinkState): void {
    let last = Promise.resolve();
    from.on('data', (part: Buffer) => {
      last = last.then(async () => {
        if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
        // What was on the way when the link fell silent is gone, and so is the connection, which nobody is told.
        if (state === 'silent' || state === blocked) dead.add(from).add(into);
        if (!dead.has(from)) into.write(part);
      });
    });
    from.on('close', () => void last.then(() => state === 'silent' || dead.has(from) || into.destroy()));
  }
  const dead = new WeakSet<Socket>();

  const server = createServer((client) => {
    track(client);
    if (state === 'closed') return void client.destroy();
    const upstream = connect({ port: to, host: '127.0.0.1' });
    track(upstream);
    carry(client, upstream, 'no questions');
    carry(upstream, client, 'no answers');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    set(next) {
      state = next;
      if (next === 'closed') for (const socket of open) socket.destroy();
    },
    delay(ms) {
      delayMs = ms;
    },
    async stop() {
      server.close();
      for (const socket of open) socket.destroy();
      await once(server, 'close');
    },
  };
}
