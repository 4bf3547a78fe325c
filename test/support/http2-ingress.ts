// A TLS listener on loopback that hands its connections to the HTTP/2 acceptor, with a certificate made on the spot.

import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type OutgoingHttpHeaders,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { connect as connectTls, createServer, type TLSSocket } from 'node:tls';
import { SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509';
import type { AccessLog } from '../../proxy/exchange/access-log.ts';
import type { ProxyContext } from '../../proxy/exchange/context.ts';
import { createHttp2Acceptor } from '../../proxy/exchange/http2-client.ts';
import { fieldLimitsOf } from '../../proxy/http2/fields.ts';
import { type ListenerLimits, limitsWith } from '../../proxy/limits.ts';
import {
  createRouteTable,
  type LocalPath,
  type UpstreamProtocol,
  type UpstreamSettings,
} from '../../proxy/rules/routes.ts';
import { createDeadlines } from '../../proxy/socket/deadlines.ts';
import { createUpstreams } from '../../proxy/upstream/http1-pool.ts';
import { createHttp2Upstreams } from '../../proxy/upstream/http2-pool.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import type { LocalHandlers } from '../../src/lib/local-handler.ts';
import { silentLog } from '../../src/lib/log.ts';
import { createFrameClient, type FrameClient } from './http2-frames.ts';

export const HOST = 'app.example.com';

const keys = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
  'sign',
  'verify',
]);
const leaf = await X509CertificateGenerator.createSelfSigned({
  name: `CN=${HOST}`,
  notBefore: new Date(Date.now() - 3_600_000),
  notAfter: new Date(Date.now() + 86_400_000),
  signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
  keys,
  extensions: [
    new SubjectAlternativeNameExtension([
      { type: 'dns', value: HOST },
      { type: 'dns', value: 'localhost' },
      { type: 'ip', value: '127.0.0.1' },
    ]),
  ],
});
const der = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);

/** Self-signed, for HOST, localhost and 127.0.0.1. */
export const testCertificate = {
  cert: leaf.toString('pem'),
  key: `-----BEGIN PRIVATE KEY-----\n${Buffer.from(der).toString('base64')}\n-----END PRIVATE KEY-----\n`,
};

export interface Http2IngressOptions {
  readonly upstream?: UpstreamSettings;
  readonly limits?: Partial<ListenerLimits>;
  readonly localPaths?: readonly LocalPath[];
  readonly localHandlers?: LocalHandlers;
  readonly certificateNames?: readonly string[];
  readonly trustedClient?: boolean;
  readonly accessLog?: AccessLog | undefined;
  /** PEM; the system's roots if absent. */
  readonly upstreamCa?: string | undefined;
}

export interface Http2Ingress {
  readonly port: number;
  readonly acceptor: ReturnType<typeof createHttp2Acceptor>;
  session(): ClientHttp2Session;
  frames(options?: { preface?: boolean }): Promise<FrameClient>;
  close(): Promise<void>;
}

export function upstreamAt(
  protocol: UpstreamProtocol,
  ports: number | readonly number[],
  timeouts: Partial<UpstreamSettings> = {},
): UpstreamSettings {
  const addresses = [ports].flat().map((port) => ({ host: '127.0.0.1', port }));
  return {
    protocol,
    addresses,
    connectTimeoutMs: 5_000,
    readTimeoutMs: 20_000,
    sendTimeoutMs: 20_000,
    ...timeouts,
  };
}

export async function startHttp2Ingress(options: Http2IngressOptions): Promise<Http2Ingress> {
  const { upstream } = options;
  const routes =
    upstream === undefined ? [] : [{ host: parseDomain(HOST), paths: [{ prefix: '/', upstream }] }];
  const deadlines = createDeadlines(undefined, 25);
  const limits = limitsWith(options.limits);
  const { localPaths = [], localHandlers = {} } = options;
  const table = createRouteTable(routes, { localPaths, maxBodyBytes: limits.maxBodyBytes });
  const upstreams = createUpstreams({ deadlines, upstreamCa: options.upstreamCa });
  const http2Upstreams = createHttp2Upstreams({ deadlines, upstreams, fieldLimits: fieldLimitsOf(limits) });
  const context: ProxyContext = {
    routes: () => table,
    upstreams,
    http2Upstreams,
    localHandlers,
    limits,
    deadlines,
    log: silentLog,
    tunnels: new Set(),
    accessLog: options.accessLog,
  };
  const acceptor = createHttp2Acceptor(context);
  const server = createServer({ ...testCertificate, ALPNProtocols: ['h2'] }, (socket) => {
    acceptor.accept({
      socket,
      certificateNames: options.certificateNames ?? [HOST, 'localhost'],
      serverName: HOST,
      clientAddress: '203.0.113.7',
      serverPort: 443,
      clientPort: 40_000,
      trustedClient: options.trustedClient ?? false,
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const clients = new Set<{ destroy(): void }>();
  const kept = <T extends { destroy(): void }>(client: T): T => {
    clients.add(client);
    return client;
  };
  return {
    port,
    acceptor,
    session() {
      const session = connect(`https://${HOST}`, { createConnection: () => openSocket(port) });
      session.on('error', () => {});
      return kept(session);
    },
    async frames(frameOptions) {
      const socket = openSocket(port);
      await once(socket, 'secureConnect');
      return kept(createFrameClient(socket, frameOptions));
    },
    async close() {
      for (const client of clients) client.destroy();
      acceptor.destroyAll();
      http2Upstreams.destroyAll();
      upstreams.close();
      server.close();
      await once(server, 'close');
    },
  };
}

function openSocket(port: number): TLSSocket {
  const socket = connectTls({
    host: '127.0.0.1',
    port,
    servername: HOST,
    ca: testCertificate.cert,
    ALPNProtocols: ['h2'],
  });
  socket.on('error', () => {});
  return socket;
}

export interface Reply {
  readonly headers: Record<string, unknown>;
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
  readonly trailers: Record<string, unknown>;
  readonly interim: readonly Record<string, unknown>[];
  readonly rstCode: number;
}

/** One request and its whole reply; resolves when the stream has closed, however it did. */
export async function ask(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders = {},
  body?: string | Uint8Array | ((stream: ClientHttp2Stream) => void),
): Promise<Reply> {
  const stream = session.request({ ':authority': HOST, ...headers }, { endStream: body === undefined });
  return collect(stream, () => {
    if (typeof body === 'function') body(stream);
    else if (body !== undefined) stream.end(body);
  });
}

export async function collect(stream: ClientHttp2Stream, begin: () => void = () => {}): Promise<Reply> {
  const chunks: Buffer[] = [];
  const interim: Record<string, unknown>[] = [];
  let headers: Record<string, unknown> = {};
  let trailers: Record<string, unknown> = {};
  let rawHeaders: readonly string[] = [];
  stream.on('response', (received, _flags, raw) => {
    headers = received;
    rawHeaders = raw;
  });
  stream.on('headers', (received) => interim.push(received));
  stream.on('trailers', (received) => {
    trailers = received;
  });
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('error', () => {});
  begin();
  if (!stream.destroyed) await new Promise((resolve) => stream.once('close', resolve));
  return {
    headers,
    rawHeaders,
    body: Buffer.concat(chunks),
    trailers,
    interim,
    rstCode: stream.rstCode ?? 0,
  };
}
