// HTTP/2 streams over HTTP/1.1 upstreams: framing, trailers, interim replies, cancellation, truncation, WebSockets.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { WebSocketServer } from 'ws';
import type { LocalHandler } from '../../../src/lib/local-handler.ts';
import {
  flag,
  frame,
  frameType,
  headersFrame,
  requestFields,
  rstStreamFrame,
} from '../../support/http2-frames.ts';
import {
  ask,
  collect,
  HOST,
  type Http2IngressOptions,
  startHttp2Ingress,
  upstreamAt,
} from '../../support/http2-ingress.ts';

interface RawUpstream {
  readonly port: number;
  /** What each connection has sent, as text. */
  readonly connections: { text: string; closed: boolean; readonly socket: Socket }[];
}

/** An upstream in bare bytes: `answer` is called for each arrival with all that the connection has sent. */
async function startRaw(
  t: TestContext,
  answer: (text: string, socket: Socket) => void,
): Promise<RawUpstream> {
  const connections: RawUpstream['connections'] = [];
  const server = createServer((socket) => {
    const connection = { text: '', closed: false, socket };
    connections.push(connection);
    socket.on('error', () => {});
    socket.on('close', () => {
      connection.closed = true;
    });
    socket.on('data', (bytes: Buffer) => {
      connection.text += bytes.toString('latin1');
      answer(connection.text, socket);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const { socket } of connections) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, connections };
}

async function start(
  t: TestContext,
  answer: (text: string, socket: Socket) => void,
  options: Http2IngressOptions = {},
) {
  const upstream = await startRaw(t, answer);
  const ingress = await startHttp2Ingress({ upstream: upstreamAt('http', upstream.port), ...options });
  t.after(() => ingress.close());
  return { upstream, ingress, session: ingress.session() };
}

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const onHead = (reply: string) => (text: string, socket: Socket) => {
  if (text.endsWith('\r\n\r\n')) socket.write(reply);
};
const onWholeRequest = (reply: string) => (text: string, socket: Socket) => {
  if (text.endsWith('0\r\n\r\n') || (text.endsWith('\r\n\r\n') && !/chunked/.test(text))) socket.write(reply);
};
const until = async (condition: () => boolean) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
};

describe('requests', () => {
  const smuggled = 'GET /admin HTTP/1.1\r\nHost: inside\r\n\r\n';
  for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'PURGE']) {
    it(`with a body without length cannot smuggle a second one: ${method}`, async (t) => {
      const { upstream, session } = await start(
        t,
        onWholeRequest('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'),
      );
      await ask(session, { ':method': method }, smuggled);
      const { text } = upstream.connections[0]!;
      const [head, body] = [
        text.slice(0, text.indexOf('\r\n\r\n')),
        text.slice(text.indexOf('\r\n\r\n') + 4),
      ];
      assert.match(head, /\r\ntransfer-encoding: chunked/i);
      assert.doesNotMatch(head, /content-length/i);
      assert.equal(body, `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`);
    });
  }

  it('with a length keep it, and without a body send none', async (t) => {
    const { upstream, session } = await start(t, (text, socket) => {
      if (text.endsWith('\r\n\r\n') || text.endsWith('12345')) socket.write(ok);
    });
    await ask(session, { ':method': 'PUT', 'content-length': '5' }, '12345');
    await ask(session, { ':method': 'GET', ':path': '/x?y=1' });
    await ask(session, { ':method': 'POST' });
    const { text } = upstream.connections[0]!;
    assert.match(text, /^PUT \/ HTTP\/1\.1\r\nhost: app\.example\.com\r\n/i);
    assert.match(text, /content-length: 5\r\n\r\n12345GET \/x\?y=1 HTTP\/1\.1\r\n/i);
    assert.match(text, /content-length: 0\r\n\r\n$/i);
    assert.equal(upstream.connections.length, 1, 'one connection serves one request after the other');
  });

  it('that break their own length are reset, and never complete upstream', async (t) => {
    const { upstream, session } = await start(t, () => {});
    const reply = await ask(session, { ':method': 'POST', 'content-length': '10' }, 'short');
    assert.notEqual(reply.rstCode, 0);
    await until(() => upstream.connections.every(({ closed }) => closed));
  });

  it('cut off by the client reach the upstream as a cut, whatever the code', async (t) => {
    for (const code of [0, 8, 2]) {
      const { upstream, ingress } = await start(t, () => {});
      const client = await ingress.frames();
      client.send(headersFrame(1, requestFields('POST'), flag.endHeaders));
      client.send(frame(frameType.data, 0, 1, Buffer.from('part')));
      await until(() => upstream.connections[0]?.text.includes('part') === true);
      client.send(rstStreamFrame(1, code));
      await until(() => upstream.connections[0]!.closed);
      assert.doesNotMatch(upstream.connections[0]!.text, /\r\n0\r\n\r\n$/);
    }
  });

  it('carry their trailers as those of a chunked body, without what may not be there', async (t) => {
    const { upstream, session } = await start(t, (text, socket) => {
      if (/\r\n0\r\n[\s\S]*\r\n\r\n$/.test(text)) socket.write(ok);
    });
    const stream = session.request({ ':authority': HOST, ':method': 'POST' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': 'abc', authorization: 'x' }));
    await collect(stream, () => stream.end('body'));
    assert.match(upstream.connections[0]!.text, /4\r\nbody\r\n0\r\nx-sum: abc\r\n\r\n$/);
  });

  it('join cookie crumbs and say who the client is, whatever it claims', async (t) => {
    const { upstream, session } = await start(t, onHead(ok));
    await ask(session, {
      cookie: ['a=1', 'b=2'],
      'x-forwarded-for': '10.0.0.1',
      'x-real-ip': '10.0.0.1',
      x_forwarded_for: '10.0.0.1',
    });
    const { text } = upstream.connections[0]!;
    assert.match(text, /\r\ncookie: a=1; b=2\r\n/);
    assert.match(text, /\r\nx-forwarded-for: 203\.0\.113\.7\r\n/);
    assert.match(text, /\r\nx-real-ip: 203\.0\.113\.7\r\n/);
    assert.doesNotMatch(text, /10\.0\.0\.1/);
  });

  it('larger than allowed are refused with 413, announced or not', async (t) => {
    const { session } = await start(t, () => {}, { limits: { maxBodyBytes: 10 } });
    const announced = await ask(session, { ':method': 'POST', 'content-length': '11' }, (stream) =>
      stream.write('1'),
    );
    assert.equal(announced.headers[':status'], 413);
    const found = await ask(session, { ':method': 'POST' }, (stream) => stream.write('x'.repeat(11)));
    assert.equal(found.headers[':status'], 413);
  });

  it('whose body never comes get 408, whose reply never comes 504', async (t) => {
    const upstream = await startRaw(t, () => {});
    const ingress = await startHttp2Ingress({
      upstream: upstreamAt('http', upstream.port, { readTimeoutMs: 100 }),
      limits: { clientIdleTimeoutMs: 100 },
    });
    t.after(() => ingress.close());
    const session = ingress.session();
    const slow = await ask(session, { ':method': 'POST' }, (stream) => stream.write('x'));
    assert.equal(slow.headers[':status'], 408);
    const silent = await ask(session);
    assert.equal(silent.headers[':status'], 504);
    assert.equal(JSON.parse(silent.body.toString()).error, 'upstream-timeout');
  });

  it('are sent once more when a kept connection had just been closed, but only if nothing is done twice', async (t) => {
    let answered = 0;
    const { upstream, session } = await start(t, (text, socket) => {
      if (!text.endsWith('\r\n\r\n')) return;
      if (text.split('HTTP/1.1').length === 3) return void socket.destroy();
      answered++;
      socket.write(ok);
    });
    assert.equal((await ask(session)).headers[':status'], 200);
    assert.equal((await ask(session)).headers[':status'], 200);
    assert.equal(upstream.connections.length, 2);
    assert.equal((await ask(session, { ':method': 'POST' })).headers[':status'], 502);
    assert.equal(answered, 2);
  });
});

describe('replies', () => {
  const replyWith = async (t: TestContext, reply: string, headers = {}) => {
    const { session, upstream } = await start(t, onHead(reply));
    return { reply: await ask(session, headers), upstream };
  };

  it('lose the fields of the connection and keep all others', async (t) => {
    const { reply } = await replyWith(
      t,
      'HTTP/1.1 200 Fine\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nSet-Cookie: a\r\nset-cookie: b\r\n' +
        'X-Kept: yes\r\nContent-Length: 2\r\n\r\nok',
    );
    assert.deepEqual(reply.rawHeaders, [
      ':status',
      '200',
      'set-cookie',
      'a',
      'set-cookie',
      'b',
      'x-kept',
      'yes',
      'content-length',
      '2',
    ]);
    assert.equal(reply.body.toString(), 'ok');
  });

  it('in chunks arrive whole, with their trailers', async (t) => {
    const { reply } = await replyWith(
      t,
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n',
    );
    assert.equal(reply.body.toString(), 'abcde');
    assert.equal(reply.trailers['x-sum'], '1');
    assert.equal(reply.headers['transfer-encoding'], undefined);
  });

  it('of 103 come first', async (t) => {
    const { reply } = await replyWith(t, `HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n${ok}`);
    assert.deepEqual(
      reply.interim.map((headers) => [headers[':status'], headers.link]),
      [[103, '</a.css>']],
    );
    assert.equal(reply.headers[':status'], 200);
  });

  it('of 100 answer an expectation', async (t) => {
    const { session } = await start(t, (text, socket) => {
      if (/expect: 100-continue/.test(text) && !text.includes('body'))
        socket.write('HTTP/1.1 100 Continue\r\n\r\n');
      if (text.includes('0\r\n\r\n')) socket.write(ok);
    });
    const stream = session.request({ ':authority': HOST, ':method': 'POST', expect: '100-continue' });
    stream.on('continue', () => stream.end('body'));
    assert.equal((await collect(stream)).body.toString(), 'ok');
  });

  it('to HEAD, and of 204 and 304, have no body and spoil nothing after them', async (t) => {
    const { session, upstream } = await start(t, (text, socket) => {
      if (!text.endsWith('\r\n\r\n')) return;
      const path = /(\S+) HTTP\/1\.1\r\n(?![\s\S]*HTTP\/1\.1)/.exec(text)?.[1];
      if (path === '/204') socket.write('HTTP/1.1 204 No Content\r\n\r\n');
      else if (path === '/304')
        socket.write('HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: "x"\r\n\r\n');
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n');
    });
    const head = await ask(session, { ':method': 'HEAD' });
    assert.equal(head.headers['content-length'], '99');
    assert.equal(head.rstCode, 0);
    assert.equal((await ask(session, { ':path': '/204' })).headers[':status'], 204);
    const unchanged = await ask(session, { ':path': '/304' });
    assert.deepEqual([unchanged.headers[':status'], unchanged.headers.etag], [304, '"x"']);
    assert.equal(upstream.connections.length, 1);
  });

  it('without length last until the close', async (t) => {
    const { session } = await start(t, (_text, socket) => socket.end('HTTP/1.1 200 OK\r\n\r\nuntil the end'));
    const reply = await ask(session);
    assert.equal(reply.body.toString(), 'until the end');
    assert.equal(reply.rstCode, 0);
  });

  for (const [what, framing] of [
    ['a length', 'Content-Length: 100\r\n\r\nhalf'],
    ['chunks', 'Transfer-Encoding: chunked\r\n\r\n64\r\nhalf'],
    ['chunks, between two of them', 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
  ] as const) {
    it(`cut short never look complete: ${what}`, async (t) => {
      const { session } = await start(t, (_text, socket) => socket.end(`HTTP/1.1 200 OK\r\n${framing}`));
      const reply = await ask(session);
      assert.equal(reply.headers[':status'], 200);
      assert.equal(reply.rstCode, 2);
    });
  }

  for (const [what, reply] of [
    ['not HTTP', 'hello\r\n\r\n'],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok'],
    ['a length and chunks', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['a switch that nobody asked for', 'HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n'],
    ['a status out of range', 'HTTP/1.1 099 Odd\r\n\r\n'],
  ] as const) {
    it(`that are malformed become 502: ${what}`, async (t) => {
      const { reply: received } = await replyWith(t, reply);
      assert.equal(received.headers[':status'], 502);
    });
  }

  it('to a gRPC client fail in its own terms', async (t) => {
    const { reply } = await replyWith(t, 'nonsense\r\n\r\n', { 'content-type': 'application/grpc+proto' });
    assert.equal(reply.headers[':status'], 200);
    assert.equal(reply.headers['grpc-status'], '13');
  });

  it('with more bytes than announced end their connection, and the rest is never taken for another reply', async (t) => {
    const { session, upstream } = await start(
      t,
      onHead(`${ok}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`),
    );
    assert.equal((await ask(session)).body.toString(), 'ok');
    assert.equal((await ask(session)).body.toString(), 'ok');
    assert.equal(upstream.connections.length, 2);
  });

  it('abandoned by the client end the upstream connection', async (t) => {
    const { session, upstream } = await start(t, (_text, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf');
    });
    const stream = session.request({ ':authority': HOST });
    stream.on('error', () => {});
    await once(stream, 'data');
    stream.close(8);
    await until(() => upstream.connections[0]!.closed);
  });

  it('of 64 MiB to a client that does not read are held back', async (t) => {
    let sent = 0;
    const { session, upstream } = await start(t, (_text, socket) => {
      const chunk = Buffer.alloc(1024 * 1024, 'x');
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${64 * chunk.length}\r\n\r\n`);
      const more = () => {
        while (sent < 64) {
          sent++;
          if (!socket.write(chunk)) return void socket.once('drain', more);
        }
      };
      more();
    });
    const stream = session.request({ ':authority': HOST });
    await once(stream, 'response');
    let last = -1;
    while (last !== sent) {
      last = sent;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assert.ok(sent < 40, `${sent} MiB were taken from the upstream`);
    assert.equal(upstream.connections[0]!.closed, false);
    // In a hurry from now on. Window by window it would take 40 ms for each, with the segments of 64 KiB of the loopback.
    session.settings({ initialWindowSize: 16 * 1024 * 1024 });
    session.setLocalWindowSize(16 * 1024 * 1024);
    let size = 0;
    stream.on('data', (chunk: Buffer) => {
      size += chunk.length;
    });
    await once(stream, 'end');
    assert.equal(size, 64 * 1024 * 1024);
  });

  it('of an upstream that refuses are 502', async (t) => {
    const { ingress, session, upstream } = await start(t, () => {});
    await ingress.close();
    assert.equal(upstream.connections.length, 0);
    assert.ok(session.destroyed);
  });
});

describe('hosts', () => {
  it('that are missing, malformed or contradictory are 400', async (t) => {
    const { session, upstream } = await start(t, onHead(ok));
    for (const headers of [
      { ':authority': 'app_.example.com.:99999' },
      { ':authority': '[::1' },
      { ':authority': HOST, host: 'other.example.com' },
      { ':authority': HOST, ':scheme': 'ftp' },
    ]) {
      assert.equal((await ask(session, headers)).headers[':status'], 400, JSON.stringify(headers));
    }
    // These nghttp2 itself takes for malformed (RFC 9113 §8.1.1).
    for (const authority of ['user@app.example.com', 'app.example.com/x', 'a b']) {
      assert.equal((await ask(session, { ':authority': authority })).rstCode, 1, authority);
    }
    assert.equal(upstream.connections.length, 0);
  });

  it('that the certificate does not cover are 421, and those without a route 404', async (t) => {
    const { session } = await start(t, onHead(ok));
    assert.equal((await ask(session, { ':authority': 'elsewhere.example.com' })).headers[':status'], 421);
    const unrouted = await ask(session, { ':authority': 'localhost' });
    assert.equal(unrouted.headers[':status'], 404);
    assert.equal(JSON.parse(unrouted.body.toString()).error, 'no-route');
  });

  it('that serve raw bytes are 421 over HTTP/2, and plain CONNECT and TRACE are refused', async (t) => {
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('tcp', 1) });
    t.after(() => ingress.close());
    const session = ingress.session();
    assert.equal((await ask(session)).headers[':status'], 421);
    const tunnel = await collect(session.request({ ':authority': `${HOST}:443`, ':method': 'CONNECT' }));
    assert.equal(tunnel.headers[':status'], 405);
    const trace = await ask(session, { ':method': 'TRACE' });
    assert.equal(trace.headers[':status'], 405);
  });

  it('are asked for local paths before any route', async (t) => {
    const handler: LocalHandler = {
      handle: ({ path, query, host }) => ({
        status: 200,
        headers: { 'content-type': 'text/plain' },
        body: Buffer.from(`${host} ${path} ${query}`),
      }),
    };
    const ingress = await startHttp2Ingress({
      localPaths: [{ path: '/local', answeredBy: 'handler' }],
      localHandlers: { handler },
    });
    t.after(() => ingress.close());
    const session = ingress.session();
    const reply = await ask(session, { ':path': '/local/x?q=1' });
    assert.equal(reply.body.toString(), `${HOST} /local/x q=1`);
    const head = await ask(session, { ':path': '/local/x', ':method': 'HEAD' });
    assert.equal(head.body.length, 0);
    assert.equal(head.headers['content-length'], String(`${HOST} /local/x `.length));
  });
});

describe('WebSockets by extended CONNECT', () => {
  async function startWs(t: TestContext) {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    await once(server, 'listening');
    server.on('connection', (socket, request) => {
      socket.send(String(request.headers['sec-websocket-protocol']));
      socket.on('message', (message, binary) => socket.send(message, { binary }));
    });
    t.after(() => {
      for (const client of server.clients) client.terminate();
      server.close();
    });
    const ingress = await startHttp2Ingress({
      upstream: upstreamAt('auto', (server.address() as AddressInfo).port),
    });
    t.after(() => ingress.close());
    return { server, session: ingress.session() };
  }

  async function openTunnel(session: ClientHttp2Session, headers = {}): Promise<ClientHttp2Stream> {
    if (!session.remoteSettings.enableConnectProtocol) await once(session, 'remoteSettings');
    assert.equal(session.remoteSettings.enableConnectProtocol, true);
    return session.request({
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':scheme': 'https',
      ':path': '/chat',
      ':authority': HOST,
      'sec-websocket-version': '13',
      ...headers,
    });
  }

  it('reach an HTTP/1.1 upstream and carry data both ways until both have ended', async (t) => {
    const { session, server } = await startWs(t);
    const stream = await openTunnel(session, { 'sec-websocket-protocol': 'soap' });
    const [headers] = await once(stream, 'response');
    assert.equal(headers[':status'], 200);
    assert.equal(headers['sec-websocket-accept'], undefined);
    const [greeting] = await once(stream, 'data');
    assert.equal(greeting.subarray(2).toString(), 'soap');
    stream.write(masked(1, 'hello'));
    const [echo] = await once(stream, 'data');
    assert.equal(echo.toString('latin1'), '\x81\x05hello');
    stream.write(masked(8, ''));
    stream.end();
    await once(stream, 'close');
    assert.equal(stream.rstCode, 0);
    await until(() => server.clients.size === 0);
  });

  it('end upstream when the client resets them', async (t) => {
    const { session, server } = await startWs(t);
    const stream = await openTunnel(session);
    stream.on('error', () => {});
    await once(stream, 'data');
    stream.close(8);
    await until(() => server.clients.size === 0);
  });

  it('that the upstream refuses get its own answer', async (t) => {
    const { session } = await start(t, onHead('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno'));
    const reply = await collect(await openTunnel(session));
    assert.equal(reply.headers[':status'], 403);
    assert.equal(reply.body.toString(), 'no');
  });

  it('with a forged accept are a bad gateway', async (t) => {
    const { session } = await start(
      t,
      onHead(
        'HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: forged\r\n\r\n',
      ),
    );
    assert.equal((await collect(await openTunnel(session))).headers[':status'], 502);
  });

  it('are the only protocol carried that way', async (t) => {
    const { session } = await start(t, onHead(ok));
    const stream = await openTunnel(session, { ':protocol': 'connect-udp' });
    assert.equal((await collect(stream)).headers[':status'], 501);
  });
});

/** A client's frame (RFC 6455 §5.2), masked with zeros. */
function masked(opcode: number, text: string): Buffer {
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | text.length, 0, 0, 0, 0]), Buffer.from(text)]);
}
