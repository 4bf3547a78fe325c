// The worker processes: what they are given, what they never see, and what happens when they die.

import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, open, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { connect, type PeerCertificate } from 'node:tls';
import { request } from 'undici';
import { defaultLimits } from '../../../proxy/limits.ts';
import type { ServedCertificate } from '../../../proxy/listener/listener.ts';
import type { RuleSet } from '../../../proxy/rules/model.ts';
import type { Route } from '../../../proxy/rules/routes.ts';
import { createDemoPki, type DemoPki, generateLeafKeys } from '../../../src/demo/demo-pki.ts';
import { parseDomain } from '../../../src/lib/domain.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { readMessages, writeOrder } from '../../../src/workers/channel.ts';
import {
  FromWorkerSchema,
  type Reply,
  type ToWorker,
  type WorkerSettings,
} from '../../../src/workers/messages.ts';
import { channelOf, forkWorker } from '../../../src/workers/process.ts';
import { nothingServed } from '../../../src/workers/serving.ts';
import { createWorkers, type Workers, type WorkersError } from '../../../src/workers/workers.ts';
import { freePort } from '../../support/ports.ts';

const host = parseDomain('app.example.com');
let pki: DemoPki;
let upstream: ReturnType<typeof createServer>;
let routes: Route[];

before(async () => {
  pki = await createDemoPki();
  upstream = createServer((_request, response) => response.end('from upstream'));
  upstream.listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  const { port } = upstream.address() as AddressInfo;
  routes = [
    {
      host,
      paths: [
        {
          prefix: '/',
          upstream: {
            protocol: 'http',
            addresses: [{ host: '127.0.0.1', port }],
            connectTimeoutMs: 5_000,
            readTimeoutMs: 5_000,
            sendTimeoutMs: 5_000,
          },
        },
      ],
    },
  ];
});
after(() => upstream.close());

async function issue(): Promise<ServedCertificate> {
  const keys = await generateLeafKeys();
  const chain = await pki.issue({ publicKey: keys.publicKey, names: [host] });
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey));
  const key = `-----BEGIN PRIVATE KEY-----\n${der.toString('base64')}\n-----END PRIVATE KEY-----\n`;
  return { names: [host], chain, key };
}

const settings: WorkerSettings = {
  host: '127.0.0.1',
  port: 0,
  plainHttp: undefined,
  alpn: ['h2', 'http/1.1'],
  proxyProtocol: false,
  trustedProxies: [],
  trustedForwarders: [],
  limits: defaultLimits,
  upstreamCa: undefined,
  evidence: true,
  sharedChallenges: false,
  accessLog: undefined,
  requestIds: false,
  logLevel: 'silent',
  readableLog: false,
};

async function running(count: number, options: { port?: number } = {}) {
  const workers = createWorkers({
    count,
    settings: { ...settings, port: options.port ?? 0 },
    log: silentLog,
  });
  await workers.setRoutes(routes);
  await workers.setCertificates([await issue()]);
  const { port } = await workers.start();
  return { workers, port, [Symbol.asyncDispose]: () => workers.drain(1_000) };
}

