// HTTP/2 connections that break RFC 9113, flood or stall: each loses itself and harms no other.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import {
  encodeFields,
  errorCode,
  type Frame,
  type FrameClient,
  flag,
  frame,
  frameType,
  headersFrame,
  requestFields,
  rstStreamFrame,
  settingsFrame,
  statusOf,
  windowUpdateFrame,
} from '../support/http2-frames.ts';
import {
  ask,
  HOST,
  type Http2IngressOptions,
  startHttp2Ingress,
  upstreamAt,
} from '../support/http2-ingress.ts';

const PROTOCOL_ERROR = 1;
const FLOW_CONTROL_ERROR = 3;
const STREAM_CLOSED = 5;
const FRAME_SIZE_ERROR = 6;
const COMPRESSION_ERROR = 9;
const ENHANCE_YOUR_CALM = 11;

async function start(
  t: TestContext,
  options: Http2IngressOptions = {},
  answer: (text: string) => 'silent' | undefined = () => undefined,
) {
  const upstream = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (bytes: Buffer) => {
      if (answer(bytes.toString('latin1')) !== 'silent') {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      }
    });
  }).listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  t.after(() => upstream.close());
  const { port } = upstream.address() as AddressInfo;
  const ingress = await startHttp2Ingress({ upstream: upstreamAt('http', port), ...options });
  t.after(() => ingress.close());
  return ingress;
}

const goaway = ({ type }: Frame) => type === frameType.goaway;
const reset = ({ type }: Frame) => type === frameType.rstStream;
const headers = ({ type }: Frame) => type === frameType.headers;

/** What the connection was told when it was ended, or the reset that its stream got. */
async function verdict(client: FrameClient, matches = (f: Frame) => goaway(f) || reset(f)) {
  const found = await client.next((f) => matches(f) && (f.type !== frameType.goaway || errorCode(f) !== 0));
  return { type: found.type, code: errorCode(found) };
}

