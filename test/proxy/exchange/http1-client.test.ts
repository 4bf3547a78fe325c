// HTTP/1.1 through the ingress: strict towards clients and upstreams, faithful in between.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import type { UpstreamSettings } from '../../../proxy/rules/routes.ts';
import type { LocalHandler } from '../../../src/lib/local-handler.ts';
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
  type Upstream,
} from '../../support/proxy.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

async function setUp(
  onConnection: Parameters<typeof startUpstream>[0],
  settings: Partial<UpstreamSettings> = {},
  options: Partial<ListenerOptions> = {},
): Promise<{ upstream: Upstream; ingress: Ingress }> {
  const upstream = await startUpstream(onConnection);
  cleanups.push(upstream.close);
  const ingress = await startIngress([routeTo(settingsFor(upstream.port, 'http', settings))], options);
  cleanups.push(ingress.close);
  return { upstream, ingress };
}

/** An upstream that keeps what it receives and answers each head. */
async function recording(
  reply: string | ((head: string) => string | undefined) = OK,
  options: Partial<ListenerOptions> = {},
) {
  const seen: string[] = [];
  let all = '';
  const parts = await setUp(
    (socket) => {
      socket.on('data', (bytes) => {
        all += bytes.toString('latin1');
      });
      answering((head) => {
        seen.push(head);
        return typeof reply === 'string' ? reply : reply(head);
      })(socket);
    },
    {},
    options,
  );
  return { ...parts, seen, all: () => all };
}

describe('an ambiguous request gets 400, the connection ends, and the upstream hears nothing', async () => {
  const { ingress, seen } = await recording(OK, { limits: { maxHeaderBytes: 16_384 } });
  const chunk = '0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.example.com\r\n\r\n';
  for (const [attack, text, status] of [
    ['CL.TE', `${request('POST /', 'Content-Length: 4', 'Transfer-Encoding: chunked')}${chunk}`, 400],
    ['TE.CL', `${request('POST /', 'Transfer-Encoding: chunked', 'Content-Length: 4')}${chunk}`, 400],
    ['two lengths', `${request('POST /', 'Content-Length: 0', 'Content-Length: 40')}${chunk}`, 400],
    ['a signed length', request('POST /', 'Content-Length: +1'), 400],
    ['a hidden coding', `${request('POST /', 'Transfer-Encoding: xchunked')}${chunk}`, 400],
    ['gzip, chunked', `${request('POST /', 'Transfer-Encoding: gzip, chunked')}${chunk}`, 501],
    ['a folded line', request('GET /', 'A: b', ' c'), 400],
    ['a space before the colon', request('GET /', 'Content-Length : 4'), 400],
    ['a bare LF', request('GET /', 'A: b\nContent-Length: 4'), 400],
    ['a NUL', request('GET /', 'A: \0'), 400],
    ['two hosts', request('GET /', `Host: ${HOST}`), 400],
    ['a host with a user', 'GET / HTTP/1.1\r\nHost: evil@app.example.com\r\n\r\n', 400],
    ['another host in the target', request('GET http://evil.example/'), 400],
    ['a user in the target', request(`GET http://${HOST}@evil.example/`), 400],
    ['a target without a slash', request('GET index'), 400],
    ['an asterisk for GET', request('GET *'), 400],
    ['no host', 'GET / HTTP/1.1\r\n\r\n', 400],
    ['HTTP/0.9', 'GET /\r\n\r\n', 400],
    ['HTTP/2.0 as text', `GET / HTTP/2.0\r\nHost: ${HOST}\r\n\r\n`, 505],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505],
    ['CONNECT', request(`CONNECT ${HOST}:443`), 405],
    ['TRACE', request('TRACE /'), 405],
    ['an expectation that nobody knows', request('GET /', 'Expect: 42'), 417],
    ['17 KiB of fields', request('GET /', `A: ${'b'.repeat(17_000)}`), 431],
    ['17 KiB of target', request(`GET /${'b'.repeat(17_000)}`), 414],
  ] as const) {
    it(`${attack}: ${status}`, async () => {
      const client = await ingress.connect();
      const before = seen.length;
      const reply = await client.request(text);
      assert.equal(reply.status, status);
      assert.match(reply.head, /\r\nConnection: close\r\n/);
      assert.match(reply.body, /^\{"error":"[a-z-]+","message":"[^"]+"\}\n$/);
      assert.deepEqual(await client.rest(), { text: '', clean: true });
      assert.equal(seen.length, before);
    });
  }

  it('a chunked body that goes wrong later: 400, and the upstream connection ends unfinished', async () => {
    const { ingress: own, upstream, all } = await recording(() => undefined);
    const client = await own.connect();
    client.send(`${request('POST /', 'Transfer-Encoding: chunked')}3\r\nabc\r\n`);
    await eventually(() => all().endsWith('3\r\nabc\r\n'));
    const reply = await client.request('3\nGET /smuggled HTTP/1.1\r\n\r\n');
    assert.equal(reply.status, 400);
    await eventually(() => upstream.sockets.size === 0);
    assert.doesNotMatch(all(), /smuggled/);
  });
});

