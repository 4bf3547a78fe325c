// Streams of strangers in one session to an upstream: what one visitor does meets as few others as possible.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttp1 } from 'node:http';
import { createServer as createHttp2 } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import {
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
  windowUpdateFrame,
} from '../../support/http2-frames.ts';
import { ask, collect, HOST, startHttp2Ingress, upstreamAt } from '../../support/http2-ingress.ts';
import { request, routeTo, settingsFor, startIngress } from '../../support/proxy.ts';

const ENHANCE_YOUR_CALM = 11;
const MAX_HEADER_LIST_SIZE = 6;

const isHead = ({ type }: Frame) => type === frameType.headers;
const okHead = (id: number) => headersFrame(id, [[':status', '200']], flag.endHeaders | flag.endStream);

async function startH2c(t: TestContext, answer: Parameters<typeof startFrameServer>[0], greeting?: Buffer[]) {
  const server = await startFrameServer(answer, greeting);
  t.after(() => server.close());
  const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', server.port) });
  t.after(() => ingress.close());
  return { server, ingress };
}

function goaway(code: number, peer: FramePeer) {
  const payload = Buffer.alloc(8);
  payload.writeUInt32BE(code, 4);
  peer.send(frame(frameType.goaway, 0, 0, payload));
  // As nginx does: all that was in it ends with it.
  peer.socket.end();
}

describe('downloads that nobody reads', () => {
  it('hold back no other visitor of the same session, and it stays one session', async (t) => {
    const body = Buffer.alloc(2 * 1024 * 1024, 'x');
    const upstream = createHttp2({ maxSessionMemory: 2_000 }, (_asked, reply) => reply.end(body));
    upstream.listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    t.after(() => upstream.close());
    let sessions = 0;
    upstream.on('session', () => sessions++);
    const { port } = upstream.address() as AddressInfo;
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', port) });
    t.after(() => ingress.close());
    // As many as fill the window of the session, were it not given back.
    for (let client = 0; client < 3; client++) {
      const stalled = await ingress.frames();
      stalled.send(settingsFrame([[4, 0]]));
      for (let i = 0; i < 80; i++) stalled.send(headersFrame(2 * i + 1, requestFields()));
      await stalled.next(() => stalled.received.filter(isHead).length === 80);
    }
    const reply = await ask(ingress.session());
    assert.equal(reply.body.length, body.length);
    assert.equal(sessions, 1);
  });
});

describe('a head that the upstream takes ill', () => {
  it('is 431 if it is larger than SETTINGS_MAX_HEADER_LIST_SIZE, and never sent', async (t) => {
    const { server, ingress } = await startH2c(
      t,
      (received, peer) => {
        if (isHead(received)) peer.send(okHead(received.streamId));
      },
      [settingsFrame([[MAX_HEADER_LIST_SIZE, 6_000]])],
    );
    const session = ingress.session();
    assert.equal((await ask(session, { 'x-large': 'x'.repeat(7_000) })).headers[':status'], 431);
    assert.equal((await ask(session, { 'x-large': 'x'.repeat(5_000) })).headers[':status'], 200);
    const heads = server.peers.flatMap(({ received }) => received.filter(isHead));
    assert.equal(heads.length, 1);
  });

  it('is 431 for clients of HTTP/1.1 as well', async (t) => {
    const server = await startFrameServer(
      (received, peer) => {
        if (isHead(received)) peer.send(okHead(received.streamId));
      },
      [settingsFrame([[MAX_HEADER_LIST_SIZE, 6_000]])],
    );
    t.after(() => server.close());
    const ingress = await startIngress([routeTo(settingsFor(server.port, 'h2c'))]);
    t.after(() => ingress.close());
    const client = await ingress.connect();
    const many = Array.from({ length: 60 }, (_, i) => `x-${i}: ${'y'.repeat(60)}`);
    assert.equal((await client.request(request('GET /', ...many))).status, 431);
    const other = await ingress.connect();
    assert.equal((await other.request(request('GET /', 'x-large: 1'))).status, 200);
  });

  it('ends no stranger’s stream with its session, and is 431 from then on', async (t) => {
    let killed = 0;
    const { ingress } = await startH2c(t, (received, peer) => {
      if (!isHead(received)) return;
      if (received.payload.length > 8_192) {
        killed++;
        goaway(ENHANCE_YOUR_CALM, peer);
      } else if ((received.flags & flag.endStream) !== 0) peer.send(okHead(received.streamId));
      // The upload stays open: a stranger's stream that is under way.
      else peer.send(headersFrame(received.streamId, [[':status', '200']], flag.endHeaders));
    });
    const stranger = ingress
      .session()
      .request({ ':method': 'POST', ':authority': HOST }, { endStream: false });
    let lost = false;
    stranger.on('close', () => {
      lost = true;
    });
    stranger.on('error', () => {});
    await once(stranger, 'response');
    const hostile = ingress.session();
    for (let i = 0; i < 3; i++) {
      const status = (await ask(hostile, { 'x-large': `${'x'.repeat(10_000)}${i}` })).headers[':status'];
      assert.equal(status, 431, `the attempt ${i}`);
    }
    assert.equal(killed, 1);
    assert.equal((await ask(hostile, { 'x-large': 'x'.repeat(7_000) })).headers[':status'], 200);
    assert.ok(!lost);
    stranger.close(8);
  });
});

