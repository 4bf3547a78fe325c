// Twenty ways to break a proxy, one after the other, over raw sockets through the whole listener; each opens with the attack.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import type { ConnectionOptions } from 'node:tls';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import type { UpstreamSettings } from '../../../proxy/rules/routes.ts';
import {
  createFrameClient,
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
} from '../../support/http2-frames.ts';
import { freePort } from '../../support/ports.ts';
import {
  answering,
  eventually,
  HOST,
  type Ingress,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_PROTOCOL_ERROR } = constants;
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const SMUGGLED = `GET /smuggled HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;

interface World {
  readonly ingress: Ingress;
  /** All that the upstream has heard, connection by connection. */
  readonly heard: string[];
  /** The upstream's connections that are still open. */
  readonly sockets: ReadonlySet<Socket>;
}

interface WorldOptions {
  /** What the upstream does with each of its connections; by default every head is answered. */
  readonly upstream?: (socket: Socket) => void;
  readonly settings?: Partial<UpstreamSettings>;
  readonly listener?: Partial<ListenerOptions>;
}

async function start(t: TestContext, options: WorldOptions = {}): Promise<World> {
  const heard: string[] = [];
  const serve = options.upstream ?? answering(() => OK);
  const upstream = await startUpstream((socket, index) => {
    heard[index] = '';
    socket.on('data', (bytes) => {
      heard[index] += bytes.toString('latin1');
    });
    serve(socket);
  });
  const routes = [routeTo(settingsFor(upstream.port, 'http', options.settings))];
  const ingress = await startIngress(routes, options.listener);
  t.after(async () => {
    await ingress.close();
    await upstream.close();
  });
  return { ingress, heard, sockets: upstream.sockets };
}

async function connectFrames(ingress: Ingress): Promise<FrameClient> {
  return createFrameClient(
    (await ingress.connect({ ALPNProtocols: ['h2'], allowHalfOpen: false } as ConnectionOptions)).socket,
  );
}

/** What becomes of stream 1: a status, a reset, or the end of the connection. */
async function outcome(client: FrameClient, streamId = 1) {
  const isAnswer = ({ type, streamId: of }: Frame) =>
    type === frameType.goaway ||
    (of === streamId && (type === frameType.headers || type === frameType.rstStream));
  const answer = await client.next(isAnswer);
  if (answer.type === frameType.headers) return { status: statusOf(answer) };
  return answer.type === frameType.rstStream ? { reset: errorCode(answer) } : { goaway: errorCode(answer) };
}

async function askFrames(ingress: Ingress, ...frames: Buffer[]) {
  const client = await connectFrames(ingress);
  client.send(...frames);
  return outcome(client);
}

const MALFORMED = { reset: NGHTTP2_PROTOCOL_ERROR };

/** Each attack over HTTP/1.1: the status, `Connection: close`, a clean end, and an upstream that hears nothing. */
async function refusedOverHttp1(
  { ingress, heard }: World,
  attacks: readonly (readonly [attack: string, status: number])[],
) {
  for (const [attack, status] of attacks) {
    const client = await ingress.connect();
    const reply = await client.request(attack);
    assert.equal(reply.status, status, JSON.stringify(attack.slice(0, 200)));
    assert.match(reply.head, /\r\nConnection: close\r\n/);
    assert.deepEqual(await client.rest(), { text: '', clean: true });
  }
  assert.deepEqual(heard, []);
}

/** Each set of fields over HTTP/2: a reset with PROTOCOL_ERROR or the status, and an upstream that hears nothing. */
async function refusedOverHttp2(
  { ingress, heard }: World,
  attacks: readonly (readonly (readonly [string, string])[])[],
  expected: object = MALFORMED,
) {
  for (const fields of attacks) {
    assert.deepEqual(await askFrames(ingress, headersFrame(1, fields)), expected, JSON.stringify(fields));
  }
  assert.deepEqual(heard, []);
}

const withFields = (...more: (readonly [string, string])[]) => requestFields('POST', more);

describe('a request with both Content-Length and Transfer-Encoding is refused', () => {
  it('h1: 400, close', async (t) => {
    const body = `0\r\n\r\n${SMUGGLED}`;
    await refusedOverHttp1(await start(t), [
      [`${request('POST /', 'Content-Length: 4', 'Transfer-Encoding: chunked')}${body}`, 400],
      [`${request('POST /', 'Transfer-Encoding: chunked', `Content-Length: ${body.length}`)}${body}`, 400],
    ]);
  });
  it('h2: there is no Transfer-Encoding: reset', async (t) =>
    refusedOverHttp2(await start(t), [
      withFields(['content-length', '4'], ['transfer-encoding', 'chunked']),
    ]));
});

describe('a request without a length has no body, whatever its method', () => {
  for (const method of ['GET', 'DELETE', 'OPTIONS', 'HEAD', 'POST']) {
    it(`h2 ${method}: reaches the upstream in chunks, as one request`, async (t) => {
      const { ingress, heard } = await start(t);
      const answer = await askFrames(
        ingress,
        headersFrame(1, requestFields(method), flag.endHeaders),
        frame(frameType.data, flag.endStream, 1, Buffer.from(SMUGGLED)),
      );
      assert.deepEqual(answer, { status: 200 });
      const chunk = `${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`;
      await eventually(() => heard[0]?.endsWith(chunk) === true);
      assert.match(heard[0]!, /^\w+ \/ HTTP\/1\.1\r\n[\s\S]*?transfer-encoding: chunked\r\n\r\n/);
      assert.doesNotMatch(heard[0]!, /content-length/);
    });
  }
});

describe('a length that is repeated, a list, or signed is refused', () => {
  const lengths = [['5', '5'], ['5', '6'], ['5, 5'], ['+5'], ['0x5'], ['5 5'], ['-1'], ['']];
  it('h1: 400, close', async (t) =>
    refusedOverHttp1(
      await start(t),
      lengths.map((values) => [
        `${request('POST /', ...values.map((value) => `Content-Length: ${value}`))}hello`,
        400,
      ]),
    ));
  it('h2: reset', async (t) =>
    refusedOverHttp2(
      await start(t),
      lengths.map((values) => withFields(...values.map((value) => ['content-length', value] as const))),
    ));
});

describe('a Transfer-Encoding that readers take differently is refused', () => {
  it('h1: 400, or 501 for codings that are not undone here', async (t) => {
    const attack = (value: string) => `${request('POST /', `Transfer-Encoding${value}`)}0\r\n\r\n${SMUGGLED}`;
    await refusedOverHttp1(await start(t), [
      [attack(': gzip, chunked'), 501],
      [attack(': xchunked'), 400],
      [attack(': \x0bchunked'), 400],
      [attack(': chunked\t'), 400],
      [attack(':\tchunked'), 400],
      [attack(': chunked, chunked'), 400],
      [attack(': "chunked"'), 400],
      [attack(': chunked\r\nTransfer-Encoding: identity'), 400],
      [attack(' : chunked'), 400],
      [attack('\t: chunked'), 400],
    ]);
  });
  it('h2: reset', async (t) =>
    refusedOverHttp2(
      await start(t),
      ['gzip, chunked', 'identity', ''].map((value) => withFields(['transfer-encoding', value])),
    ));
});

describe('folded lines, bare CR, NUL and a space before the colon are refused', () => {
  it('h1: 400, close', async (t) =>
    refusedOverHttp1(
      await start(t),
      [
        ['A: b', ' c'],
        ['A: b\rContent-Length: 5'],
        ['A: b\nContent-Length: 5'],
        ['A: \0'],
        ['A : b'],
        ['A\0: b'],
        [': b'],
      ].map((lines) => [request('GET /', ...lines), 400]),
    ));
  it('h2: reset, or no trace of the field upstream', async (t) => {
    const { ingress, heard } = await start(t);
    for (const [name, value] of [
      ['a', 'bad\r\nx: y'],
      ['a', 'bad\rc'],
      ['a', 'bad\nc'],
      ['a', 'bad\0'],
      ['a ', 'bad'],
      ['a:', 'bad'],
      ['a\0', 'bad'],
      ['A', 'bad'],
    ] as const) {
      const answer = await askFrames(ingress, headersFrame(1, requestFields('GET', [[name, value]])));
      // nghttp2 leaves out what has such a value, and tells nobody.
      assert.ok('status' in answer || answer.reset === NGHTTP2_PROTOCOL_ERROR, JSON.stringify(answer));
    }
    assert.doesNotMatch(heard.join(''), /bad|^[ax][ \0:]/im);
  });
});

describe('two hosts, an illegal host, and a target that names another host are refused', () => {
  it('h1: 400, close', async (t) =>
    refusedOverHttp1(await start(t), [
      [request('GET /', `Host: ${HOST}`), 400],
      ['GET / HTTP/1.1\r\nHost: \r\n\r\n', 400],
      [`GET / HTTP/1.1\r\nHost: evil@${HOST}\r\n\r\n`, 400],
      [`GET / HTTP/1.1\r\nHost: ${HOST}/path?query\r\n\r\n`, 400],
      [`GET / HTTP/1.1\r\nHost: ${HOST}, evil.example\r\n\r\n`, 400],
      [request('GET http://evil.example/'), 400],
      [request(`GET http://${HOST}@evil.example/`), 400],
    ]));
  it('h2: 400', async (t) => {
    const hosts = [`evil@${HOST}`, `${HOST}/path`, `${HOST}, evil.example`];
    const named = (authority: string) =>
      requestFields().map(([name, value]) => [name, name === ':authority' ? authority : value] as const);
    const world = await start(t);
    for (const fields of [...hosts.map(named), withFields(['host', 'evil.example'])]) {
      const answer = await askFrames(world.ingress, headersFrame(1, fields));
      // nghttp2 itself knows some of these for malformed.
      assert.ok(
        'status' in answer ? answer.status === 400 : answer.reset === NGHTTP2_PROTOCOL_ERROR,
        JSON.stringify([fields, answer]),
      );
    }
    assert.deepEqual(world.heard, []);
  });
});

