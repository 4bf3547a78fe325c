// Active health checks: who fails them gets no requests, and who passes them again does.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import {
  connect as connectHttp2,
  createServer as createHttp2Server,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { after, describe, it, type TestContext } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import type {
  HealthProbe,
  HealthSettings,
  TlsToUpstream,
  UpstreamProtocol,
} from '../../../proxy/rules/routes.ts';
import { createNames } from '../../../proxy/upstream/names.ts';
import { probeUpstream } from '../../../proxy/upstream/probe.ts';
import { createTrustOfUpstreams } from '../../../proxy/upstream/trust.ts';
import type { Log } from '../../../src/lib/log.ts';
import { createAuthority } from '../../support/client-pki.ts';
import {
  answering,
  appCertificate,
  eventually,
  HOST,
  type Ingress,
  makeCertificate,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const cleanups: (() => unknown)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

const checking = (probe: HealthProbe, changes: Partial<HealthSettings> = {}): HealthSettings => ({
  probe,
  intervalMs: 20,
  timeoutMs: 2_000,
  unhealthyAfter: 2,
  healthyAfter: 2,
  ...changes,
});

/** A log that keeps what is said at `info` and above. */
function createNotes() {
  const notes: { message: string; fields: Record<string, unknown> }[] = [];
  const note = (fields: object, message: string) => void notes.push({ message, fields: { ...fields } });
  const log = {
    error: note,
    warn: note,
    info: note,
    debug() {},
    child: () => log,
  } as unknown as Log;
  return { log, about: (message: string) => notes.filter((one) => one.message === message) };
}

/** An HTTP/1.1 upstream that answers with its name, and checks with whatever it is told. */
async function startApp(name: string) {
  const checks: string[] = [];
  let answer: string | undefined = 'HTTP/1.1 204 No Content\r\n\r\n';
  const upstream = await startUpstream(
    answering((head) => {
      if (!head.startsWith('GET /healthz ')) return `HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${name}`;
      checks.push(head);
      return answer;
    }),
  );
  cleanups.push(upstream.close);
  return {
    port: upstream.port,
    upstream,
    checks,
    answers: (next: string | undefined) => {
      answer = next;
    },
  };
}

const status = (code: number) => `HTTP/1.1 ${code} Whatever\r\nContent-Length: 0\r\n\r\n`;

async function startChecked(
  ports: readonly number[],
  health: HealthSettings,
  {
    protocol = 'http' as UpstreamProtocol,
    log = createNotes().log,
    host = '127.0.0.1',
    upstreamCa = '',
    tls = undefined as TlsToUpstream | undefined,
  } = {},
) {
  const settings = settingsFor(0, protocol, {
    addresses: ports.map((port) => ({ host, port })),
    health,
    ...(tls !== undefined && { tls }),
  });
  const ingress = await startIngress([routeTo(settings)], { log, ...(upstreamCa && { upstreamCa }) });
  cleanups.push(ingress.close);
  return { ingress, settings };
}

async function answers(ingress: Ingress, count: number): Promise<Set<string>> {
  const client = await ingress.connect();
  const seen = new Set<string>();
  for (let i = 0; i < count; i++) {
    const reply = await client.request(request('GET /'));
    seen.add(reply.status === 200 ? reply.body : `${reply.status} ${JSON.parse(reply.body).error}`);
  }
  client.socket.destroy();
  return seen;
}

/** Asks until all of `count` answers in a row are `expected`. */
async function settlesOn(ingress: Ingress, count: number, expected: readonly string[]) {
  const wanted = JSON.stringify(expected.toSorted());
  while (JSON.stringify([...(await answers(ingress, count))].toSorted()) !== wanted)
    await new Promise((resolve) => setTimeout(resolve, 20));
}

describe('an upstream whose health is asked by a path', () => {
  it('is left out while the answer is no, and comes back with it; each change is logged once', async () => {
    const [a, b] = [await startApp('a'), await startApp('b')];
    const { log, about } = createNotes();
    const { ingress } = await startChecked(
      [a.port, b.port],
      checking({ type: 'http', path: '/healthz', host: 'app.internal' }),
      { log },
    );
    assert.deepEqual(await answers(ingress, 6), new Set(['a', 'b']));
    a.answers(status(503));
    await settlesOn(ingress, 6, ['b']);
    a.answers(status(302));
    await settlesOn(ingress, 6, ['a', 'b']);
    assert.match(a.checks[0]!, /^host: app\.internal\r$/im);
    const ill = about('upstream is unhealthy');
    assert.deepEqual(
      ill.map(({ fields }) => [fields.upstream, fields.ip, fields.check, String(fields.err)]),
      [[`127.0.0.1:${a.port}`, '127.0.0.1', 'http', 'Error: it answered with status 503']],
    );
    assert.equal(about('upstream is healthy again').length, 1);
  });

  it('without a healthy address it is unavailable: 503, and UNAVAILABLE to gRPC', async () => {
    const app = await startApp('a');
    app.answers(status(500));
    const { ingress } = await startChecked([app.port], checking({ type: 'http', path: '/healthz' }));
    await settlesOn(ingress, 2, ['503 upstream-unavailable']);
    const session = connectHttp2(`https://${HOST}:${ingress.port}`, {
      ca: appCertificate.chain,
      lookup: (_host: string, options: { all?: boolean }, done: (...args: unknown[]) => void) =>
        options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4),
    } as never);
    const plain = session.request({ ':authority': HOST });
    const [plainHead] = await once(plain, 'response');
    assert.equal(plainHead[':status'], 503);
    const call = session.request({
      ':method': 'POST',
      ':authority': HOST,
      'content-type': 'application/grpc',
    });
    const [callHead] = await once(call, 'response');
    assert.deepEqual([callHead[':status'], callHead['grpc-status']], [200, '14']);
    session.destroy();
    app.answers(status(200));
    await settlesOn(ingress, 2, ['a']);
  });

  for (const [what, answer] of [
    ['says nothing', undefined],
    ['speaks no HTTP', 'SSH-2.0-OpenSSH_9.9\r\n'],
  ] as const) {
    it(`and ${what} is not healthy`, async () => {
      const app = await startApp('a');
      app.answers(answer);
      const { ingress } = await startChecked(
        [app.port],
        checking({ type: 'http', path: '/healthz' }, { timeoutMs: 50 }),
      );
      await settlesOn(ingress, 1, ['503 upstream-unavailable']);
    });
  }

  it('over TLS is checked with the same trust as requests', async () => {
    const certificate = await makeCertificate(['localhost']);
    const server = createTlsServer(
      { cert: certificate.chain, key: certificate.key },
      answering((head) =>
        head.startsWith('GET /healthz ') ? status(200) : 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na',
      ),
    );
    server.on('tlsClientError', () => {});
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(() => server.close());
    const { port } = server.address() as AddressInfo;
    const health = checking({ type: 'http', path: '/healthz' }, { unhealthyAfter: 1 });
    const seen = createNotes();
    const options = { protocol: 'https' as const, log: seen.log };
    const trusted = await startChecked([port], health, {
      ...options,
      host: 'localhost',
      upstreamCa: certificate.chain,
    });
    await settlesOn(trusted.ingress, 3, ['a']);
    const strange = await startChecked([port], health, options);
    await settlesOn(strange.ingress, 1, ['503 upstream-unavailable']);
    assert.deepEqual(
      seen.about('upstream is unhealthy').map(({ fields }) => (fields.err as NodeJS.ErrnoException).code),
      // Of localhost it is ::1, where nobody listens, if the machine has it.
      seen
        .about('upstream is unhealthy')
        .map(({ fields }) => (fields.ip === '::1' ? 'ECONNREFUSED' : 'DEPTH_ZERO_SELF_SIGNED_CERT')),
    );
  });

  it('over TLS is spoken to as its requests are: name, authorities, our certificate', async () => {
    const [certificate, clients] = [
      await makeCertificate(['app.internal']),
      await createAuthority('O=clients'),
    ];
    const ours = await clients.sign('CN=ingress');
    const checked: string[] = [];
    const server = createTlsServer(
      { cert: certificate.chain, key: certificate.key, ca: clients.pem, requestCert: true },
      answering((head) => {
        if (head.startsWith('GET /healthz ')) checked.push(head);
        return head.startsWith('GET /healthz ')
          ? status(200)
          : 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na';
      }),
    );
    server.on('tlsClientError', () => {});
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(() => server.close());
    const { port } = server.address() as AddressInfo;
    const health = checking({ type: 'http', path: '/healthz' }, { unhealthyAfter: 1 });
    const tls = {
      verify: true,
      authorities: certificate.chain,
      name: 'app.internal',
      certificate: ours.cert,
      key: ours.key,
    };
    const { ingress } = await startChecked([port], health, { protocol: 'https', tls });
    await eventually(() => checked.length > 2);
    assert.deepEqual(await answers(ingress, 2), new Set(['a']));
    const other = await startChecked([port], health, {
      protocol: 'https',
      tls: { ...tls, name: 'b.internal' },
    });
    await settlesOn(other.ingress, 1, ['503 upstream-unavailable']);
    const fault = (more: Partial<TlsToUpstream>) =>
      probeUpstream(
        { protocol: 'https', tls: { ...tls, ...more } },
        { host: '127.0.0.1', port },
        {
          names: createNames(),
          secureContext: createTrustOfUpstreams(undefined),
          timeoutMs: 2_000,
        },
      );
    assert.equal(await fault({}), undefined);
    assert.equal((await fault({ name: 'b.internal' }))?.code, 'upstream-untrusted');
  });

  it('over HTTP/2 is asked in HTTP/2', async () => {
    let well = true;
    const server = createHttp2Server();
    server.on('stream', (stream: ServerHttp2Stream, fields) => {
      stream.respond({ ':status': fields[':path'] === '/healthz' && !well ? 500 : 200 });
      stream.end();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(() => server.close());
    const { log, about } = createNotes();
    const { port } = server.address() as AddressInfo;
    await startChecked([port], checking({ type: 'http', path: '/healthz' }), { protocol: 'h2c', log });
    well = false;
    await eventually(() => about('upstream is unhealthy').length === 1);
    well = true;
    await eventually(() => about('upstream is healthy again').length === 1);
  });
});

it('an upstream that is asked for a connection only is healthy while it accepts one', async () => {
  const { log, about } = createNotes();
  const first = await startUpstream(() => {});
  await startChecked([first.port], checking({ type: 'tcp' }), { protocol: 'tcp', log });
  await eventually(() => first.count() > 2);
  assert.equal(about('upstream is unhealthy').length, 0);
  await first.close();
  await eventually(() => about('upstream is unhealthy').length === 1);
  first.server.listen(first.port, '127.0.0.1');
  cleanups.push(first.close);
  await eventually(() => about('upstream is healthy again').length === 1);
});

describe('an upstream whose health is asked by grpc.health.v1', () => {
  const check = {
    path: '/grpc.health.v1.Health/Check',
    requestStream: false,
    responseStream: false,
    requestSerialize: (value: Buffer) => value,
    requestDeserialize: (value: Buffer) => value,
    responseSerialize: (value: Buffer) => value,
    responseDeserialize: (value: Buffer) => value,
  };

  async function startHealthService(t: TestContext, credentials: ServerCredentials) {
    const asked: string[] = [];
    let serving = 1;
    const server = new Server();
    server.addService({ check } as never, {
      check: (
        call: { request: Buffer; getHost(): string },
        done: (error: null | { code: number }, reply?: Buffer) => void,
      ) => {
        asked.push(call.request.subarray(2).toString());
        if (serving < 0) done({ code: 5 });
        else done(null, Buffer.from([0x08, serving]));
      },
    });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', credentials, (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      ),
    );
    t.after(() => server.forceShutdown());
    return {
      port,
      asked,
      says: (next: number) => {
        serving = next;
      },
    };
  }

  for (const [what, answer] of [
    ['NOT_SERVING', 2],
    ['an unknown service', -1],
  ] as const) {
    it(`is healthy while SERVING, and not with ${what}`, async (t) => {
      const service = await startHealthService(t, ServerCredentials.createInsecure());
      const { log, about } = createNotes();
      await startChecked([service.port], checking({ type: 'grpc', service: 'my.Service' }), {
        protocol: 'grpc',
        log,
      });
      await eventually(() => service.asked.length > 2);
      assert.deepEqual(new Set(service.asked), new Set(['my.Service']));
      assert.equal(about('upstream is unhealthy').length, 0);
      service.says(answer);
      await eventually(() => about('upstream is unhealthy').length === 1);
      service.says(1);
      await eventually(() => about('upstream is healthy again').length === 1);
    });
  }

  it('over TLS only if its certificate is that of its name', async (t) => {
    const certificate = await makeCertificate(['localhost']);
    const credentials = ServerCredentials.createSsl(null, [
      { cert_chain: Buffer.from(certificate.chain), private_key: Buffer.from(certificate.key) },
    ]);
    const service = await startHealthService(t, credentials);
    const { log, about } = createNotes();
    const options = { protocol: 'grpcs' as const, log, upstreamCa: certificate.chain };
    const health = checking({ type: 'grpc', service: '' });
    await startChecked([service.port], health, { ...options, host: 'localhost' });
    await eventually(() => service.asked.length > 3);
    assert.deepEqual(
      about('upstream is unhealthy').filter(({ fields }) => fields.ip === '127.0.0.1'),
      [],
    );
    const tls = { verify: true, authorities: certificate.chain, name: 'localhost' };
    const before = service.asked.length;
    await startChecked([service.port], health, { protocol: 'grpcs', log, tls });
    await eventually(() => service.asked.length > before + 20);
    assert.deepEqual(
      about('upstream is unhealthy').filter(({ fields }) => fields.ip === '127.0.0.1'),
      [],
    );
    await startChecked([service.port], health, options);
    await eventually(() =>
      about('upstream is unhealthy').some(({ fields }) => fields.upstream === `127.0.0.1:${service.port}`),
    );
  });
});

describe('checks', () => {
  it('end when the routes are replaced, and when the listener ends', async () => {
    const [a, b] = [await startApp('a'), await startApp('b')];
    const health = checking({ type: 'http', path: '/healthz' });
    const { ingress } = await startChecked([a.port], health);
    await eventually(() => a.checks.length > 1);
    ingress.listener.setRoutes([routeTo(settingsFor(b.port, 'http', { health }))]);
    await eventually(() => a.upstream.sockets.size === 0);
    const count = a.checks.length;
    await eventually(() => b.checks.length > 3);
    assert.ok(a.checks.length <= count + 1, 'at most the one that was under way');
    await ingress.close();
    await eventually(() => b.upstream.sockets.size === 0);
    const last = b.checks.length;
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(b.checks.length, last);
  });

  it('of gRPC are loaded only where one is configured', async () => {
    const proxy = fileURLToPath(new URL('../../../proxy/listener/listener.ts', import.meta.url));
    const script = `
      import { createRequire } from 'node:module';
      await import(process.argv[1]);
      const loaded = Object.keys(createRequire(import.meta.url).cache).filter((path) => path.includes('grpc-js'));
      console.log(loaded.length);`;
    const { stdout } = await promisify(execFile)(process.execPath, [
      '--input-type=module',
      '-e',
      script,
      proxy,
    ]);
    assert.equal(stdout.trim(), '0');
  });
});
