// Frames of HTTP/2 (proxy/http2/connection.ts): the same conversation however they are cut, no throw, no peer that hangs us.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import {
  type Http2ConnectionUser,
  type Http2Stream,
  openHttp2Connection,
  type StreamUser,
} from '../../../proxy/http2/connection.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import {
  encodeFields,
  flag,
  frame,
  frameType,
  headersFrame,
  PREFACE,
  requestFields,
  rstStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../support/http2-frames.ts';
import { cuts, fuzzTarget, piecesOf } from '../target.ts';

const deadlines = createDeadlines(() => 1);

/** Takes everything and says nothing. */
function silentSocket(): Socket {
  const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  socket.on('error', () => {});
  return socket as Socket;
}

interface Input {
  readonly frames: readonly Buffer[];
  readonly positions: readonly number[];
}

/** What the users were told, without how it was cut into pieces. */
interface Told {
  readonly events: string[];
  readonly content: Map<number, number>;
}

function userOf(told: Told, id: () => number): StreamUser {
  const say = (what: string) => void told.events.push(`${id()} ${what}`);
  return {
    streamInterim: (status) => say(`interim ${status}`),
    streamReplied: (status, fields, ended) => say(`reply ${status} ${fields.length} ${ended}`),
    streamData(bytes, start, end) {
      assert.ok(start >= 0 && end >= start && end <= bytes.length);
      told.content.set(id(), (told.content.get(id()) ?? 0) + end - start);
    },
    streamTrailers: (fields) => say(`trailers ${fields.length}`),
    streamEnded: () => say('ended'),
    streamDrained() {},
    streamClosed: (stream) => say(`closed ${stream.end} ${stream.code}`),
  };
}

function converse(role: 'server' | 'client', pieces: readonly Buffer[]): Told {
  const told: Told = { events: [], content: new Map() };
  const streams: Http2Stream[] = [];
  const user: Http2ConnectionUser = {
    streamOpened(stream, fields, ended, tooLarge) {
      streams.push(stream);
      stream.user = userOf(told, () => stream.id);
      told.events.push(`${stream.id} opened ${fields.length} ${ended} ${tooLarge}`);
      stream.beginHead();
      stream.addField(':status', '200');
      stream.endHead('open');
      stream.sendData(Buffer.from('hello'), 0, 5, true);
    },
    connectionClosed: (error) => void told.events.push(`over ${error?.message ?? ''}`),
  };
  const connection = openHttp2Connection({
    socket: silentSocket(),
    role,
    deadlines,
    user,
    maxConcurrentStreams: 100,
    streamWindow: 1024 * 1024,
    connectionWindow: 16 * 1024 * 1024,
    fieldLimits: { bytes: 16_384, count: 105 },
  });
  if (role === 'client') {
    for (let request = 0; request < 3; request++) {
      const stream = connection.openStream(userOf(told, () => stream.id));
      streams.push(stream);
      stream.beginHead();
      for (const [name, value] of requestFields()) stream.addField(name, value);
      stream.endHead(request === 0 ? 'open' : 'last');
    }
  }
  for (const piece of pieces) connection.receive(Buffer.from(piece), piece.length);
  connection.destroy();
  // However it ended, every stream was told so, once.
  for (const { id } of streams) {
    const ends = told.events.filter((event) => event.startsWith(`${id} closed `)).length;
    assert.equal(ends, 1, `stream ${id} was closed ${ends} times`);
  }
  assert.equal(told.events.filter((event) => event.startsWith('over')).length, 1);
  return told;
}

