// Everything around the ingress, for end-to-end tests: a CA with its DNS, an agent, an app behind it, and folders.

import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { type SimulatedAgent, startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { type IngressProcess, startIngressProcess } from './ingress-process.ts';
import { type Pebble, startPebble } from './pebble.ts';
import { freePort } from './ports.ts';

export interface World {
  readonly pebble: Pebble;
  readonly agent: SimulatedAgent;
  /** Where the ingress under test is to listen, and where the CA validates tls-alpn-01. */
  readonly port: number;
  /** Where the CA validates http-01; the ingress listens there if told to. */
  readonly httpPort: number;
  readonly folder: string;
  /** All that the ingress needs but its domains, routes and challenge. */
  readonly env: Readonly<Record<string, string>>;
  /** Started with `env` and these settings; stopped with the world. */
  start(settings: Readonly<Record<string, string>>): IngressProcess;
  /** PEM of the root under which the CA issues now. */
  roots(): Promise<string>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface WorldOptions {
  readonly nonceRejectPercent?: number;
  /** "host:port" of the DNS server that CA and ingress ask, in place of the CA's own. */
  readonly dnsServer?: string;
}

export async function createWorld(options: WorldOptions = {}): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'ingress-world-'));
  const port = await freePort();
  const httpPort = await freePort();
  const { nonceRejectPercent = 30, dnsServer } = options;
  const pebble = await startPebble({
    tlsPort: port,
    httpPort,
    nonceRejectPercent,
    ...(dnsServer !== undefined && { dnsServer }),
  });
  const agent = await startSimulatedAgent({ socketPath: join(folder, 'dstack.sock') });
  const started: IngressProcess[] = [];
  const env = {
    PORT: String(port),
    LISTEN_ADDRESS: '127.0.0.1',
    WORKERS: '2',
    STATE_DIR: join(folder, 'state'),
    EVIDENCE_DIR: join(folder, 'evidences'),
    ACME_DIRECTORY_URL: pebble.directoryUrl,
    ACME_CA_FILE: pebble.caFile,
    DSTACK_SIMULATOR_ENDPOINT: agent.endpoint,
    DNS_RESOLVERS: dnsServer ?? pebble.dns.address,
    DNS_SETUP_INTERVAL: '1',
    DNS_SETTLE_SECONDS: '0',
    GATEWAY_DOMAIN: '_.gateway.example.net',
  };
  return {
    pebble,
    agent,
    port,
    httpPort,
    folder,
    env,
    start(settings) {
      const ingress = startIngressProcess({ ...env, ...settings });
      started.push(ingress);
      return ingress;
    },
    roots: () => pebble.issuerRoots(),
    async [Symbol.asyncDispose]() {
      await Promise.all(started.map((ingress) => ingress.stop()));
      await agent.close();
      await pebble.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export interface Handshake {
  readonly port: number;
  readonly servername: string;
  readonly ca: string;
  readonly alpn?: readonly string[];
}

/** Resolves once the chain is verified up to `ca` and the name is covered; rejects with the alert or the verdict. */
export async function handshake({
  port,
  servername,
  ca,
  alpn = ['http/1.1'],
}: Handshake): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', port, servername, ca, ALPNProtocols: [...alpn] });
  await once(socket, 'secureConnect');
  return socket;
}

/** The serial that a new connection sees; upper-case hex. */
export async function servedSerial(options: Handshake): Promise<string> {
  const socket = await handshake(options);
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}

/** One HTTP/1.1 request on a connection of its own. */
export async function get(
  options: Handshake & { path?: string; host?: string; headers?: readonly string[] },
): Promise<{ status: number; head: string; body: string }> {
  const socket = await handshake(options);
  const { path = '/', host = options.servername, headers = [] } = options;
  socket.write(
    [`GET ${path} HTTP/1.1`, `Host: ${host}`, 'Connection: close', ...headers, '', ''].join('\r\n'),
  );
  let text = '';
  socket.setEncoding('latin1');
  for await (const chunk of socket) text += chunk;
  const [head = '', ...rest] = text.split('\r\n\r\n');
  return { status: Number(head.slice(9, 12)), head, body: rest.join('\r\n\r\n') };
}

/** An app that answers every request with this text. */
export async function startApp(text: string) {
  const server = createServer((_request, response) => response.end(text));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
