// Starts a deployment from its compose file, on a machine of its own where every path, port and name is the container's.

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Server as GrpcServer, type handleUnaryCall, ServerCredentials } from '@grpc/grpc-js';
import { WebSocketServer } from 'ws';
import { type EchoMessage, say } from '../../../src/demo/echo.ts';
import { type SimulatedAgent, startSimulatedAgent } from '../../../src/demo/simulated-agent.ts';
import type { ApiDouble } from '../../support/api-double.ts';
import { startCloudflareDouble } from '../../support/cloudflare-double.ts';
import { type Compose, readCompose, type Service } from '../../support/compose.ts';
import { type IngressProcess, startIngressProcess } from '../../support/ingress-process.ts';
import { type Pebble, startPebble } from '../../support/pebble.ts';
import { ACCESS_KEY_ID, startRoute53Double } from '../../support/route53-double.ts';

/** What every deployment finds around it: the CA with its DNS, and two vendors of DNS. */
export interface Surroundings {
  readonly pebble: Pebble;
  readonly cloudflare: ApiDouble;
  readonly route53: ApiDouble;
  stop(): Promise<void>;
}

export interface Deployed {
  readonly ingress: IngressProcess;
  readonly agent: SimulatedAgent;
  /** PEM of the root under which the CA issues. */
  readonly ca: string;
  readonly around: Surroundings;
  /** All that the ingress was given. */
  readonly environment: Readonly<Record<string, string>>;
}

const ZONES = { 'example.com': [], 'deleg.example.net': [] };

export async function createSurroundings(): Promise<Surroundings> {
  const pebble = await startPebble({ tlsPort: 443, httpPort: 80 });
  const cloudflare = await startCloudflareDouble({ zones: ZONES, dns: pebble.dns });
  const route53 = await startRoute53Double({ zones: ZONES, dns: pebble.dns });
  return {
    pebble,
    cloudflare,
    route53,
    async stop() {
      await cloudflare.stop();
      await route53.stop();
      await pebble.stop();
    },
  };
}

/** The `.env` file that goes with all of them. */
function variables(around: Surroundings): Record<string, string> {
  return {
    CLOUDFLARE_API_TOKEN: around.cloudflare.token,
    CERTBOT_EMAIL: 'ops@example.com',
    DOMAIN: 'app.example.com',
    GATEWAY_DOMAIN: '_.gateway.example.net',
    DSTACK_GATEWAY_DOMAIN: 'gateway.example.net',
    MACHINE_NAME: 'machine-1',
    AWS_ACCESS_KEY_ID: ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY: around.route53.token,
    AWS_ROLE_ARN: 'arn:aws:iam::123456789012:role/dns',
    ROUTE53_AWS_REGION: 'us-east-1',
    ROUTE53_AWS_ACCESS_KEY_ID: ACCESS_KEY_ID,
    ROUTE53_AWS_SECRET_ACCESS_KEY: around.route53.token,
    ROUTE53_AWS_ROLE_ARN: 'arn:aws:iam::123456789012:role/dns',
  };
}

/** Where the CA, the DNS and the vendors are on this machine: the only settings that are not the file's. */
function outside(around: Surroundings): Record<string, string> {
  return {
    ACME_DIRECTORY_URL: around.pebble.directoryUrl,
    ACME_CA_FILE: around.pebble.caFile,
    DNS_RESOLVERS: around.pebble.dns.address,
    CLOUDFLARE_BASE_URL: around.cloudflare.url,
    AWS_ENDPOINT_URL_ROUTE_53: around.route53.url,
    AWS_ENDPOINT_URL_STS: around.route53.url,
    DNS_SETUP_INTERVAL: '1',
    DNS_SETTLE_SECONDS: '0',
    WORKERS: '1',
    // Empty counts as not given: the image's default, where the tests otherwise say "none".
    NGINX_CONF_DIR: '',
  };
}

export interface Deployment {
  readonly title: string;
  readonly file: string;
  /** What the owner does beside deploying, such as records made by hand; returns what takes it back. */
  prepare?(around: Surroundings, agent: SimulatedAgent): Promise<undefined | (() => Promise<void>)>;
  promises(deployed: Deployed): Promise<void>;
}

