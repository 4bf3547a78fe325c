// The demo's app, asked directly, and the demo's clients where the server disappoints them.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client, credentials } from '@grpc/grpc-js';
import { WebSocket } from 'ws';
import { startCertificateAuthority } from '../../../src/demo/certificate-authority.ts';
import { echoOverWebSocket, sayOverGrpc } from '../../../src/demo/client.ts';
import { chat, type EchoMessage, say } from '../../../src/demo/echo.ts';
import { type DemoUpstream, startDemoUpstream } from '../../../src/demo/upstream.ts';

let upstream: DemoUpstream;
let grpc: Client;

before(async () => {
  upstream = await startDemoUpstream();
  grpc = new Client(`127.0.0.1:${upstream.grpcPort}`, credentials.createInsecure());
});

after(async () => {
  grpc.close();
  await upstream.stop();
});

test('the page shows method, path, and what the proxy said about the visitor', async () => {
  const reply = await fetch(`http://127.0.0.1:${upstream.httpPort}/a/path?q=1`, {
    method: 'POST',
    body: 'unread',
    headers: { 'x-forwarded-for': '203.0.113.7', 'x-forwarded-proto': 'https', cookie: 'secret=1' },
  });
  const page = await reply.text();
  assert.match(page, /^POST \/a\/path\?q=1 HTTP\/1\.1$/m);
  assert.match(page, /^x-forwarded-for: 203\.0\.113\.7$/m);
  assert.match(page, /^x-forwarded-proto: https$/m);
  assert.doesNotMatch(page, /secret/, 'nothing else of the visitor is shown');
});

test('a WebSocket gets back what it sends, text as text and bytes as bytes', async () => {
  const socket = new WebSocket(`ws://127.0.0.1:${upstream.httpPort}/`);
  await once(socket, 'open');
  for (const [sent, binary] of [
    ['héllo', false],
    [Buffer.from([0, 255]), true],
  ] as const) {
    socket.send(sent);
    const [data, isBinary] = await once(socket, 'message');
    assert.deepEqual([Buffer.from(data), isBinary], [Buffer.from(sent), binary]);
  }
  socket.close();
  await once(socket, 'close');
});

test('a unary call is answered with a greeting', async () => {
  const reply = await new Promise<EchoMessage>((resolve, reject) => {
    grpc.makeUnaryRequest<EchoMessage, EchoMessage>(
      say.path,
      say.requestSerialize,
      say.responseDeserialize,
      { text: 'World' },
      (error, value) => (error === null ? resolve(value!) : reject(error)),
    );
  });
  assert.deepEqual(reply, { text: 'hello World' });
});

test('a stream echoes each message before the next is sent', async () => {
  const call = grpc.makeBidiStreamRequest<EchoMessage, EchoMessage>(
    chat.path,
    chat.requestSerialize,
    chat.responseDeserialize,
  );
  for (const text of ['a', 'b', 'c']) {
    call.write({ text });
    const [echoed] = await once(call, 'data');
    assert.deepEqual(echoed, { text });
  }
  call.end();
  const [status] = await once(call, 'status');
  assert.equal(status.code, 0);
});

test('the clients trust nobody but the root they are given', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'demo-clients-test-'));
  const [one, other] = await Promise.all([
    startCertificateAuthority({ tlsAlpnPort: 1, folder }),
    mkdtemp(join(folder, 'other-')).then((inside) =>
      startCertificateAuthority({ tlsAlpnPort: 1, folder: inside }),
    ),
  ]);
  const port = Number(new URL(one.directoryUrl).port);
  const stranger = { port, ca: await readFile(other.caFile, 'utf8') };
  await assert.rejects(echoOverWebSocket(stranger, ['hello']), /certificate/);
  await assert.rejects(sayOverGrpc(stranger, 'hello'), /UNAVAILABLE/);
  const right = { port, ca: await readFile(one.caFile, 'utf8') };
  await assert.rejects(echoOverWebSocket(right, ['hello']), /response/, 'an ACME server takes no WebSockets');
  await Promise.all([one.stop(), other.stop()]);
  await rm(folder, { recursive: true });
});

test('the clients fail, and do not wait, when nobody listens', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  await assert.rejects(echoOverWebSocket({ port, ca: '' }, ['hello']), /ECONNREFUSED/);
});
