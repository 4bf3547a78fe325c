// HTTP/1.1 clients of upstreams that speak HTTP/2 alone: a translation that loses and invents nothing.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  createSecureServer,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { createAccessLog } from '../../../proxy/exchange/access-log.ts';
import { MOST_REFUSALS } from '../../../proxy/exchange/retry.ts';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import type { UpstreamProtocol, UpstreamSettings } from '../../../proxy/rules/routes.ts';
import {
  errorCode,
  type Frame,
  type FramePeer,
  flag,
  frame,
  frameType,
  headersFrame,
  rstStreamFrame,
  settingsFrame,
  startFrameServer,
  windowUpdateFrame,
} from '../../support/http2-frames.ts';
import {
  eventually,
  HOST,
  makeCertificate,
  type RawClient,
  request,
  routeTo,
  settingsFor,
  startIngress,
} from '../../support/proxy.ts';

const OK = [[':status', '200']] as const;
const END_HEADERS = flag.endHeaders;

interface Way {
  readonly protocol?: UpstreamProtocol;
  readonly settings?: Partial<UpstreamSettings>;
  readonly options?: Partial<ListenerOptions>;
}

async function ingressTo(t: TestContext, port: number, way: Way = {}) {
  const { protocol = 'h2c', settings, options } = way;
  const ingress = await startIngress([routeTo(settingsFor(port, protocol, settings))], options);
  t.after(ingress.close);
  return ingress;
}

type Handler = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;

async function listenAt(t: TestContext, server: Http2Server, handler: Handler): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => sockets.add(socket));
  server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    stream.on('error', () => {});
    handler(stream, headers);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** Node's own HTTP/2 server behind an ingress, and one client of it. */
async function begin(t: TestContext, handler: Handler, way: Way = {}) {
  const port = await listenAt(t, createServer(), handler);
  const ingress = await ingressTo(t, port, way);
  return { ingress, client: await ingress.connect() };
}

/** An upstream of bare frames: `answer` gets the header block of each request. */
async function beginFrames(
  t: TestContext,
  answer: (peer: FramePeer, id: number, index: number) => void,
  way: Way = {},
) {
  let index = 0;
  const upstream = await startFrameServer((received, peer) => {
    if (received.type === frameType.headers) answer(peer, received.streamId, index++);
  });
  t.after(() => upstream.close());
  const ingress = await ingressTo(t, upstream.port, way);
  const received = (matches: (one: Frame) => boolean) =>
    upstream.peers.flatMap((peer) => peer.received).filter(matches);
  return { upstream, ingress, client: await ingress.connect(), received };
}

const isReset = (one: Frame) => one.type === frameType.rstStream;

function data(id: number, text: string, last = false): Buffer {
  return frame(frameType.data, last ? flag.endStream : 0, id, Buffer.from(text));
}

/** The content of a chunked body as reply() gives it. */
function unchunk(body: string): { content: string; trailers: string } {
  let content = '';
  let rest = body;
  for (;;) {
    const [line] = rest.split('\r\n', 1);
    const size = Number.parseInt(line!, 16);
    rest = rest.slice(line!.length + 2);
    if (size === 0) return { content, trailers: rest };
    content += rest.slice(0, size);
    assert.equal(rest.slice(size, size + 2), '\r\n');
    rest = rest.slice(size + 2);
  }
}

/** Bytes that have arrived at the client from here on; far too many to be looked at as text. */
function counting({ socket }: RawClient): () => number {
  let count = 0;
  socket.removeAllListeners('data');
  socket.on('data', (bytes) => {
    count += bytes.length;
  });
  return () => count;
}

/** Nothing is wrong with the connection after what went before. */
async function stillServes(client: RawClient): Promise<void> {
  assert.equal((await client.request(request('GET /again'))).status, 200);
}