describe('what the client says of connections and of itself stays here', async () => {
  const { ingress, seen } = await recording();

  it('spoofed addresses, nominated fields, hop-by-hop fields and underscores', async () => {
    const client = await ingress.connect();
    await client.request(
      request(
        'GET /',
        'X-Forwarded-For: 6.6.6.6',
        'x-forwarded-proto: http',
        'X-Forwarded-Host: evil.example',
        'X-Forwarded-Port: 1',
        'X-Real-IP: 6.6.6.6',
        'Forwarded: for=6.6.6.6',
        'Connection: X-A, keep-alive, Upgrade',
        'X-A: nominated',
        'Keep-Alive: timeout=5',
        'Proxy-Connection: close',
        'Proxy-Authorization: Basic eDp5',
        'TE: trailers',
        'Upgrade: h2c',
        'HTTP2-Settings: AAMAAABkAAQAAP__',
        'X_Forwarded_For: 6.6.6.6',
        'X-B:  kept ',
      ),
    );
    const port = ingress.port;
    assert.deepEqual(seen.at(-1)?.split('\r\n'), [
      'GET / HTTP/1.1',
      `Host: ${HOST}`,
      'X-B:  kept ',
      'x-forwarded-for: 127.0.0.1',
      'x-forwarded-proto: https',
      `x-forwarded-host: ${HOST}`,
      `x-forwarded-port: ${port}`,
      'x-real-ip: 127.0.0.1',
      `forwarded: for=127.0.0.1;host=${HOST};proto=https`,
      '',
      '',
    ]);
  });

  it('but a proxy that ends TLS before us is believed, and its lists grow', async () => {
    const { ingress: behind, seen: heads } = await recording(OK, { trustedForwarders: ['127.0.0.0/8'] });
    const client = await behind.connect();
    await client.request(
      request('GET /', 'X-Forwarded-For: 1.2.3.4', 'X-Forwarded-Proto: http', 'Forwarded: for=1.2.3.4'),
    );
    assert.match(heads[0]!, /\r\nx-forwarded-for: 1\.2\.3\.4, 127\.0\.0\.1\r\nx-forwarded-proto: http\r\n/);
    assert.match(
      heads[0]!,
      /\r\nforwarded: for=1\.2\.3\.4, for=127\.0\.0\.1;host=app\.example\.com;proto=https\r\n/,
    );
  });

  it('and hop-by-hop fields of replies stay on their side too', async () => {
    const { ingress: own } = await recording(
      'HTTP/1.1 200 OK\r\nConnection: X-A\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nProxy-Authenticate: x\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n',
    );
    const client = await own.connect();
    const { head } = await client.request(request('GET /'));
    assert.equal(head, 'HTTP/1.1 200 OK\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n');
  });

  it('an absolute target that names the same host becomes a path', async () => {
    const client = await ingress.connect();
    await client.request(request(`GET https://${HOST}/a?b`));
    assert.match(seen.at(-1)!, /^GET \/a\?b HTTP\/1\.1\r\n/);
    await client.request(request('OPTIONS *'));
    assert.match(seen.at(-1)!, /^OPTIONS \* HTTP\/1\.1\r\n/);
  });
});

