// Connections to upstreams: trusted only if proven, shared fairly, forgotten when stale.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { after, describe, it } from 'node:test';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import type { Fault } from '../../../proxy/faults.ts';
import type { ServedCertificate } from '../../../proxy/listener/listener.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import {
  createUpstreams,
  type UpstreamLink,
  type Upstreams,
  type UpstreamUser,
} from '../../../proxy/upstream/http1-pool.ts';
import { startNginx } from '../../support/nginx.ts';
import { join, pairings } from '../../support/pairings.ts';
import { freePort } from '../../support/ports.ts';
import {
  answering,
  eventually,
  HOST,
  makeCertificate,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const cleanups: (() => unknown)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

function createPool(options: { idleTimeoutMs?: number } = {}): Upstreams {
  const upstreams = createUpstreams({ deadlines: createDeadlines(undefined, 10), ...options });
  cleanups.push(() => upstreams.close());
  return upstreams;
}

/** A user that waits for its link, and notes what else it is told. */
function createUser() {
  const { promise, resolve, reject } = Promise.withResolvers<UpstreamLink>();
  const events: string[] = [];
  const user: UpstreamUser = {
    upstreamReady: resolve,
    upstreamFailed: (fault: Fault) => reject(fault),
    upstreamData: (bytes, end) => void events.push(bytes.toString('latin1', 0, end)),
    upstreamDrained: () => void events.push('drained'),
    upstreamEnded: () => void events.push('ended'),
    upstreamClosed: () => void events.push('closed'),
  };
  return { user, link: promise, events };
}

describe('an upstream over TLS', () => {
  async function setUp(certificate: ServedCertificate, upstreamCa: string, host = 'localhost') {
    const names: unknown[] = [];
    const server = createTlsServer(
      { cert: certificate.chain, key: certificate.key, ALPNProtocols: ['http/1.1'] },
      (socket: TLSSocket) => {
        names.push([socket.servername, socket.alpnProtocol]);
        answering(() => OK)(socket);
      },
    );
    server.on('tlsClientError', () => {});
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(() => new Promise((resolve) => server.close(resolve)));
    const { port } = server.address() as AddressInfo;
    const settings = settingsFor(port, 'https', { addresses: [{ host, port }] });
    const ingress = await startIngress([routeTo(settings)], { upstreamCa });
    cleanups.push(ingress.close);
    return { client: await ingress.connect(), names };
  }

  it('with the certificate of another name is not trusted: 502', async () => {
    const certificate = await makeCertificate(['other.example']);
    const { client } = await setUp(certificate, certificate.chain);
    const reply = await client.request(request('GET /'));
    assert.deepEqual([reply.status, JSON.parse(reply.body).error], [502, 'upstream-untrusted']);
  });

  it('with a certificate of another CA is not trusted: 502', async () => {
    const { client } = await setUp(
      await makeCertificate(['localhost']),
      (await makeCertificate(['localhost'])).chain,
    );
    const reply = await client.request(request('GET /'));
    assert.deepEqual([reply.status, JSON.parse(reply.body).error], [502, 'upstream-untrusted']);
  });

  it('with the right one is asked by its name, and its connections are kept', async () => {
    const certificate = await makeCertificate(['localhost']);
    const { client, names } = await setUp(certificate, certificate.chain);
    for (let i = 0; i < 3; i++) assert.equal((await client.request(request('GET /'))).body, 'ok');
    assert.deepEqual(names, [['localhost', 'http/1.1']]);
  });
});

describe('an upstream that cannot be had', () => {
  it('because its name does not resolve: 502, and the name stays inside', async () => {
    const settings = settingsFor(1, 'http', { addresses: [{ host: 'nowhere.invalid', port: 1 }] });
    const ingress = await startIngress([routeTo(settings)]);
    cleanups.push(ingress.close);
    const client = await ingress.connect();
    const reply = await client.request(request('GET /'));
    assert.deepEqual([reply.status, JSON.parse(reply.body).error], [502, 'upstream-unresolved']);
    assert.doesNotMatch(reply.body, /invalid/);
  });

  it('because nobody accepts: connect-timeout, or refused where the network says so itself', async () => {
    const pool = createPool();
    // TEST-NET-1 (RFC 5737) leads nowhere.
    const { user, link } = createUser();
    pool.acquire(
      settingsFor(9, 'http', { addresses: [{ host: '192.0.2.1', port: 9 }], connectTimeoutMs: 50 }),
      user,
    );
    await assert.rejects(
      link,
      (fault: Fault) => fault.retrySafe && /^(connect-timeout|upstream-refused)$/.test(fault.code),
    );
  });

  it('an attempt that is given up ends', async () => {
    const upstream = await startUpstream((socket) => void socket.on('end', () => socket.end()).resume());
    cleanups.push(upstream.close);
    const pool = createPool();
    const { user, link, events } = createUser();
    const never = link.then(() => events.push('ready'));
    never.catch(() => {});
    pool.acquire(settingsFor(upstream.port), user).abandon();
    const second = createUser();
    pool.acquire(settingsFor(upstream.port), second.user);
    (await second.link).destroy();
    assert.deepEqual(events, []);
  });
});

describe('the pool', () => {
  it('gives the connection that came back last, and only to one at a time', async () => {
    const upstream = await startUpstream(() => {});
    cleanups.push(upstream.close);
    const pool = createPool();
    const settings = settingsFor(upstream.port);
    const [one, two] = [createUser(), createUser()];
    pool.acquire(settings, one.user);
    pool.acquire(settings, two.user);
    const [first, second] = [await one.link, await two.link];
    first.release();
    second.release();
    const three = createUser();
    // New settings that say the same share the pool: a reload costs no connection.
    pool.acquire({ ...settings }, three.user);
    assert.equal(await three.link, second);
    assert.equal(second.reused, true);
    const four = createUser();
    pool.acquire(settings, four.user);
    assert.equal(await four.link, first);
    await eventually(() => upstream.count() === 2);
  });

  it('a fresh one is asked for, a fresh one is given', async () => {
    const upstream = await startUpstream(() => {});
    cleanups.push(upstream.close);
    const pool = createPool();
    const settings = settingsFor(upstream.port);
    const one = createUser();
    pool.acquire(settings, one.user);
    (await one.link).release();
    const two = createUser();
    pool.acquire(settings, two.user, { fresh: true });
    assert.equal((await two.link).reused, false);
    await eventually(() => upstream.count() === 2);
  });

  it('keeps as many as a thousand requests at once have needed, for the next thousand', async () => {
    const upstream = await startUpstream(() => {});
    cleanups.push(upstream.close);
    const pool = createPool();
    const settings = settingsFor(upstream.port);
    const takeMany = () =>
      Promise.all(
        Array.from({ length: 1_000 }, () => {
          const { user, link } = createUser();
          pool.acquire(settings, user);
          return link;
        }),
      );
    for (let round = 0; round < 3; round++) for (const link of await takeMany()) link.release();
    await eventually(() => upstream.count() === 1_000);
  });

  it('closes connections before common servers would', async () => {
    const upstream = await startUpstream((socket) => void socket.on('end', () => socket.end()).resume());
    cleanups.push(upstream.close);
    const pool = createPool({ idleTimeoutMs: 50 });
    const one = createUser();
    pool.acquire(settingsFor(upstream.port), one.user);
    (await one.link).release();
    await eventually(() => upstream.sockets.size === 0);
    assert.deepEqual(one.events, []);
  });

  it('shares the load among addresses, and leaves out one that keeps failing', async () => {
    const [a, b] = [await startUpstream(() => {}), await startUpstream(() => {})];
    cleanups.push(a.close, b.close);
    const pool = createPool();
    const settings = settingsFor(a.port, 'http', {
      addresses: [
        { host: '127.0.0.1', port: a.port },
        { host: '127.0.0.1', port: b.port },
      ],
    });
    const take = async () => {
      const { user, link } = createUser();
      pool.acquire(settings, user);
      return link;
    };
    const links = await Promise.all(Array.from({ length: 6 }, take));
    assert.equal(links.filter((link) => link.endpoint.address.port === a.port).length, 3);
    for (const link of links) if (link.endpoint.address.port === a.port) link.fail();
    // Busy as it is, b has all of the next: three failures in a row are no accident.
    for (let i = 0; i < 4; i++) assert.equal((await take()).endpoint.address.port, b.port);
  });
});

it(`${HOST} is served by names, not only by addresses, IPv4 or IPv6`, async () => {
  const upstream = await startUpstream(answering(() => OK));
  cleanups.push(upstream.close);
  const ingress = await startIngress([
    routeTo(settingsFor(upstream.port, 'http', { addresses: [{ host: 'localhost', port: upstream.port }] })),
  ]);
  cleanups.push(ingress.close);
  const client = await ingress.connect();
  for (let i = 0; i < 2; i++) assert.equal((await client.request(request('GET /'))).body, 'ok');
});

for (const pairing of pairings.filter(({ upstream }) => upstream === 'h1')) {
  describe(`${pairing.name}: a server that ends each connection after 20 requests`, () => {
    it('fails none of 6,000 requests of 100 clients, whatever their methods and bodies', async (t) => {
      const nginx = await startNginx({
        port: await freePort(),
        server: 'keepalive_requests 20; location / { return 200 "$connection"; }',
      });
      t.after(nginx.stop);
      const { client } = await join(t, pairing, nginx.port);
      const methods = ['GET', 'POST', 'PUT', 'DELETE', 'POST'];
      const sizes = [0, 1, 1_000, 64 * 1024, 300_000];
      const failed: unknown[] = [];
      const requestsOf = new Map<string, number>();
      let left = 6_000;
      const worker = async () => {
        const one = client();
        while (left > 0) {
          const number = left--;
          const method = methods[number % methods.length]!;
          const body = method.startsWith('P') ? 'x'.repeat(sizes[(number >> 3) % sizes.length]!) : '';
          const answer = await one.ask(
            body === '' ? { method } : { method, body, chunked: number % 2 === 0 },
          );
          if (answer.status !== 200 || answer.cut) failed.push({ number, method, size: body.length, answer });
          requestsOf.set(answer.body, (requestsOf.get(answer.body) ?? 0) + 1);
        }
      };
      await Promise.all(Array.from({ length: 100 }, worker));
      assert.deepEqual(failed.slice(0, 3), []);
      // Each connection was used to its end, and none beyond it.
      assert.ok([...requestsOf.values()].every((count) => count <= 20));
      assert.ok(requestsOf.size >= 300 && requestsOf.size < 1_000, `${requestsOf.size} connections`);
    });
  });
}
