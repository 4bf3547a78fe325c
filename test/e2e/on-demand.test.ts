// What the program loads only when it is needed does its work in the bundle: every DNS provider, DNS over HTTPS, gRPC's checks.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { providerKinds } from '../../dns/providers/choice.ts';
import { type ApiDouble, type DoubleOptions, startApiDouble } from '../support/api-double.ts';
import { makeCertificate } from '../support/certificates.ts';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import { startDesecDouble } from '../support/desec-double.ts';
import { startDigitaloceanDouble } from '../support/digitalocean-double.ts';
import { startDnsDouble } from '../support/dns-double.ts';
import { startGandiDouble } from '../support/gandi-double.ts';
import { startHetznerDouble } from '../support/hetzner-double.ts';
import { startIngressProcess } from '../support/ingress-process.ts';
import { startKnot } from '../support/knot.ts';
import { startLinodeDouble } from '../support/linode-double.ts';
import { startNamecheapDouble } from '../support/namecheap-double.ts';
import { startPorkbunDouble } from '../support/porkbun-double.ts';
import { freePort } from '../support/ports.ts';
import { startPowerdns } from '../support/powerdns.ts';
import { ACCESS_KEY_ID, startRoute53Double } from '../support/route53-double.ts';
import { createWorld, type World } from '../support/world.ts';

const domain = 'app.example.com';

type Env = Readonly<Record<string, string>>;

interface Service {
  readonly env: Env;
  /** What it has been asked, by which a call that never left the program is told from one that did. */
  readonly calls?: () => number;
  stop(): Promise<void>;
}

const vendor =
  (start: (options: DoubleOptions) => Promise<ApiDouble>, env: (double: ApiDouble) => Env) =>
  async (): Promise<Service> => {
    const double = await start({ zones: { 'example.com': [] } });
    return { env: env(double), calls: () => double.journal.length, stop: double.stop };
  };

/** By their names. Those that can write any record write what the gateway reads, the others a challenge. */
const providers: Readonly<Record<string, () => Promise<Service>>> = {
  cloudflare: vendor(startCloudflareDouble, ({ url, token }) => ({
    CLOUDFLARE_API_TOKEN: token,
    CLOUDFLARE_BASE_URL: url,
  })),
  linode: vendor(startLinodeDouble, ({ url, token }) => ({ LINODE_API_TOKEN: token, LINODE_API_URL: url })),
  // With a role, so that the token service is asked as well.
  route53: vendor(
    (options) => startRoute53Double({ ...options, roleOnly: true }),
    ({ url, token }) => ({
      AWS_ACCESS_KEY_ID: ACCESS_KEY_ID,
      AWS_SECRET_ACCESS_KEY: token,
      AWS_ENDPOINT_URL_ROUTE_53: url,
      AWS_ENDPOINT_URL_STS: url,
      AWS_ROLE_ARN: 'arn:aws:iam::123456789012:role/dns',
    }),
  ),
  namecheap: vendor(startNamecheapDouble, ({ url, token }) => ({
    NAMECHEAP_USERNAME: 'us',
    NAMECHEAP_API_KEY: token,
    NAMECHEAP_CLIENT_IP: '192.0.2.1',
    NAMECHEAP_API_URL: url,
  })),
  digitalocean: vendor(startDigitaloceanDouble, ({ url, token }) => ({
    DO_AUTH_TOKEN: token,
    DO_API_URL: url,
  })),
  hetzner: vendor(startHetznerDouble, ({ url, token }) => ({
    HETZNER_API_TOKEN: token,
    HETZNER_API_URL: url,
  })),
  gandi: vendor(startGandiDouble, ({ url, token }) => ({
    GANDI_PERSONAL_ACCESS_TOKEN: token,
    GANDI_API_URL: url,
  })),
  porkbun: vendor(startPorkbunDouble, ({ url, token }) => ({
    PORKBUN_API_KEY: 'pk1_x',
    PORKBUN_SECRET_API_KEY: token,
    PORKBUN_API_URL: url,
  })),
  desec: vendor(startDesecDouble, ({ url, token }) => ({ DESEC_TOKEN: token, DESEC_API_URL: url })),
  async powerdns() {
    const { api, key, stop } = await startPowerdns(['example.com']);
    return { env: { PDNS_API_URL: api, PDNS_API_KEY: key }, stop };
  },
  async rfc2136() {
    const { server, key, stop } = await startKnot(['example.com']);
    const env = {
      RFC2136_NAMESERVER: server,
      RFC2136_TSIG_KEY: key.name,
      RFC2136_TSIG_SECRET: key.secret,
      RFC2136_TSIG_ALGORITHM: key.algorithm,
    };
    return { env, stop };
  },
  'acme-dns': vendor(
    (options) =>
      startApiDouble(options, ({ body }) => ({ status: 200, body: { txt: (body as { txt: string }).txt } })),
    ({ url }) => ({
      ACME_DNS_API_BASE: url,
      ACME_DNS_SUBDOMAIN: '8e5700ea-a4bf-41c7-8a77-e990661dcc6a',
      ACME_DNS_USERNAME: 'us',
      ACME_DNS_PASSWORD: 'password-of-the-subdomain',
    }),
  ),
  httpreq: vendor(
    (options) => startApiDouble(options, () => ({ status: 200, body: {} })),
    ({ url }) => ({ HTTPREQ_ENDPOINT: url }),
  ),
};

