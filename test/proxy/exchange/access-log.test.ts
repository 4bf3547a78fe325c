// The access log: one line for each exchange of each protocol, whatever its end, and nothing that a client can forge.

import assert from 'node:assert/strict';
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { after, describe, it } from 'node:test';
import { connect as connectTls } from 'node:tls';
import {
  type AccessEntry,
  accessLogFormats,
  createAccessEntry,
  plainAccessLog,
} from '../../../proxy/exchange/access-entry.ts';
import { createAccessLog } from '../../../proxy/exchange/access-log.ts';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import type { Route, UpstreamProtocol } from '../../../proxy/rules/routes.ts';
import {
  answering,
  appCertificate,
  eventually,
  HOST,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
  WEBSOCKET_ACCEPT,
  WEBSOCKET_KEY,
} from '../../support/proxy.ts';

const cleanups: (() => Promise<void> | void)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const SWITCH =
  'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
  `${WEBSOCKET_ACCEPT}\r\n\r\n`;

type Line = Record<string, unknown>;

/** An ingress whose log is kept as parsed lines. */
async function setUp(
  protocol: UpstreamProtocol,
  onConnection: Parameters<typeof startUpstream>[0],
  options: Partial<ListenerOptions> = {},
  routes?: (port: number) => Route[],
) {
  const lines: Line[] = [];
  const upstream = await startUpstream(onConnection);
  cleanups.push(upstream.close);
  const ingress = await startIngress(
    routes?.(upstream.port) ?? [routeTo(settingsFor(upstream.port, protocol))],
    {
      accessLog: createAccessLog((text) => {
        for (const line of text.trimEnd().split('\n')) lines.push(JSON.parse(line));
      }),
      ...options,
    },
  );
  cleanups.push(ingress.close);
  /** The only line so far, without what no test can foresee. */
  const only = async () => {
    await eventually(() => lines.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(lines.length, 1, JSON.stringify(lines));
    return known(lines[0]!);
  };
  const session = () => openSession(ingress.port);
  return { lines, upstream, ingress, only, session, address: `127.0.0.1:${upstream.port}` };
}

const closed = (stream: ClientHttp2Stream) => new Promise<void>((resolve) => stream.once('close', resolve));

function openSession(port: number): ClientHttp2Session {
  const session = connectHttp2(`https://${HOST}`, {
    createConnection: () =>
      connectTls({
        host: '127.0.0.1',
        port,
        servername: HOST,
        ca: appCertificate.chain,
        ALPNProtocols: ['h2'],
      }),
  });
  session.on('error', () => {});
  cleanups.push(() => session.destroy());
  return session;
}

function known(line: Line): Line {
  const {
    time,
    durationMs,
    msg,
    level,
    firstByteMs = 0,
    upstreamMs = 0,
    tls = 'TLSv1.3',
    route,
    ...rest
  } = line;
  assert.match(String(time), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  for (const span of [durationMs, firstByteMs, upstreamMs]) assert.ok(typeof span === 'number' && span >= 0);
  assert.equal(msg, 'access');
  assert.match(String(level), /^(info|warn)$/);
  assert.equal(tls, 'TLSv1.3');
  if (route !== undefined) assert.match(String(route), /^app\.example\.com\//);
  return rest;
}

const base = { client: '127.0.0.1', protocol: 'http/1.1', host: HOST };

describe('a line', () => {
  const linesOf = (entries: readonly Partial<AccessEntry>[], endedAt = 0) => {
    const lines: Line[] = [];
    const log = createAccessLog((text) => {
      for (const line of text.trimEnd().split('\n')) lines.push(JSON.parse(line));
    });
    for (const entry of entries) log.write({ ...createAccessEntry('h2', '192.0.2.1', 0), ...entry }, endedAt);
    log.flush();
    return lines;
  };

  it('says nothing of the line before it', () => {
    const [first, second] = [1, 2].map((port) => ({ host: 'app.internal', port }));
    const entries: Partial<AccessEntry>[] = [
      { method: 'GET', host: 'a.example', upstream: first },
      { method: 'GET', host: 'a.example', upstream: first },
      { method: 'POST', host: 'a.example', upstream: second },
      { method: 'POST', host: 'b.example', upstream: undefined },
      { method: '', host: 'b.example', upstream: second },
      { method: 'GET', host: '' },
      {},
      { method: 'GET', host: 'a.example', upstream: first },
    ];
    const told = ({ method = '', host = '', upstream }: Partial<AccessEntry>) => ({
      method,
      host,
      upstream: upstream && `${upstream.host}:${upstream.port}`,
    });
    assert.deepEqual(
      linesOf(entries).map(({ method = '', host = '', upstream }) => ({ method, host, upstream })),
      entries.map(told),
    );
  });

  it('tells milliseconds to three decimals', () => {
    for (const [ms, told] of [
      [0, 0],
      [0.0004, 0],
      [0.48, 0.48],
      [0.9996, 1],
      [7, 7],
      [12.005, 12.005],
      [86_400_000.125, 86_400_000.125],
      [-1, 0],
    ] as const) {
      assert.equal(linesOf([{}], ms)[0]!.durationMs, told);
    }
  });
});

describe('a request that would write lines of its own', () => {
  const written = (changes: Partial<AccessEntry>, options = plainAccessLog) => {
    let text = '';
    const log = createAccessLog((lines) => {
      text += lines;
    }, options);
    log.write({ ...createAccessEntry('h2', '192.0.2.1', 0), ...changes }, 1);
    log.flush();
    return text;
  };

  for (const [attack, target] of [
    ['a line break', '/a\r\n{"status":200}'],
    ['a quote and a brace', '/","status":200,"x":"'],
    ['a backslash at the end', '/a\\'],
    ['an escape sequence of terminals', '/\x1b[2J\x9b2J\x07'],
    ['bytes that are not UTF-8', '/\xff\xfe\xc3\x28'],
    ['separators of lines in Unicode', '/\u2028\u2029\u0085'],
    ['half of a surrogate pair', '/\ud800'],
    ['NUL and DEL', '/\0\x7f'],
  ] as const) {
    it(`stays one line of ASCII that says what was asked: ${attack}`, () => {
      const text = written({ target, method: target, host: target });
      assert.match(text, /^[ -~]+\n$/);
      const line = JSON.parse(text);
      assert.equal(line.path, target);
      assert.equal(line.host, target);
      assert.equal(line.method, target);
      assert.equal(line.status, undefined);
    });
  }

  it('however long it is, its line can be written in one piece', () => {
    for (const char of ['a', '"', '\0']) {
      const long = `/${char.repeat(20_000)}`;
      const entry = {
        ...{ target: `${long}?${long}`, method: long, host: long, userAgent: long, match: { route: long } },
        ...{ id: 'i'.repeat(128), traceparent: 't'.repeat(55), fault: 'upstream-unresolved' as const },
        upstream: { host: 'h'.repeat(253), port: 65_535 },
        shownHeaders: Array.from({ length: 20 }, (_, i) => [`x-${i}`, long] as const),
      };
      for (const format of accessLogFormats) {
        const text = written(entry, { ...plainAccessLog, format, query: true });
        assert.ok(text.length <= 4_096, `${format}: ${text.length}`);
        assert.match(text, /^[ -~]+\n$/);
        if (format !== 'common') JSON.parse(text);
      }
      assert.ok(JSON.parse(written(entry)).path.endsWith('...'));
    }
  });

  it('over HTTP/2, through the whole of the ingress', async () => {
    const { session, only } = await setUp(
      'http',
      answering(() => OK),
    );
    const stream = session().request({ ':path': '/"\\x', ':scheme': 'ftp', ':authority': HOST });
    stream.resume();
    await closed(stream);
    const { sent, ...line } = await only();
    assert.ok(Number(sent) > 0);
    assert.deepEqual(line, {
      client: '127.0.0.1',
      protocol: 'h2',
      method: 'GET',
      host: HOST,
      path: '/"\\x',
      status: 400,
      received: 0,
      fault: 'bad-request',
    });
  });
});

describe('lines leave', () => {
  it('many at a time, never torn, and each once', async () => {
    const writes: string[] = [];
    const log = createAccessLog((lines) => void writes.push(lines));
    for (let i = 0; i < 100; i++) log.write({ ...createAccessEntry('tcp', '192.0.2.1', 0), sent: i }, 1);
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(writes.length < 20);
    for (const text of writes) assert.ok(text.length <= 4_096 && text.endsWith('}\n'));
    const sent = writes
      .join('')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).sent);
    assert.deepEqual(sent, [...Array(100).keys()]);
    log.flush();
    assert.equal(writes.join('').split('\n').length, 101);
  });
});

describe('HTTP/1.1', () => {
  it('a reply: its sizes, its upstream, and no query', async () => {
    const { ingress, only, address } = await setUp(
      'http',
      answering(() => OK),
    );
    const client = await ingress.connect();
    await client.request(`${request('POST /a/b?token=secret', 'Content-Length: 4')}four`);
    assert.deepEqual(await only(), {
      ...base,
      method: 'POST',
      path: '/a/b',
      status: 200,
      received: 4,
      sent: 2,
      upstream: address,
    });
  });

  it('each of several requests of one connection has its own line', async () => {
    const { ingress, lines } = await setUp(
      'http',
      answering(() => OK),
    );
    const client = await ingress.connect();
    client.send(request('GET /1') + request('GET /2'));
    await client.reply();
    await client.reply();
    await client.request(request('GET /3'));
    await eventually(() => lines.length === 3);
    assert.deepEqual(
      lines.map(({ path, sent }) => [path, sent]),
      [
        ['/1', 2],
        ['/2', 2],
        ['/3', 2],
      ],
    );
  });

  for (const [what, text, expected] of [
    [
      'an ambiguous one',
      request('POST /x', 'Content-Length: 1', 'Content-Length: 2'),
      { method: 'POST', path: '/x', status: 400, fault: 'bad-request' },
    ],
    ['one without a request line', 'hello\r\n\r\n', { host: undefined, status: 400, fault: 'bad-request' }],
    [
      'one for another host',
      'GET /x HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n',
      { host: 'elsewhere.example', method: 'GET', path: '/x', status: 421, fault: 'misdirected' },
    ],
    [
      'one without a route',
      request('GET /none'),
      { method: 'GET', path: '/none', status: 404, fault: 'no-route' },
    ],
  ] as const) {
    it(`refused: ${what}`, async () => {
      const { ingress, only } = await setUp(
        'http',
        answering(() => OK),
        {},
        (port) => [
          { ...routeTo(settingsFor(port)), paths: [{ prefix: '/only/', upstream: settingsFor(port) }] },
        ],
      );
      const client = await ingress.connect();
      const { body } = await client.request(text);
      const line = await only();
      assert.deepEqual(
        { host: undefined, ...line },
        { ...base, received: 0, sent: body.length, ...expected },
      );
    });
  }

  it('cancelled by the client before a reply', async () => {
    const { ingress, only, upstream, address } = await setUp('http', () => {});
    const client = await ingress.connect();
    client.send(request('GET /slow'));
    await eventually(() => upstream.count() === 1);
    client.socket.destroy();
    assert.deepEqual(await only(), {
      ...base,
      method: 'GET',
      path: '/slow',
      status: 499,
      received: 0,
      sent: 0,
      upstream: address,
      fault: 'client-closed',
    });
  });

  it('cut short by the upstream', async () => {
    const { ingress, only, address } = await setUp(
      'http',
      answering((_head, socket) => {
        socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc');
        return undefined;
      }),
    );
    const client = await ingress.connect();
    client.send(request('GET /cut'));
    await client.rest();
    assert.deepEqual(await only(), {
      ...base,
      method: 'GET',
      path: '/cut',
      status: 200,
      received: 0,
      sent: 3,
      upstream: address,
      fault: 'upstream-closed',
    });
  });

  it('a WebSocket, when it has ended', async () => {
    const { ingress, lines, only, address } = await setUp('http', (socket) => {
      socket.once('data', () => {
        socket.write(SWITCH);
        socket.on('data', (bytes: Buffer) => socket.write(Buffer.concat([bytes, bytes])));
        socket.on('end', () => socket.end());
      });
    });
    const client = await ingress.connect();
    client.send(request('GET /ws', 'Connection: Upgrade', 'Upgrade: websocket', WEBSOCKET_KEY));
    await client.until(/101[\s\S]*\r\n\r\n/);
    client.send(Buffer.from([0x81, 0x00]));
    await client.until(/(\x81\0){2}/);
    assert.equal(lines.length, 0);
    client.socket.end();
    assert.deepEqual(await only(), {
      ...base,
      protocol: 'websocket',
      method: 'GET',
      path: '/ws',
      status: 101,
      received: 2,
      sent: 4,
      upstream: address,
    });
  });
});

describe('HTTP/2', () => {
  it('a reply, with what was sent both ways', async () => {
    const { session, only, address } = await setUp('http', (socket) => {
      socket.on('data', (bytes) => {
        if (bytes.toString().endsWith('four')) socket.write(OK);
      });
    });
    const stream = session().request({ ':method': 'POST', ':path': '/a?b', 'content-length': '4' });
    stream.end('four');
    stream.resume();
    await closed(stream);
    assert.deepEqual(await only(), {
      ...base,
      protocol: 'h2',
      method: 'POST',
      path: '/a',
      status: 200,
      received: 4,
      sent: 2,
      upstream: address,
    });
  });

  it('cancelled by the client', async () => {
    const { session, only, upstream, address } = await setUp('http', () => {});
    const stream = session().request({ ':path': '/slow' });
    stream.on('error', () => {});
    await eventually(() => upstream.count() === 1);
    stream.close(8);
    assert.deepEqual(await only(), {
      ...base,
      protocol: 'h2',
      method: 'GET',
      path: '/slow',
      status: 499,
      received: 0,
      sent: 0,
      upstream: address,
      fault: 'client-closed',
    });
  });

  it('cut short by the upstream', async () => {
    const { session, only, address } = await setUp(
      'http',
      answering((_head, socket) => {
        socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc');
        return undefined;
      }),
    );
    const stream = session().request({ ':path': '/cut' });
    stream.on('error', () => {});
    stream.resume();
    await closed(stream);
    assert.deepEqual(await only(), {
      ...base,
      protocol: 'h2',
      method: 'GET',
      path: '/cut',
      status: 200,
      received: 0,
      sent: 3,
      upstream: address,
      fault: 'upstream-closed',
    });
  });

  it('a gRPC call that no upstream takes: its grpc-status', async () => {
    const { session, only, upstream } = await setUp('grpc', () => {});
    await upstream.close();
    const stream = session().request({
      ':method': 'POST',
      ':path': '/a.B/C',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.end();
    stream.resume();
    await closed(stream);
    assert.deepEqual(await only(), {
      ...base,
      protocol: 'h2',
      method: 'POST',
      path: '/a.B/C',
      status: 200,
      grpcStatus: 14,
      received: 0,
      sent: 0,
      fault: 'upstream-refused',
    });
  });
});

describe('tcp', () => {
  it('a connection, when it has ended', async () => {
    const { ingress, only, address } = await setUp('tcp', (socket) => {
      socket.on('data', (bytes) => socket.write(`${bytes}${bytes}`));
      socket.on('end', () => socket.end());
    });
    const client = await ingress.connect();
    client.send('abc');
    await client.until(/abcabc/);
    client.socket.end();
    assert.deepEqual(await only(), {
      client: '127.0.0.1',
      protocol: 'tcp',
      host: HOST,
      received: 3,
      sent: 6,
      upstream: address,
    });
  });
});

describe('a drain', () => {
  it('loses no line, whether an exchange ends in time or is cut', async () => {
    const { ingress, lines, upstream } = await setUp('http', (socket) => {
      socket.on('data', (bytes) => {
        if (bytes.includes('/quick')) socket.write(OK);
      });
    });
    const quick = await ingress.connect();
    const slow = await ingress.connect();
    const stream = openSession(ingress.port).request({ ':path': '/h2' });
    stream.on('error', () => {});
    slow.send(request('GET /slow'));
    await quick.request(request('GET /quick'));
    await eventually(() => upstream.count() === 3);
    await ingress.listener.drain(50);
    assert.deepEqual(lines.map(({ path, status, fault }) => [path, status, fault]).sort(), [
      ['/h2', undefined, 'draining'],
      ['/quick', 200, undefined],
      ['/slow', undefined, 'draining'],
    ]);
  });
});