describe('a request without a host, of HTTP/0.9, or of HTTP/2 as text is refused', () => {
  it('h1: 400, and 505 for the version', async (t) =>
    refusedOverHttp1(await start(t), [
      ['GET / HTTP/1.1\r\n\r\n', 400],
      ['GET /\r\n\r\n', 400],
      [`GET / HTTP/2.0\r\nHost: ${HOST}\r\n\r\n`, 505],
      ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505],
    ]));
  it('h2: reset without an authority, or with an empty one', async (t) => {
    const missing = requestFields().filter(([name]) => name !== ':authority');
    const empty = requestFields().map(([name, value]) => [name, name === ':authority' ? '' : value] as const);
    await refusedOverHttp2(await start(t), [missing, empty]);
  });
});

describe('more than the limit of fields or target is refused', () => {
  const long = 'b'.repeat(17_000);
  const limited = { listener: { limits: { maxHeaderBytes: 16_384 } } };
  it('h1: 431 and 414', async (t) =>
    refusedOverHttp1(await start(t, limited), [
      [request('GET /', `A: ${long}`), 431],
      [request('GET /', ...Array.from({ length: 2_000 }, (_, i) => `A${i}: b`)), 431],
      [request(`GET /${long}`), 414],
    ]));
  it('h2: 431', async (t) => {
    const world = await start(t, limited);
    const block = encodeFields(withFields(['a', long]));
    const answer = await askFrames(
      world.ingress,
      frame(frameType.headers, flag.endStream, 1, block.subarray(0, 16_000)),
      frame(frameType.continuation, flag.endHeaders, 1, block.subarray(16_000)),
    );
    assert.deepEqual(answer, { status: 431 });
    assert.deepEqual(world.heard, []);
  });
});

