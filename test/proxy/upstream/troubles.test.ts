// Upstreams that fail: noticed without a visitor, said once, and called what they are.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { Writable } from 'node:stream';
import { after, describe, it } from 'node:test';
import { Fault } from '../../../proxy/faults.ts';
import { createListener, type UpstreamChange } from '../../../proxy/listener/listener.ts';
import type { UpstreamProtocol, UpstreamSettings } from '../../../proxy/rules/routes.ts';
import { foreignBytes } from '../../../proxy/upstream/foreign-bytes.ts';
import { createTroubles } from '../../../proxy/upstream/troubles.ts';
import { createLog } from '../../../src/lib/log.ts';
import { freePort } from '../../support/ports.ts';
import {
  answering,
  appCertificate,
  eventually,
  HOST,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const ALERT = Buffer.from([0x15, 3, 1, 0, 2, 2, 70]);
const cleanups: (() => unknown)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

async function watching(upstream: UpstreamSettings) {
  const changes: UpstreamChange[] = [];
  const ingress = await startIngress([routeTo(upstream)], {
    onUpstreamChange: (change) => changes.push(change),
  });
  cleanups.push(ingress.close);
  return { ingress, changes };
}

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanups.push(() => void server.close());
  return (server.address() as AddressInfo).port;
}

describe('without a visitor', () => {
  it('an upstream that refuses is said once, and once more when it has come', async () => {
    const port = await freePort();
    const { changes } = await watching(settingsFor(port));
    await eventually(() => changes.length === 1);
    assert.deepEqual(
      { ...changes[0], reason: '' },
      {
        upstream: `http://127.0.0.1:${port}`,
        state: 'failing',
        code: 'upstream-refused',
        reason: '',
        failed: 0,
      },
    );
    const server = createServer((socket) => socket.resume().on('error', () => {}));
    server.listen(port, '127.0.0.1');
    cleanups.push(() => void server.close());
    await eventually(() => changes.length === 2);
    assert.deepEqual(changes[1], { upstream: `http://127.0.0.1:${port}`, state: 'well', failed: 0 });
  });

  it('so is a name that does not resolve, and plain HTTP behind https://, with what to write', async () => {
    const unresolved = await watching(
      settingsFor(1, 'http', { addresses: [{ host: 'no-such-name.invalid', port: 80 }] }),
    );
    const plain = await listening(createHttpServer());
    const wrong = await watching(settingsFor(plain, 'https'));
    await eventually(() => unresolved.changes.length === 1 && wrong.changes.length === 1);
    assert.equal(unresolved.changes[0]!.code, 'upstream-unresolved');
    assert.match(wrong.changes[0]!.reason!, /does not speak TLS: write http:\/\//);
  });

  it('one that can be reached is connected to once, and nothing is said', async () => {
    const upstream = await startUpstream((socket) => void socket.resume());
    cleanups.push(upstream.close);
    const { changes } = await watching(settingsFor(upstream.port));
    await eventually(() => upstream.count() === 1);
    assert.deepEqual(changes, []);
  });
});

describe('with visitors', () => {
  it('however many requests fail, one line says so and one that it is over, with their number', async () => {
    const port = await freePort();
    const lines: { msg: string; level: string; upstream?: string; failed?: number }[] = [];
    const log = createLog({
      level: 'info',
      stream: new Writable({
        write(line, _encoding, done) {
          lines.push(JSON.parse(line));
          done();
        },
      }),
    });
    const listener = createListener({ host: '127.0.0.1', port: 0, log });
    cleanups.push(() => listener.drain(0));
    listener.setCertificates([appCertificate]);
    listener.setRoutes([routeTo(settingsFor(port))]);
    const bound = await listener.listen();
    const ask = async () => {
      const { connectRaw } = await import('../../support/proxy.ts');
      const client = await connectRaw(bound.port);
      const { status } = await client.request(request('GET /'));
      client.socket.destroy();
      return status;
    };
    for (let i = 0; i < 20; i++) assert.equal(await ask(), 502);
    assert.deepEqual(
      lines.map(({ msg, upstream }) => [msg, upstream]),
      [['upstream fails', `http://127.0.0.1:${port}`]],
    );
    const upstream = createServer(answering(() => OK)).listen(port, '127.0.0.1');
    cleanups.push(() => void upstream.close());
    while ((await ask()) !== 200);
    await eventually(() => lines.length === 2);
    assert.equal(lines[1]!.msg, 'upstream answers again');
    assert.ok(lines[1]!.failed! >= 20);
  });

  it('one that fails now and then, quickly, is said to fail once', () => {
    const changes: UpstreamChange[] = [];
    const troubles = createTroubles((change) => changes.push(change));
    for (let i = 0; i < 100; i++) troubles.failed('http://a:1', new Fault('upstream-closed'), true).well();
    assert.equal(changes.length, 1);
    troubles.forget('http://a:1');
    assert.deepEqual(changes[1], { upstream: 'http://a:1', state: 'gone', failed: 100 });
  });
});

describe('behind the wrong scheme', () => {
  const h2c = () => createHttp2Server((_request, response) => response.end('ok')) as unknown as Server;
  // As OpenSSL answers what is no ClientHello (RFC 8446 §6): a fatal alert.
  const tls = () =>
    createServer((socket) => socket.once('data', () => socket.end(ALERT)).on('error', () => {}));
  const http1 = () => createHttpServer((_request, response) => response.end('ok'));
  const cases: [title: string, make: () => Server, protocol: UpstreamProtocol, advice: RegExp][] = [
    ['HTTP/2 behind http://', h2c, 'http', /speaks HTTP\/2: write h2c:\/\/, or grpc:\/\//],
    ['TLS behind http://', tls, 'http', /speaks TLS: write https:\/\//],
    ['HTTP/1.1 behind h2c://', http1, 'h2c', /speaks HTTP\/1.1, not HTTP\/2: write http:\/\//],
    ['HTTP/1.1 behind grpc://', http1, 'grpc', /speaks HTTP\/1.1, not HTTP\/2: write http:\/\//],
    ['TLS behind grpc://', tls, 'grpc', /speaks TLS: write grpcs:\/\//],
    ['HTTP/1.1 behind https://', http1, 'https', /does not speak TLS: write http:\/\//],
  ];
  for (const [title, make, protocol, advice] of cases) {
    for (const alpn of ['http/1.1', 'h2']) {
      it(`${title} is named, and what to write (a client of ${alpn})`, async () => {
        const server = make();
        const port = await listening(server);
        const { ingress, changes } = await watching(settingsFor(port, protocol));
        if (alpn === 'h2') {
          const session = connectHttp2(`https://127.0.0.1:${ingress.port}`, {
            servername: HOST,
            ca: appCertificate.chain,
          });
          const stream = session.request({ ':path': '/', ':authority': HOST });
          const [fields] = await once(stream, 'response');
          assert.equal(fields[':status'], 502);
          session.destroy();
        } else {
          const client = await ingress.connect();
          assert.equal((await client.request(request('GET /'))).status, 502);
        }
        await eventually(() => changes.length > 0);
        assert.match(changes[0]!.reason!, advice);
      });
    }
  }

  it('too few bytes, and bytes that are not known, are given no name', () => {
    for (const bytes of ['', '\x15', '\0\0', 'HTTP', 'SSH-2.0-x\r\n', '\0\0\x12\x05\0\0\0\0\0']) {
      assert.equal(foreignBytes('http', Buffer.from(bytes, 'latin1'), 0, bytes.length), undefined);
    }
    assert.equal(foreignBytes('http', Buffer.from('HTTP/1.1 200'), 0, 12), undefined);
  });
});
