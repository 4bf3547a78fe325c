// Who a request is: its id and its trace, through all four pairings of protocols, and what strangers make of them.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import {
  connect as connectHttp2,
  createServer as createHttp2Server,
  type IncomingHttpHeaders,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { after, describe, it } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { createAccessLog } from '../../../proxy/exchange/access-log.ts';
import {
  createRequestIds,
  isRequestId,
  isTraceparent,
  isTracestate,
} from '../../../proxy/exchange/identity.ts';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import { createLog } from '../../../src/lib/log.ts';
import { appCertificate, eventually, HOST, routeTo, settingsFor, startIngress } from '../../support/proxy.ts';

const cleanups: (() => Promise<unknown> | unknown)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

interface Answering {
  setHeader(name: string, value: string): unknown;
  end(body: string): unknown;
}

/** Answers with the headers that it was sent, and names the request itself. */
const answer = (request: { headers: IncomingHttpHeaders }, response: Answering) => {
  const { ':path': _p, ':method': _m, ':scheme': _s, ':authority': _a, ...headers } = request.headers;
  response.setHeader('x-request-id', 'of-the-app');
  response.end(JSON.stringify(headers));
};
const http1 = createServer(answer).listen(0, '127.0.0.1');
const http2 = createHttp2Server(answer).listen(0, '127.0.0.1');
await Promise.all([once(http1, 'listening'), once(http2, 'listening')]);
cleanups.push(
  () => http1.close(),
  () => http2.close(),
);
const portOf = (protocol: 'http' | 'h2c') =>
  ((protocol === 'http' ? http1 : http2).address() as AddressInfo).port;

interface Told {
  readonly upstream: Record<string, string>;
  readonly reply: Record<string, unknown>;
  readonly status: number;
}

async function setUp(protocol: 'http' | 'h2c', options: Partial<ListenerOptions> = {}) {
  const lines: Record<string, unknown>[] = [];
  const debug: Record<string, unknown>[] = [];
  const ingress = await startIngress([routeTo(settingsFor(portOf(protocol), protocol))], {
    requestIds: createRequestIds(),
    accessLog: createAccessLog((text) => {
      for (const line of text.trimEnd().split('\n')) lines.push(JSON.parse(line));
    }),
    log: createLog({
      level: 'debug',
      readable: false,
      stream: {
        write: (line: string) => void debug.push(JSON.parse(line)),
      } as unknown as NodeJS.WritableStream,
    }),
    ...options,
  });
  cleanups.push(ingress.close);
  const over = { 'http/1.1': overHttp1, h2: overHttp2 } as const;
  const ask = (client: 'http/1.1' | 'h2', headers: Record<string, string> = {}, path = '/') =>
    over[client](ingress.port, headers, path);
  return { lines, debug, ask };
}

function socketTo(port: number, alpn: string) {
  const { chain: ca } = appCertificate;
  return connectTls({ host: '127.0.0.1', port, servername: HOST, ca, ALPNProtocols: [alpn] });
}

