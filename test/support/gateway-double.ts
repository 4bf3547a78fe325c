// The dstack gateway as replicas see it: it asks no health, tries up to three of them at once, and takes whoever accepts first.

import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

const AT_ONCE = 3;

export interface Accepted {
  readonly socket: Socket;
  /** The address of the replica. */
  readonly host: string;
}

export interface GatewayDouble {
  /** Rejects when nobody accepts. */
  race(): Promise<Accepted>;
  /** Replicas that it gives no connection to, as long as there are others. */
  avoid: (host: string) => boolean;
  /** How many connections each replica was given. */
  readonly given: ReadonlyMap<string, number>;
  stop(): Promise<void>;
}

/** Listens on 127.0.0.1; the replicas listen on the same port of these addresses. */
export async function startGatewayDouble(
  port: number,
  hosts: readonly string[],
  random: () => number = Math.random,
): Promise<GatewayDouble> {
  const given = new Map(hosts.map((host) => [host, 0]));

  async function attempt(host: string, losers: Set<Socket>): Promise<Accepted> {
    const socket = connect({ host, port });
    losers.add(socket);
    socket.on('error', () => {});
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve).once('close', () => reject(new Error(`${host} refuses`)));
    });
    return { socket, host };
  }

  async function race(): Promise<Accepted> {
    const wanted = hosts.filter((host) => !self.avoid(host));
    const order = (wanted.length > 0 ? wanted : hosts)
      .map((host) => ({ host, at: random() }))
      .sort((a, b) => a.at - b.at);
    const losers = new Set<Socket>();
    const first = await Promise.any(order.slice(0, AT_ONCE).map(({ host }) => attempt(host, losers)));
    losers.delete(first.socket);
    for (const socket of losers) socket.destroy();
    given.set(first.host, given.get(first.host)! + 1);
    return first;
  }

  const clients = new Set<Socket>();
  const server = createServer((client) => {
    clients.add(client);
    client.on('error', () => {}).on('close', () => clients.delete(client));
    race().then(
      ({ socket }) => {
        client.on('close', () => socket.destroy());
        socket.on('close', () => client.destroy());
        client.pipe(socket).pipe(client);
      },
      () => client.destroy(),
    );
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const self: GatewayDouble = {
    race,
    given,
    avoid: () => false,
    async stop() {
      server.close();
      for (const client of clients) client.destroy();
      await once(server, 'close');
    },
  };
  return self;
}
