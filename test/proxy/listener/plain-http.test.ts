// Plain HTTP: what an attacker might make of a redirector, then what a CA and a visitor get.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { createPlainHttp } from '../../../proxy/listener/plain-http.ts';
import type { Route } from '../../../proxy/rules/routes.ts';
import { parseDomain } from '../../../src/lib/domain.ts';
import { silentLog } from '../../../src/lib/log.ts';

const hosts = ['app.example.com', '*.wild.example.com'];
const token = 'LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0';
const keyAuthorization = `${token}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI`;

async function running(
  options: { httpsPort?: number; requestTimeoutMs?: number; maxConnections?: number } = {},
) {
  const server = createPlainHttp({
    host: '127.0.0.1',
    port: 0,
    httpsPort: 443,
    maxConnections: 100,
    log: silentLog,
    ...options,
  });
  server.setRoutes(hosts.map(route));
  const { port } = await server.listen();
  return { server, port, [Symbol.asyncDispose]: () => server.drain(0) };
}

function route(host: string): Route {
  const upstream = {
    protocol: 'http',
    addresses: [{ host: '127.0.0.1', port: 1 }],
    connectTimeoutMs: 1_000,
    readTimeoutMs: 1_000,
    sendTimeoutMs: 1_000,
  } as const;
  return { host: parseDomain(host), paths: [{ prefix: '/', upstream }] };
}

/** All that comes back until the server ends the connection. */
async function send(port: number, text: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(text);
  let reply = '';
  socket.setEncoding('latin1');
  socket.on('data', (chunk: string) => {
    reply += chunk;
  });
  await once(socket, 'close');
  return reply;
}

const request = (line: string, host = 'app.example.com', more = '') =>
  `${line} HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`;
const statusOf = (reply: string) => Number(/^HTTP\/1\.1 (\d{3})/.exec(reply)?.[1]);
const locationOf = (reply: string) => /^Location: (.*)\r$/m.exec(reply)?.[1];

test('it redirects to no host but ours, whatever the request says', async () => {
  await using http = await running();
  const attempts: [string, string, number][] = [
    ['GET /', 'evil.example', 421],
    ['GET /', 'evil.example#.wild.example.com', 400],
    ['GET /', 'evil.example/.wild.example.com', 421],
    ['GET /', 'evil#.wild.example.com', 400],
    ['GET /', 'evil/x.wild.example.com', 400],
    ['GET /', 'evil@x.wild.example.com', 400],
    ['GET /', 'app.example.com:443@evil.example', 400],
    ['GET /', '[::1]', 400],
    ['GET /', '', 400],
    ['GET http://evil.example/', 'app.example.com', 400],
    ['OPTIONS *', 'app.example.com', 400],
    ['GET /\x80', 'app.example.com', 400],
  ];
  for (const [line, host, status] of attempts) {
    const reply = await send(http.port, request(line, host));
    assert.ok([status, 400].includes(statusOf(reply)), `${line} at ${host}: ${reply}`);
    assert.equal(locationOf(reply), undefined, `${line} at ${host}`);
  }
  assert.equal(
    locationOf(await send(http.port, request('GET //evil.example/'))),
    'https://app.example.com//evil.example/',
  );
});

test('a request without exactly one Host is refused', async () => {
  await using http = await running();
  for (const text of [
    'GET / HTTP/1.1\r\n\r\n',
    'GET / HTTP/1.0\r\n\r\n',
    request('GET /', 'app.example.com', 'Host: evil.example\r\n'),
  ]) {
    assert.equal(statusOf(await send(http.port, text)), 400, text);
  }
});

test('an empty port in Host, or a final dot, is no other host', async () => {
  await using http = await running();
  for (const host of ['app.example.com:', 'app.example.com.', 'app.example.com.:']) {
    const reply = await send(http.port, request('GET /a', host));
    assert.match(locationOf(reply) ?? '', /^https:\/\/app\.example\.com(?::\d+)?\/a$/, host);
  }
});

