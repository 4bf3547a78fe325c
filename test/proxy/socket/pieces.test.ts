// Bytes that come one at a time, as in TLS records of one byte: every parser reads them in linear time, and reads the same.

import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { after, describe, it } from 'node:test';
import type { TLSSocket } from 'node:tls';
import type { ClientConnection, ProxyContext } from '../../../proxy/exchange/context.ts';
import { createHttp1Acceptor } from '../../../proxy/exchange/http1-client.ts';
import { createHttp2Acceptor } from '../../../proxy/exchange/http2-client.ts';
import { readBody } from '../../../proxy/http1/body.ts';
import { beginBody, createBodyReader } from '../../../proxy/http1/body-reader.ts';
import type { HeadLimits } from '../../../proxy/http1/message.ts';
import { limitsWith } from '../../../proxy/limits.ts';
import { createRouteTable } from '../../../proxy/rules/routes.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import { addPiece, beginPieces, gathered } from '../../../proxy/socket/pieces.ts';
import { createFrameTracker, trackFrames } from '../../../proxy/tunnel/websocket-frames.ts';
import type { UpstreamLink, Upstreams, UpstreamUser } from '../../../proxy/upstream/http1-pool.ts';
import type { Http2Upstreams } from '../../../proxy/upstream/http2-pool.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { frame, headersFrame, PREFACE, requestFields, settingsFrame } from '../../support/http2-frames.ts';
import { assertLinear } from '../../support/linear.ts';
import { HOST, request, routeTo, settingsFor } from '../../support/proxy.ts';

const LARGE = 4 * 1024 * 1024;
const limits = limitsWith({ maxHeaderBytes: LARGE });
const acceptors: { destroyAll(): void }[] = [];
after(() => {
  for (const acceptor of acceptors) acceptor.destroyAll();
});

/** What is pushed arrives; what is written is kept. */
class FakeSocket extends Duplex {
  written = '';
  readonly remoteAddress = '192.0.2.1';

  override _read(): void {}

  /** At once, where the acceptor has not put its own push() in place of this one (insides/straight-reads.ts). */
  override push(piece: Buffer): boolean {
    return this.emit('data', piece);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.written += chunk.toString('latin1');
    done();
  }

  /** Each byte on its own. */
  arrive(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at++) this.push(bytes.subarray(at, at + 1));
  }
}

/** An acceptor of either protocol whose upstream is the test's own. */
function accepting(protocol: 'http/1.1' | 'h2') {
  let user: UpstreamUser | undefined;
  const upward = new FakeSocket();
  const link: UpstreamLink = {
    socket: upward as unknown as UpstreamLink['socket'],
    reused: false,
    endpoint: { address: { host: '127.0.0.1', port: 1 } } as UpstreamLink['endpoint'],
    handTo() {},
    release() {},
    destroy() {},
    fail() {},
  };
  const context: ProxyContext = {
    routes: () => createRouteTable([routeTo(settingsFor(1))]),
    upstreams: {
      acquire(_settings: unknown, asking: UpstreamUser) {
        user = asking;
        asking.upstreamReady(link);
        return { abandon() {} };
      },
    } as unknown as Upstreams,
    http2Upstreams: {} as Http2Upstreams,
    localHandlers: {},
    limits,
    deadlines: createDeadlines(),
    log: silentLog,
    tunnels: new Set(),
  };
  const acceptor = protocol === 'h2' ? createHttp2Acceptor(context) : createHttp1Acceptor(context);
  acceptors.push(acceptor);
  const socket = new FakeSocket();
  const connection: ClientConnection = {
    socket: socket as unknown as TLSSocket,
    certificateNames: [HOST],
    serverName: HOST,
    clientAddress: '192.0.2.1',
    serverPort: 443,
    clientPort: 40_000,
    trustedClient: false,
  };
  acceptor.accept(connection);
  return { socket, upward, reply: (bytes: Buffer) => user!.upstreamData(bytes, bytes.length) };
}

function replyInBytes(reply: (bytes: Buffer) => void, bytes: Buffer) {
  for (let at = 0; at < bytes.length; at++) reply(bytes.subarray(at, at + 1));
}

function fieldsOf(size: number): string[] {
  const value = 'v'.repeat(Math.floor(size / 100));
  return Array.from({ length: 100 }, (_, i) => `X-Field-${i}: ${value}`);
}

