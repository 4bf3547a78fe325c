// HTTP/2 upstreams that break RFC 9113, in raw frames: what they say is never taken for a reply, and nobody hangs.

import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import {
  encodeFields,
  errorCode,
  type Frame,
  type FramePeer,
  flag,
  frame,
  frameType,
  headersFrame,
  requestFields,
  rstStreamFrame,
  settingsFrame,
  startFrameServer,
  statusOf,
  windowUpdateFrame,
} from '../../support/http2-frames.ts';
import { ask, startHttp2Ingress, upstreamAt } from '../../support/http2-ingress.ts';

const OK = [[':status', '200']] as const;

/** Together 66,300 by the count of RFC 9113 §6.5.2, which is more than 64 KiB; as a block of literals they are less. */
const LARGE = Array.from({ length: 100 }, () => ['x', 'x'.repeat(630)] as const);

/** Every request's header block gets `answer`, but the second and all after it are answered well. */
async function start(t: TestContext, answer: (peer: FramePeer, streamId: number, request: Frame) => void) {
  let asked = 0;
  const upstream = await startFrameServer((received, peer) => {
    if (received.type !== frameType.headers) return;
    asked++;
    if (asked === 1) answer(peer, received.streamId, received);
    else peer.send(headersFrame(received.streamId, OK));
  });
  t.after(() => upstream.close());
  const ingress = await startHttp2Ingress({
    upstream: upstreamAt('h2c', upstream.port, { readTimeoutMs: 5_000 }),
  });
  t.after(() => ingress.close());
  return { upstream, ingress, session: ingress.session(), asked: () => asked };
}

describe('a reply that is malformed', () => {
  const heads: readonly (readonly [string, readonly (readonly [string, string])[]])[] = [
    ['without a status', [['x', '1']]],
    ['with a status of four digits', [[':status', '2000']]],
    ['with a status that is no number', [[':status', '2oo']]],
    ['with a status out of range', [[':status', '099']]],
    ['with two statuses', [...OK, [':status', '404']]],
    ['with its status after a field', [['x', '1'], ...OK]],
    ['with a pseudo-header field of requests', [...OK, [':path', '/']]],
    ['that switches protocols', [[':status', '101']]],
    ['with an upper-case name', [...OK, ['X-A', '1']]],
    ['with CR and LF in a value', [...OK, ['x', '1\r\nset-cookie: a']]],
    ['with a Connection field', [...OK, ['connection', 'close']]],
    ['with a Transfer-Encoding field', [...OK, ['transfer-encoding', 'chunked']]],
    ['with two lengths', [...OK, ['content-length', '1'], ['content-length', '2']]],
    ['with a length that is no number', [...OK, ['content-length', '1x']]],
    ['larger than allowed', [...OK, ...LARGE]],
  ];
  for (const [what, fields] of heads) {
    it(`is a bad gateway: ${what}`, async (t) => {
      const block = encodeFields(fields);
      const pieces = Array.from({ length: Math.ceil(block.length / 16_000) }, (_, i) =>
        block.subarray(i * 16_000, (i + 1) * 16_000),
      );
      const { session, upstream } = await start(t, (peer, id) =>
        peer.send(
          frame(frameType.headers, 0, id, pieces[0]!),
          ...pieces.slice(1).map((piece) => frame(frameType.continuation, 0, id, piece)),
          frame(frameType.continuation, flag.endHeaders, id, Buffer.alloc(0)),
          frame(frameType.data, flag.endStream, id, Buffer.from('never')),
        ),
      );
      const reply = await ask(session);
      assert.equal(reply.headers[':status'], 502);
      assert.equal(JSON.parse(reply.body.toString()).error, 'upstream-malformed');
      // No other stream of the session fails with it.
      assert.equal((await ask(session)).headers[':status'], 200);
      assert.equal(upstream.peers.length, 1);
    });
  }

  it('is a bad gateway: without a head', async (t) => {
    const { session } = await start(t, (peer, id) =>
      peer.send(frame(frameType.data, flag.endStream, id, Buffer.from('body'))),
    );
    assert.equal((await ask(session)).headers[':status'], 502);
  });

  it('is a bad gateway: an interim one that ends the stream', async (t) => {
    const { session } = await start(t, (peer, id) => peer.send(headersFrame(id, [[':status', '103']])));
    assert.equal((await ask(session)).headers[':status'], 502);
  });

  it('is a bad gateway: a length of a body that does not come', async (t) => {
    const { session } = await start(t, (peer, id) =>
      peer.send(headersFrame(id, [...OK, ['content-length', '5']])),
    );
    assert.equal((await ask(session)).headers[':status'], 502);
  });

  for (const [what, rest] of [
    ['shorter than its length', [frame(frameType.data, flag.endStream, 1, Buffer.from('abc'))]],
    ['longer than its length', [frame(frameType.data, flag.endStream, 1, Buffer.from('abcdef'))]],
    [
      'with a pseudo-header field in its trailers',
      [frame(frameType.data, 0, 1, Buffer.from('abcde')), headersFrame(1, [[':status', '200']])],
    ],
    [
      'with trailers that do not end it',
      [frame(frameType.data, 0, 1, Buffer.from('abcde')), headersFrame(1, [['x', '1']], flag.endHeaders)],
    ],
  ] as const) {
    it(`never looks complete: ${what}`, async (t) => {
      const { session } = await start(t, (peer, id) =>
        peer.send(headersFrame(id, [...OK, ['content-length', '5']], flag.endHeaders), ...rest),
      );
      const reply = await ask(session);
      assert.equal(reply.headers[':status'], 200);
      assert.notEqual(reply.rstCode, 0);
      assert.equal((await ask(session)).headers[':status'], 200);
    });
  }

  it('of a HEAD may name a length, and so may 204 and 304', async (t) => {
    for (const [method, status] of [
      ['HEAD', '200'],
      ['GET', '304'],
    ] as const) {
      const { session } = await start(t, (peer, id) =>
        peer.send(
          headersFrame(id, [
            [':status', status],
            ['content-length', '99'],
          ]),
        ),
      );
      const reply = await ask(session, { ':method': method });
      assert.deepEqual([String(reply.headers[':status']), reply.headers['content-length']], [status, '99']);
    }
  });
});