test('one connection gives one answer: nothing that follows a request is taken for another', async () => {
  await using http = await running();
  const second = request('GET /second');
  for (const text of [
    request('GET /first') + second,
    request('POST /first', undefined, `Content-Length: ${second.length}\r\n`) + second,
    request('POST /first', undefined, 'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n') +
      `0\r\n\r\n${second}`,
    request('POST /first', undefined, 'Expect: 100-continue\r\nContent-Length: 3\r\n') + second,
    request('GET /first', undefined, 'Connection: keep-alive\r\n') + second,
  ]) {
    const reply = await send(http.port, text);
    assert.equal(reply.match(/HTTP\/1\.1 /g)?.length, 1, `${text}\n---\n${reply}`);
    assert.doesNotMatch(reply, /second/);
  }
});

test('a client that says nothing, or never comes to an end, is cut off', async () => {
  await using http = await running({ requestTimeoutMs: 200 });
  const silent = send(http.port, '');
  const slow = send(http.port, 'GET / HTTP/1.1\r\nHost: app.exam');
  const large = send(http.port, request(`GET /${'a'.repeat(20_000)}`));
  assert.deepEqual((await Promise.all([silent, slow, large])).map(locationOf), [
    undefined,
    undefined,
    undefined,
  ]);
});

test('when silent connections fill the limit the oldest is closed and the next client is served', async () => {
  await using http = await running({ maxConnections: 3 });
  const silent: Socket[] = [];
  for (let i = 0; i < 3; i++) {
    const socket = connect(http.port, '127.0.0.1');
    await once(socket, 'connect');
    silent.push(socket.resume());
  }
  const closed = once(silent[0]!, 'close');
  assert.equal(statusOf(await send(http.port, request('GET /'))), 308);
  await closed;
  silent[2]!.write(request('GET /'));
  await once(silent[2]!, 'close');
  for (const socket of silent) socket.destroy();
});

test('a visitor is sent to https, with path and query, at the right port', async () => {
  await using usual = await running();
  await using other = await running({ httpsPort: 8443 });
  for (const [port, line, host, location] of [
    [usual.port, 'GET /a/b?c=d%20e', 'app.example.com', 'https://app.example.com/a/b?c=d%20e'],
    [usual.port, 'POST /form', 'APP.example.com.', 'https://app.example.com/form'],
    [usual.port, 'GET /', 'any.wild.example.com:80', 'https://any.wild.example.com/'],
    [other.port, 'GET /x', 'app.example.com:8080', 'https://app.example.com:8443/x'],
  ] as const) {
    const reply = await send(port, request(line, host));
    assert.equal(statusOf(reply), 308);
    assert.equal(locationOf(reply), location);
    assert.doesNotMatch(reply, /Strict-Transport-Security/i);
  }
});

test('a token is answered with its key authorization, byte for byte, until it is taken away', async () => {
  await using http = await running();
  const path = `/.well-known/acme-challenge/${token}`;
  const { server } = http;
  assert.equal(statusOf(await send(http.port, request(`GET ${path}`))), 404);
  server.setChallenge(token, keyAuthorization);
  const reply = await send(http.port, request(`GET ${path}`));
  assert.equal(statusOf(reply), 200);
  assert.match(reply, /^Content-Type: application\/octet-stream\r$/m);
  assert.equal(reply.split('\r\n\r\n')[1], keyAuthorization);
  assert.equal((await send(http.port, request(`HEAD ${path}`))).split('\r\n\r\n')[1], '');
  assert.equal(statusOf(await send(http.port, request(`POST ${path}`))), 405);
  assert.equal(statusOf(await send(http.port, request(`GET ${path}`, 'evil.example'))), 421);
  for (const near of [
    `${path}/`,
    `${path}?`,
    `${path}x`,
    '/.well-known/acme-challenge/',
    `/.well-known/acme-challenge/../acme-challenge/${token}`,
  ]) {
    assert.notEqual(statusOf(await send(http.port, request(`GET ${near}`))), 200, near);
  }
  server.setChallenge(token, undefined);
  assert.equal(statusOf(await send(http.port, request(`GET ${path}`))), 404);
});

test('draining ends what waits, and nothing is accepted after', async () => {
  await using http = await running();
  const waiting = send(http.port, 'GET / HTTP/1.1\r\n');
  await send(http.port, request('GET /'));
  await http.server.drain(50);
  assert.equal(locationOf(await waiting), undefined);
  await assert.rejects(send(http.port, request('GET /')), { code: 'ECONNREFUSED' });
});
