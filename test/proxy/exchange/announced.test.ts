// Upstreams that are told who their client is, by a PROXY header before anything else: nginx reads it, over each protocol.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { parseProxyHeader } from '../../../proxy/listener/proxy-protocol.ts';
import { startNginx } from '../../support/nginx.ts';
import { freePort } from '../../support/ports.ts';
import {
  appCertificate,
  HOST,
  type Ingress,
  rawClient,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const SAYS =
  'return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port $connection\\n";';
const announced = { announced: true };

let nginx: Awaited<ReturnType<typeof startNginx>>;
let http: Ingress;
let h2c: Ingress;

before(async () => {
  const http2Port = await freePort();
  const http1Port = await freePort();
  nginx = await startNginx({
    port: await freePort(),
    server: '',
    beside: `
      server { listen 127.0.0.1:${http1Port} proxy_protocol;
        location / { ${SAYS} } location /last { keepalive_timeout 0; ${SAYS} } }
      server { listen 127.0.0.1:${http2Port} proxy_protocol http2; location / { ${SAYS} } }
    `,
  });
  http = await startIngress([routeTo(settingsFor(http1Port, 'http', announced))], {
    proxyProtocol: true,
    trustedProxies: ['127.0.0.0/8'],
  });
  h2c = await startIngress([routeTo(settingsFor(http2Port, 'h2c', announced))]);
});

after(async () => {
  await http?.close();
  await h2c?.close();
  await nginx?.stop();
});

const told = (body: string) => {
  const [address, port, serverPort, connection] = body.trim().split(' ');
  return { address, port: Number(port), serverPort: Number(serverPort), connection };
};

/** A client that a load balancer in front names. */
async function clientNamed(ingress: Ingress, address: string, port: number) {
  const socket = connectTcp(ingress.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.write(`PROXY TCP4 ${address} 192.0.2.1 ${port} 443\r\n`);
  const secured = connectTls({
    socket,
    servername: HOST,
    ca: appCertificate.chain,
    ALPNProtocols: ['http/1.1'],
  });
  await once(secured, 'secureConnect');
  return rawClient(secured);
}

const GET = `GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;

describe('an upstream of HTTP/1.1', () => {
  test('is told the client that the balancer in front names, with its port', async () => {
    const client = await clientNamed(http, '203.0.113.9', 40_001);
    const { address, port, serverPort } = told((await client.request(GET)).body);
    assert.deepEqual(
      { address, port, serverPort },
      { address: '203.0.113.9', port: 40_001, serverPort: 443 },
    );
    client.socket.destroy();
  });

  test('serves one client connection over one of its own, and another over another', async () => {
    const [ann, bob] = [await clientNamed(http, '203.0.113.9', 1), await clientNamed(http, '203.0.113.9', 2)];
    const connections: (string | undefined)[] = [];
    for (const [client, port] of [
      [ann, 1],
      [bob, 2],
      [ann, 1],
      [bob, 2],
      [ann, 1],
    ] as const) {
      const seen = told((await client.request(GET)).body);
      assert.equal(seen.port, port);
      connections.push(seen.connection);
    }
    const [first, second] = connections;
    assert.notEqual(first, second);
    assert.deepEqual(connections, [first, second, first, second, first]);
    ann.socket.destroy();
    bob.socket.destroy();
  });

  test('is told the same on the next connection, when it has ended one', async () => {
    const client = await clientNamed(http, '203.0.113.7', 7);
    const before = told((await client.request(GET.replace('/', '/last'))).body);
    const again = told((await client.request(GET)).body);
    assert.deepEqual([again.address, again.port], ['203.0.113.7', 7]);
    assert.notEqual(again.connection, before.connection);
    client.socket.destroy();
  });
});

describe('an upstream of HTTP/2', () => {
  const ask = async (session: ClientHttp2Session) => {
    const stream = session.request({ ':path': '/', ':authority': HOST });
    let body = '';
    for await (const part of stream) body += part;
    return told(body);
  };
  test('serves each client connection over a session of its own', async () => {
    const open = async () => {
      const session = connectHttp2(`https://127.0.0.1:${h2c.port}`, {
        servername: HOST,
        ca: appCertificate.chain,
      });
      await once(session, 'connect');
      return session;
    };
    const sessions = [await open(), await open()];
    const seen = [];
    for (const session of [...sessions, ...sessions]) seen.push(await ask(session));
    for (const [i, { address, port }] of seen.entries())
      assert.deepEqual([address, port], ['127.0.0.1', sessions[i % 2]!.socket.localPort]);
    assert.equal(seen[0]!.connection, seen[2]!.connection);
    assert.equal(seen[1]!.connection, seen[3]!.connection);
    assert.notEqual(seen[0]!.connection, seen[1]!.connection);
    for (const session of sessions) session.destroy();
  });
});

describe('an upstream of raw bytes', () => {
  for (const protocol of ['tcp', 'auto'] as const)
    test(`is told before the first byte of the client (${protocol})`, async () => {
      const heard = Promise.withResolvers<Buffer>();
      const upstream = await startUpstream((socket) => {
        let bytes: Buffer = Buffer.alloc(0);
        socket.on('data', (part: Buffer) => {
          bytes = Buffer.concat([bytes, part]);
          if (bytes.length >= 28 + 5) heard.resolve(bytes);
        });
      });
      const ingress = await startIngress([routeTo(settingsFor(upstream.port, protocol, announced))]);
      const client = await ingress.connect({ ALPNProtocols: [] });
      client.send('\x01\x02\x03\x04\x05');
      const bytes = await heard.promise;
      assert.deepEqual(parseProxyHeader(bytes), {
        size: 28,
        source: { address: '127.0.0.1', port: client.socket.localPort },
        destinationPort: ingress.port,
      });
      assert.equal(bytes.subarray(28).toString('latin1'), '\x01\x02\x03\x04\x05');
      await ingress.close();
      await upstream.close();
    });
});
