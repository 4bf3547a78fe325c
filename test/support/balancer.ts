// A balancer in front of replicas: each connection goes to the next of them.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';

/** Passes each connection to the next of these ports. */
export async function startBalancer(listenOn: number, ports: readonly number[]) {
  const served = new Map(ports.map((port) => [port, 0]));
  let turn = 0;
  const server = createServer((client) => {
    const port = ports[turn++ % ports.length]!;
    served.set(port, served.get(port)! + 1);
    const upstream = connect(port, '127.0.0.1');
    client.on('error', () => upstream.destroy());
    upstream.on('error', () => client.destroy());
    client.pipe(upstream).pipe(client);
  });
  server.listen(listenOn, '127.0.0.1');
  await once(server, 'listening');
  return {
    served,
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.close();
      server.unref();
    },
  };
}
