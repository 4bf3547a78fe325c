// A running ingress worth looking at: real workers, real traffic and upstreams, and certificates of every age.

import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { Agent, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Route } from '../../proxy/rules/routes.ts';
import { createAdmin } from '../../src/admin/admin.ts';
import { createNews } from '../../src/admin/news.ts';
import { createTally } from '../../src/admin/tally.ts';
import type { DomainStatus, Status } from '../../src/commands/status-report.ts';
import type { Certificate } from '../../src/lib/certificate.ts';
import { type Domain, parseDomain } from '../../src/lib/domain.ts';
import { createLog } from '../../src/lib/log.ts';
import { createProcessFigures } from '../../src/workers/process-figures.ts';
import { createWorkers } from '../../src/workers/workers.ts';
import { freePort } from './ports.ts';
import { makeCertificate } from './proxy.ts';
import { workerSettings } from './worker-settings.ts';

const DAY_MS = 86_400_000;
const domains = ['app.example.com', 'api.example.com', 'chat.example.com', '*.tenants.example.com'].map(
  parseDomain,
);
/** Of ninety days, how many have passed. */
const AGES: readonly number[] = [12, 41, 83, 3];

export async function startScene() {
  const folder = await mkdtemp(join(tmpdir(), 'scene-'));
  const upstreams = await Promise.all([startApp(3), startApp(18), startApp(60)]);
  const dead = await freePort();
  const certificate = await makeCertificate(domains);
  const news = createNews();
  const log = createLog({ stream: { write: () => true } as never, readable: false, tap: news.take });
  const workers = createWorkers({ count: 2, settings: workerSettings, log });
  const at = (port: number) => ({
    protocol: 'http' as const,
    addresses: [{ host: '127.0.0.1', port }],
    connectTimeoutMs: 2_000,
    readTimeoutMs: 5_000,
    sendTimeoutMs: 5_000,
  });
  const routes: Route[] = [
    { host: domains[0]!, paths: [{ prefix: '/', upstream: at(upstreams[0].port) }] },
    { host: domains[1]!, paths: [{ prefix: '/', upstream: at(upstreams[1].port) }] },
    {
      host: domains[2]!,
      paths: [
        { prefix: '/', upstream: at(upstreams[2].port) },
        { prefix: '/old/', upstream: at(dead) },
      ],
    },
    { host: domains[3]!, paths: [{ prefix: '/', upstream: at(upstreams[0].port) }] },
  ];
  await workers.setRoutes(routes);
  await workers.setCertificates([certificate]);
  const { port } = await workers.start();
  log.info({ address: '127.0.0.1', port: 443, workers: 2, domains }, 'serving');
  for (const domain of domains.slice(0, 3))
    log.info({ domain, serial: '04C8D2A1F0', next: new Date(Date.now() + 30 * DAY_MS) }, 'renewal planned');
  log.info({ domain: domains[3], serial: '03A9E1447B', by: "CN=E7,O=Let's Encrypt" }, 'certificate obtained');
  log.info({ builtAt: new Date().toISOString(), names: domains }, 'evidence published');
  const address = { host: '127.0.0.1', port: await freePort(), loopback: true };
  const certificates = domains.map((domain, i) => certificateOf(domain, AGES[i]!));
  const privateSocket = join(folder, 'private', 'admin.sock');
  const admin = createAdmin({
    settings: { address, token: undefined },
    privateSocket,
    news,
    sources: {
      version: '0.1.0',
      workers,
      domains: () => domains,
      certificates: () => certificates,
      evidenceAt: () => new Date(Date.now() - 7.4 * 3_600_000).toISOString(),
      tally: createTally(),
      figures: createProcessFigures(),
      stopping: () => false,
    },
    readStatus: async () => statusOf(certificates),
    config: () => ({ settings: [], routes: {} }),
    log,
  });
  await admin.listen();
  const traffic = startTraffic(port, certificate.chain);
  return {
    url: `http://127.0.0.1:${address.port}/`,
    socketPath: privateSocket,
    address: `127.0.0.1:${address.port}`,
    async stop() {
      traffic.stop();
      await admin.close();
      await workers.drain(500);
      for (const { server } of upstreams) server.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function startApp(slowMs: number) {
  const server = createServer((asked, response) => {
    const { searchParams } = new URL(asked.url!, 'http://app');
    const waitMs = slowMs * (0.4 + Math.random() ** 4 * 6);
    setTimeout(() => response.writeHead(Number(searchParams.get('status') ?? 200)).end('hello'), waitMs);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

function certificateOf(domain: Domain, age: number): Certificate {
  const notBefore = new Date(Date.now() - age * DAY_MS);
  return {
    names: [domain],
    chain: '',
    key: '',
    serial: '04C8D2A1F0',
    issuer: "CN=E7,O=Let's Encrypt,C=US",
    notBefore,
    notAfter: new Date(notBefore.getTime() + 90 * DAY_MS),
    sha256: '',
  } as Certificate;
}

function statusOf(certificates: readonly Certificate[]): Status {
  const at = new Date().toISOString();
  return {
    directory: 'https://acme-v02.api.letsencrypt.org/directory',
    account: 'https://acme-v02.api.letsencrypt.org/acme/acct/1',
    at,
    problems: [],
    domains: certificates.map((certificate, i) => domainStatus(certificate, at, i === 2)),
    upstreams: [],
  };
}

function domainStatus(certificate: Certificate, at: string, failing: boolean): DomainStatus {
  const { names, serial, issuer, notBefore, notAfter, sha256 } = certificate;
  const planned = new Date(notBefore.getTime() + 60 * DAY_MS).toISOString();
  return {
    domain: names[0]!,
    valid: true,
    certificate: {
      names,
      serial,
      issuer,
      notBefore: notBefore.toISOString(),
      notAfter: notAfter.toISOString(),
      sha256,
    },
    next: failing
      ? { at: new Date(Date.now() + 3 * 3_600_000).toISOString(), reason: 'failed 4 times, waiting' }
      : { at: planned, reason: 'a third of its life left' },
    window: undefined,
    orderSince: undefined,
    failure: failing
      ? {
          at: new Date(Date.now() - 40 * 60_000).toISOString(),
          reason: 'CAA at example.com does not allow this account',
          failures: 4,
        }
      : undefined,
    damaged: [],
    caa: failing
      ? { state: 'forbids', decidedBy: 'example.com', findings: ['the record names another account'], at }
      : { state: 'pinned', decidedBy: 'example.com', findings: [], at },
    records: { state: 'in place' },
  };
}

/** Several hosts, in waves, with an error now and then. */
function startTraffic(port: number, ca: string) {
  const agent = new Agent({ keepAlive: true, maxSockets: 24 });
  const ask = (host: string, path: string) => {
    const asked = request({
      host: '127.0.0.1',
      port,
      agent,
      servername: host,
      ca,
      path,
      headers: { Host: host },
    });
    asked.on('response', (response) => response.resume());
    asked.on('error', () => {});
    asked.end();
  };
  const begun = Date.now();
  const timer = setInterval(() => {
    const time = (Date.now() - begun) / 1_000;
    const some = (mean: number) => Math.floor(mean + Math.random());
    for (let i = some(3 + 2 * Math.sin(time / 18) + Math.sin(time / 5)); i > 0; i--)
      ask('app.example.com', '/');
    for (let i = some(1.6 + 1.2 * Math.sin(time / 11)); i > 0; i--)
      ask('api.example.com', Math.random() < 0.04 ? '/?status=404' : '/');
    for (let i = some(0.35 + 0.3 * Math.sin(time / 25)); i > 0; i--)
      ask('chat.example.com', Math.random() < 0.12 ? '/old/' : '/');
    if (Math.random() < 0.12) ask('acme.tenants.example.com', '/');
  }, 50);
  return {
    stop() {
      clearInterval(timer);
      agent.destroy();
    },
  };
}
