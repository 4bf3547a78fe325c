// Windows between us and HTTP/2 upstreams: replies from far away come fast, and no upload stops those of others.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { openHttp2Connection } from '../../../proxy/http2/connection.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import {
  type Frame,
  type FramePeer,
  flag,
  frame,
  frameType,
  headersFrame,
  requestFields,
  settingsFrame,
  startFrameServer,
  windowUpdateFrame,
} from '../../support/http2-frames.ts';
import { ask, startHttp2Ingress, upstreamAt } from '../../support/http2-ingress.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const INITIAL_WINDOW_SIZE = 4;
const FIRST_WINDOW = 64 * KIB;
const LARGEST_WINDOW = 4 * MIB;
const MOST_GROWTH = 16 * MIB;
/** To an upstream and back. */
const ROUND_TRIP_MS = 100;

const OK = [[':status', '200']] as const;
const isHead = ({ type }: Frame) => type === frameType.headers;
const isData = ({ type }: Frame) => type === frameType.data;
const PIECE = Buffer.alloc(16 * KIB, 'x');

interface Download {
  /** What the upstream may send, and has sent. */
  window: number;
  sent: number;
}

/** An upstream far away: what it is told reaches it late. It sends `size` bytes on each stream as windows allow. */
async function startFarUpstream(t: TestContext, size: number) {
  const downloads = new Map<number, Download>();
  let connectionWindow = 65_535;
  let initialWindow = 65_535;
  /** The most that it was ever allowed to send, on one stream and on all of them. */
  const most = { ofOne: 0, ofAll: 0 };
  const send = (id: number, download: Download, peer: FramePeer) => {
    while (download.sent < size && download.window > 0 && connectionWindow > 0) {
      const length = Math.min(PIECE.length, size - download.sent, download.window, connectionWindow);
      download.window -= length;
      download.sent += length;
      connectionWindow -= length;
      const last = download.sent === size ? flag.endStream : 0;
      peer.send(frame(frameType.data, last, id, PIECE.subarray(0, length)));
    }
  };
  const hear = ({ type, flags, streamId, payload }: Frame, peer: FramePeer) => {
    if (type === frameType.settings && (flags & flag.ack) === 0) {
      for (let at = 0; at < payload.length; at += 6) {
        if (payload.readUInt16BE(at) === INITIAL_WINDOW_SIZE) initialWindow = payload.readUInt32BE(at + 2);
      }
      peer.send(frame(frameType.settings, flag.ack, 0));
    } else if (type === frameType.headers) {
      downloads.set(streamId, { window: initialWindow, sent: 0 });
      peer.send(headersFrame(streamId, OK, flag.endHeaders));
    } else if (type === frameType.windowUpdate && streamId === 0) connectionWindow += payload.readUInt32BE(0);
    else if (type === frameType.windowUpdate) downloads.get(streamId)!.window += payload.readUInt32BE(0);
    const windows = [...downloads.values()].filter(({ sent }) => sent < size).map(({ window }) => window);
    most.ofOne = Math.max(most.ofOne, ...windows);
    most.ofAll = Math.max(
      most.ofAll,
      windows.reduce((sum, window) => sum + window, 0),
    );
    for (const [id, download] of downloads) send(id, download, peer);
  };
  const server = await startFrameServer((received, peer) => {
    setTimeout(hear, ROUND_TRIP_MS, received, peer);
  });
  t.after(() => server.close());
  return { port: server.port, downloads, most };
}

async function startIngressTo(t: TestContext, port: number) {
  const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', port) });
  t.after(() => ingress.close());
  return ingress;
}