describe('an upstream that breaks its connection', () => {
  const breaks: readonly (readonly [string, readonly Buffer[]])[] = [
    ['by a frame that is too large', [frame(frameType.data, 0, 1, Buffer.alloc(20_000))]],
    [
      'by a header block that does not decode',
      [frame(frameType.headers, flag.endHeaders, 1, Buffer.from([0x80]))],
    ],
    ['by HEADERS of a stream that nobody began', [headersFrame(7, OK)]],
    ['by HEADERS of an even stream', [headersFrame(2, OK)]],
    ['by a push', [frame(frameType.pushPromise, flag.endHeaders, 1, Buffer.from([0, 0, 0, 2, 0x82]))]],
    ['by a setting that allows pushes', [settingsFrame([[2, 1]])]],
    ['by a window beyond 2^31', [windowUpdateFrame(0, 0x7fffffff), windowUpdateFrame(0, 0x7fffffff)]],
    [
      'by endless header blocks',
      [frame(frameType.headers, 0, 1), ...Array(40).fill(frame(frameType.continuation, 0, 1))],
    ],
    ['by endless PINGs', Array(600).fill(frame(frameType.ping, 0, 0, Buffer.alloc(8)))],
    ['by HTTP/1.1', [Buffer.from('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n')]],
  ];
  for (const [what, frames] of breaks) {
    it(`loses it, and the next request has a new one: ${what}`, async (t) => {
      const { session, upstream } = await start(t, (peer) => peer.send(...frames));
      const reply = await ask(session, { ':method': 'POST' }, 'body');
      assert.equal(reply.headers[':status'], 502);
      assert.equal((await ask(session)).headers[':status'], 200);
      assert.equal(upstream.peers.length, 2);
    });
  }
});

describe('an upstream that does not want a request', () => {
  it('and says so by GOAWAY is asked again on another connection', async (t) => {
    const { session, upstream } = await start(t, (peer) =>
      peer.send(frame(frameType.goaway, 0, 0, Buffer.alloc(8))),
    );
    assert.equal((await ask(session, { ':method': 'POST' }, 'body')).headers[':status'], 200);
    assert.equal(upstream.peers.length, 2);
    const bodies = upstream.peers.map(({ received }) =>
      Buffer.concat(received.filter(({ type }) => type === 0).map(({ payload }) => payload)).toString(),
    );
    assert.equal(bodies[1], 'body');
  });

  it('and hangs up without a word is asked again only if nothing is done twice', async (t) => {
    const { session } = await start(t, ({ socket }) => socket.destroy());
    assert.equal((await ask(session)).headers[':status'], 200);
    const other = await start(t, ({ socket }) => socket.destroy());
    assert.equal((await ask(other.session, { ':method': 'POST' }, 'body')).headers[':status'], 502);
    assert.equal(other.asked(), 1);
  });

  it('and refuses it a second time is answered for', async (t) => {
    const upstream = await startFrameServer(({ type, streamId }, peer) => {
      if (type === frameType.headers) peer.send(rstStreamFrame(streamId, 7));
    });
    t.after(() => upstream.close());
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', upstream.port) });
    t.after(() => ingress.close());
    assert.equal((await ask(ingress.session())).headers[':status'], 502);
  });
});

describe('a reply that comes before the end of its request', () => {
  it('lets the upstream have the rest, if it wants it', async (t) => {
    const { ingress, upstream } = await start(t, (peer, id) => peer.send(headersFrame(id, OK)));
    const client = await ingress.frames();
    client.send(
      headersFrame(1, requestFields('POST'), flag.endHeaders),
      frame(frameType.data, 0, 1, Buffer.from('1')),
    );
    assert.equal(statusOf(await client.next(({ type }) => type === frameType.headers)), 200);
    client.send(frame(frameType.data, flag.endStream, 1, Buffer.from('2')));
    const [peer] = upstream.peers;
    const body = () =>
      Buffer.concat(
        peer!.received.filter(({ type }) => type === frameType.data).map(({ payload }) => payload),
      );
    while (body().toString() !== '12') await new Promise((resolve) => setTimeout(resolve, 5));
    assert.ok(client.received.every(({ type }) => type !== frameType.rstStream));
  });

  it('and is followed by a reset with NO_ERROR, tells the client the same after the whole reply', async (t) => {
    const { ingress } = await start(t, (peer, id) =>
      peer.send(
        headersFrame(id, OK, flag.endHeaders),
        frame(frameType.data, flag.endStream, id, Buffer.from('enough')),
        rstStreamFrame(id, 0),
      ),
    );
    const client = await ingress.frames();
    client.send(
      headersFrame(1, requestFields('POST'), flag.endHeaders),
      frame(frameType.data, 0, 1, Buffer.from('1')),
    );
    const reset = await client.next(({ type }) => type === frameType.rstStream);
    assert.equal(errorCode(reset), 0);
    const data = client.received.filter(({ type }) => type === frameType.data);
    assert.equal(Buffer.concat(data.map(({ payload }) => payload)).toString(), 'enough');
    assert.equal(data.at(-1)!.flags & flag.endStream, flag.endStream);
  });
});