describe('one byte at a time, in linear time:', () => {
  it('a request head of one long line', () => {
    assertLinear((n) => {
      const { socket } = accepting('http/1.1');
      socket.arrive(Buffer.from(`GET / HTTP/1.1\r\nHost: ${HOST}\r\nX: ${'v'.repeat(n)}`));
      socket.destroy();
    }, 100_000);
  });

  it('a request head of a hundred lines', () => {
    assertLinear((n) => {
      const { socket, upward } = accepting('http/1.1');
      socket.arrive(Buffer.from(request('GET /', ...fieldsOf(n))));
      upward.uncork();
      assert.match(upward.written, /X-Field-99: v+\r\n/);
      socket.destroy();
    }, 100_000);
  });

  it('a reply head, to a client of HTTP/1.1', () => {
    assertLinear((n) => {
      const { socket, reply } = accepting('http/1.1');
      socket.push(Buffer.from(request('GET /')));
      replyInBytes(reply, Buffer.from(`HTTP/1.1 200 OK\r\nX: ${'v'.repeat(n)}\r\nContent-Length: 0\r\n\r\n`));
      socket.uncork();
      assert.match(socket.written, /^HTTP\/1.1 200 OK\r\nX: v+\r\n/);
      socket.destroy();
    }, 100_000);
  });

  it('a reply head, to a client of HTTP/2', () => {
    assertLinear((n) => {
      const { socket, reply } = accepting('h2');
      socket.push(Buffer.concat([PREFACE, settingsFrame(), headersFrame(1, requestFields())]));
      replyInBytes(reply, Buffer.from(`HTTP/1.1 200 OK\r\nX: ${'v'.repeat(n)}\r\nContent-Length: 0\r\n\r\n`));
      socket.destroy();
    }, 100_000);
  });

  it('frames of HTTP/2', () => {
    assertLinear((n) => {
      const { socket } = accepting('h2');
      socket.push(Buffer.concat([PREFACE, settingsFrame()]));
      const unknown = frame(0x77, 0, 0, Buffer.alloc(n));
      for (let i = 0; i < 10; i++) socket.arrive(unknown);
      socket.destroy();
    }, 8_000);
  });

  it('a trailer section, chunk extensions and chunk sizes', () => {
    const chunked = (n: number) => `1;ext=${'e'.repeat(Math.min(n, 8_000))}\r\nx\r\n`;
    assertLinear((n) => {
      const body = createBodyReader();
      beginBody(body, 'chunked');
      const text = `${chunked(n)}${'1\r\nx\r\n'.repeat(n / 10)}0\r\nX: ${'v'.repeat(n)}\r\n\r\n`;
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; at++) readBody(body, bytes, at, at + 1, limits as HeadLimits);
      assert.equal(body.done, true);
    }, 100_000);
  });

  it('frames of a WebSocket', () => {
    assertLinear((n) => {
      const tracker = createFrameTracker();
      const bytes = Buffer.concat([Buffer.from([0x82, 127, 0, 0, 0, 0]), Buffer.alloc(4), Buffer.alloc(n)]);
      bytes.writeUInt32BE(n, 6);
      for (let at = 0; at < bytes.length; at++) trackFrames(tracker, bytes, at, at + 1, false);
      assert.equal(tracker.atBoundary, true);
    }, 400_000);
  });
});

describe('in pieces', () => {
  it('what is malformed is refused with the line that shows it, without waiting for the end of the head', () => {
    for (const bad of [
      'GET / HTTP/1.1\r\nHost : x\r\n',
      'GET  / HTTP/1.1\r\n',
      'GET / HTTP/1.1\r\nX: \0',
      'GET / HTTP/1.1\n',
    ]) {
      const { socket } = accepting('http/1.1');
      socket.arrive(Buffer.from(bad, 'latin1'));
      socket.uncork();
      assert.match(socket.written, /^HTTP\/1.1 400 /, JSON.stringify(bad));
    }
  });

  it('a head that is too large is refused at the limit', () => {
    const pieces = beginPieces(Buffer.from('GET /'), 0, 5);
    const looks: number[] = [];
    for (let at = 5; at < 3_000; at++) {
      if (addPiece(pieces, Buffer.from('a'), 0, 1, 1_000)) looks.push(pieces.length);
    }
    assert.deepEqual(looks, [10, 20, 40, 80, 160, 320, 640, 1_000, 2_000]);
    assert.equal(gathered(pieces).length, 3_000);
  });

  it('pipelined requests in pieces are each answered, and none of their bytes is another one’s', async () => {
    const { socket, upward, reply } = accepting('http/1.1');
    for (let i = 0; i < 3; i++) {
      const text = request(`GET /${i}`, `X-Number: ${'n'.repeat(600)}${i}`);
      socket.arrive(Buffer.from(text.slice(0, 40)));
      socket.push(Buffer.from(text.slice(40)));
      await new Promise((resolve) => setImmediate(resolve));
      reply(Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(upward.written.match(/^GET \/\d/gm), ['GET /0', 'GET /1', 'GET /2']);
    assert.deepEqual(
      upward.written.match(/n\d\r\n/g),
      [0, 1, 2].map((i) => `n${i}\r\n`),
    );
  });
});