describe('malformed requests', () => {
  const wrong: readonly (readonly [string, readonly (readonly [string, string])[]])[] = [
    ['a Connection field', requestFields('GET', [['connection', 'close']])],
    ['a Transfer-Encoding field', requestFields('POST', [['transfer-encoding', 'chunked']])],
    ['an Upgrade field', requestFields('GET', [['upgrade', 'websocket']])],
    ['a Keep-Alive field', requestFields('GET', [['keep-alive', '5']])],
    ['a Proxy-Connection field', requestFields('GET', [['proxy-connection', 'close']])],
    ['TE with more than trailers', requestFields('GET', [['te', 'gzip']])],
    ['an upper-case name', requestFields('GET', [['X-Upper', '1']])],
    ['CR and LF in the path', [...requestFields().slice(0, 3), [':path', '/ HTTP/1.1\r\nHost: x']]],
    ['an empty path', [...requestFields().slice(0, 3), [':path', '']]],
    ['a path without a slash', [...requestFields().slice(0, 3), [':path', 'x']]],
    ['no path', requestFields().slice(0, 3)],
    ['no method', requestFields().slice(1)],
    ['a method that is no token', requestFields('GET / HTTP/1.1\r\nX:')],
    ['two paths', requestFields('GET', [[':path', '/other']])],
    ['a pseudo-header field after a regular one', [['x-a', '1'], ...requestFields()]],
    ['an unknown pseudo-header field', [[':unknown', '1'], ...requestFields()]],
    ['a status', [[':status', '200'], ...requestFields()]],
    [
      'two lengths',
      requestFields('POST', [
        ['content-length', '1'],
        ['content-length', '2'],
      ]),
    ],
    ['a length that is no number', requestFields('POST', [['content-length', '+1']])],
  ];
  for (const [what, fields] of wrong) {
    it(`are reset with PROTOCOL_ERROR: ${what}`, async (t) => {
      const ingress = await start(t);
      const client = await ingress.frames();
      client.send(headersFrame(1, fields));
      assert.equal((await verdict(client)).code, PROTOCOL_ERROR);
    });
  }

  for (const [what, fields] of [
    ['no :authority and no Host', requestFields().filter(([name]) => name !== ':authority')],
    [
      'two Host fields',
      requestFields('GET', [
        ['host', 'app.example.com'],
        ['host', 'app.example.com'],
      ]),
    ],
    ['a fragment in the path', [...requestFields().slice(0, 3), [':path', '/x#y']]],
    ['bytes beyond ASCII in the path', [...requestFields().slice(0, 3), [':path', '/\xff']]],
    ['a length of a body that does not come', requestFields('GET', [['content-length', '5']])],
  ] as const) {
    it(`are refused: ${what}`, async (t) => {
      const ingress = await start(t);
      const client = await ingress.frames();
      client.send(headersFrame(1, fields as never));
      const answer = await client.next((f) => headers(f) || reset(f));
      if (headers(answer)) assert.equal(statusOf(answer), 400);
      else assert.equal(errorCode(answer), PROTOCOL_ERROR);
    });
  }

  // nghttp2 leaves such a field out of the request instead of resetting the stream (RFC 9113 §8.2.1).
  for (const [what, field] of [
    ['CR and LF in a value', ['x-evil', '1\r\nx-injected: 1']],
    ['NUL in a value', ['x-evil', '1\0']],
    ['a space in a name', ['x-evil a', '1']],
    ['a colon in a name', ['x-evil:a', '1']],
  ] as const) {
    it(`never reach the upstream: ${what}`, async (t) => {
      let received = '';
      const ingress = await start(t, {}, (text) => {
        received += text;
        return undefined;
      });
      const client = await ingress.frames();
      client.send(headersFrame(1, requestFields('GET', [field, ['x-good', '1']])));
      await client.next((f) => headers(f) || reset(f));
      assert.doesNotMatch(received, /evil|injected|\0/);
    });
  }

  it('larger than allowed are refused, and the next connection is not', async (t) => {
    const ingress = await start(t);
    const client = await ingress.frames();
    const fields = requestFields('GET', [
      ['x-large', 'x'.repeat(15_000)],
      ['y-large', 'y'.repeat(15_000)],
    ]);
    const block = encodeFields(fields);
    client.send(frame(frameType.headers, flag.endStream, 1, block.subarray(0, 16_000)));
    client.send(frame(frameType.continuation, flag.endHeaders, 1, block.subarray(16_000)));
    const answer = await client.next((f) => headers(f) || reset(f) || goaway(f));
    if (headers(answer)) assert.equal(statusOf(answer), 431);
    assert.equal((await ask(ingress.session())).headers[':status'], 200);
  });
});