/** Rejects with the first promise that does not hold. Leaves the machine as it was. */
export async function holds(deployment: Deployment, around: Surroundings): Promise<void> {
  const path = join(fileURLToPath(new URL('.', import.meta.url)), deployment.file);
  const compose = readCompose(path, variables(around));
  const [service, ...others] = compose.services as [Service, ...Service[]];
  using _apps = await startApps(others, compose);
  const agent = await layOut(service);
  const takeBack = await deployment.prepare?.(around, agent);
  const environment = { ...service.environment, ...outside(around) };
  const ingress = startIngressProcess(environment);
  try {
    await ingress.waitFor('ready');
    const ca = await around.pebble.issuerRoots();
    await deployment.promises({ ingress, agent, ca, around, environment });
  } finally {
    await ingress.stop();
    await agent.close();
    await takeBack?.();
    for (const double of [around.cloudflare, around.route53]) await forget(double, around.pebble);
  }
}

async function forget(double: ApiDouble, pebble: Pebble): Promise<void> {
  for (const zone of double.zones.values()) {
    for (const { name } of zone.records) {
      await pebble.dns.clearTxt(name);
      await pebble.dns.clearCaa(name);
      await pebble.dns.clearCname(name);
    }
    zone.records = [];
  }
}

/** Empty volumes, the agent at the socket that is mounted, and the configs. */
async function layOut({ mounts, configs }: Service): Promise<SimulatedAgent> {
  for (const path of ['/etc/letsencrypt', '/etc/nginx', '/run/dstack.sock', '/run/tappd.sock'])
    rmSync(path, { recursive: true, force: true });
  execFileSync('find', ['/evidences', '-mindepth', '1', '-delete']);
  for (const path of mounts.filter((mount) => !mount.endsWith('.sock'))) mkdirSync(path, { recursive: true });
  for (const [path, content] of Object.entries(configs)) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  }
  const isNew = mounts.includes('/var/run/dstack.sock');
  return startSimulatedAgent({
    socketPath: isNew ? '/run/dstack.sock' : '/run/tappd.sock',
    style: isNew ? 'dstack' : 'tappd',
  });
}

// The apps: each service under its name, on an address of its own, at the ports that the file names.

async function startApps(services: readonly Service[], compose: Compose) {
  const ownHosts = readFileSync('/etc/hosts', 'utf8');
  const stops: (() => void)[] = [];
  for (const [i, { name }] of services.entries()) {
    const address = `127.0.1.${i + 1}`;
    appendFileSync('/etc/hosts', `\n${address} ${name}\n`);
    const named = compose.text.matchAll(new RegExp(`(\\w+://)?\\b${name}:(\\d+)\\b`, 'g'));
    for (const [, scheme, port] of named)
      stops.push(await (scheme === 'grpc://' ? startGrpcApp : startHttpApp)(name, address, Number(port)));
  }
  return {
    [Symbol.dispose]() {
      for (const stop of stops) stop();
      writeFileSync('/etc/hosts', ownHosts);
    },
  };
}

/** Says what it saw. Over WebSocket it sends back what it gets. */
async function startHttpApp(service: string, address: string, port: number): Promise<() => void> {
  const server = createServer(async (request, response) => {
    let length = 0;
    for await (const chunk of request) length += (chunk as Buffer).length;
    const { method, url, headers } = request;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ service, method, url, headers, length }));
  });
  new WebSocketServer({ server }).on('connection', (socket) => {
    socket.on('message', (message) => socket.send(`${service}: ${message}`));
  });
  server.listen(port, address);
  await once(server, 'listening');
  return () => {
    server.close();
    server.closeAllConnections();
  };
}

async function startGrpcApp(service: string, address: string, port: number): Promise<() => void> {
  const server = new GrpcServer();
  const answer: handleUnaryCall<EchoMessage, EchoMessage> = ({ request }, reply) =>
    reply(null, { text: `${service}: ${request.text}` });
  server.addService({ say }, { say: answer });
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`${address}:${port}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    ),
  );
  return () => server.forceShutdown();
}
