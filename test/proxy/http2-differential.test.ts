// What our HTTP/2 takes for a whole request, Node's (nghttp2) takes for the same: no bytes have two readings between the two.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttp2 } from 'node:http2';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { readRequest } from '../../proxy/exchange/http2-request.ts';
import { openHttp2Connection } from '../../proxy/http2/connection.ts';
import { createDeadlines } from '../../proxy/socket/deadlines.ts';
import {
  createFrameClient,
  encodeFields,
  flag,
  frame,
  frameType,
  rstStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../support/http2-frames.ts';

/** `HTTP2_DIFFERENTIAL_RUNS=100000 node --test test/proxy/http2-differential.test.ts` for the long run. */
const RUNS = Number(process.env.HTTP2_DIFFERENTIAL_RUNS ?? 1_500);

/** A request that was complete, in the order of streams. */
interface Reading {
  readonly start: string;
  readonly body: string;
}

/** What a server has read from each connection, by the port of its client. */
type Readings = Map<number, Map<number, Reading>>;

const cleanups: (() => void)[] = [];
after(() => {
  for (const cleanUp of cleanups) cleanUp();
});

async function listen(server: ReturnType<typeof createServer>): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanups.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

const startOf = (method: string, authority: string, path: string) => `${method} ${authority} ${path}`;

async function startOurs(readings: Readings): Promise<number> {
  const deadlines = createDeadlines();
  return listen(
    createServer((socket: Socket) => {
      const requests = new Map<number, Reading>();
      readings.set(socket.remotePort!, requests);
      const connection = openHttp2Connection({
        socket,
        role: 'server',
        deadlines,
        maxConcurrentStreams: 100,
        streamWindow: 1024 * 1024,
        connectionWindow: 16 * 1024 * 1024,
        fieldLimits: { bytes: 16_384, count: 133 },
        user: {
          streamOpened(stream, fields, ended, tooLarge) {
            const request = tooLarge ? 'too-large' : readRequest(fields, ended);
            if (typeof request === 'string') return stream.resetMalformed();
            let body = '';
            const finish = () => {
              requests.set(stream.id, {
                start: startOf(request.method, request.authority, request.path),
                body,
              });
              // Not before all has been read: Node is no faster, and frames of streams that have ended are another matter.
              setImmediate(() => {
                stream.beginHead();
                stream.addField(':status', '200');
                stream.endHead('last');
              });
            };
            stream.expects = request.contentLength;
            stream.user = {
              streamData(bytes, from, to) {
                body += bytes.toString('latin1', from, to);
              },
              streamTrailers() {},
              streamEnded: finish,
              streamDrained() {},
              streamClosed() {},
            };
            if (ended) finish();
          },
          connectionClosed() {},
        },
      });
      socket.on('data', (bytes: Buffer) => connection.receive(bytes, bytes.length));
    }),
  );
}

async function startNodes(readings: Readings): Promise<number> {
  const server = createHttp2({ settings: { maxConcurrentStreams: 100, initialWindowSize: 1024 * 1024 } });
  server.on('sessionError', () => {});
  server.on('session', (session) => {
    const requests = new Map<number, Reading>();
    readings.set(session.socket.remotePort!, requests);
    session.on('stream', (stream, headers) => {
      let body = '';
      stream.on('error', () => {});
      stream.on('data', (bytes: Buffer) => {
        body += bytes.toString('latin1');
      });
      stream.on('end', () => {
        if (stream.aborted || (stream.rstCode ?? 0) !== 0) return;
        const authority = headers[':authority'] ?? headers.host ?? '';
        requests.set(stream.id!, { start: startOf(headers[':method']!, authority, headers[':path']!), body });
        if (!stream.destroyed && !stream.closed) stream.respond({ ':status': 200 }, { endStream: true });
      });
    });
  });
  return listen(server as never);
}

interface Conversation {
  /** The client's port. */
  readonly local: number;
  /** The peer was still there at the end. */
  readonly survived: boolean;
  /** It reset a stream, or ended the connection. */
  readonly objected: boolean;
}

/** One connection with these bytes; resolves when the peer has answered a PING behind them, or has hung up. */
async function converse(port: number, bytes: Buffer): Promise<Conversation> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const local = socket.localPort!;
  const client = createFrameClient(socket);
  client.send(bytes, frame(frameType.ping, 0, 0, Buffer.from('the last')));
  const answered = client
    .next(({ type, payload }) => type === frameType.ping && payload.toString() === 'the last')
    .then(() => true)
    .catch(() => false);
  // Bytes that break the framing may leave a peer waiting for the rest of a frame.
  const waited = new Promise<boolean>((resolve) => setTimeout(resolve, 40, false));
  const survived = await Promise.race([answered, waited]);
  await new Promise((resolve) => setTimeout(resolve, 2));
  client.destroy();
  const objected = client.received.some(
    ({ type }) => type === frameType.rstStream || type === frameType.goaway,
  );
  return { local, survived, objected };
}

