// Raw TCP for some hosts of a listener and HTTP for others: the name in the handshake says which, and whose bytes they are.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  answering,
  HOST,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
  type Upstream,
} from '../../support/proxy.ts';

/** Each host has an app of its own, which says who it is in its own way. */
async function setUp() {
  const http = await startUpstream(answering(() => 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhttp'));
  // Speaks first, as SMTP and SSH do.
  const greets = await startUpstream((socket) => socket.write('220 mail\r\n'));
  const echoes = await startUpstream((socket) => {
    socket.on('data', (bytes) => socket.write(bytes));
    socket.on('end', () => socket.end());
  });
  const upstreams: Upstream[] = [http, greets, echoes];
  const ingress = await startIngress([
    routeTo(settingsFor(http.port)),
    routeTo(settingsFor(greets.port, 'tcp'), 'other.example.com'),
    routeTo(settingsFor(echoes.port, 'tcp'), '*.wild.example.com'),
  ]);
  return {
    ingress,
    upstreams,
    async [Symbol.asyncDispose]() {
      await ingress.close();
      for (const upstream of upstreams) await upstream.close();
    },
  };
}

describe('on one listener', () => {
  test('each name leads to its own app, in its own protocol, at the same time', async () => {
    await using scene = await setUp();
    const [web, mail, echo] = await Promise.all([
      scene.ingress.connect({ servername: HOST, ALPNProtocols: ['http/1.1'] }),
      scene.ingress.connect({ servername: 'other.example.com' }),
      scene.ingress.connect({ servername: 'db.wild.example.com' }),
    ]);
    echo.send('\x00\x01raw');
    assert.equal((await web.request(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`)).body, 'http');
    assert.equal(await mail.until(/\r\n/), '220 mail\r\n');
    assert.equal(await echo.until(/raw/), '\x00\x01raw');
    assert.deepEqual(
      scene.upstreams.map((upstream) => upstream.count()),
      [1, 1, 1],
    );
  });

  test('bytes that look like a request for another host go to the host of the handshake, as they are', async () => {
    await using scene = await setUp();
    const echo = await scene.ingress.connect({ servername: 'db.wild.example.com' });
    const request = `GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;
    echo.send(request);
    assert.equal(await echo.until(/\r\n\r\n/), request);
    assert.equal(scene.upstreams[0]!.count(), 0);
  });

  test('a request over HTTP for a host of raw bytes is misdirected, and reaches neither', async () => {
    await using scene = await setUp();
    const web = await scene.ingress.connect({ servername: HOST, ALPNProtocols: ['http/1.1'] });
    const { status } = await web.request('GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n');
    assert.ok([404, 421].includes(status), String(status));
    assert.deepEqual(
      scene.upstreams.map((upstream) => upstream.count()),
      [0, 0, 0],
    );
  });

  test('what is half-closed by the client is answered to the end', async () => {
    await using scene = await setUp();
    const echo = await scene.ingress.connect({ servername: 'db.wild.example.com' });
    echo.send('last words');
    echo.socket.end();
    assert.deepEqual(await echo.rest(), { text: 'last words', clean: true });
  });
});