describe('hosts', async () => {
  const { ingress } = await recording();
  const toHost = (host: string) => `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`;

  it('one that the certificate does not cover gets 421, one without a route 404, and the connection goes on', async () => {
    const client = await ingress.connect();
    const misdirected = await client.request(toHost('evil.example'));
    assert.deepEqual([misdirected.status, JSON.parse(misdirected.body).error], [421, 'misdirected']);
    const unknown = await client.request(toHost('other.example.com'));
    assert.deepEqual([unknown.status, JSON.parse(unknown.body).error], [404, 'no-route']);
    assert.equal((await client.request(toHost(`${HOST.toUpperCase()}:443`))).status, 200);
  });
});

describe('bodies arrive as they were sent', () => {
  it('requests: by length and chunked, with trailers, without extensions', async () => {
    const { ingress, all } = await recording();
    const client = await ingress.connect();
    await client.request(`${request('PUT /', 'Content-Length: 5')}hello`);
    assert.match(all(), /\r\nContent-Length: 5\r\n[\s\S]*\r\n\r\nhello$/);
    const body = '3;x=y\r\nabc\r\n0\r\nT-A: 1\r\nCookie: a\r\n\r\n';
    await client.request(`${request('POST /', 'Transfer-Encoding: chunked', 'Trailer: T-A')}${body}`);
    await eventually(() => all().endsWith('\r\n\r\n3\r\nabc\r\n0\r\nT-A: 1\r\n\r\n'));
  });

  it('requests: in pieces of one byte', async () => {
    const { ingress, all } = await recording();
    const client = await ingress.connect();
    const text = `${request('POST /', 'Transfer-Encoding: chunked')}3\r\nabc\r\n0\r\nT: 1\r\n\r\n`;
    for (const byte of text) {
      client.send(byte);
      await new Promise(setImmediate);
    }
    assert.equal((await client.reply()).body, 'ok');
    await eventually(() => all().endsWith('3\r\nabc\r\n0\r\nT: 1\r\n\r\n'));
  });

  for (const [what, reply, expected] of [
    [
      'by length',
      'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc',
      'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc',
    ],
    [
      'chunked with trailers',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: 1\r\nSet_x: 1\r\n\r\n',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n',
    ],
    [
      'without a reason',
      'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n',
      'HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n',
    ],
    [
      '204, whatever length it claims',
      'HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n',
      'HTTP/1.1 204 No Content\r\n\r\n',
    ],
    [
      '304 with the length of the 200',
      'HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n',
      'HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n',
    ],
    [
      'after 103',
      `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n${OK}`,
      `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${OK}`,
    ],
  ] as const) {
    it(`replies: ${what}, in one piece and byte by byte, and the connection goes on`, async () => {
      let slowly = false;
      const { ingress } = await setUp((socket) =>
        answering((head) => {
          if (head.startsWith('GET /next')) return OK;
          if (!slowly) return reply;
          void (async () => {
            for (const byte of reply) {
              socket.write(byte);
              await new Promise(setImmediate);
            }
          })();
          return undefined;
        })(socket),
      );
      for (slowly of [false, true]) {
        const client = await ingress.connect();
        client.send(request('GET /') + request('GET /next'));
        assert.equal(
          await client
            .until(/ok$/)
            .then((text) => (text === expected ? client.until(/ok$/).then((more) => text + more) : text)),
          expected + OK,
        );
      }
    });
  }

  it('replies: HEAD has the length and no body', async () => {
    const { ingress } = await recording((head) =>
      head.startsWith('HEAD') ? 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n' : OK,
    );
    const client = await ingress.connect();
    client.send(request('HEAD /') + request('GET /'));
    assert.match(
      await client.until(/ok$/),
      /^HTTP\/1\.1 200 OK\r\nContent-Length: 1000\r\n\r\nHTTP\/1\.1 200 OK/,
    );
  });

  it('replies: until the close becomes chunked, so that a missing end can be seen', async () => {
    const { ingress } = await setUp(
      answering((_head, socket) => {
        socket.end('HTTP/1.1 200 OK\r\n\r\nabc');
        return undefined;
      }),
    );
    const client = await ingress.connect();
    const reply = await client.request(request('GET /'));
    assert.equal(reply.head, 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
    assert.equal(reply.body, '3\r\nabc\r\n0\r\n\r\n');
    assert.equal((await client.request(request('GET /'))).status, 200);
  });

  it('replies: an HTTP/1.0 client gets no chunks and no interim replies', async () => {
    const { ingress } = await recording(
      `HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n`,
    );
    const client = await ingress.connect();
    client.send(`GET / HTTP/1.0\r\nHost: ${HOST}\r\n\r\n`);
    assert.deepEqual(await client.rest(), {
      text: 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde',
      clean: true,
    });
  });

  it('an HTTP/1.0 client that asks to be kept is kept', async () => {
    const { ingress } = await recording();
    const client = await ingress.connect();
    const text = `GET / HTTP/1.0\r\nHost: ${HOST}\r\nConnection: keep-alive\r\n\r\n`;
    assert.match((await client.request(text)).head, /Connection: keep-alive/);
    assert.equal((await client.request(text)).body, 'ok');
  });

  it('100-continue goes end to end', async () => {
    const { ingress, all } = await recording('HTTP/1.1 100 Continue\r\n\r\n');
    const client = await ingress.connect();
    client.send(request('POST /', 'Content-Length: 3', 'Expect: 100-continue'));
    assert.equal(await client.until(/\r\n\r\n/), 'HTTP/1.1 100 Continue\r\n\r\n');
    client.send('abc');
    await eventually(() => all().endsWith('\r\n\r\nabc'));
  });

  it('a reply before the end of the request body arrives, and nothing else is read from that connection', async () => {
    const { ingress, seen } = await recording('HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n');
    const client = await ingress.connect();
    const reply = await client.request(
      `${request('POST /', 'Content-Length: 100')}GET /smuggled HTTP/1.1\r\n`,
    );
    assert.equal(reply.status, 413);
    assert.match(reply.head, /Connection: close/);
    assert.equal((await client.rest()).clean, true);
    assert.equal(seen.length, 1);
  });
});

describe('of a crowd that asks at the same moment', () => {
  /** More than begin in one turn of the event loop. */
  const CROWD = 120;
  const BODY = 'ten bytes!';
  const echoing = (seen: string[]) => (socket: Socket) => {
    let text = '';
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
      const end = text.indexOf('\r\n\r\n') + 4;
      if (end === 3 || text.length < end + BODY.length) return;
      const path = text.split(' ')[1]!;
      seen.push(path);
      const body = `${path} ${text.slice(end)}`;
      text = '';
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    });
  };
  const post = (path: string) => request(`POST ${path}`, `Content-Length: ${BODY.length}`);
  const gatherCrowd = async () => {
    const seen: string[] = [];
    const { ingress } = await setUp(echoing(seen));
    const clients = await Promise.all(Array.from({ length: CROWD }, () => ingress.connect()));
    return { seen, ingress, clients };
  };

  it('each gets its own reply, and a body that comes while its head is in line arrives whole', async () => {
    const { seen, clients } = await gatherCrowd();
    for (const round of ['first', 'second']) {
      for (const [index, client] of clients.entries()) {
        client.send(post(`/${round}/${index}`));
        for (const byte of BODY) client.send(byte);
      }
      const replies = await Promise.all(clients.map((client) => client.reply()));
      assert.deepEqual(
        replies.map(({ body }) => body),
        clients.map((_, index) => `/${round}/${index} ${BODY}`),
      );
    }
    assert.equal(seen.length, 2 * CROWD);
  });

  it('a client that leaves while in line is not forwarded, and does not disturb others', async () => {
    const { seen, clients } = await gatherCrowd();
    const leaving = clients.splice(CROWD - 20);
    for (const client of clients) client.send(post('/stays') + BODY);
    for (const client of leaving) client.socket.end(post('/leaves') + BODY, 'latin1');
    for (const client of clients) assert.equal((await client.reply()).body, `/stays ${BODY}`);
    for (const client of leaving) assert.equal((await client.rest()).text, '');
    assert.deepEqual(new Set(seen), new Set(['/stays']));
    assert.equal(seen.length, CROWD - 20);
  });

  it('a drain ends every connection', async () => {
    const { ingress, clients } = await gatherCrowd();
    for (const client of clients) client.send(post('/') + BODY);
    const drained = ingress.listener.drain(10_000);
    for (const client of clients) {
      const reply = await client.reply();
      assert.equal(reply.status, 200);
      assert.match(reply.head, /\r\nConnection: close\r\n/);
      assert.deepEqual(await client.rest(), { text: '', clean: true });
    }
    await drained;
  });
});

