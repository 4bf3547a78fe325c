// What is held for HTTP/2 streams that nobody reads, counted in the process's own memory.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  type Frame,
  type FrameClient,
  flag,
  frame,
  frameType,
  headersFrame,
  requestFields,
  settingsFrame,
  startFrameServer,
  windowUpdateFrame,
} from '../../support/http2-frames.ts';
import { startHttp2Ingress, upstreamAt } from '../../support/http2-ingress.ts';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

const CLIENTS = 2;
const STREAMS = 100;
const KIB = 1024;
const MOST_OF_REPLY = 64 * KIB;
/** In all: what connections write from, shared by all of them and kept for the next. */
const SHARED = 2 * 1024 * KIB;
/** Of one stream, in the heap: its objects, and those of the test, which is at both ends of every socket. */
const MOST_OBJECTS = 16 * KIB;

const isHead = ({ type }: Frame) => type === frameType.headers;

/** What is alive in the heap, and in buffers outside of it, once nothing more comes. */
async function alive(): Promise<{ heap: number; buffers: number }> {
  let heap = Number.POSITIVE_INFINITY;
  let buffers = Number.POSITIVE_INFINITY;
  for (let same = 0; same < 5; same++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    gc();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    if (Math.abs(arrayBuffers - buffers) > 16 * KIB) same = 0;
    heap = heapUsed;
    buffers = arrayBuffers;
  }
  return { heap, buffers };
}

/** An upstream over HTTP/1.1 that sends as much as it is let, out of memory that all its connections share. */
async function startEndless(t: TestContext): Promise<number> {
  const head = Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n');
  const body = Buffer.alloc(1024 * KIB);
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      socket.write(head);
      socket.write(body);
    });
    t.after(() => socket.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return (server.address() as AddressInfo).port;
}

/** The same over h2c: it fills the window of each stream. */
async function startFilling(t: TestContext): Promise<number> {
  let window = 65_535;
  const server = await startFrameServer((received, peer) => {
    if (received.type === frameType.settings && (received.flags & flag.ack) === 0) {
      for (let at = 0; at < received.payload.length; at += 6) {
        if (received.payload.readUInt16BE(at) === 4) window = received.payload.readUInt32BE(at + 2);
      }
    }
    if (!isHead(received)) return;
    const id = received.streamId;
    const frames: Buffer[] = [headersFrame(id, [[':status', '200']], flag.endHeaders)];
    for (let left = window; left > 0; left -= 16_384) {
      frames.push(frame(frameType.data, 0, id, Buffer.alloc(Math.min(left, 16_384))));
    }
    peer.send(...frames);
  });
  t.after(() => server.close());
  return server.port;
}

/** Requests whose replies have begun. */
async function ask(client: FrameClient): Promise<void> {
  for (let i = 0; i < STREAMS; i++) client.send(headersFrame(2 * i + 1, requestFields()));
  await client.next(() => client.received.filter(isHead).length === STREAMS);
}

describe('a reply whose reader is stalled is held with 64 KiB at most, and with none once the reader is gone', () => {
  for (const [protocol, start] of [
    ['http', startEndless],
    ['h2c', startFilling],
  ] as const) {
    for (const [how, settings, opening] of [
      ['by a window of 0', [[4, 0]], []],
      ['after its first 65,535 bytes, by the window of the connection', [[4, 2 ** 30]], []],
      ['after some bytes, by the window of the stream', [[4, 1_000]], [windowUpdateFrame(0, 2 ** 30)]],
    ] as const) {
      it(`from ${protocol}: ${how}`, async (t) => {
        const ingress = await startHttp2Ingress({ upstream: upstreamAt(protocol, await start(t)) });
        t.after(() => ingress.close());
        const warm = await ingress.frames();
        warm.send(settingsFrame([[4, 0]]));
        await ask(warm);
        warm.destroy();
        const clients = [];
        for (let i = 0; i < CLIENTS; i++) clients.push(await ingress.frames());
        const before = await alive();
        for (const client of clients) {
          client.send(settingsFrame(settings), ...opening);
          await ask(client);
        }
        const during = await alive();
        const streams = CLIENTS * STREAMS;
        const held = during.buffers - before.buffers;
        assert.ok(held > streams * 16 * KIB, `${Math.round(held / KIB)} KiB: were there replies at all?`);
        assert.ok(held <= streams * MOST_OF_REPLY + SHARED, `${Math.round(held / KIB)} KiB`);
        const objects = (during.heap - before.heap) / streams;
        assert.ok(objects < MOST_OBJECTS, `${Math.round(objects / KIB)} KiB of heap a stream`);
        for (const client of clients) client.destroy();
        const stays = (await alive()).buffers - before.buffers;
        assert.ok(stays < SHARED, `${Math.round(stays / KIB)} KiB stay`);
      });
    }
  }
});
