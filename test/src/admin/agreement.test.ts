// Metrics and the access log agree with what clients and upstreams counted, to the request and the byte. METRICS_REQUESTS=100000 does it at length.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  createServer as createHttp2Server,
  type ServerHttp2Stream,
} from 'node:http2';
import { Agent, request } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { connect } from 'node:tls';
import type { Route, UpstreamProtocol, UpstreamSettings } from '../../../proxy/rules/routes.ts';
import { parseDomain } from '../../../src/lib/domain.ts';
import { freePort } from '../../support/ports.ts';
import { appCertificate, HOST } from '../../support/proxy.ts';
import { askAdmin, parseScrape, type Scrape } from '../../support/scrape.ts';
import { startShownIngress } from '../../support/shown-ingress.ts';

const MANY = Number(process.env.METRICS_REQUESTS ?? 600);
const AT_ONCE = 16;

/** What one side has seen: requests by status, and bytes of bodies. */
interface Seen {
  readonly byStatus: Map<number, number>;
  requests: number;
  sent: number;
  received: number;
}

const nothingSeen = (): Seen => ({ byStatus: new Map(), requests: 0, sent: 0, received: 0 });

function saw(seen: Seen, status: number, sent: number, received: number): void {
  seen.requests++;
  seen.byStatus.set(status, (seen.byStatus.get(status) ?? 0) + 1);
  seen.sent += sent;
  seen.received += received;
}

// --- Upstreams that count ---