describe('resets by many clients', () => {
  it('leave their session before the upstream has reason to end it, and a stranger’s download is whole', async (t) => {
    const waiting = new Map<FramePeer, number>();
    const { server, ingress } = await startH2c(t, (received, peer) => {
      if (isHead(received) && !waiting.has(peer)) waiting.set(peer, received.streamId);
    });
    const stranger = ingress.session().request({ ':authority': HOST });
    const reply = collect(stranger);
    await until(() => waiting.size === 1);
    const [[first, id]] = [...waiting] as [[FramePeer, number]];
    for (let client = 0; client < 12; client++) {
      const hostile = await ingress.frames();
      for (let i = 0; i < 40; i++) {
        hostile.send(headersFrame(2 * i + 1, requestFields()), rstStreamFrame(2 * i + 1, 8));
      }
      hostile.send(frame(frameType.ping, 0, 0, Buffer.alloc(8)));
      await hostile.next(({ type }) => type === frameType.ping);
    }
    const resetsOf = ({ received }: FramePeer) =>
      received.filter(({ type }) => type === frameType.rstStream).length;
    await until(() => server.peers.reduce((sum, peer) => sum + resetsOf(peer), 0) > 300);
    for (const peer of server.peers)
      assert.ok(resetsOf(peer) < 400, `${resetsOf(peer)} resets in one session`);
    assert.ok(resetsOf(first) <= 104, `${resetsOf(first)} resets in the stranger's`);
    first.send(okHead(id));
    assert.equal((await reply).headers[':status'], 200);
  });

  it('that one has made take its next requests to a session apart', async (t) => {
    const { server, ingress } = await startH2c(t, (received, peer) => {
      // RFC 7541 Appendix A: what begins with `:method: POST` is answered.
      if (isHead(received) && received.payload[0] === 0x83) peer.send(okHead(received.streamId));
    });
    const hostile = await ingress.frames();
    const ids = Array.from({ length: 40 }, (_, i) => 2 * i + 1);
    hostile.send(...ids.map((id) => headersFrame(id, requestFields())));
    await until(() => server.peers.flatMap(({ received }) => received.filter(isHead)).length === 40);
    hostile.send(...ids.map((id) => rstStreamFrame(id, 8)));
    hostile.send(headersFrame(81, requestFields('POST')));
    await hostile.next(({ type, streamId }) => type === frameType.headers && streamId === 81);
    assert.equal(server.peers.length, 2);
    assert.equal((await ask(ingress.session(), { ':method': 'POST' })).headers[':status'], 200);
    assert.equal(server.peers.length, 2);
    assert.equal(server.peers[1]!.received.filter(isHead).length, 1);
  });
});

describe('a hostile upstream', () => {
  const floods: readonly (readonly [string, Buffer])[] = [
    ['SETTINGS', settingsFrame()],
    ['PING', frame(frameType.ping, 0, 0, Buffer.alloc(8))],
    ['empty DATA', frame(frameType.data, 0, 1)],
    ['trailers of a stream that has ended', headersFrame(1, [['x', 'y']])],
  ];
  for (const [what, flood] of floods) {
    it(`loses its session by a flood of ${what}, and the next request has another`, async (t) => {
      let seen = 0;
      const { server, ingress } = await startH2c(t, (received, peer) => {
        if (!isHead(received)) return;
        if (seen++ > 0) return peer.send(okHead(received.streamId));
        peer.send(headersFrame(1, [[':status', '200']], flag.endHeaders));
        if (what.startsWith('trailers')) peer.send(frame(frameType.data, flag.endStream, 1));
        peer.send(...Array<Buffer>(600).fill(flood));
      });
      await ask(ingress.session());
      const verdict = await until(() =>
        server.peers[0]!.received.find(({ type }) => type === frameType.goaway),
      );
      assert.equal(errorCode(verdict), ENHANCE_YOUR_CALM);
      assert.equal((await ask(ingress.session())).headers[':status'], 200);
      assert.equal(server.peers.length, 2);
    });
  }
});

