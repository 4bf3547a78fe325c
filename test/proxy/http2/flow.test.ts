// Flow control of HTTP/2 (RFC 9113 §5.2 and §6.9): no byte beyond a window, none lost, none held back for somebody else.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer as createHttp1, type RequestListener } from 'node:http';
import { connect, createServer as createHttp2 } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { createServer as createTcp } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { connect as connectTls } from 'node:tls';
import fc from 'fast-check';
import {
  type Frame,
  type FrameClient,
  flag,
  frame,
  frameType,
  headersFrame,
  requestFields,
  settingsFrame,
  windowUpdateFrame,
} from '../../support/http2-frames.ts';
import {
  collect,
  HOST,
  type Http2IngressOptions,
  startHttp2Ingress,
  testCertificate,
  upstreamAt,
} from '../../support/http2-ingress.ts';

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

async function startHttp1(t: TestContext, answer: RequestListener, options: Http2IngressOptions = {}) {
  const server = createHttp1(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const ingress = await startHttp2Ingress({
    upstream: upstreamAt('http', (server.address() as AddressInfo).port),
    ...options,
  });
  t.after(() => ingress.close());
  return ingress;
}

const data = ({ type }: Frame) => type === frameType.data;
const sizeOf = (frames: readonly Frame[], streamId: number) =>
  frames
    .filter((f) => data(f) && f.streamId === streamId)
    .reduce((sum, { payload }) => sum + payload.length, 0);

/** Nothing comes any more: what is waited for cannot be seen, so a while has to do. */
async function settled(client: FrameClient): Promise<void> {
  for (let before = -1; before !== client.received.length; ) {
    before = client.received.length;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const LARGE = randomBytes(300_000);
const sendLarge: RequestListener = (_request, reply) => void reply.end(LARGE);

describe('a reply goes no further than the windows', () => {
  it('of its stream: octet by octet, if they come one by one', async (t) => {
    const ingress = await startHttp1(t, (_request, reply) => void reply.end('hello'));
    const client = await ingress.frames();
    client.send(settingsFrame([[4, 0]]), headersFrame(1, requestFields()));
    await client.next(({ type }) => type === frameType.headers);
    await settled(client);
    assert.equal(sizeOf(client.received, 1), 0);
    for (let size = 1; size <= 5; size++) {
      client.send(windowUpdateFrame(1, 1));
      await client.next(() => sizeOf(client.received, 1) === size);
    }
    const text = client.received.filter(data).map(({ payload }) => payload.toString());
    assert.deepEqual(text, ['h', 'e', 'l', 'l', 'o']);
    assert.equal(client.received.filter(data).at(-1)!.flags & flag.endStream, flag.endStream);
  });

  it('of its connection, whatever its stream allows', async (t) => {
    const ingress = await startHttp1(t, sendLarge);
    const client = await ingress.frames();
    client.send(
      settingsFrame([[4, 1_000_000]]),
      headersFrame(1, requestFields()),
      headersFrame(3, requestFields()),
    );
    await settled(client);
    assert.equal(sizeOf(client.received, 1) + sizeOf(client.received, 3), 65_535);
    client.send(windowUpdateFrame(0, 1_000_000));
    await client.next(
      () => sizeOf(client.received, 1) === LARGE.length && sizeOf(client.received, 3) === LARGE.length,
    );
  });

  it('that SETTINGS have made smaller than what is out already', async (t) => {
    const ingress = await startHttp1(t, sendLarge);
    const client = await ingress.frames();
    client.send(windowUpdateFrame(0, 1_000_000), headersFrame(1, requestFields()));
    await client.next(() => sizeOf(client.received, 1) === 65_535);
    // 65,535 are out, 100 are allowed: 65,435 below nothing.
    client.send(settingsFrame([[4, 100]]), windowUpdateFrame(1, 65_435));
    await settled(client);
    assert.equal(sizeOf(client.received, 1), 65_535);
    client.send(windowUpdateFrame(1, 1));
    await client.next(() => sizeOf(client.received, 1) === 65_536);
    client.send(settingsFrame([[4, 1_000_000]]));
    await client.next(() => sizeOf(client.received, 1) === LARGE.length);
  });

  it('that SETTINGS name last: what the same frame has said before is not even looked at', async (t) => {
    const ingress = await startHttp1(t, sendLarge);
    const client = await ingress.frames();
    client.send(settingsFrame([[4, 0]]), headersFrame(1, requestFields()));
    await client.next(({ type }) => type === frameType.headers);
    // The largest window that there may be: one octet more for its stream would be an error.
    client.send(windowUpdateFrame(1, 2 ** 31 - 1));
    await client.next(() => sizeOf(client.received, 1) === 65_535);
    const sizes = Array.from({ length: 2_728 }, (_, i) => [4, i] as const);
    client.send(settingsFrame([...sizes, [4, 100_000], [4, 0]]), windowUpdateFrame(0, 1_000_000));
    await client.next(() => sizeOf(client.received, 1) === LARGE.length);
  });

  it('and a stream whose window is closed holds back no other', async (t) => {
    const ingress = await startHttp1(t, sendLarge);
    const client = await ingress.frames();
    client.send(windowUpdateFrame(0, 10_000_000), settingsFrame([[4, 0]]), headersFrame(1, requestFields()));
    client.send(
      settingsFrame([[4, 1_000]]),
      headersFrame(3, requestFields()),
      windowUpdateFrame(3, 1_000_000),
    );
    await client.next(() => sizeOf(client.received, 3) === LARGE.length);
    await settled(client);
    assert.equal(sizeOf(client.received, 1), 1_000);
  });

  it('and streams take turns', async (t) => {
    const ingress = await startHttp1(t, sendLarge);
    const client = await ingress.frames();
    client.send(settingsFrame([[4, 1_000_000]]), ...[1, 3, 5].map((id) => headersFrame(id, requestFields())));
    await settled(client);
    client.send(windowUpdateFrame(0, 300_000));
    await settled(client);
    for (const id of [1, 3, 5]) {
      assert.ok(sizeOf(client.received, id) > 40_000, `${id}: ${sizeOf(client.received, id)}`);
    }
  });

  it('in frames that every peer must take', async (t) => {
    const ingress = await startHttp1(t, sendLarge);
    const client = await ingress.frames();
    client.send(
      settingsFrame([[4, 1_000_000]]),
      windowUpdateFrame(0, 1_000_000),
      headersFrame(1, requestFields()),
    );
    await client.next(() => sizeOf(client.received, 1) === LARGE.length);
    assert.ok(client.received.every(({ payload }) => payload.length <= 16_384));
    const received = Buffer.concat(client.received.filter(data).map(({ payload }) => payload));
    assert.equal(sha256(received), sha256(LARGE));
  });
});

describe('a head larger than a frame', () => {
  it('goes on in CONTINUATION, with nothing in between', async (t) => {
    const fields = Object.fromEntries(
      Array.from({ length: 20 }, (_, i) => [`x-${i}`, randomBytes(1_000).toString('hex')]),
    );
    const ingress = await startHttp1(t, (_request, reply) => void reply.writeHead(200, fields).end('ok'), {
      limits: { maxHeaderBytes: 65_536 },
    });
    const client = await ingress.frames();
    client.send(headersFrame(1, requestFields()), headersFrame(3, requestFields()));
    const ends = ({ type, flags }: Frame) =>
      (type === frameType.headers || type === frameType.continuation) && (flags & flag.endHeaders) !== 0;
    await client.next(() => client.received.filter(ends).length === 2);
    const start = client.received.findIndex(({ type }) => type === frameType.headers);
    assert.equal(client.received[start]!.flags & flag.endHeaders, 0);
    const block = client.received.slice(start, client.received.findIndex(ends) + 1);
    assert.ok(block.length >= 2);
    assert.ok(
      block.slice(1).every((f) => f.type === frameType.continuation && f.streamId === block[0]!.streamId),
    );
    // A library agrees that it is whole.
    const session = connect(`https://${HOST}`, {
      settings: { maxHeaderListSize: 100_000 },
      createConnection: () =>
        connectTls({
          port: ingress.port,
          host: '127.0.0.1',
          servername: HOST,
          ca: testCertificate.cert,
          ALPNProtocols: ['h2'],
        }),
    });
    t.after(() => session.destroy());
    const reply = await collect(session.request({ ':authority': HOST }));
    for (const [name, value] of Object.entries(fields)) assert.equal(reply.headers[name], value);
  });
});

describe('bodies of any size arrive whole both ways', () => {
  /** Sends back what it gets, in pieces and framings of its own choice. */
  const echo: RequestListener = async (request, reply) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body = Buffer.concat(parts);
    if (request.url === '/length') reply.setHeader('Content-Length', body.length);
    if (request.url === '/close') {
      reply.shouldKeepAlive = false;
      reply.useChunkedEncodingByDefault = false;
    }
    const step = 1 + (body.length % 40_000);
    for (let at = 0; at < body.length; at += step) reply.write(body.subarray(at, at + step));
    reply.end();
  };

  for (const protocol of ['http', 'h2c'] as const) {
    it(`over ${protocol}, through windows of any size`, async (t) => {
      const server =
        protocol === 'http' ? createHttp1(echo) : createHttp2({ settings: { initialWindowSize: 7_000 } });
      if (protocol === 'h2c') {
        server.on('stream', (stream) => {
          stream.respond({ ':status': 200 });
          stream.pipe(stream);
        });
      }
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      t.after(() => server.close());
      const ingress = await startHttp2Ingress({
        upstream: upstreamAt(protocol, (server.address() as AddressInfo).port),
      });
      t.after(() => ingress.close());
      const size = fc.oneof(
        fc.constantFrom(0, 1, 16_384, 16_385, 65_535, 65_536, 262_145),
        fc.integer({ min: 0, max: 400_000 }),
      );
      const requests = fc.array(fc.tuple(size, fc.constantFrom('/length', '/chunked', '/close')), {
        minLength: 1,
        maxLength: 6,
      });
      const initialWindow = fc.oneof(fc.integer({ min: 1_000, max: 70_000 }), fc.constant(1_000_000));
      await fc.assert(
        fc.asyncProperty(initialWindow, requests, async (initialWindowSize, list) => {
          const session = connect(`https://${HOST}`, {
            settings: { initialWindowSize },
            createConnection: () =>
              connectTls({
                port: ingress.port,
                host: '127.0.0.1',
                servername: HOST,
                ca: testCertificate.cert,
                ALPNProtocols: ['h2'],
              }),
          });
          await Promise.all(
            list.map(async ([bytes, path]) => {
              const body = randomBytes(bytes);
              const stream = session.request({ ':authority': HOST, ':method': 'POST', ':path': path });
              const reply = await collect(stream, () => void stream.end(body));
              assert.equal(reply.rstCode, 0);
              assert.equal(reply.body.length, body.length);
              assert.equal(sha256(reply.body), sha256(body));
            }),
          );
          session.destroy();
        }),
        { numRuns: 25 },
      );
    });
  }

  for (const protocol of ['http', 'h2c'] as const) {
    it(`and an upload of 64 MiB to an upstream that does not read is held back: ${protocol}`, async (t) => {
      const upstream = createTcp((socket) => {
        socket.on('error', () => {});
        if (protocol === 'h2c') socket.write(settingsFrame());
        socket.pause();
        t.after(() => socket.destroy());
      }).listen(0, '127.0.0.1');
      await once(upstream, 'listening');
      t.after(() => upstream.close());
      const ingress = await startHttp2Ingress({
        upstream: upstreamAt(protocol, (upstream.address() as AddressInfo).port),
      });
      t.after(() => ingress.close());
      const stream = ingress.session().request({ ':authority': HOST, ':method': 'POST' });
      stream.on('error', () => {});
      let sent = 0;
      const piece = Buffer.alloc(1024 * 1024);
      const more = () => {
        while (sent < 64) {
          sent++;
          if (!stream.write(piece)) return void stream.once('drain', more);
        }
      };
      more();
      for (let last = -1; last !== sent; ) {
        last = sent;
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      assert.ok(sent < 30, `${sent} MiB were taken`);
      stream.close(8);
    });
  }
});

describe('a client that takes nothing', () => {
  it('and goes on asking is let go, and what it has made us hold with it', async (t) => {
    const ingress = await startHttp1(t, sendLarge, { limits: { clientIdleTimeoutMs: 200 } });
    const client = await ingress.frames();
    client.send(settingsFrame([[4, 0]]));
    for (let id = 1; id < 60; id += 2) client.send(headersFrame(id, requestFields()));
    const cancelled = await client.next(({ type }) => type === frameType.rstStream);
    assert.equal(cancelled.payload.readUInt32BE(0), 8);
    await client.next(() => client.received.filter(({ type }) => type === frameType.rstStream).length === 30);
    client.send(frame(frameType.ping, 0, 0, Buffer.alloc(8)));
    await client.next(({ type }) => type === frameType.ping);
  });
});
