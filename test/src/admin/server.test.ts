// The admin server: who may ask, what is told, and that nothing done to it reaches visitors.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import type { Route } from '../../../proxy/rules/routes.ts';
import type { LiveReport } from '../../../src/admin/report.ts';
import { healthcheck } from '../../../src/commands/healthcheck.ts';
import { exitCodes } from '../../../src/exit-codes.ts';
import { parseDomain } from '../../../src/lib/domain.ts';
import { freePort } from '../../support/ports.ts';
import { appCertificate, HOST } from '../../support/proxy.ts';
import { askAdmin } from '../../support/scrape.ts';
import { startShownIngress } from '../../support/shown-ingress.ts';

const TOKEN = 'a-token-of-some-length';
let upstream: ReturnType<typeof createServer>;
let ingress: Awaited<ReturnType<typeof startShownIngress>>;
let address: { host: string; port: number };

before(async () => {
  upstream = createServer((_, response) => response.end('from upstream'));
  upstream.listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  const { port } = upstream.address() as AddressInfo;
  const timeouts = { connectTimeoutMs: 5_000, readTimeoutMs: 5_000, sendTimeoutMs: 5_000 };
  const settings = { protocol: 'http' as const, addresses: [{ host: '127.0.0.1', port }], ...timeouts };
  const routes: Route[] = [{ host: parseDomain(HOST), paths: [{ prefix: '/', upstream: settings }] }];
  address = { host: '127.0.0.1', port: await freePort() };
  // Loopback, but with a token, as an address of the network would have.
  ingress = await startShownIngress({
    routes,
    count: 1,
    settings: { address: { ...address, loopback: true }, token: TOKEN },
  });
});

after(async () => {
  await ingress.stop();
  upstream.close();
});

const asBearer = { authorization: `Bearer ${TOKEN}` };
const basic = (user: string, password: string) =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;

/** A visitor's request. */
async function visit(): Promise<string> {
  const socket = connectTls({
    host: '127.0.0.1',
    port: ingress.port,
    servername: HOST,
    ca: appCertificate.chain,
    ALPNProtocols: ['http/1.1'],
  });
  await once(socket, 'secureConnect');
  socket.write(`GET / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`);
  let text = '';
  for await (const bytes of socket) text += bytes;
  return text.slice(text.indexOf('\r\n\r\n') + 4);
}

describe('who may ask', () => {
  const needToken = ['/', '/metrics', '/status.json', '/config.json', '/events'];
  const told = ['/livez', '/readyz', '/healthz'];

  test('without the token: health, and nothing else', async () => {
    for (const path of needToken) {
      const { status, headers } = await askAdmin(address, path);
      assert.equal(status, 401, path);
      assert.match(String(headers['www-authenticate']), /^Basic realm=/);
    }
    for (const path of told) assert.equal((await askAdmin(address, path)).status, 200, path);
  });

  test('with it, as a Bearer token or as the password of whatever user', async () => {
    for (const authorization of [asBearer.authorization, basic('', TOKEN), basic('me', TOKEN)])
      assert.equal((await askAdmin(address, '/metrics', { headers: { authorization } })).status, 200);
    const wrong = [
      'Bearer ',
      `Bearer ${TOKEN}x`,
      `Bearer ${TOKEN.slice(1)}`,
      basic(TOKEN, ''),
      `Digest ${TOKEN}`,
      TOKEN,
    ];
    for (const authorization of wrong)
      assert.equal((await askAdmin(address, '/metrics', { headers: { authorization } })).status, 401);
  });

  test('a page whose name was bound to our address is refused, health included', async () => {
    for (const host of ['evil.example', `evil.example:${address.port}`, 'localhost.evil.example', 'a b'])
      for (const path of [...needToken, ...told])
        assert.equal((await askAdmin(address, path, { headers: { host } })).status, 421, `${host} ${path}`);
    for (const host of ['localhost', `127.0.0.1:${address.port}`, '[::1]:80', 'LOCALHOST:1'])
      assert.equal((await askAdmin(address, '/readyz', { headers: { host } })).status, 200, host);
    // Who has the token is no such page.
    const scraper = { headers: { ...asBearer, host: 'ingress:9180' } };
    assert.equal((await askAdmin(address, '/metrics', scraper)).status, 200);
  });

  test('nothing can be changed, and no body is read', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])
      assert.equal((await askAdmin(address, '/', { method, headers: asBearer })).status, 405, method);
    const withBody = { method: 'GET', headers: { ...asBearer, 'content-length': '5' } };
    assert.equal((await askAdmin(address, '/', withBody)).status, 413);
    const chunked = { method: 'POST', headers: { ...asBearer, 'transfer-encoding': 'chunked' } };
    assert.equal((await askAdmin(address, '/', chunked)).status, 413);
  });

  test('the private socket is for its user alone, and asks for nothing', async () => {
    const { socketPath } = ingress;
    assert.equal(statSync(socketPath).mode & 0o777, 0o600);
    assert.equal(statSync(dirname(socketPath)).mode & 0o777, 0o700);
    for (const path of needToken.slice(0, 4))
      assert.equal((await askAdmin({ socketPath }, path)).status, 200, path);
  });
});