describe('a DNS provider', () => {
  let world: World;

  before(async () => {
    world = await createWorld({ nonceRejectPercent: 0 });
  });

  after(() => world[Symbol.asyncDispose]());

  test('is tried here if the program knows it', () => {
    assert.deepEqual(Object.keys(providers).sort(), providerKinds.map(({ name }) => name).sort());
  });

  for (const { name, create } of providerKinds) {
    test(`${name} is asked by the program as it ships`, async () => {
      const service = await providers[name]!();
      const { challengesOnly } = create(service.env);
      const folder = await mkdtemp(join(world.folder, 'state-'));
      const ingress = startIngressProcess({
        ...world.env,
        ...service.env,
        PORT: String(await freePort()),
        STATE_DIR: join(folder, 'state'),
        EVIDENCE_DIR: join(folder, 'evidences'),
        WORKERS: '1',
        DNS_PROVIDER: name,
        DNS_SETUP_MODE: challengesOnly ? 'print' : 'auto',
        DOMAIN: domain,
        TARGET_ENDPOINT: 'http://127.0.0.1:9',
      });
      try {
        const refusal = challengesOnly ? 'certificate not obtained' : 'certificate cannot be ordered yet';
        const failed = ingress.waitFor(refusal).then(({ err }) => assert.fail(JSON.stringify(err)));
        if (challengesOnly)
          await Promise.race([failed, eventually(() => service.calls!() > 0, ingress.exited)]);
        else {
          const text = ingress.waitFor('wrote a DNS record', ({ type }) => type === 'TXT');
          const written = await Promise.race([failed, text]);
          assert.deepEqual([written.provider, written.name], [name, `_dstack-app-address.${domain}`]);
        }
      } finally {
        await ingress.stop();
        await service.stop();
      }
    });
  }
});

test('DNS over HTTPS is asked by the program as it ships', async () => {
  await using world = await createWorld({ nonceRejectPercent: 0 });
  const certificate = await makeCertificate('localhost');
  const roots = join(world.folder, 'roots.pem');
  await writeFile(roots, certificate.chain);
  const dns = await startDnsDouble();
  // The double speaks plain HTTP, and the program insists on TLS.
  const server = createServer(
    { cert: certificate.chain, key: certificate.key },
    async (request, response) => {
      const reply = await fetch(dns.doh, {
        method: 'POST',
        headers: { 'content-type': 'application/dns-message' },
        body: await buffer(request),
      });
      response.setHeader('content-type', 'application/dns-message');
      response.end(Buffer.from(await reply.arrayBuffer()));
    },
  ).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    const ingress = world.start({
      DOMAIN: domain,
      TARGET_ENDPOINT: 'http://127.0.0.1:9',
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'wait',
      DNS_RESOLVERS: '',
      DOH_RESOLVERS: `https://localhost:${port}/dns-query`,
      NODE_EXTRA_CA_CERTS: roots,
    });
    await eventually(() => dns.asked.some(({ transport }) => transport === 'https'), ingress.exited);
    await ingress.waitFor('waiting for a DNS record');
  } finally {
    server.closeAllConnections();
    server.close();
    await dns.stop();
  }
});

test('the health of a gRPC upstream is asked by a worker as it ships', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'on-demand-'));
  const service = await startHealthService();
  const routes = join(folder, 'routes.yaml');
  await writeFile(
    routes,
    `routes:\n  - host: ${domain}\n    upstream: grpc://127.0.0.1:${service.port}\n    health: { grpc: my.Service, interval: 1s }\n`,
  );
  const ingress = startIngressProcess({
    ROUTES_FILE: routes,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
    LISTEN_ADDRESS: '127.0.0.1',
    PORT: String(await freePort()),
    WORKERS: '1',
    ACME_DIRECTORY_URL: 'https://127.0.0.1:1/directory',
    STATE_DIR: join(folder, 'state'),
    EVIDENCE_DIR: join(folder, 'evidences'),
    EVIDENCE_SERVER: 'false',
  });
  try {
    await eventually(() => service.asked.length > 3, ingress.exited);
    assert.deepEqual(new Set(service.asked), new Set(['my.Service']));
    assert.deepEqual(
      ingress.log.filter(({ msg }) => msg === 'upstream is unhealthy'),
      [],
    );
  } finally {
    await ingress.stop();
    service.stop();
    await rm(folder, { recursive: true });
  }
});

/** Answers SERVING to all. */
async function startHealthService() {
  const asked: string[] = [];
  const asIs = (value: Buffer) => value;
  const check = {
    path: '/grpc.health.v1.Health/Check',
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
  const server = new Server();
  server.addService({ check } as never, {
    check: ({ request }: { request: Buffer }, done: (error: null, reply: Buffer) => void) => {
      asked.push(request.subarray(2).toString());
      done(null, Buffer.from([0x08, 1]));
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  return { port, asked, stop: () => server.forceShutdown() };
}

/** Rejects when the program ends first, or after a minute. */
async function eventually(holds: () => boolean, exited: Promise<unknown>): Promise<void> {
  const over = Promise.race([exited, setTimeout(60_000, undefined, { ref: false })]);
  let isOver = false;
  void over.then(() => {
    isOver = true;
  });
  while (!holds()) {
    assert.ok(!isOver, 'it did not happen');
    await setTimeout(20);
  }
}