describe('a request over HTTP/1.1 to an upstream of HTTP/2', () => {
  it('arrives with its method, path and fields, and without what belongs to its connection', async (t) => {
    const asked = Promise.withResolvers<IncomingHttpHeaders>();
    const { client } = await begin(t, (stream, headers) => {
      asked.resolve(headers);
      stream.respond({ ':status': 200, 'content-length': 2 });
      stream.end('ok');
    });
    const reply = await client.request(
      request(
        'GET /a/b?c=%20d',
        'X-One: 1',
        'x-two: a',
        'X-Two: b',
        'Cookie: k=v; l=w',
        'Authorization: Basic eA==',
        'Connection: keep-alive, X-Gone',
        'X-Gone: 1',
        'Keep-Alive: timeout=5',
        'Proxy-Connection: keep-alive',
        'TE: gzip',
        'X-Forwarded-For: 192.0.2.1',
        'Expect: 100-continue',
      ),
    );
    assert.equal(reply.status, 200);
    assert.equal(reply.body, 'ok');
    const headers = await asked.promise;
    assert.equal(headers[':method'], 'GET');
    assert.equal(headers[':scheme'], 'http');
    assert.equal(headers[':authority'], HOST);
    assert.equal(headers[':path'], '/a/b?c=%20d');
    assert.equal(headers['x-one'], '1');
    assert.equal(headers['x-two'], 'a, b');
    assert.equal(headers.cookie, 'k=v; l=w');
    assert.equal(headers.authorization, 'Basic eA==');
    assert.equal(headers.te, 'trailers');
    assert.equal(headers['x-forwarded-for'], '127.0.0.1');
    assert.equal(headers['x-forwarded-host'], HOST);
    assert.equal(headers['x-forwarded-proto'], 'https');
    for (const gone of [
      'host',
      'connection',
      'x-gone',
      'keep-alive',
      'proxy-connection',
      'transfer-encoding',
    ]) {
      assert.equal(headers[gone], undefined, gone);
    }
    const secret = (headers as { [name: symbol]: unknown })[Object.getOwnPropertySymbols(headers)[0]!];
    assert.deepEqual([...(secret as string[])].sort(), ['authorization', 'cookie']);
    await stillServes(client);
  });

  for (const [what, framing, pieces] of [
    ['with a length', 'Content-Length: 11', ['hello ', 'world']],
    ['in chunks', 'Transfer-Encoding: chunked', ['6;ext=1\r\nhello \r\n', '5\r\nwor', 'ld\r\n0\r\n\r\n']],
  ] as const) {
    it(`arrives whole: ${what}, in pieces`, async (t) => {
      const lengths: (string | undefined)[] = [];
      const { client } = await begin(t, async (stream, headers) => {
        lengths.push(headers['content-length']);
        stream.respond({ ':status': 200 });
        for await (const chunk of stream) stream.write(chunk);
        stream.end('!');
      });
      client.send(request('POST /', framing));
      for (const piece of pieces) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        client.send(piece);
      }
      const reply = await client.reply();
      assert.equal(unchunk(reply.body).content, 'hello world!');
      assert.deepEqual(lengths, [what === 'with a length' ? '11' : undefined]);
    });
  }

  it('brings its trailers, without what has no place in them', async (t) => {
    const trailers = Promise.withResolvers<IncomingHttpHeaders>();
    const { client } = await begin(t, (stream) => {
      stream.on('trailers', trailers.resolve);
      stream.resume().on('end', () => stream.respond({ ':status': 204 }, { endStream: true }));
    });
    client.send(
      request('POST /', 'Transfer-Encoding: chunked', 'Trailer: X-Sum') +
        '1\r\na\r\n0\r\nX-Sum: 1\r\nAuthorization: Basic eA==\r\n\r\n',
    );
    assert.equal((await client.reply()).status, 204);
    assert.deepEqual(Object.entries(await trailers.promise), [['x-sum', '1']]);
  });

  it('moves an upload and a download of many windows', async (t) => {
    const { client } = await begin(t, (stream) => {
      stream.respond({ ':status': 200, 'content-length': 8_388_608 });
      stream.pipe(stream);
    });
    const arrived = counting(client);
    client.send(request('POST /', 'Content-Length: 8388608'));
    const part = 'x'.repeat(65_536);
    for (let sent = 0; sent < 8_388_608; sent += part.length) client.send(part);
    await eventually(() => arrived() >= 8_388_608);
    assert.ok(arrived() < 8_388_608 + 500);
  });

  it('waits for 100 Continue where its sender does, and gets 103 as well', async (t) => {
    const { client } = await begin(t, (stream) => {
      stream.additionalHeaders({ ':status': 103, link: '</a.css>; rel=preload' });
      stream.additionalHeaders({ ':status': 100 });
      let text = '';
      stream.on('data', (chunk) => {
        text += chunk;
      });
      stream.on('end', () => {
        stream.respond({ ':status': 200, 'content-length': text.length });
        stream.end(text);
      });
    });
    client.send(request('POST /', 'Content-Length: 4', 'Expect: 100-continue'));
    assert.match(
      await client.until(/\r\n\r\n/),
      /^HTTP\/1\.1 103 Early Hints\r\nlink: <\/a\.css>; rel=preload\r\n\r\n$/,
    );
    assert.equal(await client.until(/\r\n\r\n/), 'HTTP/1.1 100 Continue\r\n\r\n');
    client.send('body');
    assert.equal((await client.reply()).body, 'body');
  });

  it('is one of several that are answered in their order', async (t) => {
    const { client } = await begin(t, (stream, headers) => {
      const wait = headers[':path'] === '/slow' ? 50 : 0;
      setTimeout(() => {
        const text = String(headers[':path']);
        stream.respond({ ':status': 200, 'content-length': text.length });
        stream.end(text);
      }, wait);
    });
    client.send(request('GET /slow') + request('GET /b') + request('GET /c'));
    assert.equal((await client.reply()).body, '/slow');
    assert.equal((await client.reply()).body, '/b');
    assert.equal((await client.reply()).body, '/c');
  });

  it('reaches TLS upstreams that offer h2, and their certificate is verified', async (t) => {
    const certificate = await makeCertificate(['localhost', '127.0.0.1']);
    const server = createSecureServer({ cert: certificate.chain, key: certificate.key });
    const port = await listenAt(t, server as unknown as Http2Server, (stream, headers) => {
      stream.respond({ ':status': 200, 'x-scheme': headers[':scheme'] });
      stream.end('tls');
    });
    const trusting = await ingressTo(t, port, {
      protocol: 'grpcs',
      options: { upstreamCa: certificate.chain },
    });
    const reply = await (await trusting.connect()).request(request('GET /'));
    assert.match(reply.head, /\r\nx-scheme: https\r\n/);
    assert.equal(unchunk(reply.body).content, 'tls');
    const wary = await ingressTo(t, port, { protocol: 'grpcs' });
    const refused = await (await wary.connect()).request(request('GET /'));
    assert.equal(refused.status, 502);
    assert.match(refused.body, /upstream-untrusted/);
  });

  it('asks for no other protocol there', async (t) => {
    const { client } = await begin(t, (stream, headers) => {
      assert.equal(headers.upgrade, undefined);
      stream.respond({ ':status': 426 }, { endStream: true });
    });
    const asking = request('GET /', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: x');
    assert.equal((await client.request(asking)).status, 426);
  });

  it('is logged as what it was', async (t) => {
    const lines: string[] = [];
    const accessLog = createAccessLog((text) => lines.push(text));
    const { client } = await begin(
      t,
      (stream) => {
        stream.respond({ ':status': 201 });
        stream.end('made');
      },
      { options: { accessLog } },
    );
    const reply = await client.request(request('POST /things', 'Content-Length: 0'));
    assert.equal(reply.status, 201);
    accessLog.flush();
    const entry = JSON.parse(lines.join(''));
    assert.equal(entry.status, 201);
    assert.equal(entry.protocol, 'http/1.1');
    assert.match(JSON.stringify(entry), /127\.0\.0\.1:\d+/);
  });
});

