// A bare host:port against clients that name no protocol: no request gets past the ingress, and what is none still passes.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import {
  connect as connectHttp2,
  createServer as createHttp2Server,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo, Server } from 'node:net';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createAccessLog, type ListenerOptions } from '../../../proxy/listener/listener.ts';
import type { UpstreamProtocol } from '../../../proxy/rules/routes.ts';
import { startNginx } from '../../support/nginx.ts';
import { freePort } from '../../support/ports.ts';
import {
  answering,
  eventually,
  HOST,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const cleanups: (() => Promise<unknown>)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanups.push(async () => server.close());
  return (server.address() as AddressInfo).port;
}

async function ingressTo(
  port: number,
  protocol: UpstreamProtocol = 'auto',
  options: Partial<ListenerOptions> = {},
) {
  const ingress = await startIngress([routeTo(settingsFor(port, protocol))], options);
  cleanups.push(ingress.close);
  return ingress;
}

/** Longer than a silent client is given before its upstream is asked to speak. */
const PAUSE_MS = 150;
const FORGED = '192.0.2.66';
const FIELDS = `X-Real-IP: ${FORGED}\r\nX-Forwarded-For: ${FORGED}\r\nHost: foreign.example\r\n\r\n`;

const methods = [
  'GET',
  'get',
  'Get',
  'POST',
  'DELETE',
  'A'.repeat(25),
  'a'.repeat(40),
  'M-SEARCH',
  'FOO_BAR',
  "!#$%&'*+-.^_`|~",
  '0',
  '*',
  'PRI',
  'PROXY',
  'DESCRIBE',
  'SOURCE',
  'QUERY',
  'EHLO',
];

/** The first line of each, without its end. */
const OPENINGS = [
  ...methods.map((method) => `${method} / HTTP/1.1`),
  ...['\r\n', '\n', '\r\n\r\n', '\n\n\n', ' ', '\t', '\v', '\f', '\r', '\x1c', '\x85', '\xa0'].map(
    (front) => `${front}GET / HTTP/1.1`,
  ),
  ...['\t', '  ', '\v', '\f', '\r', '\x1d', '\xa0', '\0', '\n', '\r\n', ':'].map(
    (blank) => `GET${blank}/ HTTP/1.1`,
  ),
  ...[
    'http://foreign.example/',
    'foreign.example:80',
    '*',
    '//',
    '/\0',
    '/#',
    'x',
    '{',
    '"',
    '\\',
    '%2f',
    '',
  ].map((target) => `GET ${target} HTTP/1.1`),
  ...[
    '',
    ' ',
    ' HTTP/1.0',
    ' HTTP/0.9',
    ' HTTP/2.0',
    ' HTTP/1.1 ',
    ' http/1.1',
    ' RTSP/1.0',
    ' ICE/1.0',
    ' X',
  ].map((version) => `GET /${version}`),
  'OPTIONS * RTSP/1.0',
  'SOURCE / ICE/1.0',
  'CONNECT foreign.example:80 HTTP/1.1',
  'CONNECT foreign.example:80',
  'PRI * HTTP/2.0',
  '\0GET / HTTP/1.1',
  '\x01\x02 / HTTP/1.1',
  'G\0ET / HTTP/1.1',
  '\x80GET / HTTP/1.1',
  '\r\n\r\n\0\r\nQUIT\nGET / HTTP/1.1',
  'PROXY TCP4 192.0.2.66 192.0.2.1 1 2\r\nGET / HTTP/1.1',
  'EHLO x\r\nGET / HTTP/1.1',
  'PING\r\nGET / HTTP/1.1',
  '\0\r\nGET / HTTP/1.1',
  '\x16\x03\x01\x00\x05hello\nGET / HTTP/1.1',
];

/** What an app got to see: whatever says that it came from the forged address, or does not say where it came from. */
function recorder() {
  const wrong: string[] = [];
  let seen = 0;
  const handle = (incoming: IncomingMessage, response: ServerResponse) => {
    seen++;
    const { headers, method, url } = incoming;
    const told = headers['x-real-ip'];
    if (told !== '127.0.0.1' || JSON.stringify(headers).includes(FORGED))
      wrong.push(`${method} ${url} ${told}`);
    response.end('ok');
  };
  return { wrong, handle, seen: () => seen };
}