describe('connections are kept', () => {
  it('a thousand pipelined requests are answered in order over one upstream connection', async () => {
    const { ingress, upstream } = await setUp(
      answering((head) => {
        const path = head.split(' ')[1]!;
        return `HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\n\r\n${path}`;
      }),
    );
    const client = await ingress.connect();
    client.send(Array.from({ length: 1_000 }, (_, i) => request(`GET /${i}`)).join(''));
    for (let i = 0; i < 1_000; i++) assert.equal((await client.reply()).body, `/${i}`);
    assert.equal(upstream.count(), 1);
  });

  it('an upstream connection with an unsolicited byte is never used again', async () => {
    const { ingress, upstream } = await setUp((socket, index) =>
      answering(() => {
        setTimeout(
          () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'),
          index === 0 ? 5 : 1e6,
        ).unref();
        return OK;
      })(socket),
    );
    const client = await ingress.connect();
    await client.request(request('GET /'));
    await eventually(() => upstream.sockets.size === 0);
    assert.equal((await client.request(request('GET /'))).body, 'ok');
    assert.equal(upstream.count(), 2);
  });

  it('bytes after a reply do not become the next one', async () => {
    const { ingress, upstream } = await recording(`${OK}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison`);
    const client = await ingress.connect();
    for (let i = 0; i < 3; i++) assert.equal((await client.request(request('GET /'))).body, 'ok');
    assert.equal(upstream.count(), 3);
  });

  it('a request that may be repeated is, when the upstream had closed an idle connection', async () => {
    const { ingress, upstream } = await setUp((socket, index) => {
      let requests = 0;
      answering(() => {
        if (index === 0 && ++requests === 2) {
          socket.resetAndDestroy();
          return undefined;
        }
        return OK;
      })(socket);
    });
    const client = await ingress.connect();
    await client.request(request('GET /'));
    assert.equal((await client.request(request('GET /'))).body, 'ok');
    assert.equal(upstream.count(), 2);
  });

  it('but a POST is not, and a GET only once', async () => {
    const { ingress, upstream } = await setUp((socket) => {
      socket.once('data', () => socket.destroy());
    });
    const client = await ingress.connect();
    const post = await client.request(request('POST /', 'Content-Length: 0'));
    assert.deepEqual(
      [post.status, JSON.parse(post.body).error, upstream.count()],
      [502, 'upstream-closed', 1],
    );
    assert.equal((await client.request(request('GET /'))).status, 502);
    assert.equal(upstream.count(), 3);
  });
});