describe('fields and bodies that never end are given up', () => {
  const limits = { headerTimeoutMs: 150, clientIdleTimeoutMs: 150 };
  it('h1: 408, close; the upstream gets no end of the body', async (t) => {
    const { ingress, heard, sockets } = await start(t, {
      upstream: (socket) => void socket.on('end', () => socket.end()),
      listener: { limits },
    });
    const slow = await ingress.connect();
    slow.send('GET / HTTP/1.1\r\nHost: ');
    assert.equal((await slow.reply()).status, 408);
    const body = await ingress.connect();
    assert.equal((await body.request(`${request('POST /', 'Content-Length: 10')}hello`)).status, 408);
    assert.ok(!heard[0]!.includes('0\r\n\r\n'));
    await eventually(() => sockets.size === 0);
  });
  it('h2: the body 408, the header block the end of the connection', async (t) => {
    const { ingress } = await start(t, {
      upstream: (socket) => void socket.on('end', () => socket.end()),
      // A header block that does not end is a connection on which nothing happens.
      listener: { limits: { ...limits, keepAliveTimeoutMs: 150 } },
    });
    const body = headersFrame(1, requestFields('POST'), flag.endHeaders);
    assert.deepEqual(await askFrames(ingress, body), { status: 408 });
    const fields = await connectFrames(ingress);
    fields.send(headersFrame(1, requestFields(), flag.endStream));
    await fields.ended();
  });
});

