// A balancer in front of replicas: each connection goes to the next of them that accepts it, well or not, as with the gateway.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';

/** Passes each connection to the next of these ports that is listened on; `served` counts those that were accepted. */
export async function startBalancer(listenOn: number, ports: readonly number[]) {
  const served = new Map(ports.map((port) => [port, 0]));
  let turn = 0;
  const server = createServer({ pauseOnConnect: true }, (client) => {
    const first = turn++;
    const tryNext = (tries: number) => {
      if (tries === ports.length) return void client.destroy();
      const port = ports[(first + tries) % ports.length]!;
      const upstream = connect(port, '127.0.0.1');
      const refused = () => tryNext(tries + 1);
      upstream.once('error', refused);
      upstream.once('connect', () => {
        served.set(port, served.get(port)! + 1);
        upstream.off('error', refused);
        upstream.on('error', () => client.destroy());
        client.on('error', () => upstream.destroy());
        client.pipe(upstream).pipe(client);
      });
    };
    client.on('error', () => {});
    tryNext(0);
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