describe('a download over a long round trip', () => {
  it('is allowed more and more on its way, up to 4 MiB, while its client takes it', async (t) => {
    const size = 24 * MIB;
    const upstream = await startFarUpstream(t, size);
    const ingress = await startIngressTo(t, upstream.port);
    const client = await ingress.frames();
    client.send(settingsFrame([[INITIAL_WINDOW_SIZE, 2 ** 30]]), windowUpdateFrame(0, 2 ** 30));
    client.send(headersFrame(1, requestFields()));
    await client.next((received) => isData(received) && (received.flags & flag.endStream) !== 0);
    const arrived = client.received.filter(isData).reduce((sum, { payload }) => sum + payload.length, 0);
    assert.equal(arrived, size);
    const { ofOne } = upstream.most;
    assert.ok(ofOne > MIB, `${ofOne / KIB} KiB`);
    assert.ok(ofOne <= LARGEST_WINDOW, `${ofOne / KIB} KiB`);
  });

  it('that its client never takes is allowed 64 KiB and no more', async (t) => {
    const upstream = await startFarUpstream(t, MIB);
    const ingress = await startIngressTo(t, upstream.port);
    const stalled = await ingress.frames();
    stalled.send(settingsFrame([[INITIAL_WINDOW_SIZE, 0]]), headersFrame(1, requestFields()));
    await until(() => upstream.downloads.get(1)?.sent === FIRST_WINDOW);
    // Another download passes meanwhile, on the same session: time enough for what must not come.
    const reply = await ask(ingress.session());
    assert.equal(reply.body.length, MIB);
    assert.deepEqual(upstream.downloads.get(1), { window: 0, sent: FIRST_WINDOW });
  });

  it('that its client stops taking costs no more than the window that it has grown to', async (t) => {
    const taken = 2 * MIB;
    const upstream = await startFarUpstream(t, 24 * MIB);
    const ingress = await startIngressTo(t, upstream.port);
    const client = await ingress.frames();
    client.send(settingsFrame([[INITIAL_WINDOW_SIZE, taken]]), windowUpdateFrame(0, 2 ** 30));
    client.send(headersFrame(1, requestFields()));
    await until(() => upstream.downloads.get(1)?.window === 0 && sizeOf(client.received) === taken);
    // What was said before the client stopped still arrives.
    await new Promise((resolve) => setTimeout(resolve, 3 * ROUND_TRIP_MS));
    const { sent } = upstream.downloads.get(1)!;
    assert.ok(sent <= taken + FIRST_WINDOW + LARGEST_WINDOW, `${sent / KIB} KiB`);
  });

  it('grows with others of its session by no more than 16 MiB together', async (t) => {
    const streams = 8;
    const upstream = await startFarUpstream(t, 12 * MIB);
    const socket = connect(upstream.port, '127.0.0.1');
    await once(socket, 'connect');
    t.after(() => socket.destroy());
    let open = streams;
    await new Promise<void>((resolve, reject) => {
      const user = {
        streamData() {},
        streamTrailers() {},
        streamEnded() {},
        streamDrained() {},
        streamClosed: ({ end }: { end: string }) => {
          if (end !== 'complete') reject(new Error(end));
          if (--open === 0) resolve();
        },
      };
      const http2 = openHttp2Connection({
        socket,
        role: 'client',
        deadlines: createDeadlines(),
        streamWindow: FIRST_WINDOW,
        largestStreamWindow: LARGEST_WINDOW,
        connectionWindow: 16 * MIB,
        fieldLimits: { bytes: 10_000, count: 100 },
        user: {
          greeted() {
            for (let i = 0; i < streams; i++) {
              const stream = http2.openStream(user);
              stream.beginHead();
              for (const [name, value] of requestFields()) stream.addField(name, value);
              stream.endHead('last');
            }
          },
          connectionClosed() {},
        },
      });
      socket.on('data', (bytes: Buffer) => http2.receive(bytes, bytes.length));
    });
    const { ofOne, ofAll } = upstream.most;
    assert.ok(ofOne >= 4 * FIRST_WINDOW, `${ofOne / KIB} KiB for one`);
    assert.ok(ofAll <= streams * FIRST_WINDOW + MOST_GROWTH, `${ofAll / KIB} KiB for all`);
  });
});