describe('a reply of HTTP/2 to a client of HTTP/1.1', () => {
  const ends: readonly (readonly [string, string, (peer: FramePeer, id: number) => void, RegExp])[] = [
    [
      'without a body has a length of 0',
      'GET',
      (peer, id) => peer.send(headersFrame(id, OK)),
      /^HTTP\/1\.1 200 OK\r\ncontent-length: 0\r\n\r\n$/,
    ],
    [
      'to HEAD keeps its length and has no body',
      'HEAD',
      (peer, id) => peer.send(headersFrame(id, [...OK, ['content-length', '5']])),
      /^HTTP\/1\.1 200 OK\r\ncontent-length: 5\r\n\r\n$/,
    ],
    [
      'to HEAD whose end is said by a frame of its own',
      'HEAD',
      (peer, id) => peer.send(headersFrame(id, OK, END_HEADERS), data(id, '', true)),
      /^HTTP\/1\.1 200 OK\r\n\r\n$/,
    ],
    [
      'of 204 has none',
      'GET',
      (peer, id) => peer.send(headersFrame(id, [[':status', '204']])),
      /^HTTP\/1\.1 204 No Content\r\n\r\n$/,
    ],
    [
      'of 304 keeps what it says of the 200',
      'GET',
      (peer, id) =>
        peer.send(
          headersFrame(id, [
            [':status', '304'],
            ['etag', '"a"'],
            ['content-length', '9'],
          ]),
        ),
      /^HTTP\/1\.1 304 Not Modified\r\netag: "a"\r\ncontent-length: 9\r\n\r\n$/,
    ],
    [
      'of a status without a name',
      'GET',
      (peer, id) => peer.send(headersFrame(id, [[':status', '299']])),
      /^HTTP\/1\.1 299 \r\ncontent-length: 0\r\n\r\n$/,
    ],
  ];
  for (const [what, method, answer, expected] of ends) {
    it(what, async (t) => {
      const { client, received } = await beginFrames(t, answer);
      client.send(request(`${method} /`));
      assert.match(await client.until(/\r\n\r\n/), expected);
      client.send(request(`${method} /again`));
      assert.match(await client.until(/\r\n\r\n/), expected);
      assert.deepEqual(received(isReset), []);
    });
  }

  it('keeps its length, though its end is said by a frame of its own', async (t) => {
    const { client, received } = await beginFrames(t, (peer, id) =>
      peer.send(
        headersFrame(id, [...OK, ['content-length', '5']], END_HEADERS),
        data(id, 'hello'),
        data(id, '', true),
      ),
    );
    const reply = await client.request(request('GET /'));
    assert.equal(reply.body, 'hello');
    assert.doesNotMatch(reply.head, /transfer-encoding/i);
    await stillServes(client);
    assert.deepEqual(received(isReset), []);
  });

  it('without a length comes in chunks, with its trailers', async (t) => {
    const { client } = await beginFrames(t, (peer, id) =>
      peer.send(
        headersFrame(id, [...OK, ['trailer', 'x-sum']], END_HEADERS),
        data(id, 'hello '),
        data(id, ''),
        data(id, 'world'),
        headersFrame(id, [
          ['x-sum', '11'],
          ['grpc-status', '0'],
        ]),
      ),
    );
    const reply = await client.request(request('GET /'));
    const { content, trailers } = unchunk(reply.body);
    assert.equal(content, 'hello world');
    assert.equal(trailers, 'x-sum: 11\r\ngrpc-status: 0\r\n\r\n');
    await stillServes(client);
  });

  it('to HTTP/1.0 ends with the connection', async (t) => {
    const { client } = await beginFrames(t, (peer, id) =>
      peer.send(headersFrame(id, OK, END_HEADERS), data(id, 'hello'), data(id, '', true)),
    );
    client.send(`GET / HTTP/1.0\r\nHost: ${HOST}\r\n\r\n`);
    const { text, clean } = await client.rest();
    assert.match(text, /^HTTP\/1\.1 200 OK\r\nConnection: close\r\n\r\nhello$/);
    assert.ok(clean);
  });

  it('may come before the request is whole, and ends the connection then', async (t) => {
    const { client, received } = await beginFrames(t, (peer, id) =>
      peer.send(headersFrame(id, [[':status', '413']])),
    );
    client.send(`${request('POST /', 'Content-Length: 1000000')}some`);
    const { text } = await client.rest();
    assert.match(text, /^HTTP\/1\.1 413 /);
    assert.match(text, /\r\nConnection: close\r\n/);
    await eventually(() => received(isReset).length === 1);
  });

  it('is held back by a client that takes nothing', async (t) => {
    const WHOLE = 64 * 1024 * 1024;
    let sent = 0;
    const { client } = await begin(t, (stream) => {
      stream.respond({ ':status': 200, 'content-length': WHOLE });
      const part = Buffer.alloc(65_536, 'x');
      const write = () => {
        while (sent < WHOLE) {
          sent += part.length;
          if (!stream.write(part)) return void stream.once('drain', write);
        }
        stream.end();
      };
      write();
    });
    const arrived = counting(client);
    client.socket.pause();
    client.send(request('GET /'));
    let before = -1;
    while (sent !== before) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    assert.ok(sent < WHOLE / 2, `${sent} bytes were taken`);
    client.socket.resume();
    await eventually(() => arrived() >= WHOLE);
  });
});