const names = fc.constantFrom(
  'x-a',
  'X-Upper',
  'x_y',
  'host',
  'te',
  'connection',
  'transfer-encoding',
  'content-length',
  'cookie',
  'x a',
  'x:a',
  '',
  ':path',
  ':status',
  'expect',
  'upgrade',
);
const values = fc.constantFrom(
  '',
  '1',
  '3',
  'trailers',
  'close',
  'chunked',
  'a.example',
  'b.example',
  ' padded ',
  'a\r\nb: c',
  'nul\0',
  '\xff',
  '100-continue',
);
const pseudo = fc.record({
  ':method': fc.constantFrom('GET', 'POST', 'HEAD', 'OPTIONS', 'CONNECT', 'BREW', 'G T', ''),
  ':scheme': fc.constantFrom('http', 'https', 'ftp', ''),
  ':authority': fc.constantFrom('a.example', 'a.example:80', 'user@a.example', 'a b', ''),
  ':path': fc.constantFrom('/', '/a?b', '*', '', 'x', '/a b', '/\xff', '/#f'),
});
const usual = fc.constantFrom('GET', 'POST').map((method) => ({
  ':method': method,
  ':scheme': 'https',
  ':authority': 'a.example',
  ':path': '/',
}));
const harmless = fc.constantFrom<[string, string]>(
  ['x-a', '1'],
  ['cookie', 'a=b'],
  ['host', 'a.example'],
  ['te', 'trailers'],
  ['content-length', '0'],
  ['content-length', '3'],
);
const fieldList = fc
  .tuple(
    fc.oneof({ weight: 6, arbitrary: usual }, { weight: 1, arbitrary: pseudo }),
    fc.array(
      fc.oneof({ weight: 4, arbitrary: harmless }, { weight: 1, arbitrary: fc.tuple(names, values) }),
      {
        maxLength: 2,
      },
    ),
    fc.nat({ max: 40 }),
  )
  .map(([first, more, twist]) => {
    const list: [string, string][] = [...Object.entries(first), ...more];
    // Now and then a field less, one twice, or two that have changed places.
    if (twist === 1) list.splice(0, 1);
    if (twist === 2) list.splice(3, 1);
    if (twist === 3) list.push(list[0]!);
    if (twist === 4) list.push(list.shift()!);
    return list;
  });

const piece = fc.constantFrom('', 'a', 'abc', 'x'.repeat(100));

/** A request as a client sends it, in one piece or several, though perhaps not well-formed. */
const exchange = (id: number) =>
  fc
    .tuple(
      fieldList,
      fc.array(fc.tuple(piece, fc.option(fc.nat({ max: 6 }), { nil: undefined })), { maxLength: 2 }),
      fc.constantFrom('head', 'data', 'trailers', 'never'),
      fc.boolean(),
    )
    .map(([fields, pieces, end, split]) => {
      const block = encodeFields(fields);
      const alone = end === 'head' ? flag.endStream : 0;
      const frames = split
        ? [
            frame(frameType.headers, alone, id, block.subarray(0, 10)),
            frame(frameType.continuation, flag.endHeaders, id, block.subarray(10)),
          ]
        : [frame(frameType.headers, flag.endHeaders | alone, id, block)];
      if (end === 'head') return frames;
      for (const [text, padding] of pieces) {
        frames.push(
          padding === undefined
            ? frame(frameType.data, 0, id, Buffer.from(text))
            : frame(
                frameType.data,
                flag.padded,
                id,
                Buffer.from([padding, ...Buffer.from(text), ...Buffer.alloc(padding)]),
              ),
        );
      }
      if (end === 'data') frames.push(frame(frameType.data, flag.endStream, id, Buffer.from('z')));
      if (end === 'trailers')
        frames.push(
          frame(frameType.headers, flag.endHeaders | flag.endStream, id, encodeFields([['x-sum', '1']])),
        );
      return frames;
    });

const streamId = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom(1, 3, 5) },
  { weight: 1, arbitrary: fc.constantFrom(0, 2, 9, 101) },
);
const ends = fc.constantFrom(0, flag.endStream);