describe('broken connections', () => {
  const cases: readonly (readonly [string, number | readonly number[], (client: FrameClient) => void])[] = [
    ['DATA on stream 0', PROTOCOL_ERROR, (c) => c.send(frame(frameType.data, 0, 0, Buffer.from('x')))],
    ['HEADERS on stream 0', PROTOCOL_ERROR, (c) => c.send(headersFrame(0, requestFields()))],
    ['a stream with an even number', PROTOCOL_ERROR, (c) => c.send(headersFrame(2, requestFields()))],
    [
      'DATA on an idle stream',
      [PROTOCOL_ERROR, STREAM_CLOSED],
      (c) => c.send(frame(frameType.data, 0, 7, Buffer.from('x'))),
    ],
    ['RST_STREAM on an idle stream', PROTOCOL_ERROR, (c) => c.send(rstStreamFrame(7, 8))],
    ['PING of the wrong size', FRAME_SIZE_ERROR, (c) => c.send(frame(frameType.ping, 0, 0, Buffer.alloc(7)))],
    ['PING on a stream', PROTOCOL_ERROR, (c) => c.send(frame(frameType.ping, 0, 1, Buffer.alloc(8)))],
    [
      'SETTINGS of the wrong size',
      FRAME_SIZE_ERROR,
      (c) => c.send(frame(frameType.settings, 0, 0, Buffer.alloc(5))),
    ],
    [
      'SETTINGS with a window beyond 2^31',
      FLOW_CONTROL_ERROR,
      (c) => c.send(settingsFrame([[4, 0x80000000]])),
    ],
    ['WINDOW_UPDATE of 0', PROTOCOL_ERROR, (c) => c.send(windowUpdateFrame(0, 0))],
    [
      'a window grown beyond 2^31',
      FLOW_CONTROL_ERROR,
      (c) => c.send(windowUpdateFrame(0, 0x7fffffff), windowUpdateFrame(0, 0x7fffffff)),
    ],
    [
      'a frame larger than allowed',
      FRAME_SIZE_ERROR,
      (c) =>
        c.send(
          headersFrame(1, requestFields('POST'), flag.endHeaders),
          frame(frameType.data, 0, 1, Buffer.alloc(20_000)),
        ),
    ],
    [
      'CONTINUATION out of place',
      PROTOCOL_ERROR,
      (c) => c.send(frame(frameType.continuation, flag.endHeaders, 1, Buffer.alloc(1))),
    ],
    [
      'a frame in the middle of a header block',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, requestFields(), flag.endStream),
          frame(frameType.ping, 0, 0, Buffer.alloc(8)),
        ),
    ],
    [
      'a header block that does not decode',
      COMPRESSION_ERROR,
      (c) =>
        c.send(
          frame(
            frameType.headers,
            flag.endHeaders | flag.endStream,
            1,
            Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
          ),
        ),
    ],
    [
      'PUSH_PROMISE from a client',
      PROTOCOL_ERROR,
      (c) => c.send(frame(5, flag.endHeaders, 1, Buffer.from([0, 0, 0, 2, 0x82]))),
    ],
  ];
  for (const [what, codes, attack] of cases) {
    it(`are ended with the code of RFC 9113: ${what}`, async (t) => {
      const ingress = await start(t);
      const client = await ingress.frames();
      attack(client);
      const { type, code } = await verdict(client, goaway);
      assert.equal(type, frameType.goaway);
      assert.ok([codes].flat().includes(code), `code ${code}`);
      await client.ended();
      assert.equal((await ask(ingress.session())).headers[':status'], 200);
    });
  }
});