describe('a body over the limit is refused', () => {
  const options = {
    upstream: (socket: Socket) => void socket.on('end', () => socket.end()),
    listener: { limits: { maxBodyBytes: 100 } },
  };
  it('h1: 413 and close, by the length before the upstream hears of it, in chunks when it is passed', async (t) => {
    const { ingress, heard } = await start(t, options);
    const known = await ingress.connect();
    const early = await known.request(request('POST /', 'Content-Length: 101'));
    assert.equal(early.status, 413);
    assert.match(early.head, /\r\nConnection: close\r\n/);
    assert.deepEqual(heard, []);
    const chunked = await ingress.connect();
    const head = request('POST /', 'Transfer-Encoding: chunked');
    assert.equal((await chunked.request(`${head}65\r\n${'x'.repeat(101)}\r\n`)).status, 413);
    assert.ok(!heard.join('').includes('0\r\n\r\n'));
  });
  it('h2: 413, announced or not', async (t) => {
    const { ingress, heard } = await start(t, options);
    const head = headersFrame(1, withFields(['content-length', '101']), flag.endHeaders);
    assert.deepEqual(await askFrames(ingress, head), { status: 413 });
    assert.deepEqual(heard, []);
    const unknown = headersFrame(1, requestFields('POST'), flag.endHeaders);
    const data = frame(frameType.data, 0, 1, Buffer.alloc(101));
    assert.deepEqual(await askFrames(ingress, unknown, data), { status: 413 });
  });
});

describe('an upstream that refuses or has no healthy address is reported as such', () => {
  async function both(t: TestContext, settings: UpstreamSettings) {
    const ingress = await startIngress([routeTo(settings)]);
    t.after(() => ingress.close());
    const ask = async () => {
      const client = await ingress.connect();
      const reply = await client.request(request('GET /'));
      assert.doesNotMatch(reply.body, /127\.0\.0\.1/);
      return [reply.status, await askFrames(ingress, headersFrame(1, requestFields()))] as const;
    };
    return ask;
  }
  it('h1 and h2: 502', async (t) => {
    const ask = await both(t, settingsFor(await freePort()));
    assert.deepEqual(await ask(), [502, { status: 502 }]);
  });
  it('h1 and h2: 503 when checks have found it so', async (t) => {
    const health = {
      probe: { type: 'tcp' },
      intervalMs: 10,
      timeoutMs: 1_000,
      unhealthyAfter: 1,
      healthyAfter: 1,
    } as const;
    const ask = await both(t, settingsFor(await freePort(), 'http', { health }));
    for (;;) {
      const answers = await ask();
      if (answers[0] === 502) continue;
      assert.deepEqual(answers, [503, { status: 503 }]);
      break;
    }
  });
});

