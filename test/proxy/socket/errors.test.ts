// Errors of sockets end them: renegotiation above all, of which Node tells and after which it goes on.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import {
  answering,
  HOST,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const cleanups: (() => unknown)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

/** Passes bytes on and keeps the ingress's side open when the client gives up: its end is then the ingress's own doing. */
async function startMiddle(port: number, prologue = '') {
  const ingressSide = Promise.withResolvers<Socket>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const upward = connectTcp({ port, host: '127.0.0.1', allowHalfOpen: true });
    upward.write(prologue, 'latin1');
    client.on('data', (bytes) => upward.write(bytes));
    upward.on('data', (bytes) => client.write(bytes));
    for (const event of ['end', 'close']) upward.on(event, () => client.end());
    for (const socket of [client, upward]) {
      socket.on('error', () => {});
      cleanups.push(() => void socket.destroy());
    }
    ingressSide.resolve(upward);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanups.push(() => void server.close());
  return { port: (server.address() as AddressInfo).port, ingressSide: ingressSide.promise };
}

/** Asks for it again and again; resolves with how often it was carried out. */
async function renegotiate(socket: TLSSocket, times: number): Promise<number> {
  const ended = new Promise<boolean>((resolve) => socket.once('close', () => resolve(false)));
  for (let done = 0; done < times; done++) {
    const carriedOut = new Promise<boolean>((resolve) => {
      if (socket.renegotiate({}, (error) => resolve(error === null)) === false) resolve(false);
    });
    if (!(await Promise.race([carriedOut, ended]))) return done;
  }
  return times;
}

describe('a client that renegotiates (RFC 9113 §9.2.1)', async () => {
  const upstream = await startUpstream(answering(() => 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'));
  cleanups.push(upstream.close);
  const cases: [title: string, alpn: string, prologue: string, options: Partial<ListenerOptions>][] = [
    ['over HTTP/1.1', 'http/1.1', '', {}],
    ['over HTTP/2', 'h2', '', {}],
    [
      'behind a PROXY header',
      'http/1.1',
      'PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n',
      { proxyProtocol: true, trustedProxies: ['127.0.0.1'] },
    ],
  ];
  for (const [title, alpn, prologue, options] of cases) {
    it(`loses its connection at the first attempt: ${title}`, async () => {
      const ingress = await startIngress([routeTo(settingsFor(upstream.port))], options);
      cleanups.push(ingress.close);
      const middle = await startMiddle(ingress.port, prologue);
      const socket = connectTls({
        host: '127.0.0.1',
        port: middle.port,
        servername: HOST,
        rejectUnauthorized: false,
        maxVersion: 'TLSv1.2',
        ALPNProtocols: [alpn],
      });
      socket.on('error', () => {});
      socket.resume();
      await once(socket, 'secureConnect');
      const ingressSide = await middle.ingressSide;
      assert.equal(await renegotiate(socket, 200), 0);
      if (!ingressSide.readableEnded && !ingressSide.destroyed) {
        await Promise.race([once(ingressSide, 'end'), once(ingressSide, 'close')]);
      }
      ingressSide.destroy();
      socket.destroy();
    });
  }

  it('over a raw tunnel loses it as well, and others are served meanwhile', async () => {
    const echo = await startUpstream((socket) => void socket.on('data', (bytes) => socket.write(bytes)));
    cleanups.push(echo.close);
    const ingress = await startIngress([
      routeTo(settingsFor(echo.port, 'tcp')),
      routeTo(settingsFor(upstream.port), 'other.example.com'),
    ]);
    cleanups.push(ingress.close);
    const other = await ingress.connect({ servername: 'other.example.com' });
    const tunnel = await ingress.connect({ maxVersion: 'TLSv1.2', ...{ allowHalfOpen: false } });
    tunnel.send('hello');
    await tunnel.until(/hello/);
    assert.equal(await renegotiate(tunnel.socket, 200), 0);
    const asked = request('GET /').replace(HOST, 'other.example.com');
    assert.equal((await other.request(asked)).body, 'ok');
  });
});

it('nobody in proxy/ listens for the error of a connection but through the one helper', () => {
  const folder = new URL('../../../proxy/', import.meta.url);
  const others = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && name !== 'socket/errors.ts')
    .flatMap((name) =>
      [...readFileSync(new URL(name, folder), 'utf8').matchAll(/^.*\bsocket\.on(?:ce)?\('error'.*$/gm)].map(
        ([line]) => `${name}: ${line.trim()}`,
      ),
    );
  // Both settle a promise that ends the socket, whatever it is settled with.
  const settling = [
    "upstream/health.ts: socket.on('error', reject);",
    "listener/proxy-protocol.ts: socket.on('error', refuse);",
  ];
  assert.deepEqual(
    others.filter((line) => !settling.includes(line)),
    [],
  );
});