describe('a request in the clothes of something else', async () => {
  const apps = {
    async 'node:http'(handle: ReturnType<typeof recorder>['handle']) {
      return listen(createHttpServer(handle));
    },
    async nginx(handle: ReturnType<typeof recorder>['handle']) {
      const app = await listen(createHttpServer(handle));
      const nginx = await startNginx({
        port: await freePort(),
        server: `server_name _; location / { proxy_pass http://127.0.0.1:${app}; }`,
      });
      cleanups.push(nginx.stop);
      return nginx.port;
    },
  };

  for (const [name, start] of Object.entries(apps)) {
    it(`never reaches ${name} with fields of the client's own, cut anywhere with a pause`, async () => {
      const app = recorder();
      const ingress = await ingressTo(await start(app.handle), 'auto', {
        limits: { headerTimeoutMs: 2_000 },
      });
      const attempts = OPENINGS.flatMap((opening) => {
        const cuts = Array.from({ length: Math.min(opening.length, 24) + 1 }, (_, index) => index);
        return cuts.map((cut) => ({ opening, cut }));
      });
      assert.ok(OPENINGS.length >= 60);
      await inParallel(40, attempts, async ({ opening, cut }) => {
        const client = await ingress.connect();
        const text = `${opening}\r\n${FIELDS}`;
        if (cut > 0) client.send(text.slice(0, cut));
        await sleep(PAUSE_MS);
        client.send(text.slice(cut));
        // An answer from us or from the app, or an end: by then whatever was to arrive has arrived.
        await client.until(/[\s\S]/).catch(() => {});
        client.socket.destroy();
        assert.deepEqual(app.wrong, [], JSON.stringify({ opening, cut }));
      });
      // The app is there, and honest requests arrive.
      const client = await ingress.connect();
      const before = app.seen();
      assert.equal((await client.request(request('GET /', `X-Real-IP: ${FORGED}`))).status, 200);
      assert.equal(app.seen(), before + 1);
      assert.deepEqual(app.wrong, []);
    });
  }
});

async function inParallel<T>(width: number, items: readonly T[], work: (item: T) => Promise<void>) {
  let next = 0;
  const run = async () => {
    while (next < items.length) await work(items[next++]!);
  };
  await Promise.all(Array.from({ length: width }, run));
}

describe('a bare host:port', () => {
  it('what begins like a request waits for its end under the limit of a head, and is told that it was too slow', async () => {
    for (const begun of ['GE', '\r\n', 'EHLO']) {
      const app = recorder();
      const lines: string[] = [];
      const ingress = await ingressTo(await listen(createHttpServer(app.handle)), 'auto', {
        limits: { headerTimeoutMs: 400 },
        accessLog: createAccessLog((text) => lines.push(text)),
      });
      const client = await ingress.connect();
      client.send(begun);
      const { text } = await client.rest();
      assert.match(text, /^HTTP\/1\.1 408 [\s\S]*\r\nConnection: close\r\n/);
      await eventually(() => lines.length > 0);
      assert.match(lines.join(''), /"fault":"request-timeout"/);
      assert.equal(app.seen(), 0);
    }
  });

  it('a first line without an end is refused where a head would be', async () => {
    const ingress = await ingressTo(await listen(createHttpServer(recorder().handle)), 'auto', {
      limits: { maxHeaderBytes: 1_024 },
    });
    const client = await ingress.connect();
    for (let i = 0; i < 20; i++) client.send('A'.repeat(100));
    assert.match((await client.rest()).text, /^HTTP\/1\.1 4\d\d /);
  });

  it('its unfinished line and an end are passed on where they are no request, and are nothing where they are one', async () => {
    const seen: string[] = [];
    const upstream = await startUpstream((socket) => {
      let text = '';
      socket.on('data', (bytes) => {
        text += bytes.toString('latin1');
      });
      socket.on('end', () => {
        seen.push(text);
        socket.end('done');
      });
    });
    cleanups.push(upstream.close);
    const ingress = await ingressTo(upstream.port);
    for (const [line, passed] of [
      ['ruok', true],
      ['EHLO host', true],
      ['GET / HT', false],
      ['get /', false],
    ] as const) {
      const client = await ingress.connect();
      client.socket.end(line);
      const { text } = await client.rest();
      assert.equal(text.includes('done'), passed, line);
    }
    assert.deepEqual(seen, ['ruok', 'EHLO host']);
  });

  it('reaches the upstream when the client begins: SMTP, Redis, memcached, SSH, JSON lines, TLS in TLS, however slowly', async () => {
    const upstream = await startUpstream((socket) => {
      socket.on('data', (bytes) => socket.write(bytes));
      socket.on('end', () => socket.end());
    });
    cleanups.push(upstream.close);
    const ingress = await ingressTo(upstream.port);
    for (const text of [
      'EHLO host\r\n',
      '*1\r\n$4\r\nPING\r\n',
      'get key\r\n',
      'SSH-2.0-OpenSSH_9.6p1 Ubuntu-3\r\n',
      '{"request":"GET / HTTP/1.1","status":200}\n',
      '\x16\x03\x01\x00\x05\x01\x00\x00\x01\x0a\x00http/1.1\n',
      '0\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00',
      'AMQP\0\0\x09\x01',
    ]) {
      const client = await ingress.connect();
      client.send(text.slice(0, 2));
      await sleep(PAUSE_MS);
      client.send(text.slice(2));
      assert.equal(await client.until(new RegExp(`^[\\x00-\\xff]{${text.length}}$`)), text);
      client.socket.end();
      assert.deepEqual(await client.rest(), { text: '', clean: true });
    }
  });

  it('a server of HTTP that loses its patience is not taken for one that speaks first', async () => {
    const heads: string[] = [];
    const upstream = await startUpstream((socket, index) => {
      if (index === 0) return void socket.end('HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n');
      answering((head) => {
        heads.push(head);
        return OK;
      })(socket);
    });
    cleanups.push(upstream.close);
    const ingress = await ingressTo(upstream.port);
    const client = await ingress.connect();
    await eventually(() => upstream.count() === 1 && upstream.sockets.size === 0);
    assert.equal((await client.request(request('GET /', `X-Real-IP: ${FORGED}`))).body, 'ok');
    assert.match(heads[0]!, /x-real-ip: 127\.0\.0\.1\r\n/);
    assert.doesNotMatch(heads[0]!, new RegExp(FORGED));
  });

  it('nor is one of HTTP/2, which sends its settings unasked', async () => {
    const seen: unknown[] = [];
    const app = createHttp2Server();
    app.on('stream', (stream: ServerHttp2Stream, headers) => {
      seen.push(headers['x-real-ip']);
      stream.respond({ ':status': 200 });
      stream.end('ok');
    });
    const greeted = once(app, 'session');
    const ingress = await ingressTo(await listen(app));
    const client = await ingress.connect();
    await greeted;
    await sleep(PAUSE_MS);
    const session = connectHttp2(`https://${HOST}`, { createConnection: () => client.socket });
    session.on('error', () => {});
    const stream = session.request({ ':path': '/', 'x-real-ip': FORGED });
    stream.on('error', () => {});
    const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
    // A bare host:port is spoken to in HTTP/1.1, which this app does not understand.
    assert.equal(headers[':status'], 502);
    session.destroy();
    assert.deepEqual(seen, []);
  });
});