describe('a client of HTTP/1.1 is told', () => {
  it('that nobody listens', async (t) => {
    const port = await listenAt(t, createServer(), () => {});
    const closed = createServer();
    closed.listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const gone = (closed.address() as AddressInfo).port;
    closed.close();
    await once(closed, 'close');
    assert.notEqual(gone, port);
    const ingress = await ingressTo(t, gone);
    const reply = await (await ingress.connect()).request(request('GET /'));
    assert.equal(reply.status, 502);
    assert.match(reply.body, /upstream-refused/);
  });

  it('of an upstream that speaks HTTP/1.1 after all', async (t) => {
    const { createServer: createTcp } = await import('node:net');
    const server = createTcp((socket) => {
      socket.on('error', () => {});
      socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => server.close());
    const ingress = await ingressTo(t, (server.address() as AddressInfo).port);
    assert.equal((await (await ingress.connect()).request(request('GET /'))).status, 502);
  });

  const malformed: readonly (readonly [string, readonly (readonly [string, string])[]])[] = [
    ['CR and LF in a value', [...OK, ['x', '1\r\nset-cookie: a=b']]],
    ['a Transfer-Encoding', [...OK, ['transfer-encoding', 'chunked']]],
    ['two lengths', [...OK, ['content-length', '1'], ['content-length', '2']]],
    ['a switch of protocols', [[':status', '101']]],
    ['no status', [['x', '1']]],
  ];
  for (const [what, fields] of malformed) {
    it(`that a reply is malformed: ${what}`, async (t) => {
      const { client, received } = await beginFrames(t, (peer, id, index) =>
        peer.send(
          ...(index < 1
            ? [headersFrame(id, fields, END_HEADERS), data(id, 'x', true)]
            : [headersFrame(id, OK)]),
        ),
      );
      const reply = await client.request(request('POST /', 'Content-Length: 0'));
      assert.equal(reply.status, 502);
      assert.doesNotMatch(reply.head, /set-cookie/);
      await eventually(() => received(isReset).length === 1);
      await stillServes(client);
    });
  }

  it('by the missing end that a reply was cut off', async (t) => {
    const { client } = await beginFrames(t, (peer, id) =>
      peer.send(headersFrame(id, OK, END_HEADERS), data(id, 'half'), rstStreamFrame(id, 2)),
    );
    client.send(request('GET /'));
    const { text } = await client.rest();
    assert.match(text, /^HTTP\/1\.1 200 OK/);
    assert.doesNotMatch(text, /0\r\n\r\n$/);
  });

  for (const [what, frames] of [
    ['longer', (id: number) => [data(id, 'hello!', true)]],
    ['shorter', (id: number) => [data(id, 'hell', true)]],
  ] as const) {
    it(`by a reset that a reply was ${what} than it said`, async (t) => {
      const { client } = await beginFrames(t, (peer, id) =>
        peer.send(headersFrame(id, [...OK, ['content-length', '5']], END_HEADERS), ...frames(id)),
      );
      client.send(request('GET /'));
      const { text } = await client.rest();
      assert.doesNotMatch(text, /hello!?$/);
    });
  }

  it('that a reply is late, and its stream is given up', async (t) => {
    const { client, received } = await beginFrames(t, () => {}, { settings: { readTimeoutMs: 300 } });
    const reply = await client.request(request('GET /'));
    assert.equal(reply.status, 504);
    await eventually(() => received(isReset).length === 1);
    assert.equal(errorCode(received(isReset)[0]!), 8);
  });
});

describe('a stream that an upstream does not begin with', () => {
  const refused = 7;

  it('is sent again', async (t) => {
    const { client } = await beginFrames(t, (peer, id, index) =>
      peer.send(index === 0 ? rstStreamFrame(id, refused) : headersFrame(id, OK)),
    );
    assert.equal((await client.request(request('GET /'))).status, 200);
  });

  it('but not without end', async (t) => {
    const { client, received } = await beginFrames(t, (peer, id) => peer.send(rstStreamFrame(id, refused)));
    assert.equal((await client.request(request('GET /'))).status, 502);
    assert.equal(received(({ type }) => type === frameType.headers).length, 1 + MOST_REFUSALS);
  });

  it('with its body, if it was a POST', async (t) => {
    const { client, received } = await beginFrames(t, (peer, id, index) =>
      peer.send(index === 0 ? rstStreamFrame(id, refused) : headersFrame(id, OK)),
    );
    assert.equal((await client.request(`${request('POST /', 'Content-Length: 1')}x`)).status, 200);
    const bodies = received(({ type, payload }) => type === frameType.data && payload.toString() === 'x');
    assert.equal(bodies.length, 2);
  });
});

describe('a stream that an upstream answers with its end', () => {
  const answers: readonly [string, (id: number) => Buffer][] = [
    ['a reset', (id) => rstStreamFrame(id, 2)],
    ['a reset without an error', (id) => rstStreamFrame(id, 0)],
    ['a reply without a status', (id) => headersFrame(id, [['x-a', 'b']])],
    ['a body before its head', (id) => data(id, 'hello', true)],
  ];
  for (const [what, answer] of answers) {
    it(`is not sent again: ${what}`, async (t) => {
      const { client, received } = await beginFrames(t, (peer, id) => peer.send(answer(id)));
      assert.equal((await client.request(request('GET /'))).status, 502);
      assert.equal(received(({ type }) => type === frameType.headers).length, 1);
    });
  }
});

describe('what is left behind', () => {
  it('a client that goes away ends its stream', async (t) => {
    const { client, received } = await beginFrames(t, () => {});
    client.send(request('GET /'));
    await eventually(() => received(({ type }) => type === frameType.headers).length === 1);
    client.socket.destroy();
    await eventually(() => received(isReset).length === 1);
    assert.equal(errorCode(received(isReset)[0]!), 8);
  });

  it('a stream whose reply is whole but which never ends is given up', async (t) => {
    const { client, received } = await beginFrames(t, (peer, id) =>
      peer.send(headersFrame(id, [...OK, ['content-length', '5']], END_HEADERS), data(id, 'hello')),
    );
    assert.equal((await client.request(request('GET /'))).body, 'hello');
    assert.equal((await client.request(request('GET /'))).body, 'hello');
    await eventually(() => received(isReset).length === 2);
  });

  it('a body waits for the window of its stream, and goes on with it', async (t) => {
    const upstream = await startFrameServer(
      ({ type, streamId, flags }, peer) => {
        if (type === frameType.data && flags === flag.endStream) peer.send(headersFrame(streamId, OK));
      },
      // SETTINGS_INITIAL_WINDOW_SIZE
      [settingsFrame([[4, 1_000]])],
    );
    t.after(() => upstream.close());
    const ingress = await ingressTo(t, upstream.port);
    const client = await ingress.connect();
    const bytes = () =>
      upstream.peers
        .flatMap(({ received }) => received)
        .filter(({ type }) => type === frameType.data)
        .reduce((sum, { payload }) => sum + payload.length, 0);
    client.send(request('POST /', 'Content-Length: 3000') + 'x'.repeat(3_000));
    await eventually(() => bytes() === 1_000);
    upstream.peers[0]!.send(windowUpdateFrame(1, 1_500));
    await eventually(() => bytes() === 2_500);
    upstream.peers[0]!.send(windowUpdateFrame(1, 500));
    assert.equal((await client.reply()).status, 200);
    assert.equal(bytes(), 3_000);
  });

  it('a drain lets the exchange finish, and says that it was the last', async (t) => {
    const answer = Promise.withResolvers<void>();
    const { client, ingress } = await begin(t, async (stream) => {
      await answer.promise;
      stream.respond({ ':status': 200 });
      stream.end('last');
    });
    client.send(request('GET /'));
    await new Promise((resolve) => setTimeout(resolve, 50));
    const drained = ingress.listener.drain(10_000);
    answer.resolve();
    const reply = await client.reply();
    assert.match(reply.head, /\r\nConnection: close\r\n/);
    assert.equal(unchunk(reply.body).content, 'last');
    client.socket.end();
    await drained;
  });
});