describe('DATA frames of one octet', () => {
  const OCTETS = 60_000;
  const one = frame(frameType.data, 0, 1, Buffer.from('x'));
  const upload = Buffer.concat(Array<Buffer>(OCTETS).fill(one));

  it('of a client go on together, none lost, to h2c', async (t) => {
    const { server, ingress } = await startH2c(t, (received, peer) => {
      if (received.type === frameType.data && received.payload.length > 0) {
        peer.send(windowUpdateFrame(0, received.payload.length));
        if ((received.flags & flag.endStream) === 0)
          peer.send(windowUpdateFrame(received.streamId, received.payload.length));
      }
      if ((received.flags & flag.endStream) !== 0 && received.type === frameType.data)
        peer.send(okHead(received.streamId));
    });
    const client = await ingress.frames();
    client.send(headersFrame(1, requestFields('POST'), flag.endHeaders), upload);
    client.send(frame(frameType.data, flag.endStream, 1, Buffer.from('y')));
    await client.next(isHead);
    const pieces = server.peers[0]!.received.filter(({ type }) => type === frameType.data);
    const body = Buffer.concat(pieces.map(({ payload }) => payload)).toString();
    assert.equal(body, `${'x'.repeat(OCTETS)}y`);
    assert.ok(pieces.length < OCTETS / 20, `${pieces.length} frames`);
  });

  it('of a client go on together, none lost, to HTTP/1.1', async (t) => {
    let pieces = 0;
    const upstream = createHttp1(async (asked, reply) => {
      let length = 0;
      for await (const piece of asked) {
        pieces++;
        length += (piece as Buffer).length;
      }
      reply.end(String(length));
    }).listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    t.after(() => upstream.close());
    const { port } = upstream.address() as AddressInfo;
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('http', port) });
    t.after(() => ingress.close());
    const client = await ingress.frames();
    client.send(headersFrame(1, requestFields('POST'), flag.endHeaders), upload);
    client.send(frame(frameType.data, flag.endStream, 1));
    const reply = await client.next(({ type }) => type === frameType.data);
    assert.equal(reply.payload.toString(), String(OCTETS));
    assert.ok(pieces < OCTETS / 20, `${pieces} chunks`);
  });

  it('of an upstream go on together, none lost', async (t) => {
    const { ingress } = await startH2c(t, (received, peer) => {
      if (!isHead(received)) return;
      peer.send(headersFrame(1, [[':status', '200']], flag.endHeaders), upload);
      peer.send(frame(frameType.data, flag.endStream, 1, Buffer.from('y')));
    });
    const client = await ingress.frames();
    client.send(headersFrame(1, requestFields()));
    await client.next(({ flags, type }) => type === frameType.data && (flags & flag.endStream) !== 0);
    const pieces = client.received.filter(({ type }) => type === frameType.data);
    const body = Buffer.concat(pieces.map(({ payload }) => payload)).toString();
    assert.equal(body, `${'x'.repeat(OCTETS)}y`);
    assert.ok(pieces.length < OCTETS / 20, `${pieces.length} frames`);
  });

  it('with padding, between frames of other streams, stay where they belong', async (t) => {
    const { server, ingress } = await startH2c(t, (received, peer) => {
      if (received.type !== frameType.data) return;
      if ((received.flags & flag.endStream) !== 0) peer.send(okHead(received.streamId));
    });
    const client = await ingress.frames();
    const padded = (id: number, text: string) =>
      frame(frameType.data, flag.padded, id, Buffer.from([3, ...Buffer.from(text), 0, 0, 0]));
    const plain = (id: number, text: string, flags = 0) =>
      frame(frameType.data, flags, id, Buffer.from(text));
    client.send(
      headersFrame(1, requestFields('POST'), flag.endHeaders),
      headersFrame(3, requestFields('POST'), flag.endHeaders),
    );
    await until(() => (server.peers[0]?.received.filter(isHead).length ?? 0) === 2);
    client.send(
      ...[padded(1, 'a'), plain(1, 'bc'), padded(1, 'd'), plain(3, '1'), plain(3, '2'), plain(1, 'e')],
      ...[plain(1, 'f'), padded(3, '34'), plain(3, '5', flag.endStream), plain(1, '', flag.endStream)],
    );
    await until(() => client.received.filter(isHead).length === 2);
    const bodyOf = (id: number) =>
      server.peers[0]!.received.filter(({ type, streamId }) => type === frameType.data && streamId === id)
        .map(({ payload }) => payload.toString())
        .join('');
    assert.deepEqual([bodyOf(1), bodyOf(3)].sort(), ['12345', 'abcdef']);
  });
});

/** What `look` has found, once it has. */
async function until<T>(look: () => T): Promise<NonNullable<T>> {
  for (let tries = 0; tries < 1_500; tries++) {
    const found = look();
    if (found !== undefined && found !== false && found !== null) return found;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('it was waited for in vain');
}
