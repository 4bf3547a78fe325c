// One request ends with a reply or with an error that says why there is none.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { type AddressInfo, createServer as createPlainServer, type Server } from 'node:net';
import { after, type TestContext, test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { type HttpError, httpRequest } from '../../../src/lib/fetch.ts';
import { makeCertificate } from '../../support/certificates.ts';

const servers: ReturnType<typeof createServer>[] = [];
after(() => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server.listen(0, '127.0.0.1'));
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function listening(t: TestContext, server: Server): Promise<number> {
  server.on('connection', (socket) => socket.on('error', () => {}));
  server.listen(0);
  t.after(() => server.close());
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

test('a redirect is a reply and is not followed', async () => {
  let visits = 0;
  const url = await serve((_, response) => {
    visits++;
    response.writeHead(302, { location: '/elsewhere' }).end();
  });
  const reply = await httpRequest({ url });
  assert.equal(reply.status, 302);
  assert.equal(visits, 1);
});

test('a reply that grows past the bound is cut off', async () => {
  const url = await serve((_, response) => {
    const fill = () => {
      while (!response.destroyed && response.write(Buffer.alloc(65_536)));
    };
    response.on('drain', fill);
    fill();
  });
  await assert.rejects(httpRequest({ url, maxBytes: 100_000 }), { code: 'too-large' });
});

test('a reply that trickles for ever ends at the deadline', async () => {
  const url = await serve((_, response) => {
    const timer = setInterval(() => response.write('.'), 5);
    response.on('close', () => clearInterval(timer));
  });
  await assert.rejects(httpRequest({ url, timeoutMs: 60 }), { code: 'timeout' });
});

test('a caller who gives up is told so, and not of a deadline', async () => {
  const url = await serve(() => {});
  const controller = new AbortController();
  const run = httpRequest({ url, signal: controller.signal });
  controller.abort(new Error('enough'));
  await assert.rejects(run, { code: 'aborted' });
});

test('a closed port is told as one, with what to check', async () => {
  const url = await serve(() => {});
  const server = servers.at(-1)!;
  server.close();
  await assert.rejects(httpRequest({ url }), {
    code: 'refused',
    message: `no connection to ${new URL(url).host} (ECONNREFUSED)`,
    cure: /firewall/,
  });
});

test('a request that can never be sent is told apart from a server that is away', async () => {
  const url = await serve((_, response) => response.end());
  await assert.rejects(httpRequest({ url: 'nonsense' }), { code: 'bad-request' });
  await assert.rejects(httpRequest({ url, headers: { authorization: 'secret\nkey' } }), (error: Error) => {
    assert.equal((error as HttpError).code, 'bad-request');
    assert.doesNotMatch(error.message, /secret/);
    return true;
  });
});

test('a name without an address is told as such', async () => {
  await assert.rejects(httpRequest({ url: 'http://nobody.invalid/' }), {
    code: 'unresolved',
    message: /nobody\.invalid cannot be resolved/,
  });
});

test('a certificate that nobody vouches for is a fault of TLS, and names the reason', async (t) => {
  const { chain, key } = await makeCertificate('localhost');
  const server = createTlsServer({ cert: chain, key });
  server.on('tlsClientError', () => {});
  const port = await listening(t, server);
  await assert.rejects(httpRequest({ url: `https://localhost:${port}/` }), {
    code: 'tls',
    message: /SELF_SIGNED|UNABLE_TO/,
    cure: /clock/,
  });
});

test('a server that does not speak TLS where it should is a fault of TLS', async (t) => {
  const port = await listening(
    t,
    createPlainServer((socket) => socket.end('HTTP/1.1 200 OK\r\n\r\n')),
  );
  await assert.rejects(httpRequest({ url: `https://localhost:${port}/` }), { code: 'tls' });
});

test('an answer that is not HTTP is malformed', async (t) => {
  const port = await listening(
    t,
    createPlainServer((socket) => socket.end('SSH-2.0-x\r\n\r\n')),
  );
  await assert.rejects(httpRequest({ url: `http://127.0.0.1:${port}/` }), { code: 'malformed' });
});

test('a connection that ends within a reply is broken', async () => {
  const url = await serve((_, response) => {
    response.writeHead(200, { 'content-length': '100' }).write('part');
    setTimeout(() => response.destroy(), 20);
  });
  await assert.rejects(httpRequest({ url }), { code: 'broken' });
});

test('an error names the host and neither path nor query', async () => {
  const url = await serve((request) => request.socket.destroy());
  await assert.rejects(
    httpRequest({ url: `${url}/secret-path?key=secret` }),
    (error: Error) => !/secret/.test(error.message),
  );
});

test('method, headers and body arrive, and the reply comes back whole', async () => {
  const url = await serve(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    response
      .setHeader('X-Seen', [`${request.method}`, `${request.headers['x-a']}`])
      .end(Buffer.concat(chunks));
  });
  const reply = await httpRequest({ url, method: 'POST', headers: { 'x-a': 'b' }, body: 'body' });
  assert.equal(reply.headers['x-seen'], 'POST, b');
  assert.equal(reply.body.toString(), 'body');
});