/** One request on a connection of its own: what came back, and which certificate was shown. */
async function ask(port: number, fields = ''): Promise<{ body: string; certificate: PeerCertificate }> {
  const socket = connect({
    port,
    host: '127.0.0.1',
    servername: host,
    ca: pki.root,
    ALPNProtocols: ['http/1.1'],
  });
  await once(socket, 'secureConnect');
  const certificate = socket.getPeerCertificate();
  socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n${fields}Connection: close\r\n\r\n`);
  let text = '';
  for await (const chunk of socket) text += chunk;
  return { body: text.slice(text.indexOf('\r\n\r\n') + 4), certificate };
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  assert.fail(`${what}: waited in vain`);
}

test('a taken worker finds no token in its environment and no file of the supervisor open', async () => {
  process.env.CLOUDFLARE_API_TOKEN = 'top-secret-token';
  const folder = await mkdtemp(join(tmpdir(), 'workers-'));
  await writeFile(join(folder, 'account.json'), 'the account key');
  const held = await open(join(folder, 'account.json'));
  try {
    await using ingress = await running(2);
    for (const pid of ingress.workers.pids()) {
      assert.equal(
        await readFile(`/proc/${pid}/environ`, 'utf8').then((text) => text.includes('TOKEN')),
        false,
      );
      const files = await readdir(`/proc/${pid}/fd`);
      const targets = await Promise.all(
        files.map((file) => readlink(`/proc/${pid}/fd/${file}`).catch(() => '')),
      );
      assert.deepEqual(
        targets.filter((target) => target.startsWith(folder)),
        [],
      );
    }
    assert.equal((await ask(ingress.port)).body, 'from upstream');
  } finally {
    delete process.env.CLOUDFLARE_API_TOKEN;
    await held.close();
    await rm(folder, { recursive: true });
  }
});

test('a killed worker is replaced while the others serve', async () => {
  await using ingress = await running(2);
  const [victim] = ingress.workers.pids();
  process.kill(victim!, 'SIGKILL');
  await until('a replacement', () => {
    const pids = ingress.workers.pids();
    return pids.length === 2 && !pids.includes(victim!);
  });
  for (let i = 0; i < 8; i++) assert.equal((await ask(ingress.port)).body, 'from upstream');
});

test('a worker born after a change serves what the others serve', async () => {
  await using ingress = await running(1);
  const renewed = await issue();
  await ingress.workers.setCertificates([renewed]);
  const before = await ask(ingress.port);
  const [pid] = ingress.workers.pids();
  process.kill(pid!, 'SIGKILL');
  await until('a replacement that serves', async () => {
    if (ingress.workers.pids().includes(pid!)) return false;
    return ask(ingress.port).then(
      ({ certificate }) => certificate.fingerprint256 === before.certificate.fingerprint256,
      () => false,
    );
  });
});

test('an http-01 challenge is answered by every worker, by one born later too, and by none after it is over', async () => {
  const port = await freePort();
  const workers = createWorkers({
    count: 2,
    settings: { ...settings, plainHttp: { port, httpsPort: 443 } },
    log: silentLog,
  });
  const look = async () => {
    const url = `http://127.0.0.1:${port}/.well-known/acme-challenge/a-token`;
    const { statusCode, body } = await request(url, { headers: { host } });
    return { statusCode, text: await body.text() };
  };
  const lookOften = async (statusCode: number, text: string) => {
    // The kernel spreads connections by their ports: in this many, either worker is asked.
    for (let i = 0; i < 20; i++) assert.deepEqual(await look(), { statusCode, text });
  };
  try {
    await workers.setRoutes(routes);
    await workers.start();
    await workers.setHttpChallenge('a-token', 'a-token.thumbprint');
    await lookOften(200, 'a-token.thumbprint');
    const [victim] = workers.pids();
    process.kill(victim!, 'SIGKILL');
    await until('a replacement', async () => {
      const pids = workers.pids();
      if (pids.length < 2 || pids.includes(victim!)) return false;
      return look().then(
        () => true,
        () => false,
      );
    });
    await lookOften(200, 'a-token.thumbprint');
    await workers.setHttpChallenge('a-token', undefined);
    await lookOften(404, '{"error":"no-route","message":"nothing is served under this host and path"}\n');
  } finally {
    await workers.drain(1_000);
  }
});

test('a port for plain HTTP that another program has stops the start, and says which', async () => {
  const taken = createServer();
  taken.listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  const workers = createWorkers({
    count: 1,
    settings: { ...settings, plainHttp: { port, httpsPort: 443 } },
    log: silentLog,
  });
  try {
    await assert.rejects(workers.start(), { code: 'address-in-use', message: new RegExp(`port ${port}`) });
  } finally {
    await workers.drain(0);
    taken.close();
  }
});