describe('HTTP/2 without ALPN', () => {
  async function statusOf(ingress: Awaited<ReturnType<typeof ingressTo>>): Promise<unknown> {
    const client = await ingress.connect();
    const session = connectHttp2(`https://${HOST}`, { createConnection: () => client.socket });
    const stream = session.request({ ':path': '/', 'x-real-ip': FORGED });
    const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
    session.destroy();
    return headers[':status'];
  }

  it('is served as with it, and says who the client is', async () => {
    const app = recorder();
    const ingress = await ingressTo(await listen(createHttpServer(app.handle)));
    assert.equal(await statusOf(ingress), 200);
    assert.equal(app.seen(), 1);
    assert.deepEqual(app.wrong, []);
  });

  it('to an upstream that speaks HTTP/2 as well, with clients of HTTP/1.1 beside it', async () => {
    const seen: unknown[] = [];
    const app = createHttp2Server();
    app.on('stream', (stream: ServerHttp2Stream, headers) => {
      seen.push(headers['x-real-ip']);
      stream.respond({ ':status': 200, 'content-length': '2' });
      stream.end('ok');
    });
    const ingress = await ingressTo(await listen(app), 'h2c', { alpn: ['h2'] });
    assert.equal(await statusOf(ingress), 200);
    const client = await ingress.connect();
    client.send('\r\nGE');
    assert.equal((await client.request(request('GET /').slice(2))).body, 'ok');
    const junk = await ingress.connect();
    assert.equal((await junk.request('\0\x01\x02\r\n\r\n')).status, 400);
    assert.deepEqual(seen, ['127.0.0.1', '127.0.0.1']);
  });

  it('is told 505 where HTTP/2 is not offered', async () => {
    const ingress = await ingressTo(await listen(createHttpServer(recorder().handle)), 'auto', {
      alpn: ['http/1.1'],
    });
    const client = await ingress.connect();
    const { status, body } = await client.request('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    assert.equal(status, 505);
    assert.match(body, /version/);
  });
});

describe('where HTTP/2 alone is offered', async () => {
  const app = createHttp2Server();
  app.on('stream', (stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200, 'content-length': '2' });
    stream.end('ok');
  });
  const ingress = await ingressTo(await listen(app), 'h2c', {
    alpn: ['h2'],
    localPaths: [{ path: '/evidences', answeredBy: 'evidence' }],
    localHandlers: {
      evidence: { handle: () => ({ status: 200, headers: {}, body: Buffer.from('evidence') }) },
    },
  });

  for (const ALPNProtocols of [['http/1.1'], ['http/1.0'], ['spdy/3', 'http/1.1'], undefined]) {
    it(`a client that offers ${ALPNProtocols ?? 'nothing'} goes on with HTTP/1.1: evidence and app answer`, async () => {
      const client = await ingress.connect({ ...(ALPNProtocols && { ALPNProtocols }) });
      assert.equal((await client.request(request('GET /evidences/x'))).body, 'evidence');
      assert.equal((await client.request(request('GET /'))).body, 'ok');
    });
  }

  it('one that then speaks HTTP/2 all the same is told 505', async () => {
    const client = await ingress.connect({ ALPNProtocols: ['http/1.1'] });
    assert.equal((await client.request('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')).status, 505);
  });

  it('h2 is still agreed on, and a protocol that is not offered is refused', async () => {
    const client = await ingress.connect({ ALPNProtocols: ['http/1.1', 'h2'] });
    assert.equal(client.socket.alpnProtocol, 'h2');
    await assert.rejects(ingress.connect({ ALPNProtocols: ['smtp'] }), /alert/i);
  });
});
