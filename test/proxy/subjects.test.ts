// Messages on which proxies for Node are known to go wrong: ours behaves, and what two others do is noted beside it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request as requestHttp } from 'node:http';
import {
  type ClientHttp2Stream,
  connect as connectHttp2,
  createSecureServer,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { type AddressInfo, connect as connectTcp, type Socket } from 'node:net';
import { it, type TestContext } from 'node:test';
import { createProxyServer } from 'http-proxy-3';
import http2Proxy from 'http2-proxy';
import {
  answering,
  appCertificate,
  eventually,
  HOST,
  rawClient,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../support/proxy.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const SMUGGLED = `GET /smuggled HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;

/** A proxy in front of the upstream at `port`: where it takes HTTP/1.1 and HTTP/2, both inside TLS. */
interface Subject {
  readonly name: string;
  start(t: TestContext, port: number): Promise<number>;
}

type Handler = (request: never, response: never, agent: Agent, port: number) => void;

function nodeProxy(name: string, handle: Handler): Subject {
  return {
    name,
    async start(t, port) {
      const agent = new Agent({ keepAlive: true });
      const server = createSecureServer(
        { cert: appCertificate.chain, key: appCertificate.key, allowHTTP1: true },
        (req, res) => handle(req as never, res as never, agent, port),
      );
      const sockets = new Set<Socket>();
      server.on('secureConnection', (socket) => sockets.add(socket));
      server.on('sessionError', () => {});
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      t.after(() => {
        agent.destroy();
        for (const socket of sockets) socket.destroy();
        server.close();
      });
      return (server.address() as AddressInfo).port;
    },
  };
}

const ours: Subject = {
  name: 'ours',
  async start(t, port) {
    const ingress = await startIngress([routeTo(settingsFor(port))]);
    t.after(() => ingress.close());
    return ingress.port;
  },
};

const others: readonly Subject[] = [
  nodeProxy('http-proxy-3', (req, res, agent, port) => {
    const proxy = createProxyServer({ target: { host: '127.0.0.1', port }, agent });
    proxy.on('error', (_error, _request, response) => void response.destroy());
    proxy.web(req, res);
  }),
  nodeProxy('http2-proxy', (req, res, agent, port) => {
    const onReq = (_request: unknown, options: object) => requestHttp({ ...options, agent });
    const upstream = { hostname: '127.0.0.1', port, onReq };
    void http2Proxy.web(req, res, upstream as never, () => (res as { destroy(): void }).destroy());
  }),
];

/** What is to be seen: at the upstream (all bytes of all connections), and by the client. */
interface Sight {
  readonly upstream: string;
  readonly client: string;
}

interface Case {
  readonly title: string;
  readonly upstream?: (socket: Socket) => void;
  /** Speaks to the proxy at `port` until there is something to see. */
  readonly drive: (t: TestContext, port: number, heard: () => string, open: () => number) => Promise<string>;
  /** Throws if it went wrong. */
  readonly judge: (sight: Sight) => void;
}

async function connect1(t: TestContext, port: number) {
  const { connect } = await import('node:tls');
  const socket = connect({ host: '127.0.0.1', port, servername: HOST, ca: appCertificate.chain });
  t.after(() => socket.destroy());
  await once(socket, 'secureConnect');
  return rawClient(socket);
}

function ask2(t: TestContext, port: number, fields: OutgoingHttpHeaders): ClientHttp2Stream {
  const socket = connectTcp(port, '127.0.0.1');
  const session = connectHttp2(`https://${HOST}`, {
    ca: appCertificate.chain,
    socket,
    servername: HOST,
  } as never);
  session.on('error', () => {});
  t.after(() => {
    session.destroy();
    socket.destroy();
  });
  const stream = session.request({ ':authority': HOST, ...fields }, { endStream: false });
  stream.on('error', () => {});
  return stream;
}

/** A reply in one line; whatever has not come after a second is not waited for. */
async function replyOf(stream: ClientHttp2Stream): Promise<string> {
  const seen: string[] = [];
  stream.on('headers', (fields) => seen.push(`${fields[':status']}`));
  stream.on('response', (fields) => seen.push(`${fields[':status']}`));
  stream.on('trailers', (fields) => seen.push(`x-sum=${fields['x-sum']}`));
  stream.resume();
  await Promise.race([once(stream, 'close'), pause(1_000)]);
  return seen.join(' ');
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}

