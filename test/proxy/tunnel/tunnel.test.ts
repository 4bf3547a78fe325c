// Upgrades, raw TCP, and the bare host:port that is either: bytes both ways, half-closes kept.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { after, describe, it } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { type ClientOptions, WebSocket, WebSocketServer } from 'ws';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import type { UpstreamProtocol } from '../../../proxy/rules/routes.ts';
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

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n';
const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

async function setUp(
  protocol: UpstreamProtocol,
  onConnection: Parameters<typeof startUpstream>[0],
  options: Partial<ListenerOptions> = {},
) {
  const upstream = await startUpstream(onConnection);
  cleanups.push(upstream.close);
  const ingress = await startIngress([routeTo(settingsFor(upstream.port, protocol))], options);
  cleanups.push(ingress.close);
  return { upstream, ingress };
}

const upgrade = (...fields: string[]) =>
  request('GET /ws', 'Connection: keep-alive, Upgrade', 'Upgrade: echo', ...fields);

describe('an upgrade that smuggles', () => {
  for (const [attack, text] of [
    ['with a body', `${upgrade('Content-Length: 3')}abc`],
    ['with chunks', `${upgrade('Transfer-Encoding: chunked')}0\r\n\r\n`],
    [
      'to h2c',
      request('GET /ws', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk'),
    ],
    ['that Connection does not name', request('GET /ws', 'Upgrade: echo')],
  ] as const) {
    it(`${attack} reaches the upstream as a plain request`, async () => {
      let seen = '';
      const { ingress } = await setUp(
        'http',
        answering((head) => {
          seen = head;
          return OK;
        }),
      );
      const client = await ingress.connect();
      assert.equal((await client.request(text)).body, 'ok');
      assert.doesNotMatch(seen, /upgrade|http2/i);
    });
  }

  it('a refused upgrade leaves no tunnel: what follows is a request like any other', async () => {
    const seen: string[] = [];
    const { ingress } = await setUp(
      'http',
      answering((head) => {
        seen.push(head);
        return 'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n';
      }),
    );
    const client = await ingress.connect();
    assert.equal((await client.request(upgrade())).status, 403);
    assert.equal((await client.request('GET /admin HTTP/1.1\r\nHost: evil.example\r\n\r\n')).status, 421);
    assert.equal(seen.length, 1);
  });

  it('426 says what to upgrade to', async () => {
    const { ingress } = await setUp(
      'http',
      answering(
        () =>
          'HTTP/1.1 426 Upgrade Required\r\nUpgrade: echo\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n',
      ),
    );
    const client = await ingress.connect();
    assert.match(
      (await client.request(request('GET /'))).head,
      /\r\nUpgrade: echo\r\nConnection: upgrade\r\n/,
    );
  });
});

describe('a 101 that is not the answer to what was asked', () => {
  const websocket = ['Connection: Upgrade', 'Upgrade: websocket', WEBSOCKET_KEY];
  const to = (...fields: string[]) => ['HTTP/1.1 101 Odd', ...fields, '', ''].join('\r\n');

  for (const [what, asked, reply] of [
    ['no accept', websocket, to('Connection: Upgrade', 'Upgrade: websocket')],
    [
      'a forged accept',
      websocket,
      to('Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Accept: forged'),
    ],
    [
      'two accepts',
      websocket,
      to('Connection: Upgrade', 'Upgrade: websocket', WEBSOCKET_ACCEPT, 'Sec-WebSocket-Accept: x'),
    ],
    ['no Upgrade', websocket, to('Connection: Upgrade', WEBSOCKET_ACCEPT)],
    ['no Connection', websocket, to('Upgrade: websocket', WEBSOCKET_ACCEPT)],
    ['another protocol', websocket, to('Connection: Upgrade', 'Upgrade: echo', WEBSOCKET_ACCEPT)],
    ['one more protocol', websocket, to('Connection: Upgrade', 'Upgrade: websocket, echo', WEBSOCKET_ACCEPT)],
    [
      'a WebSocket without a key',
      websocket.slice(0, 2),
      to('Connection: Upgrade', 'Upgrade: websocket', WEBSOCKET_ACCEPT),
    ],
    [
      'a WebSocket with two keys',
      [...websocket, 'Sec-WebSocket-Key: x'],
      to('Connection: Upgrade', 'Upgrade: websocket', WEBSOCKET_ACCEPT),
    ],
    [
      'a WebSocket where another was asked for',
      ['Connection: Upgrade', 'Upgrade: echo', WEBSOCKET_KEY],
      to('Connection: Upgrade', 'Upgrade: websocket', WEBSOCKET_ACCEPT),
    ],
    [
      'another version',
      ['Connection: Upgrade', 'Upgrade: echo/1'],
      to('Connection: Upgrade', 'Upgrade: echo/2'),
    ],
  ] as const) {
    it(`${what}: a bad gateway, and nothing that follows reaches the upstream`, async () => {
      let seen = '';
      const { ingress, upstream } = await setUp('http', (socket) => {
        socket.on('data', (bytes) => {
          if (seen === '') socket.write(reply);
          seen += bytes.toString('latin1');
        });
        socket.on('end', () => socket.end());
      });
      const client = await ingress.connect();
      client.send(request('GET /ws', ...asked));
      assert.match(await client.until(/\r\n\r\n/), /^HTTP\/1\.1 502 /);
      client.send('GET /admin HTTP/1.1\r\nHost: x\r\nX-Real-IP: 192.0.2.66\r\n\r\n');
      await eventually(() => upstream.sockets.size === 0);
      assert.doesNotMatch(seen, /admin/);
    });
  }

  it('but one of those asked for is enough, in any case', async () => {
    const { ingress } = await setUp('http', (socket) => {
      socket.once('data', () => socket.write(to('Connection: upgrade', 'Upgrade: ECHO')));
      socket.on('end', () => socket.end());
    });
    const client = await ingress.connect();
    client.send(request('GET /', 'Connection: Upgrade', 'Upgrade: websocket, echo', WEBSOCKET_KEY));
    assert.match(await client.until(/\r\n\r\n/), /^HTTP\/1\.1 101 /);
  });
});

describe('an upgraded connection', () => {
  it('carries every byte both ways, those that came with the heads too', async () => {
    let seen = '';
    const { ingress } = await setUp('http', (socket) => {
      socket.once('data', (bytes) => {
        seen = bytes.toString('latin1');
        socket.write(`${SWITCH}first`);
        const rest = seen.slice(seen.indexOf('\r\n\r\n') + 4);
        socket.write(rest.toUpperCase());
        socket.on('data', (more) => socket.write(more.toString('latin1').toUpperCase()));
      });
    });
    const client = await ingress.connect();
    client.send(`${upgrade()}early`);
    assert.equal(await client.until(/\r\n\r\n/), SWITCH);
    await client.until(/^firstEARLY$/);
    client.send('later');
    await client.until(/^LATER$/);
    assert.match(seen, /\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n/);
  });

  it('ends half by half, from either side', async () => {
    for (const first of ['client', 'upstream'] as const) {
      const { ingress, upstream } = await setUp('http', (socket) => {
        socket.once('data', () => {
          socket.write(SWITCH);
          if (first === 'upstream') socket.end('bye');
          let received = '';
          socket.on('data', (bytes) => {
            received += bytes;
          });
          socket.on('end', () => socket.writable && socket.end(`got ${received}`));
        });
      });
      const client = await ingress.connect();
      client.send(upgrade());
      await client.until(/\r\n\r\n/);
      if (first === 'client') {
        client.socket.end('all');
        assert.deepEqual(await client.rest(), { text: 'got all', clean: true });
      } else {
        assert.deepEqual(await client.rest(), { text: 'bye', clean: true });
        client.socket.end('late');
      }
      await eventually(() => upstream.sockets.size === 0);
    }
  });

  it('a reset of the upstream is no clean end, and a client that goes takes the upstream along', async () => {
    const { ingress, upstream } = await setUp('http', (socket) => {
      socket.once('data', () => {
        socket.write(SWITCH);
        socket.on('data', () => socket.resetAndDestroy());
        socket.on('end', () => socket.end());
      });
    });
    const client = await ingress.connect();
    client.send(upgrade());
    await client.until(/\r\n\r\n/);
    client.send('x');
    assert.equal((await client.rest()).text, '');
    const other = await ingress.connect();
    other.send(upgrade());
    await other.until(/\r\n\r\n/);
    other.socket.destroy();
    await eventually(() => upstream.sockets.size === 0);
  });

  it('loses nothing of what came before an end without warning, from either side', async () => {
    for (const first of ['client', 'upstream'] as const) {
      let received = '';
      const { ingress, upstream } = await setUp('http', (socket) => {
        socket.once('data', () => {
          socket.write(SWITCH);
          socket.on('end', () => socket.end());
          socket.on('data', (bytes) => {
            received += bytes.toString('latin1');
            if (first === 'upstream') socket.write('last words', () => socket.resetAndDestroy());
          });
        });
      });
      const client = await ingress.connect();
      client.send(upgrade());
      await client.until(/\r\n\r\n/);
      client.send('last wish');
      if (first === 'client') client.socket.destroy();
      else assert.equal((await client.rest()).text, 'last words');
      await eventually(() => received === 'last wish');
      await eventually(() => upstream.sockets.size === 0);
    }
  });

  it('that stays silent is closed', async () => {
    const upstream = await startUpstream((socket) => {
      socket.once('data', () => socket.write(SWITCH));
      socket.on('end', () => socket.end());
    });
    cleanups.push(upstream.close);
    const ingress = await startIngress([routeTo(settingsFor(upstream.port, 'http', { readTimeoutMs: 50 }))], {
      limits: { clientIdleTimeoutMs: 50 },
    });
    cleanups.push(ingress.close);
    const client = await ingress.connect();
    client.send(upgrade());
    await client.until(/\r\n\r\n/);
    await client.rest();
    await eventually(() => upstream.sockets.size === 0);
  });

  it('is a WebSocket to clients that speak it', async () => {
    const server = createHttpServer();
    const sockets = new WebSocketServer({ server });
    sockets.on('connection', (socket) =>
      socket.on('message', (data, binary) => socket.send(data, { binary })),
    );
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(async () => {
      for (const socket of sockets.clients) socket.terminate();
      await new Promise((resolve) => server.close(resolve));
    });
    const ingress = await startIngress([routeTo(settingsFor((server.address() as AddressInfo).port))]);
    cleanups.push(ingress.close);
    const client = new WebSocket(`wss://127.0.0.1:${ingress.port}/ws`, {
      ca: appCertificate.chain,
      servername: HOST,
      headers: { Host: HOST },
    } as ClientOptions);
    await once(client, 'open');
    for (const message of ['hello', 'x'.repeat(1_000_000)]) {
      client.send(message);
      const [data] = (await once(client, 'message')) as unknown as [Buffer];
      assert.equal(data.toString(), message);
    }
    client.close(1000, 'done');
    const [code, reason] = (await once(client, 'close')) as unknown as [number, Buffer];
    assert.deepEqual([code, reason.toString()], [1000, 'done']);
  });
});

describe('tcp://', () => {
  it('passes bytes both ways, and half-closes', async () => {
    const { ingress, upstream } = await setUp('tcp', (socket) => {
      let received = '';
      socket.on('data', (bytes) => {
        received += bytes.toString('latin1');
      });
      socket.on('end', () => socket.end(`${received.length} ${received.slice(0, 4)}`));
    });
    const client = await ingress.connect();
    client.socket.end(`GET ${'\0\xff'.repeat(100_000)}`, 'latin1');
    assert.deepEqual(await client.rest(), { text: '200004 GET ', clean: true });
    await eventually(() => upstream.sockets.size === 0);
  });

  it('whatever protocol the client names', async () => {
    const { ingress } = await setUp('tcp', (socket) => void socket.write('220 hello\r\n'));
    for (const ALPNProtocols of [undefined, ['postgresql'], ['http/1.1']]) {
      const client = await ingress.connect({ ...(ALPNProtocols && { ALPNProtocols }) });
      await client.until(/^220 hello\r\n$/);
    }
  });

  it('an upstream that refuses closes the client', async () => {
    const { ingress, upstream } = await setUp('tcp', () => {});
    await upstream.close();
    cleanups.splice(cleanups.indexOf(upstream.close), 1);
    const client = await ingress.connect();
    assert.equal((await client.rest()).text, '');
  });

  it('a client that takes nothing stops its upstream', async () => {
    let written = 0;
    const { ingress } = await setUp('tcp', (socket) => {
      const piece = Buffer.alloc(65_536, 'x');
      const more = () => {
        do written += piece.length;
        while (written < 64 * 1024 * 1024 && socket.write(piece));
        socket.once('drain', more);
      };
      more();
    });
    const client = await ingress.connect();
    client.socket.pause();
    let before = -1;
    while (before !== written) {
      before = written;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.ok(written < 64 * 1024 * 1024);
  });
});

describe('a bare host:port', () => {
  it('relays what begins like HTTP, by the rules of HTTP', async () => {
    let seen = '';
    const { ingress } = await setUp(
      'auto',
      answering((head) => {
        seen = head;
        return OK;
      }),
    );
    for (const options of [{}, { ALPNProtocols: ['http/1.1'] }]) {
      const client = await ingress.connect(options);
      client.send('G');
      await new Promise(setImmediate);
      assert.equal((await client.request(request('GET /').slice(1))).body, 'ok');
      assert.match(seen, /x-forwarded-for: 127\.0\.0\.1/);
      assert.equal((await client.request('GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n')).status, 421);
    }
  });

  it('relays HTTP of a client that took its time', async () => {
    const { ingress, upstream } = await setUp(
      'auto',
      answering((head) => (head.includes('x-forwarded-for') ? OK : undefined)),
    );
    const client = await ingress.connect();
    await eventually(() => upstream.sockets.size === 1);
    assert.equal((await client.request(request('GET /'))).body, 'ok');
  });

  it('splices what does not, from its first byte on', async () => {
    const { ingress } = await setUp('auto', (socket) => socket.pipe(socket));
    for (const text of ['\0\x01binary', 'PING\r\n', 'EHLO host\r\n']) {
      const client = await ingress.connect();
      client.send(text);
      assert.equal(await client.until(/[\s\S]{6,}$/), text);
      client.socket.end();
      assert.deepEqual(await client.rest(), { text: '', clean: true });
    }
  });

  it('lets the upstream speak first', async () => {
    const { ingress } = await setUp('auto', (socket) => {
      socket.write('220 hello\r\n');
      socket.on('data', (bytes) => socket.write(`250 ${bytes}`));
    });
    const client = await ingress.connect();
    await client.until(/^220 hello\r\n$/);
    client.send('GET / HTTP/1.1\r\n\r\n');
    await client.until(/^250 GET/);
  });
});

describe('a drain', () => {
  const SWITCHED = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${WEBSOCKET_ACCEPT}\r\n\r\n`;
  const LONG = 60_000;

  it('tells both ends of a WebSocket that it is over, and ends without waiting for its deadline', async () => {
    const server = createHttpServer();
    const sockets = new WebSocketServer({ server });
    const told: number[] = [];
    sockets.on('connection', (socket) => socket.on('close', (code) => told.push(code)));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(async () => void server.close());
    const { port } = server.address() as AddressInfo;
    const ingress = await startIngress([routeTo(settingsFor(port))]);
    const socket = new WebSocket(`wss://127.0.0.1:${ingress.port}/ws`, {
      servername: HOST,
      ca: appCertificate.chain,
      headers: { host: HOST },
    } as ClientOptions);
    await once(socket, 'open');
    const closed = once(socket, 'close');
    await ingress.listener.drain(LONG);
    assert.equal((await closed)[0], 1001);
    await eventually(() => told.length === 1);
    assert.deepEqual(told, [1001]);
  });

  it('tells both ends of a WebSocket over HTTP/2, and ends with it', async () => {
    const server = createHttpServer();
    const sockets = new WebSocketServer({ server });
    const told: number[] = [];
    sockets.on('connection', (socket) => {
      socket.send('hello');
      socket.on('close', (code) => told.push(code));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(async () => void server.close());
    const { port } = server.address() as AddressInfo;
    const ingress = await startIngress([routeTo(settingsFor(port))]);
    const session = connectHttp2(`https://${HOST}`, {
      createConnection: () =>
        connectTls({
          host: '127.0.0.1',
          port: ingress.port,
          servername: HOST,
          ca: appCertificate.chain,
          ALPNProtocols: ['h2'],
        }),
    });
    cleanups.push(async () => session.destroy());
    await once(session, 'remoteSettings');
    const stream = session.request({
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':scheme': 'https',
      ':path': '/ws',
      ':authority': HOST,
      'sec-websocket-version': '13',
    });
    let received = '';
    stream.on('data', (bytes: Buffer) => {
      received += bytes.toString('latin1');
    });
    await eventually(() => received.endsWith('hello'));
    const drained = ingress.listener.drain(LONG);
    await eventually(() => received.endsWith('hello\x88\x02\x03\xe9'));
    // The client's answer (RFC 6455 §5.5.1), masked with zeros.
    stream.end(Buffer.from([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]));
    await drained;
    await eventually(() => told.length === 1);
    assert.deepEqual(told, [1001]);
    assert.equal(stream.rstCode, 0);
  });

  it('waits for the end of a frame before it says so, and lets none follow', async () => {
    const { ingress, upstream } = await setUp('http', (socket) => {
      socket.once('data', () => socket.write(`${SWITCHED}\x81\x06abc`, 'latin1'));
    });
    const client = await ingress.connect();
    client.send(request('GET /ws', 'Connection: Upgrade', 'Upgrade: websocket', WEBSOCKET_KEY));
    await client.until(/\x81\x06abc$/);
    const drained = ingress.listener.drain(LONG);
    await new Promise(setImmediate);
    const [socket] = upstream.sockets;
    socket!.write('def\x81\x04late', 'latin1');
    assert.equal(await client.until(/\xe9$/), 'def\x88\x02\x03\xe9');
    // The client's answer (RFC 6455 §5.5.1), masked with zeros.
    client.send(Buffer.from([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]));
    assert.deepEqual(await client.rest(), { text: '', clean: true });
    client.socket.end();
    socket!.end();
    await drained;
  });

  it('ends other tunnels in order before it cuts them off', async () => {
    const { ingress } = await setUp('tcp', (socket) => {
      socket.on('data', (bytes) => socket.write(bytes));
      socket.on('end', () => socket.end());
    });
    const client = await ingress.connect();
    client.send('echo');
    await client.until(/^echo$/);
    const drained = ingress.listener.drain(400);
    assert.deepEqual(await client.rest(), { text: '', clean: true });
    client.socket.end();
    await drained;
  });
});