test('a certificate that does not load is refused, and the old one goes on in every worker', async () => {
  await using ingress = await running(2);
  const shown = (await ask(ingress.port)).certificate.fingerprint256;
  const good = await issue();
  const broken = { ...good, key: (await issue()).key };
  await assert.rejects(
    ingress.workers.setCertificates([broken]),
    (error: WorkersError) => error.code === 'certificate-refused' && !error.message.includes('PRIVATE'),
  );
  for (let i = 0; i < 6; i++) assert.equal((await ask(ingress.port)).certificate.fingerprint256, shown);
});

test('a port that another ingress shares by SO_REUSEPORT is refused, not shared with it', async () => {
  const port = await freePort();
  await using _first = await running(1, { port });
  await assert.rejects(running(1, { port }), (error: WorkersError) => error.code === 'address-in-use');
});

test('of each worker it is known which generation it serves, and a successor serves the newest', async () => {
  await using ingress = await running(2);
  const { workers } = ingress;
  await workers.setRoutes(routes);
  await workers.setHttpChallenge('a-token', 'a-token.thumbprint');
  const { generations } = workers.state();
  assert.deepEqual([generations.certificates, generations.routes, generations.evidence], [1, 2, 0]);
  const [victim] = workers.pids();
  process.kill(victim!, 'SIGKILL');
  await until('a replacement that has started', () => {
    const { living } = workers.state();
    return living.length === 2 && living.every(({ pid, ready }) => ready && pid !== victim);
  });
  for (const { serves } of workers.state().living) assert.deepEqual(serves, workers.state().generations);
});

test('a worker keeps the newer routes when older ones arrive after them', async () => {
  const child = forkWorker();
  const channel = channelOf(child)!;
  const heard = new EventEmitter();
  readMessages(
    channel,
    (json) => {
      const message = FromWorkerSchema.parse(json);
      if ('id' in message) heard.emit(String(message.id), message);
    },
    assert.fail,
  );
  const tell = async (order: ToWorker) => {
    const answer = once(heard, String(order.id));
    writeOrder(channel, order, () => {});
    const [reply] = (await answer) as [Reply];
    return reply.done ? reply : assert.fail(reply.message);
  };
  const serving = {
    certificates: [await issue()],
    routes: { list: routes },
    challenges: new Map(),
    httpChallenges: new Map(),
    evidence: { current: undefined },
    ticketKeys: Buffer.alloc(48, 7),
  };
  try {
    const started = await tell({
      id: 1,
      type: 'start',
      settings,
      serving,
      generations: { ...nothingServed, routes: 5 },
    });
    const older = { kind: 'routes', generation: 4, value: { list: [] } } as const;
    assert.equal((await tell({ id: 2, type: 'serve', snapshot: older })).generation, 5);
    assert.equal((await ask(started.address!.port)).body, 'from upstream');
    const newer = { ...older, generation: 6 };
    assert.equal((await tell({ id: 3, type: 'serve', snapshot: newer })).generation, 6);
    assert.match((await ask(started.address!.port)).body, /no-route/);
  } finally {
    child.kill('SIGKILL');
  }
});

/** One site that answers by itself, so many times at once and then no more for a long time. */
function limited(burst: number, max = 1_000): RuleSet {
  return {
    requestZones: [{ name: 'visitors', key: [{ name: 'remote_addr' }], perThousandSeconds: 1 }],
    connectionZones: [{ name: 'open', key: [{ name: 'remote_addr' }] }],
    sites: [
      {
        names: [{ kind: 'exact', name: host }],
        label: host,
        locations: [
          {
            match: { kind: 'prefix', path: '/' },
            content: { kind: 'respond', status: 200, body: ['within'] },
            policy: {
              requestLimits: [{ zone: 'visitors', burst, delay: burst }],
              connectionLimits: [{ zone: 'open', max }],
              requestLimitStatus: 429,
            },
          },
        ],
      },
    ],
  };
}

test('limits of rules hold to the request, whichever worker is asked', async () => {
  await using ingress = await running(2);
  await ingress.workers.setRoutes([], limited(9));
  const answers = await Promise.all(Array.from({ length: 40 }, () => ask(ingress.port)));
  assert.equal(answers.filter(({ body }) => body === 'within').length, 10);
  // What was counted goes on counting when the rules are sent again.
  await ingress.workers.setRoutes([], limited(9));
  assert.notEqual((await ask(ingress.port)).body, 'within');
});

