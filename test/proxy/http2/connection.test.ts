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
  PREFACE,
  requestFields,
  rstStreamFrame,
  settingsFrame,
  statusOf,
  windowUpdateFrame,
} from '../../support/http2-frames.ts';
import {
  ask,
  HOST,
  type Http2IngressOptions,
  startHttp2Ingress,
  upstreamAt,
} from '../../support/http2-ingress.ts';

const PROTOCOL_ERROR = 1;
const FLOW_CONTROL_ERROR = 3;
const STREAM_CLOSED = 5;
const FRAME_SIZE_ERROR = 6;
const REFUSED_STREAM = 7;
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

  for (const [what, field] of [
    ['CR and LF in a value', ['x-evil', '1\r\nx-injected: 1']],
    ['NUL in a value', ['x-evil', '1\0']],
    ['a space before a value', ['x-evil', ' 1']],
    ['a tab after a value', ['x-evil', '1\t']],
    ['a space in a name', ['x-evil a', '1']],
    ['a colon in a name', ['x-evil:a', '1']],
    ['an empty name', ['', 'x-evil']],
    ['a name beyond ASCII', ['x-evil\xe9', '1']],
  ] as const) {
    it(`are reset and never reach the upstream: ${what}`, async (t) => {
      let received = '';
      const ingress = await start(t, {}, (text) => {
        received += text;
        return undefined;
      });
      const client = await ingress.frames();
      client.send(headersFrame(1, requestFields('GET', [field, ['x-good', '1']])));
      assert.deepEqual(await verdict(client), { type: frameType.rstStream, code: PROTOCOL_ERROR });
      assert.equal((await ask(ingress.session())).headers[':status'], 200);
      assert.doesNotMatch(received, /evil|injected|\0/);
    });
  }

  it('larger than allowed are refused, and the next connection is not', async (t) => {
    const ingress = await start(t, { limits: { maxHeaderBytes: 16_384 } });
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

  it('beyond the usual limit by a little are told 431, and their connection goes on', async (t) => {
    const ingress = await start(t, {});
    const client = await ingress.frames();
    // Told apart from letters that Huffman coding would make shorter.
    const block = encodeFields(
      requestFields(
        'GET',
        Array.from({ length: 7 }, (_, i) => [`x-${i}`, '~|'.repeat(5_000)] as [string, string]),
      ),
    );
    const pieces = Array.from({ length: Math.ceil(block.length / 16_000) }, (_, i) =>
      block.subarray(i * 16_000, (i + 1) * 16_000),
    );
    client.send(frame(frameType.headers, flag.endStream, 1, pieces[0]!));
    for (const [i, piece] of pieces.entries()) {
      if (i === 0) continue;
      client.send(frame(frameType.continuation, i === pieces.length - 1 ? flag.endHeaders : 0, 1, piece));
    }
    const answer = await client.next((f) => headers(f) || reset(f) || goaway(f));
    assert.ok(block.length > 64 * 1024 && headers(answer));
    assert.equal(statusOf(answer), 431);
    client.send(headersFrame(3, requestFields('GET')));
    const next = await client.next((f) => headers(f) && f.streamId === 3);
    assert.equal(statusOf(next), 200);
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
      'HEADERS larger than allowed',
      FRAME_SIZE_ERROR,
      (c) => c.send(frame(frameType.headers, flag.endHeaders, 1, Buffer.alloc(16_385))),
    ],
    [
      'HEADERS of another stream in the middle of a header block',
      PROTOCOL_ERROR,
      (c) => c.send(headersFrame(1, requestFields(), flag.endStream), headersFrame(3, requestFields())),
    ],
    [
      'an unknown frame in the middle of a header block',
      PROTOCOL_ERROR,
      (c) => c.send(headersFrame(1, requestFields(), flag.endStream), frame(0x42, 0, 0, Buffer.alloc(3))),
    ],
    [
      'CONTINUATION after a whole header block',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, requestFields()),
          frame(frameType.continuation, flag.endHeaders, 1, Buffer.alloc(0)),
        ),
    ],
    [
      'CONTINUATION on stream 0',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, requestFields(), flag.endStream),
          frame(frameType.continuation, flag.endHeaders, 0, Buffer.alloc(0)),
        ),
    ],
    [
      'a stream with a lower number than the last',
      PROTOCOL_ERROR,
      (c) => c.send(headersFrame(5, requestFields()), headersFrame(3, requestFields())),
    ],
    [
      'DATA with more padding than frame',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, requestFields('POST'), flag.endHeaders),
          frame(frameType.data, flag.padded, 1, Buffer.from([5, 1, 2])),
        ),
    ],
    [
      'DATA that is padded and empty',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, requestFields('POST'), flag.endHeaders),
          frame(frameType.data, flag.padded, 1),
        ),
    ],
    [
      'HEADERS with more padding than frame',
      PROTOCOL_ERROR,
      (c) => c.send(frame(frameType.headers, flag.endHeaders | flag.padded, 1, Buffer.from([9, 0x82]))),
    ],
    [
      'HEADERS too short for their priority',
      [PROTOCOL_ERROR, FRAME_SIZE_ERROR],
      (c) => c.send(frame(frameType.headers, flag.endHeaders | flag.priority, 1, Buffer.alloc(4))),
    ],
    ['RST_STREAM on stream 0', PROTOCOL_ERROR, (c) => c.send(rstStreamFrame(0, 8))],
    [
      'RST_STREAM of the wrong size',
      FRAME_SIZE_ERROR,
      (c) => c.send(headersFrame(1, requestFields()), frame(frameType.rstStream, 0, 1, Buffer.alloc(3))),
    ],
    ['WINDOW_UPDATE on an idle stream', PROTOCOL_ERROR, (c) => c.send(windowUpdateFrame(7, 1))],
    [
      'WINDOW_UPDATE of the wrong size',
      FRAME_SIZE_ERROR,
      (c) => c.send(frame(frameType.windowUpdate, 0, 0, Buffer.alloc(3))),
    ],
    ['PRIORITY on stream 0', PROTOCOL_ERROR, (c) => c.send(frame(frameType.priority, 0, 0, Buffer.alloc(5)))],
    [
      'PRIORITY of the wrong size',
      FRAME_SIZE_ERROR,
      (c) => c.send(frame(frameType.priority, 0, 1, Buffer.alloc(4))),
    ],
    ['SETTINGS on a stream', PROTOCOL_ERROR, (c) => c.send(frame(frameType.settings, 0, 1, Buffer.alloc(6)))],
    [
      'an acknowledgement with settings',
      FRAME_SIZE_ERROR,
      (c) => c.send(frame(frameType.settings, flag.ack, 0, Buffer.alloc(6))),
    ],
    ['a push setting that is no truth value', PROTOCOL_ERROR, (c) => c.send(settingsFrame([[2, 2]]))],
    ['a frame size below the least', PROTOCOL_ERROR, (c) => c.send(settingsFrame([[5, 16_383]]))],
    ['a frame size above the largest', PROTOCOL_ERROR, (c) => c.send(settingsFrame([[5, 2 ** 24]]))],
    ['a CONNECT setting that is no truth value', PROTOCOL_ERROR, (c) => c.send(settingsFrame([[8, 2]]))],
    ['GOAWAY on a stream', PROTOCOL_ERROR, (c) => c.send(frame(frameType.goaway, 0, 1, Buffer.alloc(8)))],
    [
      'GOAWAY that is too short',
      FRAME_SIZE_ERROR,
      (c) => c.send(frame(frameType.goaway, 0, 0, Buffer.alloc(7))),
    ],
    [
      'a table size at the end of a header block',
      COMPRESSION_ERROR,
      (c) =>
        c.send(
          frame(
            frameType.headers,
            flag.endHeaders | flag.endStream,
            1,
            Buffer.concat([encodeFields(requestFields()), Buffer.from([0x20])]),
          ),
        ),
    ],
    [
      'a header block that does not decode, of trailers',
      COMPRESSION_ERROR,
      (c) =>
        c.send(
          headersFrame(1, requestFields('POST'), flag.endHeaders),
          frame(frameType.headers, flag.endHeaders | flag.endStream, 1, Buffer.from([0x80])),
        ),
    ],
    [
      'PUSH_PROMISE from a client',
      PROTOCOL_ERROR,
      (c) => c.send(frame(frameType.pushPromise, flag.endHeaders, 1, Buffer.from([0, 0, 0, 2, 0x82]))),
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

/** Requests to `/silent` are never answered. */
const silent = (text: string) => (text.includes('/silent') ? ('silent' as const) : undefined);
const silentRequest = (method = 'GET', more: readonly (readonly [string, string])[] = []) =>
  requestFields(method, more).map(([name, value]) => [name, name === ':path' ? '/silent' : value] as const);
const trailing = flag.endHeaders | flag.endStream;

describe('streams that have ended', () => {
  for (const [what, late] of [
    ['HEADERS', headersFrame(1, requestFields())],
    ['DATA', frame(frameType.data, 0, 1, Buffer.from('x'))],
  ] as const) {
    it(`take nothing more, and the connection ends with STREAM_CLOSED: ${what}`, async (t) => {
      const ingress = await start(t);
      const client = await ingress.frames();
      client.send(headersFrame(1, requestFields()));
      await client.next(({ type, flags }) => type === frameType.data && (flags & flag.endStream) !== 0);
      client.send(late);
      assert.deepEqual(await verdict(client), { type: frameType.goaway, code: STREAM_CLOSED });
      await client.ended();
    });
  }

  it('by the client’s reset take nothing more', async (t) => {
    const ingress = await start(t, {}, silent);
    const client = await ingress.frames();
    client.send(headersFrame(1, silentRequest('POST'), flag.endHeaders), rstStreamFrame(1, 8));
    client.send(frame(frameType.data, 0, 1, Buffer.from('x')));
    assert.equal((await verdict(client)).code, STREAM_CLOSED);
  });

  it('by our reset may still get what was on its way', async (t) => {
    const ingress = await start(t);
    const client = await ingress.frames();
    // Malformed, and then what a client sends that has not heard of it yet.
    client.send(headersFrame(1, requestFields('POST', [['X', '1']]), flag.endHeaders));
    await client.next(reset);
    client.send(
      frame(frameType.data, 0, 1, Buffer.alloc(16_384)),
      windowUpdateFrame(1, 5),
      headersFrame(1, [['x-trailer', '1']]),
      rstStreamFrame(1, 8),
      headersFrame(3, requestFields()),
    );
    assert.equal(statusOf(await client.next((f) => headers(f) && f.streamId === 3)), 200);
  });
});

describe('broken streams', () => {
  const cases: readonly (readonly [string, number, (client: FrameClient) => void])[] = [
    [
      'WINDOW_UPDATE of 0',
      PROTOCOL_ERROR,
      (c) => c.send(headersFrame(1, silentRequest()), windowUpdateFrame(1, 0)),
    ],
    [
      'a window grown beyond 2^31',
      FLOW_CONTROL_ERROR,
      (c) => c.send(headersFrame(1, silentRequest()), windowUpdateFrame(1, 0x7fffffff)),
    ],
    [
      'DATA after the end',
      STREAM_CLOSED,
      (c) => c.send(headersFrame(1, silentRequest()), frame(frameType.data, 0, 1, Buffer.from('x'))),
    ],
    [
      'HEADERS after the end',
      STREAM_CLOSED,
      (c) => c.send(headersFrame(1, silentRequest()), headersFrame(1, [['x', '1']])),
    ],
    [
      'trailers that do not end it',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, silentRequest('POST'), flag.endHeaders),
          headersFrame(1, [['x', '1']], flag.endHeaders),
        ),
    ],
    [
      'trailers with a pseudo-header field',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, silentRequest('POST'), flag.endHeaders),
          headersFrame(1, [[':path', '/']], trailing),
        ),
    ],
    [
      'trailers with an upper-case name',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, silentRequest('POST'), flag.endHeaders),
          headersFrame(1, [['X', '1']], trailing),
        ),
    ],
    [
      'trailers with a length',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, silentRequest('POST'), flag.endHeaders),
          headersFrame(1, [['content-length', '0']], trailing),
        ),
    ],
    [
      'trailers with a host',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, silentRequest('POST'), flag.endHeaders),
          headersFrame(1, [['host', 'app.example.com']], trailing),
        ),
    ],
    [
      'trailers with a TE that is not allowed',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, silentRequest('POST'), flag.endHeaders),
          headersFrame(1, [['te', '']], trailing),
        ),
    ],
    [
      'more content than announced',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, silentRequest('POST', [['content-length', '2']]), flag.endHeaders),
          frame(frameType.data, 0, 1, Buffer.from('x')),
          frame(frameType.data, flag.endStream, 1, Buffer.from('yz')),
        ),
    ],
    [
      'less content than announced',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, silentRequest('POST', [['content-length', '4']]), flag.endHeaders),
          frame(frameType.data, flag.endStream, 1, Buffer.from('xyz')),
        ),
    ],
    [
      'less content than announced, ended by trailers',
      PROTOCOL_ERROR,
      (c) =>
        c.send(
          headersFrame(1, silentRequest('POST', [['content-length', '4']]), flag.endHeaders),
          frame(frameType.data, 0, 1, Buffer.from('xyz')),
          headersFrame(1, [['x', '1']], trailing),
        ),
    ],
  ];
  for (const [what, code, attack] of cases) {
    it(`are reset with the code of RFC 9113, and their connection lives on: ${what}`, async (t) => {
      const ingress = await start(t, {}, silent);
      const client = await ingress.frames();
      attack(client);
      assert.deepEqual(await verdict(client), { type: frameType.rstStream, code });
      client.send(headersFrame(3, requestFields()));
      assert.equal(statusOf(await client.next((f) => headers(f) && f.streamId === 3)), 200);
    });
  }

  it('more than allowed at once are refused, so that they may be sent again', async (t) => {
    const ingress = await start(t, { limits: { maxConcurrentStreams: 2 } }, silent);
    const client = await ingress.frames();
    client.send(...[1, 3, 5].map((id) => headersFrame(id, silentRequest())));
    const refused = await client.next(reset);
    assert.deepEqual([refused.streamId, errorCode(refused)], [5, REFUSED_STREAM]);
    client.send(rstStreamFrame(1, 8), headersFrame(7, requestFields()));
    assert.equal(statusOf(await client.next((f) => headers(f) && f.streamId === 7)), 200);
  });

  it('that take more than their window have their stream reset', async (t) => {
    const upstream = createServer((socket) => void socket.on('error', () => {}).pause());
    upstream.listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    t.after(() => upstream.close());
    const ingress = await startHttp2Ingress({
      upstream: upstreamAt('http', (upstream.address() as AddressInfo).port),
    });
    t.after(() => ingress.close());
    const client = await ingress.frames();
    client.send(headersFrame(1, requestFields('POST'), flag.endHeaders));
    // It goes on when nobody takes it any more, as far as the connection's window would let it.
    const piece = frame(frameType.data, 0, 1, Buffer.alloc(16_384));
    const flow = setInterval(() => client.send(piece, piece, piece, piece), 1);
    t.after(() => clearInterval(flow));
    assert.deepEqual(await verdict(client), { type: frameType.rstStream, code: FLOW_CONTROL_ERROR });
  });
});

