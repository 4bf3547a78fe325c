// What a visitor is told of a fault: a page, JSON or a gRPC status, by what was asked, over every protocol alike.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { after, test } from 'node:test';
import { prefersHtml } from '../../../proxy/exchange/error-page.ts';
import { faultReply } from '../../../proxy/exchange/fault-reply.ts';
import { type FaultCode, faultCodes } from '../../../proxy/faults.ts';
import { createPlainHttp } from '../../../proxy/listener/plain-http.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { startHttp2Ingress, upstreamAt } from '../../support/http2-ingress.ts';
import { freePort } from '../../support/ports.ts';
import { HOST, request, routeTo, settingsFor, startIngress } from '../../support/proxy.ts';

/** As browsers ask for a page. */
const BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8';
const NOW = new Date('2031-02-03T04:05:06.789Z');

const cleanups: (() => unknown)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

const deadPort = await freePort();
const ingress = await startIngress([routeTo(settingsFor(deadPort))]);
cleanups.push(ingress.close);
const plain = await startHttp2Ingress({ upstream: upstreamAt('http', deadPort) });
const grpc = await startHttp2Ingress({ upstream: upstreamAt('grpc', deadPort) });
cleanups.push(plain.close, grpc.close);

async function overHttp1(line: string, ...fields: string[]) {
  const client = await ingress.connect();
  try {
    const { status, head, body } = await client.request(request(line, ...fields));
    return { status, head: head.toLowerCase(), body };
  } finally {
    client.socket.destroy();
  }
}

async function overHttp2(
  fields: Record<string, string>,
  { session: open }: Pick<typeof plain, 'session'> = plain,
) {
  const session = open();
  try {
    const stream = session.request({ ':path': '/', ':authority': HOST, ...fields });
    stream.end();
    const [headers] = await once(stream, 'response');
    stream.setEncoding('utf8');
    let body = '';
    for await (const chunk of stream) body += chunk;
    return { headers, body };
  } finally {
    session.destroy();
  }
}

test('a browser that meets a dead app reads a page, over HTTP/1.1 and HTTP/2 alike', async () => {
  const one = await overHttp1('GET /', `Accept: ${BROWSER}`);
  assert.equal(one.status, 502);
  for (const field of [
    'content-type: text/html; charset=utf-8',
    'vary: accept',
    'cache-control: no-store',
    'x-content-type-options: nosniff',
    `content-length: ${one.body.length}`,
  ]) {
    assert.ok(one.head.includes(`\r\n${field}\r\n`), `${field} in ${one.head}`);
  }
  assert.match(one.head, /\r\ncontent-security-policy: default-src 'none'/);
  const two = await overHttp2({ accept: BROWSER });
  assert.equal(two.headers[':status'], 502);
  assert.equal(two.headers['content-type'], 'text/html; charset=utf-8');
  assert.equal(two.headers.vary, 'accept');
  assert.equal(two.headers['cache-control'], 'no-store');
  const untimed = (page: string) => page.replace(/<time.*?<\/time>/, '');
  assert.equal(untimed(two.body), untimed(one.body));
  assert.match(one.body, /^<!doctype html>\n/);
  assert.match(one.body, /502 Bad Gateway/);
  assert.doesNotMatch(
    one.body,
    new RegExp(`127\\.0\\.0\\.1|${deadPort}|upstream|${HOST}`),
    'nothing of the inside',
  );
});

test('a client that does not prefer HTML gets JSON, and Vary tells caches so', async () => {
  for (const accept of [[], ['Accept: */*'], ['Accept: application/json, text/html;q=0.9']]) {
    const { head, body } = await overHttp1('GET /', ...accept);
    assert.equal(body, '{"error":"upstream-refused","message":"the upstream cannot be connected to"}\n');
    assert.ok(head.includes('\r\ncontent-type: application/json\r\n'));
    assert.ok(head.includes('\r\nvary: accept\r\n') && head.includes('\r\ncache-control: no-store\r\n'));
  }
  assert.equal(JSON.parse((await overHttp2({})).body).error, 'upstream-refused');
});

test('a request that never reaches an upstream gets the form that it asked for too', async () => {
  const one = await overHttp1('TRACE /', `Accept: ${BROWSER}`);
  assert.equal(one.status, 405);
  assert.match(one.body, /^<!doctype html>/);
  const two = await overHttp2({ ':authority': 'elsewhere.example', accept: BROWSER });
  assert.equal(two.headers[':status'], 421);
  assert.match(two.body, /^<!doctype html>/);
});

