// What the doctor looks at, all sound, and every part of it can be made wrong: CA, DNS, agent, provider, app, folders.

import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createHttp2Server } from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createStore, type Store } from '../../acme/store.ts';
import { examine, mistakeFindings, type Surroundings } from '../../src/commands/doctor.ts';
import type { Finding } from '../../src/commands/doctor-report.ts';
import { type Config, ConfigError, readConfig } from '../../src/config/config.ts';
import { type AgentReply, startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { createSimulatedProcessor } from '../../src/demo/simulated-quote.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { ApiDouble } from './api-double.ts';
import { makeCertificate } from './certificates.ts';
import { startCloudflareDouble } from './cloudflare-double.ts';
import { type DnsDouble, startDnsDouble } from './dns-double.ts';

export const domain = 'app.example.com';
const GATEWAY = 'gateway.example.net';
export const ACCOUNT = 'https://ca.example/account/1';

export interface DoctorWorld {
  /** Of the settings of a sound configuration with tls-alpn-01, and of one with dns-01. */
  readonly env: Readonly<Record<string, string>>;
  readonly dns01: Readonly<Record<string, string>>;
  readonly folder: string;
  readonly store: Store;
  readonly dns: DnsDouble;
  readonly api: ApiDouble;
  readonly agent: { readonly appId: string; readonly instanceId: string };
  /** Ports of servers that speak what is no plain HTTP/1.1, of one that is silent, and of nobody. */
  readonly tlsPort: number;
  readonly http2Port: number;
  readonly closedPort: number;
  /** What the CA's directory says of itself. */
  meta: Record<string, unknown>;
  /** Changes the agent's answer to Info. */
  info: ((answer: Record<string, unknown>) => AgentReply | Record<string, unknown>) | undefined;
  readonly surroundings: Surroundings;
  /** What the doctor finds with these settings beside those of `env`. */
  examine(
    settings: Readonly<Record<string, string>>,
    surroundings?: Partial<Surroundings>,
    write?: boolean,
  ): Promise<Finding[]>;
  /** Everything as it was at first. */
  restore(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function createDoctorWorld(): Promise<DoctorWorld> {
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'doctor-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));
  const certificate = await makeCertificate('localhost');
  const pem = { key: certificate.key, cert: certificate.chain };
  const listen = async (server: Server) => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    parts.defer(() => void server.close());
    return (server.address() as AddressInfo).port;
  };

  const ca = createHttpsServer(pem, (_request, response) => {
    response.setHeader('content-type', 'application/json');
    const at = `https://localhost:${caPort}`;
    response.end(
      JSON.stringify({ newNonce: `${at}/n`, newAccount: `${at}/a`, newOrder: `${at}/o`, meta: world.meta }),
    );
  });
  const caPort = await listen(ca);
  parts.defer(() => ca.closeAllConnections());
  const appPort = await listen(createServer((_request, response) => response.end('hello')));
  const tlsPort = await listen(createHttpsServer(pem, (_request, response) => response.end('hello')));
  const http2Port = await listen(createHttp2Server());
  const closed = createServer();
  closed.listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const closedPort = (closed.address() as AddressInfo).port;
  closed.close();

  const agent = await startSimulatedAgent({
    socketPath: join(folder, 'dstack.sock'),
    processor: await createSimulatedProcessor(),
    intercept(method, reply) {
      if (method !== 'Info' || world.info === undefined) return reply;
      const changed = world.info(JSON.parse(reply.body));
      return 'status' in changed
        ? (changed as unknown as AgentReply)
        : { status: 200, body: JSON.stringify(changed) };
    },
  });
  parts.defer(() => agent.close());
  const dns = await startDnsDouble();
  parts.defer(() => dns.stop());
  const api = await startCloudflareDouble({ zones: { 'example.com': [] } });
  parts.defer(() => api.stop());

  const caFile = join(folder, 'ca.pem');
  await writeFile(caFile, certificate.chain);
  const env = {
    DOMAIN: domain,
    TARGET_ENDPOINT: `http://127.0.0.1:${appPort}`,
    NGINX_CONF_DIR: 'none',
    GATEWAY_DOMAIN: GATEWAY,
    CHALLENGE_TYPE: 'tls-alpn-01',
    SET_CAA: 'true',
    ACME_DIRECTORY_URL: `https://localhost:${caPort}/directory`,
    ACME_CA_FILE: caFile,
    STATE_DIR: join(folder, 'state'),
    EVIDENCE_DIR: join(folder, 'evidences'),
    DSTACK_SIMULATOR_ENDPOINT: agent.endpoint,
    DNS_RESOLVERS: dns.server,
    WORKERS: '2',
  };
  const surroundings: Surroundings = {
    machine: {
      nodeVersion: process.versions.node,
      descriptorLimit: () => 65_536,
      memoryLimit: () => 4 * 2 ** 30,
    },
    disk: {
      room: async () => ({ bytes: 2 ** 33, files: 1_000_000 }),
      mounts: async () => '1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /tmp rw - ext4 /dev/vda rw\n',
    },
    clock: systemClock,
    timeoutMs: 20_000,
  };
  const { instanceId } = agent;
  const directoryUrl = env.ACME_DIRECTORY_URL;
  const store = await createStore({ stateDir: env.STATE_DIR, directoryUrl });
  const world: DoctorWorld = {
    env,
    dns01: {
      CHALLENGE_TYPE: 'dns-01',
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
    },
    folder,
    store,
    dns,
    api,
    agent,
    tlsPort,
    http2Port,
    closedPort,
    meta: {},
    info: undefined,
    surroundings,
    async examine(settings, more = {}, write = false) {
      const all = { ...env, ...settings };
      let config: Config;
      try {
        config = readConfig(all);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        return mistakeFindings(error);
      }
      return examine(config, write, { ...surroundings, ...more });
    },
    async restore() {
      world.meta = { caaIdentities: ['ca.example'] };
      world.info = undefined;
      dns.misanswer(undefined);
      dns.table.clear();
      for (const [key, values] of Object.entries({
        [`A ${GATEWAY}`]: ['192.0.2.1'],
        [`A ${domain}`]: ['192.0.2.1'],
        [`TXT _dstack-app-address.${domain}`]: [`${instanceId}:443`],
        [`CAA ${domain}`]: [`0 issue "ca.example;accounturi=${ACCOUNT};validationmethods=tls-alpn-01"`],
      }))
        dns.table.set(key, [...values]);
      await rm(env.STATE_DIR, { recursive: true, force: true });
      await rm(env.EVIDENCE_DIR, { recursive: true, force: true });
      await mkdir(env.EVIDENCE_DIR);
      const fresh = await createStore({ stateDir: env.STATE_DIR, directoryUrl });
      await fresh.writeAccount({ url: ACCOUNT });
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
  const all = parts.move();
  await world.restore();
  return world;
}
