// Both ends of a TLS connection on loopback.

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { appCertificate } from './proxy.ts';

/** The client's end; `accepted` is given the server's before anything that the client sends is read. */
export async function connectTlsPair(
  t: TestContext,
  accepted: (socket: TLSSocket) => void,
): Promise<TLSSocket> {
  const server = createServer({ key: appCertificate.key, cert: appCertificate.chain }, (socket) => {
    socket.allowHalfOpen = true;
    accepted(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  t.after(() => {
    client.destroy();
    server.close();
  });
  await once(client, 'secureConnect');
  return client;
}