async function overHttp1(port: number, headers: Record<string, string>, path: string): Promise<Told> {
  const socket = socketTo(port, 'http/1.1');
  const lines = Object.entries({ Host: HOST, Connection: 'close', ...headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
  let text = '';
  socket.setEncoding('latin1');
  socket.on('end', () => socket.destroy());
  for await (const part of socket) text += part;
  const [head = '', body = ''] = text.split('\r\n\r\n');
  const reply: Record<string, unknown> = {};
  for (const line of head.split('\r\n').slice(1)) {
    const [name = '', value] = line.split(': ');
    reply[name.toLowerCase()] =
      reply[name.toLowerCase()] === undefined ? value : [reply[name.toLowerCase()], value];
  }
  const json = /\{.*\}/s.exec(body)?.[0] ?? '{}';
  return { upstream: JSON.parse(json), reply, status: Number(head.slice(9, 12)) };
}

async function overHttp2(port: number, headers: Record<string, string>, path: string): Promise<Told> {
  const session = connectHttp2(`https://${HOST}`, { createConnection: () => socketTo(port, 'h2') });
  const lower = Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
  );
  const stream = session.request({ ':path': path, ':authority': HOST, ...lower });
  let body = '';
  let reply: Record<string, unknown> = {};
  stream.on('response', (received) => {
    reply = { ...received };
  });
  stream.setEncoding('utf8');
  for await (const part of stream) body += part;
  session.destroy();
  return { upstream: JSON.parse(body), reply, status: Number(reply[':status']) };
}

const TRACE = `00-${'1a'.repeat(16)}-${'2b'.repeat(8)}-01`;

for (const protocol of ['http', 'h2c'] as const) {
  for (const client of ['http/1.1', 'h2'] as const) {
    describe(`${client} to ${protocol}`, () => {
      it('the upstream, the client and the log get one id, and that of a stranger or of the app goes nowhere', async () => {
        const { ask, lines } = await setUp(protocol);
        const { upstream, reply } = await ask(client, {
          'X-Request-ID': 'of-a-stranger',
          'User-Agent': 'me',
        });
        const id = upstream['x-request-id']!;
        assert.match(id, /^[0-9a-f]{32}$/);
        assert.equal(reply['x-request-id'], id);
        await eventually(() => lines.length === 1);
        assert.deepEqual([lines[0]!.id, lines[0]!.userAgent, lines[0]!.tls], [id, 'me', 'TLSv1.3']);
        assert.notEqual((await ask(client)).upstream['x-request-id'], id);
      });

      it('a trusted peer names it, unless the name could be taken for something else', async () => {
        const { ask, lines } = await setUp(protocol, { trustedForwarders: ['127.0.0.1/32'] });
        const { upstream, reply } = await ask(client, { 'X-Request-ID': 'edge-1/7' });
        assert.deepEqual([upstream['x-request-id'], reply['x-request-id']], ['edge-1/7', 'edge-1/7']);
        await eventually(() => lines.length === 1);
        assert.equal(lines[0]!.id, 'edge-1/7');
        for (const odd of ['a b', 'a"b', 'x'.repeat(129), '<b>'])
          assert.match(
            (await ask(client, { 'X-Request-ID': odd })).upstream['x-request-id']!,
            /^[0-9a-f]{32}$/,
          );
      });

      it('without ids what client and app say of themselves passes as it came', async () => {
        const { ask } = await setUp(protocol, { requestIds: undefined });
        const { upstream, reply } = await ask(client, { 'X-Request-ID': 'of a client' });
        assert.deepEqual([upstream['x-request-id'], reply['x-request-id']], ['of a client', 'of-the-app']);
        assert.equal((await ask(client)).upstream['x-request-id'], undefined);
      });

      it('a reply of our own has the id too, and so has the log', async () => {
        const { ask, lines } = await setUp(protocol, {});
        const { reply, status } = await ask(client, { Expect: '200-maybe' });
        assert.equal(status, 417);
        assert.match(String(reply['x-request-id']), /^[0-9a-f]{32}$/);
        await eventually(() => lines.length === 1);
        assert.equal(lines[0]!.id, reply['x-request-id']);
      });

      it('a trace passes untouched and is in the log; a malformed one passes with nothing of it', async () => {
        const { ask, lines } = await setUp(protocol);
        const tracestate = 'rojo=00f067aa0ba902b7,congo=t61rcWkgMzE';
        const whole = await ask(client, { traceparent: TRACE, tracestate });
        assert.deepEqual([whole.upstream.traceparent, whole.upstream.tracestate], [TRACE, tracestate]);
        await eventually(() => lines.length === 1);
        assert.equal(lines[0]!.traceparent, TRACE);
        for (const wrong of [
          { traceparent: TRACE.slice(0, -1), tracestate },
          { traceparent: `00-${'0'.repeat(32)}-${'2b'.repeat(8)}-01`, tracestate },
          { traceparent: TRACE, tracestate: 'no member' },
          { tracestate },
        ]) {
          const { upstream } = await ask(client, wrong);
          assert.deepEqual(
            [upstream.traceparent, upstream.tracestate],
            [undefined, undefined],
            JSON.stringify(wrong),
          );
        }
        await eventually(() => lines.length === 5);
        assert.ok(lines.slice(1).every(({ traceparent }) => traceparent === undefined));
      });
    });
  }
}

describe('the lines about one request', () => {
  it('have its id', async () => {
    const { ask, debug } = await setUp('http');
    const { reply } = await ask('http/1.1', { Expect: '200-maybe' });
    const told = debug.find(({ msg }) => msg === 'request refused');
    assert.equal(told?.id, reply['x-request-id']);
  });
});

describe('an id', () => {
  it('is never made twice, by no maker', () => {
    const makers = [createRequestIds(), createRequestIds()];
    const made = makers.flatMap((make) => Array.from({ length: 10_000 }, make));
    assert.equal(new Set(made).size, 20_000);
    assert.ok(made.every((id) => /^[0-9a-f]{32}$/.test(id)));
  });

  it('is taken of others only if it is plain', () => {
    for (const good of ['a', 'A-b.c_d~e:f/g+h=i@j', 'x'.repeat(128)]) assert.ok(isRequestId(good), good);
    for (const bad of ['', ' ', 'a b', 'a,b', '"', '\\', '\r', 'é', '<', 'x'.repeat(129)])
      assert.ok(!isRequestId(bad), bad);
  });
});

describe('a trace', () => {
  it('is sound as the recommendation says', () => {
    assert.ok(isTraceparent(TRACE));
    assert.ok(isTraceparent(`01${TRACE.slice(2)}-what-later-versions-add`));
    for (const bad of [
      '',
      TRACE.toUpperCase(),
      `ff${TRACE.slice(2)}`,
      `${TRACE}-more`,
      `${TRACE} `,
      TRACE.replace('2b'.repeat(8), '0'.repeat(16)),
      TRACE.replaceAll('-', '_'),
      `${TRACE}, ${TRACE}`,
    ])
      assert.ok(!isTraceparent(bad), bad);
    for (const good of ['a=1', 'a=1,b=2', 'a=1, b=2', 'tenant@sys=x y', '', 'a=1,,b=2'])
      assert.ok(isTracestate(good), good);
    for (const bad of [
      'a',
      '=1',
      'A=1',
      'a=1=2',
      'a=é',
      `a=${'x'.repeat(600)}`,
      Array(33).fill('a=1').join(),
    ])
      assert.ok(!isTracestate(bad), bad);
  });
});