const one = ({ upstream }: Sight) => {
  assert.equal(upstream.match(/ HTTP\/1\.1\r\nhost: /gi)?.length, 2, 'the request and what is in its body');
  assert.match(upstream, /transfer-encoding: chunked\r\n/i);
  assert.match(upstream, new RegExp(`\\r\\n${SMUGGLED.length.toString(16)}\\r\\nGET /smuggled`));
};

const cases: readonly Case[] = [
  {
    title: 'DELETE with a chunked body over HTTP/1.1 stays one request',
    async drive(t, port) {
      const client = await connect1(t, port);
      const body = `${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`;
      client.send(request('DELETE /', 'Transfer-Encoding: chunked') + body);
      await Promise.race([client.until(/\r\n\r\nok/), pause(1_000)]);
      return '';
    },
    judge: one,
  },
  ...['GET', 'DELETE', 'OPTIONS'].map((method) => ({
    title: `${method} with a body and no length over HTTP/2 stays one request`,
    async drive(t: TestContext, port: number) {
      const stream = ask2(t, port, { ':method': method });
      stream.end(SMUGGLED);
      return replyOf(stream);
    },
    judge: one,
  })),
  {
    title: 'fields that Connection nominates go no further, in either direction',
    upstream: answering(
      () =>
        'HTTP/1.1 200 OK\r\nConnection: X-Inner\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok',
    ),
    async drive(t, port) {
      const client = await connect1(t, port);
      client.send(
        request('GET /', 'Connection: X-Outer', 'X-Outer: 1', 'Keep-Alive: 5', 'Proxy-Connection: x'),
      );
      return client.until(/\r\n\r\nok/);
    },
    judge({ upstream, client }) {
      assert.doesNotMatch(upstream, /x-outer|keep-alive:|proxy-connection/i);
      assert.doesNotMatch(client, /x-inner|keep-alive: timeout/i);
    },
  },
  {
    title: 'trailers of a reply arrive over HTTP/2',
    upstream: answering(
      () =>
        'HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n',
    ),
    async drive(t, port) {
      const stream = ask2(t, port, { te: 'trailers' });
      stream.end();
      return replyOf(stream);
    },
    judge: ({ client }) => assert.equal(client, '200 x-sum=7'),
  },
  {
    title: '103 arrives before the reply',
    upstream: answering(() => `HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n${OK}`),
    async drive(t, port) {
      const stream = ask2(t, port, {});
      stream.end();
      return replyOf(stream);
    },
    judge: ({ client }) => assert.equal(client, '103 200'),
  },
  {
    title: 'a cancelled stream ends the upstream’s request',
    upstream: (socket) => void socket.on('end', () => socket.end()),
    async drive(t, port, heard, open) {
      const stream = ask2(t, port, {});
      stream.end();
      await eventually(() => heard() !== '');
      stream.close(8);
      for (let i = 0; i < 20 && open() > 0; i++) await pause(50);
      return `${open()} open`;
    },
    judge: ({ client }) => assert.equal(client, '0 open'),
  },
  {
    title: 'a reply cut short does not look whole, and does not hang',
    upstream: (socket) => {
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello', () => socket.destroy());
      });
    },
    async drive(t, port) {
      const client = await connect1(t, port);
      client.send(request('GET /'));
      const end = await Promise.race([client.rest().then(({ text }) => text), pause(1_000)]);
      return end ?? 'hangs';
    },
    judge: ({ client }) => assert.match(client, /^HTTP\/1\.1 200 [\s\S]*hello$/),
  },
];

async function see(t: TestContext, subject: Subject, { upstream: serve, drive }: Case): Promise<Sight> {
  const heard: string[] = [];
  const upstream = await startUpstream((socket, index) => {
    heard[index] = '';
    socket.on('data', (bytes) => {
      heard[index] += bytes.toString('latin1');
    });
    (serve ?? answering(() => OK))(socket);
  });
  t.after(() => upstream.close());
  const port = await subject.start(t, upstream.port);
  const client = await drive(
    t,
    port,
    () => heard.join(''),
    () => upstream.sockets.size,
  );
  return { upstream: heard.join(''), client };
}

for (const one of cases) {
  it(one.title, async (t) => {
    one.judge(await see(t, ours, one));
    for (const other of others) {
      const verdict = await see(t, other, one)
        .then(one.judge)
        .then(
          () => 'the same',
          (error: Error) => `not so: ${error.message.split('\n', 1)[0]}`,
        );
      t.diagnostic(`${other.name}: ${verdict}`);
    }
  });
}