describe('an upstream that says nothing is not waited for without end', () => {
  for (const [what, settings] of [
    ['for longer than it may be silent', { readTimeoutMs: 100 }],
    ['within the time for the whole', { totalTimeoutMs: 100 }],
  ] as const) {
    it(`${what}: 504 over h1 and h2, DEADLINE_EXCEEDED to gRPC`, async (t) => {
      const { ingress, sockets } = await start(t, {
        upstream: (socket) => void socket.on('end', () => socket.end()),
        settings,
      });
      const client = await ingress.connect();
      assert.equal((await client.request(request('GET /'))).status, 504);
      assert.deepEqual(await askFrames(ingress, headersFrame(1, requestFields())), { status: 504 });
      const grpc = await connectFrames(ingress);
      grpc.send(headersFrame(1, withFields(['content-type', 'application/grpc'])));
      const trailers = await grpc.next(({ type }) => type === frameType.headers);
      assert.equal(statusOf(trailers), 200);
      assert.ok((trailers.flags & flag.endStream) !== 0, 'trailers-only');
      await eventually(() => sockets.size === 0);
    });
  }
  it('or never comes to an end, in the time for the whole: cut off over h1, reset over h2', async (t) => {
    const { ingress, sockets } = await start(t, {
      upstream(socket) {
        socket.once('data', () => {
          socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
          const timer = setInterval(() => socket.write('1\r\nx\r\n'), 10);
          socket.on('close', () => clearInterval(timer));
        });
      },
      settings: { totalTimeoutMs: 300 },
    });
    const client = await ingress.connect();
    client.send(request('GET /'));
    const { text } = await client.rest();
    assert.match(text, /^HTTP\/1\.1 200 [\s\S]*1\r\nx\r\n$/);
    const frames = await connectFrames(ingress);
    frames.send(headersFrame(1, requestFields()));
    const reset = await frames.next(({ type }) => type === frameType.rstStream);
    assert.equal(errorCode(reset), NGHTTP2_INTERNAL_ERROR);
    await eventually(() => sockets.size === 0);
  });
});

describe('a malformed reply never reaches a client', () => {
  for (const reply of [
    'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello',
    'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nA : b\r\n\r\n',
    'HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n',
    'HTTP/1.1 99 Low\r\n\r\n',
    'SSH-2.0-OpenSSH_9.9\r\n\r\n',
  ]) {
    it(`h1 and h2: 502 for ${JSON.stringify(reply.slice(0, 60))}`, async (t) => {
      const { ingress } = await start(t, { upstream: answering(() => reply) });
      const client = await ingress.connect();
      assert.equal((await client.request(request('GET /'))).status, 502);
      assert.deepEqual(await askFrames(ingress, headersFrame(1, requestFields())), { status: 502 });
    });
  }
});