test('the Accept of one request says nothing about the next of its connection', async () => {
  const client = await ingress.connect();
  const page = await client.request(request('GET /', `Accept: ${BROWSER}`));
  assert.match(page.body, /^<!doctype html>/);
  const json = await client.request(request('GET /'));
  assert.match(json.body, /^\{/);
  const unread = await client.request(request('GET /', 'A: \0', `Accept: ${BROWSER}`));
  assert.equal(unread.status, 400);
  assert.match(unread.body, /^\{/, 'what was never read as a request has no form to choose');
});

test('HEAD gets the fields of the page, its length too, and no body', async () => {
  const client = await ingress.connect();
  client.send(request('HEAD /', `Accept: ${BROWSER}`, 'Connection: close'));
  const { text } = await client.rest();
  assert.match(text, /^HTTP\/1\.1 502 .*\r\nContent-Length: \d{4}\r\n/is);
  assert.ok(text.endsWith('\r\n\r\n'));
  const two = await overHttp2({ ':method': 'HEAD', accept: BROWSER });
  assert.equal(two.body, '');
  assert.ok(Number(two.headers['content-length']) > 1000);
});

test('gRPC is told its status, whatever Accept says', async () => {
  const { headers, body } = await overHttp2(
    { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers', accept: BROWSER },
    grpc,
  );
  assert.equal(headers[':status'], 200);
  assert.equal(headers['grpc-status'], '14');
  assert.equal(body, '');
});

test('the port for plain HTTP speaks the same way', async () => {
  const server = createPlainHttp({
    host: '127.0.0.1',
    port: 0,
    httpsPort: 443,
    maxConnections: 9,
    log: silentLog,
  });
  const { port } = await server.listen();
  const socket = connectTcp(port, '127.0.0.1');
  socket.end(`GET / HTTP/1.1\r\nHost: unknown.example\r\nAccept: ${BROWSER}\r\n\r\n`);
  let reply = '';
  for await (const bytes of socket) reply += bytes;
  await server.drain(0);
  assert.match(reply, /^HTTP\/1\.1 421 /);
  assert.match(reply, /\r\n\r\n<!doctype html>/);
});

test('q-values decide, the most specific range first; no preference is JSON', () => {
  const table: readonly (readonly [string | undefined, boolean])[] = [
    [undefined, false],
    ['', false],
    ['*/*', false],
    [BROWSER, true],
    ['text/html', true],
    ['TEXT/HTML', true],
    ['text/*', true],
    ['text/html;q=0', false],
    ['text/html; q=0.8, */*; q=0.8', false],
    ['text/html;q=0.9, application/json;q=0.8', true],
    ['text/html;q=0.8, application/json;q=0.9', false],
    ['application/json, */*', false],
    ['text/html;level=1, */*;q=0.1', true],
    ['text/html;q=0.1, text/*;q=1, */*;q=0.5', false],
    ['application/json;q=0, */*', true],
    ['text/html;q=7', false],
    ['text/html;q=', false],
    [',,;;q', false],
  ];
  for (const [accept, page] of table) assert.equal(prefersHtml(accept), page, String(accept));
});

test('an Accept of 64 KiB costs hardly more than a short one', () => {
  const cost = (ranges: number) => {
    const accept = 'text/html;q=0.5,'.repeat(ranges);
    const { user } = process.cpuUsage();
    for (let i = 0; i < 100; i++) prefersHtml(accept);
    return process.cpuUsage().user - user;
  };
  cost(64);
  // Read to its end it would cost sixty-four times as much.
  assert.ok(cost(4096) < 16 * Math.max(cost(64), 1_000));
});

test('every page is one small ASCII document that fetches and runs nothing', () => {
  for (const code of faultCodes) {
    const { status, body, fields } = faultReply(code, BROWSER, NOW);
    assert.ok(body.length <= 4096, `${code}: ${body.length} bytes`);
    assert.match(body, /^[\x0a\x20-\x7e]*$/, code);
    assert.doesNotMatch(body, /<script|<link|<img|<iframe|src=|href=|url\(|@import|http:|https:/i, code);
    assert.ok(body.includes(`${status} `), code);
    assert.match(body, /<h2>What you can do<\/h2>\n<p>[A-Z].+\.<\/p>/, code);
    assert.match(body, /<time datetime="2031-02-03T04:05:06.789Z">2031-02-03 04:05:06 UTC<\/time>/, code);
    assert.match(body, /prefers-color-scheme:dark/);
    assert.match(body, /name="viewport"/);
    assert.equal(new Set(fields.map(([name]) => name)).size, fields.length);
  }
});

test('every page marks the one place where it stopped', () => {
  const marked = (code: FaultCode) =>
    [...faultReply(code, BROWSER, NOW).body.matchAll(/<li class="x">(\w+)<\/li>/g)].map(([, name]) => name);
  assert.deepEqual(marked('bad-request'), ['You']);
  assert.deepEqual(marked('overloaded'), ['Entrance']);
  assert.deepEqual(marked('upstream-timeout'), ['App']);
});