const streamId = fc.oneof(
  fc.constantFrom(1, 1, 3, 3, 5, 7),
  fc.constantFrom(0, 2, 0x7fffffff),
  fc.nat({ max: 20 }),
);
const payload = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes));
const flags = fc.oneof(
  fc.constantFrom(0, flag.endStream, flag.endHeaders, flag.endHeaders | flag.endStream, flag.padded),
  fc.nat({ max: 255 }),
);
const fields = fc.oneof(
  fc.constantFrom(requestFields(), requestFields('POST'), requestFields('POST', [['content-length', '5']])),
  fc.constantFrom([[':status', '200']] as const, [[':status', '103']] as const, [['x-sum', '1']] as const),
  fc.array(
    fc.tuple(
      fc.constantFrom(':method', ':path', 'te', 'connection', 'cookie', 'x-a', 'X-A'),
      fc.string({ maxLength: 10 }),
    ),
    { maxLength: 5 },
  ),
);

const anyFrame: fc.Arbitrary<Buffer> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(streamId, fields, flags)
      .map(([id, list, bits]) => headersFrame(id, list, bits & ~(flag.padded | flag.priority))),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(streamId, flags, payload)
      .map(([id, bits, bytes]) => frame(frameType.data, bits, id, bytes)),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(streamId, fc.nat({ max: 15 })).map(([id, code]) => rstStreamFrame(id, code)),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(streamId, fc.oneof(fc.nat(), fc.constantFrom(0, 1, 0x7fffffff)))
      .map(([id, size]) => windowUpdateFrame(id, size)),
  },
  {
    weight: 1,
    arbitrary: fc.array(fc.tuple(fc.nat({ max: 10 }), fc.nat()), { maxLength: 5 }).map(settingsFrame),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat({ max: 12 }), flags, streamId, payload)
      .map(([type, bits, id, bytes]) => frame(type, bits, id, bytes)),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(streamId, flags, fields)
      .map(([id, bits, list]) => frame(frameType.continuation, bits, id, encodeFields(list))),
  },
  { weight: 1, arbitrary: payload },
);

function targetFor(role: 'server' | 'client', name: string, greeting: readonly Buffer[]) {
  const opening =
    role === 'server'
      ? headersFrame(1, requestFields('POST'), flag.endHeaders)
      : headersFrame(1, [[':status', '200']], flag.endHeaders);
  return fuzzTarget<Input>({
    name,
    input: fc.record({
      frames: fc.oneof(
        {
          weight: 9,
          arbitrary: fc.array(anyFrame, { maxLength: 14 }).map((frames) => [...greeting, ...frames]),
        },
        { weight: 1, arbitrary: fc.array(anyFrame, { maxLength: 4 }) },
      ),
      positions: cuts,
    }),
    check({ frames, positions }) {
      const bytes = Buffer.concat(frames);
      const whole = converse(role, [bytes]);
      const cut = converse(role, positions.length === 0 ? frames : piecesOf(bytes, positions));
      assert.deepEqual(cut.events, whole.events);
      assert.deepEqual(cut.content, whole.content);
    },
    growing: {
      'DATA of one byte': (size) => flood(frame(frameType.data, 0, 1, Buffer.from('x')), size),
      PINGs: (size) => flood(frame(frameType.ping, 0, 0, Buffer.alloc(8)), size),
      'SETTINGS with many entries': (size) =>
        flood(settingsFrame(Array.from({ length: 2_730 }, (_, i) => [4, i] as const)), size),
      'window updates of one byte': (size) => flood(windowUpdateFrame(1, 1), size),
      'bytes one by one': (size) => byteByByte(flood(frame(frameType.data, 0, 1, Buffer.alloc(1_000)), size)),
    },
  });

  function byteByByte({ frames }: Input): Input {
    return {
      frames: frames.flatMap((bytes) => Array.from(bytes, (byte) => Buffer.from([byte]))),
      positions: [],
    };
  }

  function flood(one: Buffer, size: number): Input {
    return {
      frames: [...greeting, opening, Buffer.concat(Array<Buffer>(Math.ceil(size / one.length)).fill(one))],
      positions: [],
    };
  }
}

export const http2Client = targetFor('server', 'frames of an HTTP/2 client', [PREFACE, settingsFrame()]);
export const http2Upstream = targetFor('client', 'frames of an HTTP/2 upstream', [settingsFrame()]);