describe('a failing upstream is told apart from a whole reply', () => {
  for (const [what, text] of [
    ['by length', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc'],
    ['chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n'],
    ['malformed chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n'],
  ] as const) {
    for (const end of ['end', 'resetAndDestroy'] as const) {
      it(`${what}, then ${end}: the client's connection is cut`, async () => {
        const { ingress } = await setUp((socket) => {
          socket.once('data', () => socket.write(text, () => setTimeout(() => socket[end](), 10)));
        });
        const client = await ingress.connect();
        client.send(request('GET /'));
        const { text: received } = await client.rest();
        if (what !== 'malformed chunks') assert.match(received, /abc(\r\n)?$/);
        assert.doesNotMatch(received, /\r\n0\r\n/);
      });
    }
  }

  it('a reply until the close that ends in a reset is cut as well', async () => {
    const { ingress } = await setUp((socket) => {
      socket.once('data', () =>
        socket.write('HTTP/1.1 200 OK\r\n\r\nabc', () => setTimeout(() => socket.resetAndDestroy(), 10)),
      );
    });
    const client = await ingress.connect();
    client.send(request('GET /'));
    assert.doesNotMatch((await client.rest()).text, /\r\n0\r\n/);
  });

  for (const [what, text] of [
    ['garbage', 'hello\r\n\r\n'],
    ['both lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['101 that nobody asked for', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n'],
    ['endless fields', `HTTP/1.1 200 OK\r\nA: ${'b'.repeat(20_000)}`],
  ] as const) {
    it(`${what}: 502`, async () => {
      const { ingress, upstream } = await recording(text, { limits: { maxHeaderBytes: 16_384 } });
      const client = await ingress.connect();
      const reply = await client.request(request('GET /'));
      assert.deepEqual([reply.status, JSON.parse(reply.body).error], [502, 'upstream-malformed']);
      await eventually(() => upstream.sockets.size === 0);
    });
  }

  it('refused: 502, without a word about where it is', async () => {
    const { ingress, upstream } = await recording();
    await upstream.close();
    cleanups.splice(cleanups.indexOf(upstream.close), 1);
    const client = await ingress.connect();
    const reply = await client.request(request('GET /'));
    assert.deepEqual([reply.status, JSON.parse(reply.body).error], [502, 'upstream-refused']);
    assert.doesNotMatch(reply.body, new RegExp(`127|${upstream.port}`));
    assert.equal((await client.request(request('GET /'))).status, 502);
  });

  it('silent: 504', async () => {
    const { ingress } = await setUp(() => {}, { readTimeoutMs: 100 });
    const client = await ingress.connect();
    const reply = await client.request(request('GET /'));
    assert.deepEqual([reply.status, JSON.parse(reply.body).error], [504, 'upstream-timeout']);
  });

  it('one of two addresses refused: the other answers', async () => {
    const { upstream } = await recording();
    const dead = await startUpstream(() => {});
    await dead.close();
    const settings = settingsFor(upstream.port, 'http', {
      addresses: [
        { host: '127.0.0.1', port: dead.port },
        { host: '127.0.0.1', port: upstream.port },
      ],
    });
    const ingress = await startIngress([routeTo(settings)]);
    cleanups.push(ingress.close);
    const client = await ingress.connect();
    for (let i = 0; i < 5; i++) assert.equal((await client.request(request('GET /'))).body, 'ok');
  });
});

describe('clients that are slow, greedy or gone', () => {
  it('a head that does not end: 408', async () => {
    const { ingress } = await recording(OK, { limits: { headerTimeoutMs: 100 } });
    const client = await ingress.connect();
    const reply = await client.request('GET / HTTP/1.1\r\nHost: a');
    assert.deepEqual([reply.status, JSON.parse(reply.body).error], [408, 'request-timeout']);
    assert.equal((await client.rest()).clean, true);
  });

  it('a head that grows by a byte at a time gets no more time for it', async () => {
    const { ingress } = await recording(OK, { limits: { headerTimeoutMs: 200 } });
    const client = await ingress.connect();
    client.send('GET / HTTP/1.1\r\nHost: a\r\n');
    const drip = setInterval(() => client.send('A'), 20);
    const reply = await client.reply();
    clearInterval(drip);
    assert.equal(reply.status, 408);
  });

  it('a body that does not end: 408, and the upstream connection ends', async () => {
    const { ingress, upstream } = await recording(() => undefined, { limits: { clientIdleTimeoutMs: 100 } });
    const client = await ingress.connect();
    assert.equal((await client.request(`${request('POST /', 'Content-Length: 10')}abc`)).status, 408);
    await eventually(() => upstream.sockets.size === 0);
  });

  it('a connection without a request is closed', async () => {
    const { ingress } = await recording(OK, { limits: { keepAliveTimeoutMs: 100 } });
    const client = await ingress.connect();
    await client.request(request('GET /'));
    assert.deepEqual(await client.rest(), { text: '', clean: true });
  });

  it('a body over the limit: 413 by its length before the upstream hears of it', async () => {
    const { ingress, upstream } = await recording(OK, { limits: { maxBodyBytes: 10 } });
    const client = await ingress.connect();
    assert.equal((await client.request(request('POST /', 'Content-Length: 11'))).status, 413);
    assert.equal(upstream.count(), 0);
  });

  it('a chunked body over the limit: 413 when it passes it, and the upstream gets no end', async () => {
    const { ingress, upstream, all } = await recording(() => undefined, { limits: { maxBodyBytes: 10 } });
    const client = await ingress.connect();
    client.send(`${request('POST /', 'Transfer-Encoding: chunked')}8\r\nabcdefgh\r\n`);
    await eventually(() => all().includes('abcdefgh'));
    assert.equal((await client.request('8\r\nabcdefgh\r\n0\r\n\r\n')).status, 413);
    await eventually(() => upstream.sockets.size === 0);
    assert.doesNotMatch(all(), /\r\n0\r\n/);
  });

  it('a client that goes away takes its upstream request along', async () => {
    const { ingress, upstream } = await recording(() => undefined);
    const client = await ingress.connect();
    client.send(request('GET /'));
    await eventually(() => upstream.sockets.size === 1);
    client.socket.destroy();
    await eventually(() => upstream.sockets.size === 0);
  });

  it('a client that takes nothing stops its upstream, not the others, and gets every byte in the end', async () => {
    const size = 32 * 1024 * 1024;
    let written = 0;
    const { ingress } = await setUp(
      answering((head, socket) => {
        if (head.startsWith('GET /small')) return OK;
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
        const piece = Buffer.alloc(65_536, 'x');
        const more = () => {
          while (written < size) {
            written += piece.length;
            if (!socket.write(piece)) return void socket.once('drain', more);
          }
        };
        more();
        return undefined;
      }),
    );
    const client = await ingress.connect();
    client.socket.pause();
    client.send(request('GET /big'));
    const other = await ingress.connect();
    let before = -1;
    while (before !== written) {
      before = written;
      for (let i = 0; i < 20; i++) assert.equal((await other.request(request('GET /small'))).body, 'ok');
    }
    // Kernel buffers on two connections and the ingress's own few chunks are all that may be in flight.
    assert.ok(written < size / 2, `${written} bytes were taken from the upstream`);
    let received = 0;
    client.socket.removeAllListeners('data');
    client.socket.on('data', (bytes) => {
      received += bytes.length;
    });
    client.socket.resume();
    await eventually(() => received > size);
  });

  it('an upstream that takes nothing stops its client', async () => {
    const { ingress, upstream } = await setUp((socket) => void socket.pause());
    const client = await ingress.connect();
    const size = 32 * 1024 * 1024;
    client.send(request('POST /', `Content-Length: ${size}`));
    const piece = Buffer.alloc(65_536, 'x');
    let sent = 0;
    while (sent < size && client.socket.write(piece)) sent += piece.length;
    for (let still = 0; still < 10 && sent < size; ) {
      if (client.socket.writableNeedDrain) {
        still++;
        await new Promise((resolve) => setTimeout(resolve, 10));
      } else {
        still = 0;
        sent += piece.length;
        client.socket.write(piece);
      }
    }
    assert.ok(sent < size, 'the whole body was taken');
    let received = 0;
    for (const socket of upstream.sockets)
      socket.on('data', (bytes) => {
        received += bytes.length;
      });
    for (const socket of upstream.sockets) socket.resume();
    await eventually(() => received >= sent);
  });
});

describe('what the ingress answers by itself', async () => {
  const seen: unknown[] = [];
  const handler: LocalHandler = {
    async handle(local) {
      seen.push(local);
      if (local.path.endsWith('/broken')) throw new Error('broken');
      return { status: 200, headers: { 'content-type': 'text/plain' }, body: Buffer.from('evidence') };
    },
  };
  const { ingress, upstream } = await recording(OK, {
    localPaths: [{ path: '/evidences', answeredBy: 'handler' }],
    localHandlers: { handler },
  });

  it('comes before every route, HEAD without the body, and the connection goes on', async () => {
    const client = await ingress.connect();
    const reply = await client.request(request('GET /evidences/a?b=c', 'X-A: 1', 'x-a: 2'));
    assert.deepEqual([reply.status, reply.body], [200, 'evidence']);
    const { headers, ...rest } = seen[0] as { headers: Record<string, string> };
    assert.deepEqual(rest, { method: 'GET', path: '/evidences/a', query: 'b=c', host: HOST });
    assert.equal(headers['x-a'], '1, 2');
    client.send(request('HEAD /evidences/a') + request('GET /evidences/broken'));
    assert.match(await client.until(/\r\n\r\n/), /content-type: text\/plain\r\nContent-Length: 8\r\n\r\n$/);
    assert.equal((await client.reply()).status, 500);
    assert.equal(upstream.count(), 0);
  });

  it("but not for a host that is not this connection's", async () => {
    const client = await ingress.connect();
    assert.equal(
      (await client.request('GET /evidences/a HTTP/1.1\r\nHost: evil.example\r\n\r\n')).status,
      421,
    );
  });
});