describe('an upstream that dies in the middle of a body is never taken for one that has ended it', () => {
  for (const [what, head] of [
    ['by length', 'Content-Length: 10'],
    ['chunked', 'Transfer-Encoding: chunked'],
  ] as const) {
    for (const [how, die] of [
      ['ends', (socket: Socket) => socket.end()],
      ['resets', (socket: Socket) => setTimeout(() => socket.resetAndDestroy(), 50)],
    ] as const) {
      it(`${what}, and ${how}: no clean end over h1, RST_STREAM with INTERNAL_ERROR over h2`, async (t) => {
        const { ingress } = await start(t, {
          upstream(socket) {
            socket.once('data', () => {
              socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n5\r\nhel`, () => die(socket));
            });
          },
        });
        const client = await ingress.connect();
        client.send(request('GET /'));
        assert.match((await client.rest()).text, /^HTTP\/1\.1 200 [\s\S]*\r\n\r\n5\r\nhel$/);
        const frames = await connectFrames(ingress);
        frames.send(headersFrame(1, requestFields()));
        const reset = await frames.next(({ type }) => type === frameType.rstStream);
        assert.equal(errorCode(reset), NGHTTP2_INTERNAL_ERROR);
        assert.ok(
          !frames.received.some(
            (one) => one.streamId === 1 && (one.flags & flag.endStream) !== 0 && one.type === frameType.data,
          ),
        );
      });
    }
  }
});

describe('a client that cancels frees its upstream', () => {
  it('h1 and h2: the upstream’s connection ends with it', async (t) => {
    const { ingress, heard, sockets } = await start(t, {
      upstream: (socket) => void socket.on('end', () => socket.end()),
    });
    const client = await ingress.connect();
    client.send(request('GET /'));
    await eventually(() => heard[0] !== undefined && heard[0] !== '');
    client.socket.destroy();
    await eventually(() => sockets.size === 0);
    const frames = await connectFrames(ingress);
    frames.send(headersFrame(1, requestFields()));
    await eventually(() => heard[1] !== undefined && heard[1] !== '');
    frames.send(rstStreamFrame(1, NGHTTP2_CANCEL));
    await eventually(() => sockets.size === 0);
    assert.equal(frames.closed, false);
  });
});

describe('a flood takes nothing from others', () => {
  const ping = frame(frameType.ping, 0, 0, Buffer.alloc(8));
  for (const [what, first, more] of [
    [
      'rapid reset',
      [],
      (i: number) => [headersFrame(i * 2 + 1, requestFields()), rstStreamFrame(i * 2 + 1, NGHTTP2_CANCEL)],
    ],
    [
      'CONTINUATION',
      [headersFrame(1, requestFields(), flag.endStream)],
      () => [frame(frameType.continuation, 0, 1, encodeFields([['x', 'y']]))],
    ],
    ['SETTINGS', [], () => [settingsFrame([[4, 65_535]])]],
    ['PING', [], () => [ping]],
    [
      'empty DATA',
      [headersFrame(1, requestFields('POST'), flag.endHeaders)],
      () => [frame(frameType.data, 0, 1)],
    ],
  ] as const) {
    it(`h2 ${what}: ends that connection and no other, in bounded memory`, async (t) => {
      const { ingress } = await start(t, { upstream: () => {} });
      const bystander = await connectFrames(ingress);
      const before = process.memoryUsage().rss;
      const client = await connectFrames(ingress);
      client.send(...first);
      for (let i = 0; i < 200_000 && !client.closed; i++) {
        client.send(...more(i));
        if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      await client.ended();
      assert.ok(process.memoryUsage().rss - before < 256 * 1024 * 1024);
      bystander.send(ping);
      await bystander.next(({ type, flags }) => type === frameType.ping && flags === flag.ack);
    });
  }
});

describe('a host that is not the one of the handshake is refused', () => {
  it('h1 and h2: 421, and the connection goes on', async (t) => {
    const { ingress, heard } = await start(t);
    const client = await ingress.connect();
    const misdirected = 'GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n';
    assert.equal((await client.request(misdirected)).status, 421);
    assert.equal((await client.request(request('GET /'))).status, 200);
    const frames = await connectFrames(ingress);
    const fields = requestFields().map(
      ([name, value]) => [name, name === ':authority' ? 'elsewhere.example' : value] as const,
    );
    frames.send(headersFrame(1, fields));
    assert.deepEqual(await outcome(frames), { status: 421 });
    frames.send(headersFrame(3, requestFields()));
    assert.deepEqual(await outcome(frames, 3), { status: 200 });
    assert.equal(heard.join('').includes('elsewhere'), false);
  });
});

async function closedAfter(port: number, bytes: string): Promise<string> {
  const socket = connectTcp(port, '127.0.0.1');
  let received = '';
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1');
  });
  socket.on('connect', () => socket.write(bytes, 'latin1'));
  await once(socket, 'close');
  return received;
}

describe('a PROXY header that is bad, or not from a trusted proxy, ends the connection', () => {
  const good = 'PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\n';
  for (const [what, bytes, options] of [
    ['malformed', 'PROXY TCP4 localhost 192.0.2.1 1 2\r\n', { trustedProxies: ['127.0.0.1'] }],
    ['without an end', `PROXY UNKNOWN ${'a'.repeat(200)}`, { trustedProxies: ['127.0.0.1'] }],
    ['missing', '\x16\x03\x01\x02\x00\x01\x00', { trustedProxies: ['127.0.0.1'] }],
    ['from elsewhere', good, { trustedProxies: ['192.0.2.0/24'] }],
  ] as const) {
    it(`${what}: closed without a word`, async (t) => {
      const { ingress } = await start(t, { listener: { proxyProtocol: true, ...options } });
      assert.equal(await closedAfter(ingress.port, bytes), '');
    });
  }
  it('where none is expected the connection is closed', async (t) => {
    const { ingress, heard } = await start(t);
    await closedAfter(ingress.port, good);
    assert.deepEqual(heard, []);
  });
});

describe('no TLS, garbage, and a handshake that stalls end without harm', () => {
  for (const [what, bytes] of [
    ['garbage', '\x80\xff\x00garbage\r\n'.repeat(50)],
    ['a handshake that stalls', '\x16\x03\x01\x02\x00\x01\x00'],
    ['silence', ''],
  ] as const) {
    it(`${what}: closed, and never an answer in the clear`, async (t) => {
      const { ingress } = await start(t, { listener: { limits: { handshakeTimeoutMs: 200 } } });
      assert.doesNotMatch(await closedAfter(ingress.port, bytes), /HTTP/);
    });
  }
  it('plain HTTP: 400 with a sentence, closed, and nothing for the app', async (t) => {
    const { ingress, heard } = await start(t);
    assert.match(await closedAfter(ingress.port, request('GET /')), /^HTTP\/1\.1 400 [\s\S]*HTTPS/);
    assert.deepEqual(heard, []);
  });
});

describe('what a client says of itself and of its connection does not reach the upstream', () => {
  const spoofed = [
    ['x-forwarded-for', '6.6.6.6'],
    ['x-forwarded-proto', 'http'],
    ['x-forwarded-host', 'evil.example'],
    ['x-real-ip', '6.6.6.6'],
    ['forwarded', 'for=6.6.6.6'],
    ['x_forwarded_for', '6.6.6.6'],
  ] as const;
  const check = (head: string) => {
    assert.doesNotMatch(head, /6\.6\.6\.6|evil|^(connection|keep-alive|x-a|proxy-connection):/im);
    assert.match(head, /\r\nx-forwarded-for: 127\.0\.0\.1\r\n/i);
    assert.match(head, /\r\nx-forwarded-proto: https\r\n/i);
    assert.match(head, new RegExp(`\\r\\nx-forwarded-host: ${HOST}\\r\\n`, 'i'));
    assert.match(head, /\r\nx-kept: yes\r\n/i);
  };
  it('h1: nominated and hop-by-hop fields go, and our own take the place of the spoofed', async (t) => {
    const { ingress, heard } = await start(t);
    const client = await ingress.connect();
    const lines = spoofed.map(([name, value]) => `${name}: ${value}`);
    const hops = ['Connection: X-A, X-Forwarded-For', 'X-A: 1', 'Keep-Alive: 5', 'TE: gzip', 'X-Kept: yes'];
    assert.equal((await client.request(request('GET /', ...lines, ...hops))).status, 200);
    check(heard[0]!);
    assert.doesNotMatch(heard[0]!, /^te:.*gzip/im);
  });
  it('h2: the same, and fields of a connection are a reset', async (t) => {
    const { ingress, heard } = await start(t);
    const fields = requestFields('GET', [...spoofed, ['x-kept', 'yes']]);
    assert.deepEqual(await askFrames(ingress, headersFrame(1, fields)), { status: 200 });
    check(heard[0]!);
    for (const hop of [
      ['connection', 'x-a'],
      ['keep-alive', '5'],
      ['te', 'gzip'],
    ] as const) {
      const answer = await askFrames(ingress, headersFrame(1, withFields(hop)));
      assert.deepEqual(answer, MALFORMED, hop[0]);
    }
    assert.equal(heard.length, 1);
  });
});