describe('what is told', () => {
  const ask = (path: string, headers: Record<string, string> = {}) =>
    askAdmin({ socketPath: ingress.socketPath }, path, { headers });

  test('readiness: each condition by name, and 503 where one does not hold', async () => {
    assert.match(
      (await ask('/readyz')).body,
      /^ready\nok {2}certificates: 1 of 1 .*\nok {2}workers: 1 of 1 .*\nok {2}serving: /,
    );
    ingress.state.covered = false;
    ingress.state.stopping = true;
    try {
      const { status, body } = await ask('/readyz');
      assert.equal(status, 503);
      assert.match(
        body,
        /^not ready\nnot certificates: 0 of 1 .*\nok {2}workers: .*\nnot serving: it is stopping\n$/,
      );
      assert.equal((await ask('/livez')).status, 200);
    } finally {
      ingress.state.covered = true;
      ingress.state.stopping = false;
    }
  });

  test('metrics in the format that is asked for', async () => {
    const prometheus = await ask('/metrics');
    assert.match(String(prometheus.headers['content-type']), /^text\/plain; version=0\.0\.4/);
    assert.match(prometheus.body, /^# TYPE dstack_ingress_http_requests_total counter$/m);
    const accept = 'application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3';
    const open = await ask('/metrics', { accept });
    assert.match(String(open.headers['content-type']), /^application\/openmetrics-text; version=1\.0\.0/);
    assert.match(open.body, /^# TYPE dstack_ingress_http_requests counter$/m);
    assert.ok(open.body.endsWith('# EOF\n'));
  });

  test('the page: it can load nothing, and nothing that is put into it runs', async () => {
    const { headers, body } = await ask('/');
    const policy = String(headers['content-security-policy']);
    assert.match(
      policy,
      /^default-src 'none'; connect-src 'self'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'/,
    );
    assert.doesNotMatch(policy, /unsafe|https?:|\*/);
    assert.equal(body, readFileSync(new URL('../../../src/admin/status-page.html', import.meta.url), 'utf8'));
    assert.doesNotMatch(body, /(src|href)="(https?:)?\/\/|@import|url\((?!data:)/);
  });

  test('what happens, as it happens', async () => {
    const socket = connect({ path: ingress.socketPath });
    socket.write('GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n');
    let text = '';
    for await (const bytes of socket) {
      text += bytes;
      if ((text.match(/^data: .*\n\n/gm)?.length ?? 0) >= 3) break;
    }
    assert.match(text, /content-type: text\/event-stream/i);
    const report = JSON.parse([...text.matchAll(/^data: (.*)\n\n/gm)].at(-1)![1]!) as LiveReport;
    assert.equal(report.readiness.ready, true);
    assert.equal(report.workers.length, 1);
  });

  test('healthcheck finds no ingress where there is none, and says where it looked', async () => {
    const said: string[] = [];
    const stream = { write: (text: string) => said.push(text) } as never;
    const code = await healthcheck(
      { PORT: '1', LISTEN_ADDRESS: '127.9.9.9' },
      { out: stream, err: stream },
      exitCodes,
    );
    assert.equal(code, 1);
    assert.match(said.join(''), /^healthcheck: no ingress answers at .*127\.9\.9\.9-1\.sock: /);
  });
});

describe('what is done to it', () => {
  const connections = async (count: number, first: string): Promise<Socket[]> => {
    const sockets = Array.from({ length: count }, () => connect(address));
    for (const socket of sockets) {
      socket.on('error', () => {});
      socket.write(first);
    }
    await Promise.all(
      sockets.map((socket) => Promise.race([once(socket, 'connect'), once(socket, 'close')])),
    );
    return sockets;
  };
  const head = (path: string) =>
    `GET ${path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${TOKEN}\r\n`;

  /** Visitors are served meanwhile, and afterwards it answers again. */
  async function survives(sockets: readonly Socket[]): Promise<void> {
    for (let i = 0; i < 20; i++) assert.equal(await visit(), 'from upstream');
    for (const socket of sockets) socket.destroy();
    for (let tries = 0; ; tries++) {
      const answer = await askAdmin(address, '/livez').catch(() => undefined);
      if (answer?.status === 200) return;
      assert.ok(tries < 200, 'it does not answer any more');
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  test('a thousand listeners of events: 128 connections are taken, 64 of them are told', async () => {
    const sockets = await connections(1_000, `${head('/events')}\r\n`);
    let told = 0;
    let refused = 0;
    for (const socket of sockets)
      socket.once('data', (bytes: Buffer) => {
        if (/^HTTP\/1\.1 200/.test(bytes.toString('latin1'))) told++;
        if (/^HTTP\/1\.1 503/.test(bytes.toString('latin1'))) refused++;
      });
    await survives(sockets);
    assert.ok(told > 0 && told <= 64, `${told} were told`);
    assert.ok(told + refused <= 128, `${told + refused} were answered`);
  });

  test('readers that read nothing, and heads that never end', async () => {
    const slow = await connections(60, `${head('/metrics')}\r\n`.repeat(50));
    for (const socket of slow) socket.pause();
    await survives([...slow, ...(await connections(60, head('/')))]);
  });

  test('heads that are too large, and bytes that are no HTTP', async () => {
    const [large] = await connections(1, `${head('/')}X: ${'x'.repeat(20_000)}\r\n\r\n`);
    const [bytes] = (await once(large!, 'data')) as [Buffer];
    assert.match(bytes.toString('latin1'), /^HTTP\/1\.1 431 /);
    const noise = await connections(20, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03');
    await survives([large!, ...noise]);
  });
});