async function startUpstream(seen: Seen) {
  const lost = new Set<string>();
  const server = createServer((asked: IncomingMessage, response: ServerResponse) => {
    const { pathname, searchParams } = new URL(asked.url!, 'http://upstream');
    const id = searchParams.get('id') ?? '';
    // Each is lost once, before a word is said.
    if (pathname.startsWith('/retry/') && !lost.has(id)) {
      lost.add(id);
      saw(seen, 0, 0, 0);
      asked.socket.destroy();
      return;
    }
    void buffer(asked).then((body) => {
      const size = Number(searchParams.get('size') ?? 10);
      const status = Number(searchParams.get('status') ?? 200);
      saw(seen, status, size, body.length);
      // Some with a length, some in chunks.
      if (size % 2 === 0) response.setHeader('Content-Length', size);
      response.writeHead(status);
      if (pathname.startsWith('/cut/')) response.write('x');
      else response.end(Buffer.alloc(size, 'r'));
    });
  });
  server.on('upgrade', (asked: IncomingMessage, socket: Socket, head: Buffer) => {
    saw(seen, 101, 0, 0);
    const key = asked.headers['sec-websocket-key']!;
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptFor(key)}\r\n\r\n`,
    );
    socket.on('error', () => {});
    socket.write(head);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

async function startGrpcUpstream(seen: Seen) {
  const server = createHttp2Server();
  server.on('stream', (stream: ServerHttp2Stream) => {
    void buffer(stream).then((body) => {
      saw(seen, 200, body.length, body.length);
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      stream.end(body);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

function acceptFor(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
}

// --- Clients that count ---

interface Clients {
  readonly port: number;
  readonly agent: Agent;
  readonly session: ClientHttp2Session;
}

type Client = (clients: Clients, id: number, seen: Seen) => Promise<void>;

/** `taken`: somebody takes the bodies. Those of a request that is refused at its head are nobody's. */
function h1(prefix: string, status = 200, host = HOST, taken = true): Client {
  return async ({ port, agent }, id, seen) => {
    const body = taken && id % 3 === 0 ? Buffer.alloc(id % 5_000, 'q') : undefined;
    const asked = request({
      host: '127.0.0.1',
      port,
      agent,
      servername: HOST,
      ca: appCertificate.chain,
      method: body === undefined ? 'GET' : 'PUT',
      path: `${prefix}?id=${id}&size=${id % 20_000}&status=${status}`,
      headers: { Host: host },
    });
    asked.end(body);
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    const reply = await buffer(response);
    saw(seen, response.statusCode!, body?.length ?? 0, reply.length);
  };
}

function h2(prefix: string, headers: Readonly<Record<string, string>> = {}): Client {
  return async ({ session }, id, seen) => {
    const body = Buffer.alloc(5 + (id % 3_000), 0);
    const stream = session.request({
      ':method': 'POST',
      ':authority': HOST,
      ':path': `${prefix}?id=${id}&size=${id % 9_000}`,
      ...headers,
    });
    stream.end(body);
    const [fields] = (await once(stream, 'response')) as [{ ':status': number }];
    const reply = await buffer(stream);
    saw(seen, fields[':status'], body.length, reply.length);
  };
}

/** A connection of its own, and bytes as they are. */
function raw(head: (id: number) => string, then?: (socket: Socket, id: number, seen: Seen) => void): Client {
  return async ({ port }, id, seen) => {
    const socket = connect({
      host: '127.0.0.1',
      port,
      servername: HOST,
      ca: appCertificate.chain,
      ALPNProtocols: ['http/1.1'],
    });
    socket.on('error', () => {});
    await once(socket, 'secureConnect');
    socket.write(head(id));
    if (then !== undefined) then(socket, id, seen);
    let answer = Buffer.alloc(0);
    socket.on('data', (bytes: Buffer) => {
      answer = Buffer.concat([answer, bytes]);
    });
    await once(socket, 'close');
    const end = answer.indexOf('\r\n\r\n') + 4;
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(answer.toString('latin1'))?.[1] ?? 499);
    if (then === undefined) saw(seen, status, 0, answer.length - end);
  };
}

const malformed = raw(
  () => `GET / HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n`,
);

/** Goes away in the middle of a reply. */
const cut = raw(
  (id) => `GET /cut/?id=${id}&size=1001 HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`,
  (socket, _, seen) => {
    socket.once('data', () => {
      saw(seen, 200, 0, 0);
      socket.destroy();
    });
  },
);

const webSocket = raw(
  () =>
    `GET /ws/ HTTP/1.1\r\nHost: ${HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`,
  (socket, id, seen) => {
    const size = 1 + (id % 4_000);
    let echoed = -1;
    socket.on('data', (bytes: Buffer) => {
      if (echoed < 0) {
        socket.write(Buffer.alloc(size, 'w'));
        echoed = bytes.length - (bytes.indexOf('\r\n\r\n') + 4);
      } else echoed += bytes.length;
      if (echoed < size) return;
      saw(seen, 101, size, echoed);
      socket.end();
    });
  },
);

/** By the prefix of the route that takes it; `none`: no route does. */
const kinds: readonly { readonly route: string; readonly share: number; readonly client: Client }[] = [
  { route: '/', share: 40, client: h1('/') },
  { route: '/', share: 4, client: h1('/', 404) },
  { route: '/', share: 3, client: h1('/', 503) },
  { route: '/', share: 25, client: h2('/') },
  {
    route: '/grpc/',
    share: 15,
    client: h2('/grpc/echo', { 'content-type': 'application/grpc', te: 'trailers' }),
  },
  { route: '/retry/', share: 3, client: h1('/retry/') },
  { route: '/dead/', share: 2, client: h1('/dead/', 200, HOST, false) },
  { route: '/cut/', share: 2, client: cut },
  { route: '/ws/', share: 2, client: webSocket },
  { route: 'none', share: 2, client: malformed },
  { route: 'none', share: 2, client: h1('/', 200, 'stranger.example.net', false) },
];

async function drive(clients: Clients, from: number, to: number, seen: Map<string, Seen>): Promise<void> {
  const order = kinds.flatMap((kind) => Array.from({ length: kind.share }, () => kind));
  let next = from;
  const lane = async () => {
    for (let id = next++; id < to; id = next++) {
      // 37 has no factor in common with the hundred shares: the kinds are mixed.
      const { route, client } = order[(id * 37) % order.length]!;
      await client(clients, id, seen.get(route)!);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
}

// --- The ingress ---

function upstreamAt(protocol: UpstreamProtocol, port: number): UpstreamSettings {
  const timeouts = { connectTimeoutMs: 5_000, readTimeoutMs: 20_000, sendTimeoutMs: 20_000 };
  return { protocol, addresses: [{ host: '127.0.0.1', port }], ...timeouts };
}

function startAll(http: number, grpc: number, dead: number, accessLogFile: string) {
  const prefixes = ['/', '/retry/', '/cut/', '/ws/'].map((prefix) => ({
    prefix,
    upstream: upstreamAt('http', http),
  }));
  const paths = [
    ...prefixes,
    { prefix: '/grpc/', upstream: upstreamAt('grpc', grpc) },
    { prefix: '/dead/', upstream: upstreamAt('http', dead) },
  ];
  const routes: Route[] = [{ host: parseDomain(HOST), paths }];
  return startShownIngress({ routes, accessLogFile });
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`${what}: waited in vain`);
}

const REQUESTS = 'dstack_ingress_http_requests_total';

function compare(scrape: Scrape, seen: ReadonlyMap<string, Seen>): void {
  for (const [prefix, { byStatus, requests, sent, received }] of seen) {
    const route = prefix === 'none' ? 'none' : `${HOST}${prefix}`;
    assert.equal(scrape.sum(REQUESTS, { route }), requests, `requests of ${route}`);
    for (const [code, count] of byStatus)
      assert.equal(scrape.sum(REQUESTS, { route, code: String(code) }), count, `${code} of ${route}`);
    // Who goes away in the middle has not read what was sent.
    if (prefix === '/cut/') continue;
    assert.equal(scrape.sum('dstack_ingress_http_request_bytes_total', { route }), sent, `bytes to ${route}`);
    assert.equal(
      scrape.sum('dstack_ingress_http_response_bytes_total', { route }),
      received,
      `bytes from ${route}`,
    );
  }
}

interface LoggedLine {
  readonly route?: string;
  readonly status?: number;
  readonly received: number;
  readonly sent: number;
  readonly retries?: number;
}

/** The same as compare(), of the lines of the log. */
function compareLines(lines: readonly LoggedLine[], seen: ReadonlyMap<string, Seen>): void {
  const sumOf = (some: readonly LoggedLine[], value: (line: LoggedLine) => number) =>
    some.reduce((sum, line) => sum + value(line), 0);
  for (const [prefix, { byStatus, requests, sent, received }] of seen) {
    const those = lines.filter(({ route }) => route === (prefix === 'none' ? undefined : `${HOST}${prefix}`));
    assert.equal(those.length, requests, `lines of ${prefix}`);
    for (const [code, count] of byStatus)
      assert.equal(
        those.filter(({ status }) => status === code).length,
        count,
        `lines of ${prefix} with ${code}`,
      );
    if (prefix === '/cut/') continue;
    assert.deepEqual(
      [sumOf(those, (line) => line.received), sumOf(those, (line) => line.sent)],
      [sent, received],
      `bytes in lines of ${prefix}`,
    );
  }
  assert.equal(
    sumOf(lines, ({ retries = 0 }) => retries),
    seen.get('/retry/')!.requests,
  );
}

test('metrics and log agree with what clients and upstreams counted, though a worker is killed in between', async (t) => {
  const [plain, calls] = [nothingSeen(), nothingSeen()];
  const [http, grpc] = await Promise.all([startUpstream(plain), startGrpcUpstream(calls)]);
  t.after(() => [http, grpc].forEach((server) => void server.close()));
  const portOf = (server: typeof http | typeof grpc) => (server.address() as AddressInfo).port;
  const dead = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'agreement-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const logFile = join(folder, 'access.log');
  const { workers, port, socketPath, stop } = await startAll(portOf(http), portOf(grpc), dead, logFile);
  const scrape = async () => parseScrape((await askAdmin({ socketPath }, '/metrics')).body);
  const seen = new Map(kinds.map(({ route }) => [route, nothingSeen()]));
  const total = () => [...seen.values()].reduce((sum, { requests }) => sum + requests, 0);
  const told = () => until('all to be told', async () => (await scrape()).sum(REQUESTS) >= total());

  for (const [from, to] of [
    [0, MANY / 2],
    [MANY / 2, MANY],
  ] as const) {
    const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
    const session = connectHttp2(`https://127.0.0.1:${port}`, {
      servername: HOST,
      ca: appCertificate.chain,
      settings: { enablePush: false },
    });
    await drive({ port, agent, session }, from, to, seen);
    agent.destroy();
    session.destroy();
    await told();
    if (to === MANY) break;
    // What was told is not lost with the worker that told it.
    const [victim] = workers.pids();
    process.kill(victim!, 'SIGKILL');
    await until(
      'a successor',
      () =>
        !workers.pids().includes(victim!) && workers.state().living.filter(({ ready }) => ready).length === 2,
    );
  }

  assert.equal(total(), MANY);
  const last = await scrape();
  compare(last, seen);
  const upstream = (server: typeof http | typeof grpc, scheme: string) => ({
    upstream: `${scheme}://127.0.0.1:${portOf(server)}`,
  });
  const asked = 'dstack_ingress_upstream_request_duration_seconds_count';
  assert.equal(last.sum(asked, upstream(http, 'http')), plain.requests, 'requests that the upstream saw');
  assert.equal(last.sum(asked, upstream(grpc, 'grpc')), calls.requests, 'calls that the upstream saw');
  const retried = seen.get('/retry/')!.requests;
  assert.equal(last.sum('dstack_ingress_upstream_retries_total', upstream(http, 'http')), retried);
  const fault = (code: string) => last.sum('dstack_ingress_http_faults_total', { fault: code });
  assert.equal(fault('upstream-refused') + fault('upstream-unavailable'), seen.get('/dead/')!.requests);
  assert.equal(fault('client-closed'), seen.get('/cut/')!.requests);
  assert.equal(fault('bad-request') + fault('misdirected'), seen.get('none')!.requests);
  assert.equal(
    last.sum(REQUESTS, { host: 'other' }),
    last.sum('dstack_ingress_http_faults_total', { fault: 'misdirected' }),
  );
  assert.equal(last.sum('dstack_ingress_http_requests_in_flight'), 0);
  assert.equal(last.sum('dstack_ingress_worker_restarts_total'), 1);
  const accepted = last.sum('dstack_ingress_connections_total', { result: 'accepted' });
  assert.equal(last.sum('dstack_ingress_tls_handshakes_total', { result: 'ok' }), accepted);
  t.diagnostic(
    `${MANY} requests, ${accepted} connections, ${plain.requests + calls.requests} asked of upstreams, ${retried} sent again`,
  );
  assert.equal(last.sum('dstack_ingress_access_log_file_lines_total', { result: 'lost' }), 0);
  await stop();
  const lines = readFileSync(logFile, 'utf8').trimEnd().split('\n');
  compareLines(
    lines.map((line) => JSON.parse(line) as LoggedLine),
    seen,
  );
});