test('a worker behind its fence knows right passwords from wrong ones', async () => {
  await using ingress = await running(2);
  const hash = '$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a';
  await ingress.workers.setRoutes([], {
    sites: [
      {
        names: [{ kind: 'exact', name: host }],
        label: host,
        policy: { basicRealm: ['app'], basicUsers: [{ name: 'ann', hash }] },
        locations: [
          {
            match: { kind: 'prefix', path: '/' },
            content: { kind: 'respond', status: 200, body: ['within'] },
          },
        ],
      },
    ],
  });
  const within = async (credentials: string) => {
    const fields = `Authorization: Basic ${Buffer.from(credentials).toString('base64')}\r\n`;
    return (await ask(ingress.port, fields)).body === 'within';
  };
  const who = ['ann:secret', 'ann:wrong', 'bob:secret', 'ann:', 'ann:secret', 'ann:secret', 'ann:secret '];
  const answers = await Promise.all(who.map(within));
  assert.deepEqual(answers, [true, false, false, false, true, true, false]);
});

test('seats are free again once their requests are over, and rules that a worker refuses change nothing', async () => {
  await using ingress = await running(2);
  await ingress.workers.setRoutes([], limited(100, 1));
  const within = async () => (await ask(ingress.port)).body === 'within';
  for (let i = 0; i < 6; i++) await until('a free seat', within);
  const unknown = { ...limited(1), requestZones: [] };
  await assert.rejects(ingress.workers.setRoutes([], unknown), /visitors/);
  await until('a free seat', within);
  const [pid] = ingress.workers.pids();
  process.kill(pid!, 'SIGKILL');
  await until(
    'a replacement',
    () => ingress.workers.pids().length === 2 && !ingress.workers.pids().includes(pid!),
  );
  for (let i = 0; i < 4; i++) await until('a free seat', within);
});

test('what a worker has counted outlives it, and what it had open does not', async () => {
  await using ingress = await running(1);
  const { workers, port } = ingress;
  const counted = () => workers.state().totals.connections!;
  const idle = connect({ port, host: '127.0.0.1', servername: host, ca: pki.root });
  await once(idle, 'secureConnect');
  idle.on('error', () => {});
  for (let i = 0; i < 3; i++) await ask(port);
  await until('the numbers', () => counted().handshakes === 4 && counted().open === 1);
  const { received, sent } = counted();
  assert.ok(received! > 1_000 && sent! > 3_000, `${received} and ${sent} bytes of three connections`);
  assert.equal(counted().requests, 3);
  const [victim] = workers.pids();
  process.kill(victim!, 'SIGKILL');
  await until('a replacement', () =>
    workers.state().living.some(({ pid, ready }) => ready && pid !== victim),
  );
  assert.deepEqual(
    { handshakes: counted().handshakes, open: counted().open, received: counted().received },
    { handshakes: 4, open: 0, received },
  );
  await ask(port);
  await until('the numbers of the successor', () => counted().handshakes === 5);
  assert.equal(workers.state().living[0]!.counts.connections!.handshakes, 1);
});

test('handshakes that fail are counted apart', async () => {
  await using ingress = await running(1);
  const stranger = connect({
    port: ingress.port,
    host: '127.0.0.1',
    servername: 'other.example',
    ca: pki.root,
  });
  await once(stranger, 'error');
  const counted = () => ingress.workers.state().totals.connections!;
  await until('the numbers', () => counted().failedHandshakes === 1);
  assert.deepEqual([counted().accepted, counted().handshakes], [1, 0]);
});

test('draining ends every worker', async () => {
  let workers: Workers;
  {
    await using ingress = await running(2);
    workers = ingress.workers;
    assert.equal(workers.pids().length, 2);
  }
  assert.deepEqual(workers.pids(), []);
});