describe('what is odd but allowed is answered', () => {
  const get = headersFrame(1, requestFields());
  const priority = Buffer.from([0, 0, 0, 0, 15]);
  const padding = Buffer.concat([Buffer.from([4]), encodeFields(requestFields()), Buffer.alloc(4)]);
  const oddities: readonly (readonly [string, readonly Buffer[]])[] = [
    ['unknown frames', [frame(0x42, 0xff, 0, Buffer.alloc(100)), frame(0x43, 0, 1), get]],
    [
      'flags without a meaning',
      [frame(frameType.headers, 0xd5 & ~flag.padded, 1, encodeFields(requestFields()))],
    ],
    ['the reserved bit', [frame(frameType.headers, trailing, 0x8000_0001, encodeFields(requestFields()))]],
    ['unknown settings', [settingsFrame([[0x4242, 7]]), get]],
    [
      'a setting said twice',
      [
        settingsFrame([
          [4, 1],
          [4, 65_535],
        ]),
        get,
      ],
    ],
    ['PRIORITY of streams in any state', [frame(frameType.priority, 0, 9, priority), get]],
    [
      'HEADERS with a priority',
      [
        frame(
          frameType.headers,
          trailing | flag.priority,
          1,
          Buffer.concat([priority, encodeFields(requestFields())]),
        ),
      ],
    ],
    ['HEADERS with padding', [frame(frameType.headers, trailing | flag.padded, 1, padding)]],
    [
      'a header block in many pieces, some of them empty',
      [
        frame(frameType.headers, flag.endStream, 1),
        ...[...encodeFields(requestFields())]
          .reduce<number[][]>((pieces, byte, i) => {
            if (i % 10 === 0) pieces.push([]);
            pieces.at(-1)!.push(byte);
            return pieces;
          }, [])
          .map((piece) => frame(frameType.continuation, 0, 1, Buffer.from(piece))),
        frame(frameType.continuation, flag.endHeaders, 1),
      ],
    ],
    [
      'DATA with padding, and some of it nothing else',
      [
        headersFrame(1, requestFields('POST', [['content-length', '2']]), flag.endHeaders),
        frame(frameType.data, flag.padded, 1, Buffer.from([2, 0x78, 0, 0])),
        frame(frameType.data, flag.padded, 1, Buffer.from([1, 0])),
        frame(frameType.data, flag.padded | flag.endStream, 1, Buffer.from([0, 0x78])),
      ],
    ],
    [
      'trailers',
      [
        headersFrame(1, requestFields('POST'), flag.endHeaders),
        frame(frameType.data, 0, 1, Buffer.from('x')),
        headersFrame(1, [['x-sum', '1']]),
      ],
    ],
    ['numbers that are passed over', [headersFrame(101, requestFields())]],
    ['an answer to a PING that nobody sent', [frame(frameType.ping, flag.ack, 0, Buffer.alloc(8)), get]],
    ['GOAWAY of the client, after its request', [get, frame(frameType.goaway, 0, 0, Buffer.alloc(8))]],
  ];
  for (const [what, frames] of oddities) {
    it(what, async (t) => {
      const ingress = await start(t);
      const client = await ingress.frames();
      client.send(...frames);
      const answer = await client.next((f) => headers(f) || reset(f) || (goaway(f) && errorCode(f) !== 0));
      assert.equal(answer.type, frameType.headers);
      assert.equal(statusOf(answer), 200);
    });
  }

  it('whatever the pieces in which it arrives', async (t) => {
    const ingress = await start(t);
    const client = await ingress.frames({ preface: false });
    const bytes = Buffer.concat([
      PREFACE,
      settingsFrame(),
      headersFrame(1, requestFields('POST'), flag.endHeaders),
      frame(frameType.data, flag.padded, 1, Buffer.from([3, 0x78, 0x79, 0, 0, 0])),
      headersFrame(1, [['x-sum', '1']]),
    ]);
    for (const byte of bytes) {
      client.send(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(statusOf(await client.next(headers)), 200);
  });

  it('and PING is echoed', async (t) => {
    const ingress = await start(t);
    const client = await ingress.frames();
    client.send(frame(frameType.ping, 0, 0, Buffer.from('12345678')));
    const echo = await client.next(({ type }) => type === frameType.ping);
    assert.deepEqual([echo.flags, echo.payload.toString()], [flag.ack, '12345678']);
  });
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
    [
      'resets that we are made to send',
      (c) => flood(c, (i) => [headersFrame(i * 2 + 1, requestFields('GET', [['X', '1']]))]),
    ],
    [
      'streams beyond the limit',
      (c) => flood(c, (i) => [headersFrame(i * 2 + 1, silentRequest('POST'), flag.endHeaders)]),
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
    ['PRIORITY', (c) => floodOfOne(c, frame(frameType.priority, 0, 1, Buffer.from([0, 0, 0, 0, 16])))],
    ['frames of a kind that is unknown', (c) => floodOfOne(c, frame(0xee, 0, 1))],
    ['answers to no PING', (c) => floodOfOne(c, frame(frameType.ping, flag.ack, 0, Buffer.alloc(8)))],
    ['answers to no SETTINGS', (c) => floodOfOne(c, frame(frameType.settings, flag.ack, 0))],
    ['WINDOW_UPDATE of one octet, of the connection', (c) => floodOfOne(c, windowUpdateFrame(0, 1))],
    ['WINDOW_UPDATE of one octet, of a stream', (c) => floodOfOne(c, windowUpdateFrame(1, 1))],
    ['DATA of one octet', (c) => floodOfOne(c, frame(frameType.data, 0, 1, Buffer.from('x')))],
    [
      'DATA of padding',
      (c) => floodOfOne(c, frame(frameType.data, flag.padded, 1, Buffer.from([255, ...Buffer.alloc(255)]))),
    ],
    [
      'DATA that is padded far above what it brings',
      (c) =>
        floodOfOne(c, frame(frameType.data, flag.padded, 1, Buffer.from([255, 120, ...Buffer.alloc(255)]))),
    ],
    ['GOAWAY', (c) => floodOfOne(c, frame(frameType.goaway, 0, 0, Buffer.alloc(8)))],
    [
      'HEADERS of a stream that we have reset',
      (c) => {
        c.send(headersFrame(1, requestFields('GET', [['X', '1']])));
        return floodOfOne(c, headersFrame(1, [['x', 'y']]));
      },
    ],
  ];
  for (const [what, attack] of floods) {
    it(`end their own connection and no other: ${what}`, async (t) => {
      // What is flooded must still be open.
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

  /** More of the same than anyone may send in ten seconds, however fast they go: on stream 1, whose request is open. */
  async function floodOfOne(client: FrameClient, one: Buffer): Promise<void> {
    const many = Buffer.concat(Array<Buffer>(1_000).fill(one));
    if (one.readUInt32BE(5) !== 1 || one[3] !== frameType.headers) {
      client.send(headersFrame(1, requestFields('POST'), flag.endHeaders));
    }
    for (let i = 0; i < 400 && !client.closed; i++) {
      client.send(many);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

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
