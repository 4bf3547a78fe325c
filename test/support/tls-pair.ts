// Both ends of TLS connections on loopback.

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

/** The server's end of a connection, and what its client has received so far, latin-1. */
export interface TlsEnd {
  readonly socket: TLSSocket;
  received(): string;
}

export async function tlsEnd(t: TestContext): Promise<TlsEnd> {
  const { promise: accepted, resolve } = Promise.withResolvers<TLSSocket>();
  const client = await connectTlsPair(t, resolve);
  let text = '';
  client.on('data', (bytes) => {
    text += bytes.toString('latin1');
  });
  client.on('error', () => {});
  return { socket: await accepted, received: () => text };
}

export async function tlsEnds(t: TestContext, count: number): Promise<TlsEnd[]> {
  return Promise.all(Array.from({ length: count }, () => tlsEnd(t)));
}