describe('an upload that its upstream does not read', () => {
  const WINDOW = 65_535;
  const UPLOAD = 300_000;
  const post = (id: number) => headersFrame(id, requestFields('POST'), flag.endHeaders);
  const body = (id: number, size: number, last: boolean) =>
    Array.from({ length: Math.ceil(size / PIECE.length) }, (_, i) => {
      const left = size - i * PIECE.length;
      const flags = last && left <= PIECE.length ? flag.endStream : 0;
      return frame(frameType.data, flags, id, PIECE.subarray(0, Math.min(left, PIECE.length)));
    });

  /** Gives credit as its handlers read, for the connection as well; those of `unread` do not. A GET is answered at once. */
  async function startWithholding(t: TestContext, unread: (nth: number) => boolean) {
    const numbers = new Map<FramePeer, Map<number, number>>();
    let begun = 0;
    const server = await startFrameServer((received, peer) => {
      const { type, flags, streamId, payload } = received;
      const ofPeer = numbers.get(peer) ?? new Map<number, number>();
      numbers.set(peer, ofPeer);
      if (isHead(received)) ofPeer.set(streamId, begun++);
      const ends = (flags & flag.endStream) !== 0 && (isHead(received) || isData(received));
      if (type === frameType.data && !unread(ofPeer.get(streamId)!) && payload.length > 0) {
        peer.send(windowUpdateFrame(0, payload.length));
        if (!ends) peer.send(windowUpdateFrame(streamId, payload.length));
      }
      if (ends) peer.send(headersFrame(streamId, OK));
    });
    t.after(() => server.close());
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', server.port) });
    t.after(() => ingress.close());
    return { server, ingress, begun: () => begun };
  }

  it('leaves others of its session enough of the window to go on', async (t) => {
    const { server, ingress, begun } = await startWithholding(t, (nth) => nth === 1);
    const honest = await ingress.frames();
    honest.send(post(1));
    await until(() => begun() === 1);
    const other = await ingress.frames();
    other.send(post(1), ...body(1, UPLOAD, false));
    const [peer] = server.peers as [FramePeer];
    await until(() => sizeOf(peer.received, 3) >= Math.floor((WINDOW * 4) / 5));
    honest.send(...body(1, UPLOAD, true));
    await honest.next(isHead);
    assert.equal(sizeOf(peer.received, 1), UPLOAD);
    assert.equal(sizeOf(peer.received, 3), Math.floor((WINDOW * 4) / 5));
    assert.equal(server.peers.length, 1);
  });

  it('gets on with all that it has to send, once it is read', async (t) => {
    const { server, ingress } = await startWithholding(t, () => true);
    const client = await ingress.frames();
    client.send(post(1), ...body(1, UPLOAD, true));
    await until(() => server.peers.length === 1 && sizeOf(server.peers[0]!.received) === 52_428);
    const [peer] = server.peers as [FramePeer];
    peer.send(windowUpdateFrame(1, UPLOAD));
    // As late as peers are that give credit for the connection when three quarters are used.
    peer.send(windowUpdateFrame(0, 52_428));
    for (let at = 52_428; at < UPLOAD; at += 50_000) {
      await until(() => sizeOf(peer.received) >= Math.min(UPLOAD, at + 50_000));
      peer.send(windowUpdateFrame(0, 50_000));
    }
    await client.next(isHead);
    assert.equal(sizeOf(peer.received), UPLOAD);
  });

  it('and others like it send newcomers to another session', async (t) => {
    const hogs = 6;
    const { server, ingress, begun } = await startWithholding(t, (nth) => nth < hogs);
    const hog = await ingress.frames();
    const ids = Array.from({ length: hogs }, (_, i) => 2 * i + 1);
    hog.send(...ids.map(post));
    await until(() => begun() === hogs);
    hog.send(...ids.flatMap((id) => body(id, 100_000, false)));
    const [peer] = server.peers as [FramePeer];
    await until(() => sizeOf(peer.received) > WINDOW - 4 * KIB);
    const session = ingress.session();
    await until(async () => {
      assert.equal((await ask(session)).headers[':status'], 200);
      return server.peers.length === 2;
    });
    const reply = await ask(session, { ':method': 'POST' }, Buffer.alloc(UPLOAD));
    assert.equal(reply.headers[':status'], 200);
    assert.equal(sizeOf(server.peers[1]!.received), UPLOAD);
    assert.ok(hog.received.every(({ type }) => type !== frameType.rstStream));
  });
});

/** Of the content of all DATA, or of that of one stream. */
function sizeOf(frames: readonly Frame[], id?: number): number {
  return frames
    .filter((received) => isData(received) && (id === undefined || received.streamId === id))
    .reduce((sum, { payload }) => sum + payload.length, 0);
}

async function until(look: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 3_000; tries++) {
    if (await look()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('it was waited for in vain');
}
