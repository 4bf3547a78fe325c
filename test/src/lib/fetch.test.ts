// One request ends with a reply or with an error that says why there is none.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { httpRequest } from '../../../src/lib/fetch.ts';

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

test('a closed port and a text that is no address are unreachable', async () => {
  const url = await serve(() => {});
  const server = servers.at(-1)!;
  server.close();
  await assert.rejects(httpRequest({ url }), { code: 'unreachable' });
  await assert.rejects(httpRequest({ url: 'nonsense' }), { code: 'unreachable' });
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