/** What does not belong there, or only sometimes. */
const intruder = fc.oneof(
  fc
    .tuple(streamId, fieldList, ends)
    .map(([id, fields, end]) => frame(frameType.headers, flag.endHeaders | end, id, encodeFields(fields))),
  fc.tuple(streamId, piece, ends).map(([id, text, end]) => frame(frameType.data, end, id, Buffer.from(text))),
  fc
    .tuple(streamId, fc.nat({ max: 6 }), ends)
    .map(([id, padding, end]) =>
      frame(
        frameType.data,
        flag.padded | end,
        id,
        Buffer.concat([Buffer.from([padding]), Buffer.from('body')]),
      ),
    ),
  fc
    .tuple(streamId, fc.array(fc.tuple(names, values), { maxLength: 2 }), ends)
    .map(([id, fields, end]) => frame(frameType.headers, flag.endHeaders | end, id, encodeFields(fields))),
  streamId.map((id) => rstStreamFrame(id, 8)),
  fc.tuple(streamId, fc.constantFrom(0, 1, 0x7fffffff)).map(([id, by]) => windowUpdateFrame(id, by)),
  fc.constantFrom(settingsFrame(), settingsFrame([[4, 0]]), settingsFrame([[1, 0]])),
  fc
    .tuple(fc.nat({ max: 12 }), fc.nat({ max: 255 }), streamId, fc.uint8Array({ maxLength: 12 }))
    .map(([type, flags, id, payload]) => frame(type, flags, id, Buffer.from(payload))),
);

/** Three requests whose frames may be mixed, and a frame here or there that nobody expects. */
const conversation = fc
  .tuple(
    fc.tuple(exchange(1), exchange(3), exchange(5)),
    fc.boolean(),
    fc.array(fc.tuple(fc.nat({ max: 12 }), intruder), { maxLength: 2 }),
  )
  .map(([exchanges, mixed, intruders]) => {
    const frames = mixed ? mix(exchanges) : exchanges.flat();
    for (const [at, bytes] of intruders) frames.splice(at % (frames.length + 1), 0, bytes);
    return frames;
  });

/** Heads in the order of their streams, and whole; the rest in turns. */
function mix(exchanges: readonly Buffer[][]): Buffer[] {
  const isHead = (bytes: Buffer, i: number) => i === 0 || bytes[3] === frameType.continuation;
  const heads = exchanges.flatMap((frames) => frames.filter(isHead));
  const rests = exchanges.map((frames) => frames.filter((bytes, i) => !isHead(bytes, i)));
  const mixed = [...heads];
  for (let turn = 0; rests.some((frames) => turn < frames.length); turn++) {
    for (const frames of rests) if (turn < frames.length) mixed.push(frames[turn]!);
  }
  return mixed;
}

/** Bytes that were hit on their way. */
const damage = fc.option(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { freq: 4, nil: undefined });

describe('HTTP/2 as we read it and as Node does', () => {
  it('no request is whole for us that is not the same whole request for nghttp2', async (t) => {
    const ours: Readings = new Map();
    const nodes: Readings = new Map();
    const [ourPort, nodePort] = [await startOurs(ours), await startNodes(nodes)];
    let whole = 0;
    await fc.assert(
      fc.asyncProperty(conversation, damage, async (frames, hit) => {
        const bytes = Buffer.concat(frames);
        if (hit !== undefined) bytes[hit[0] % bytes.length] = hit[1];
        const [our, node] = await Promise.all([converse(ourPort, bytes), converse(nodePort, bytes)]);
        const theirs = nodes.get(node.local) ?? new Map<number, Reading>();
        for (const [id, reading] of ours.get(our.local) ?? []) {
          whole++;
          // Node tells of the end of a body some turns of its loop later.
          for (let turns = 0; node.survived && turns < 200 && !theirs.has(id); turns++) {
            await new Promise((resolve) => setImmediate(resolve));
          }
          // Of a stream that breaks the rules Node ends the connection, we the stream alone: its siblings are no less whole.
          if (!node.survived && our.objected && !theirs.has(id)) continue;
          assert.deepEqual(reading, theirs.get(id), `stream ${id} of ${bytes.toString('hex')}`);
        }
        // What nghttp2 knows by the head of a frame we may know at its end, which does not come.
        if (!node.survived && our.survived)
          assert.ok(our.objected, `no objection to ${bytes.toString('hex')}`);
        ours.delete(our.local);
        nodes.delete(node.local);
      }),
      { numRuns: RUNS },
    );
    // A test that only saw refusals would prove nothing.
    assert.ok(whole > RUNS / 4, `only ${whole} whole requests`);
    t.diagnostic(`${whole} whole requests in ${RUNS} conversations`);
  });
});