describe('floods', () => {
  const floods: readonly (readonly [string, (client: FrameClient) => Promise<void> | void])[] = [
    [
      'rapid reset',
      (c) => flood(c, (i) => [headersFrame(i * 2 + 1, requestFields()), rstStreamFrame(i * 2 + 1, 8)]),
    ],
    [
      'CONTINUATION',
      (c) => {
        c.send(headersFrame(1, requestFields(), flag.endStream));
        return flood(c, () => [frame(frameType.continuation, 0, 1, encodeFields([['x', 'y']]))]);
      },
    ],
    ['SETTINGS', (c) => flood(c, () => [settingsFrame([[4, 65_535]])])],
    ['PING', (c) => flood(c, () => [frame(frameType.ping, 0, 0, Buffer.alloc(8))])],
    [
      'empty DATA',
      (c) => {
        c.send(headersFrame(1, requestFields('POST'), flag.endHeaders));
        return flood(c, () => [frame(frameType.data, 0, 1)]);
      },
    ],
  ];
  for (const [what, attack] of floods) {
    it(`end their own connection and no other: ${what}`, async (t) => {
      // What is flooded must still be open: of a stream that has ended nghttp2 drops the rest unseen.
      const ingress = await start(t, {}, (text) => (text.startsWith('POST') ? 'silent' : undefined));
      const bystander = ingress.session();
      assert.equal((await ask(bystander)).headers[':status'], 200);
      const client = await ingress.frames();
      await attack(client);
      await client.ended();
      assert.equal((await ask(bystander)).headers[':status'], 200);
      assert.ok(!bystander.destroyed);
    });
  }

  it('are told to calm down', async (t) => {
    const ingress = await start(t);
    const client = await ingress.frames();
    client.send(...Array.from({ length: 501 }, () => frame(frameType.ping, 0, 0, Buffer.alloc(8))));
    assert.equal((await verdict(client, goaway)).code, ENHANCE_YOUR_CALM);
  });

  async function flood(client: FrameClient, make: (i: number) => Buffer[]): Promise<void> {
    for (let i = 0; i < 200_000 && !client.closed; i++) {
      client.send(...make(i));
      if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }
});

describe('connections', () => {
  it('that never send their preface are closed', async (t) => {
    const ingress = await start(t, { limits: { headerTimeoutMs: 100 } });
    const client = await ingress.frames({ preface: false });
    await client.ended();
    assert.equal(ingress.acceptor.open, 0);
  });

  it('that speak HTTP/1.1 after choosing h2 are closed', async (t) => {
    const ingress = await start(t);
    const client = await ingress.frames({ preface: false });
    client.send(Buffer.from('GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n'));
    await client.ended();
  });

  it('without a request are closed after a while, and PINGs do not hold them', async (t) => {
    const ingress = await start(t, { limits: { keepAliveTimeoutMs: 200 } });
    const client = await ingress.frames();
    const timer = setInterval(() => client.send(frame(frameType.ping, 0, 0, Buffer.alloc(8))), 50);
    t.after(() => clearInterval(timer));
    await client.ended();
  });

  it('that stop in the middle of a header block are closed', async (t) => {
    const ingress = await start(t, { limits: { keepAliveTimeoutMs: 200 } });
    const client = await ingress.frames();
    client.send(headersFrame(1, requestFields(), flag.endStream));
    await client.ended();
  });

  it('offer no more streams at once than the limit', async (t) => {
    const ingress = await start(t, { limits: { maxConcurrentStreams: 7 } });
    const session = ingress.session();
    const [settings] = await once(session, 'remoteSettings');
    assert.equal(settings.maxConcurrentStreams, 7);
    assert.equal(settings.enableConnectProtocol, true);
    assert.ok(settings.initialWindowSize >= 1024 * 1024);
  });

  for (const protocol of ['http', 'h2c'] as const) {
    it(`leave nothing behind when an upload is stuck and both sides go: ${protocol}`, async (t) => {
      // It takes in a head, reads no body, and is gone a moment later.
      const upstream = createServer((socket) => {
        socket.on('error', () => {});
        if (protocol === 'h2c') socket.write(settingsFrame());
        socket.pause();
        setTimeout(() => socket.resetAndDestroy(), 100);
      }).listen(0, '127.0.0.1');
      await once(upstream, 'listening');
      t.after(() => upstream.close());
      const { port } = upstream.address() as AddressInfo;
      const ingress = await startHttp2Ingress({ upstream: upstreamAt(protocol, port) });
      t.after(() => ingress.close());
      const session = ingress.session();
      for (let i = 0; i < 10; i++) {
        const type = i % 2 === 0 ? 'application/grpc' : 'text/plain';
        const stream = session.request({ ':authority': HOST, ':method': 'POST', 'content-type': type });
        stream.on('error', () => {});
        stream.resume();
        stream.write(Buffer.alloc(6_000_000));
        setTimeout(() => stream.close(8), i * 40);
      }
      await new Promise((resolve) => setTimeout(resolve, 500));
      session.destroy();
      while (ingress.acceptor.open > 0) await new Promise((resolve) => setTimeout(resolve, 10));
    });
  }

  it('that drain finish what they have begun and take nothing new', async (t) => {
    let answer: (() => void) | undefined;
    const upstream = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', () => {
        answer = () => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate');
      });
    }).listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    t.after(() => upstream.close());
    const ingress = await startHttp2Ingress({
      upstream: upstreamAt('http', (upstream.address() as AddressInfo).port),
    });
    t.after(() => ingress.close());
    const session = ingress.session();
    const idle = ingress.session();
    await once(idle, 'remoteSettings');
    const reply = ask(session);
    while (answer === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
    ingress.acceptor.drain();
    await Promise.all([once(session, 'goaway'), once(idle, 'close')]);
    answer();
    assert.equal((await reply).body.toString(), 'late');
    if (!session.destroyed) await once(session, 'close');
    while (ingress.acceptor.open > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  });
});
