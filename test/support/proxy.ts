// A listener with certificates made on the spot, raw upstreams that can misbehave, and raw TLS clients.

import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import {
  BasicConstraintsExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import {
  createListener,
  type Listener,
  type ListenerOptions,
  type ServedCertificate,
} from '../../proxy/listener/listener.ts';
import type { Route, UpstreamProtocol, UpstreamSettings } from '../../proxy/rules/routes.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { silentLog } from '../../src/lib/log.ts';

const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const rsa = {
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  publicExponent: new Uint8Array([1, 0, 1]),
  modulusLength: 2048,
};

/** Self-signed, so that it is its own CA. */
export async function makeCertificate(
  names: readonly string[],
  kind: 'ec' | 'rsa' = 'ec',
): Promise<ServedCertificate> {
  const algorithm = kind === 'ec' ? ecdsa : rsa;
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const leaf = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${names[0]}`,
    notBefore: new Date(Date.now() - 3_600_000),
    notAfter: new Date(Date.now() + 86_400_000),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new BasicConstraintsExtension(true),
      new SubjectAlternativeNameExtension(
        names.map((value) => (/^[\d.]+$/.test(value) ? { type: 'ip', value } : { type: 'dns', value })),
      ),
    ],
  });
  const der = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  const key = `-----BEGIN PRIVATE KEY-----\n${Buffer.from(der).toString('base64')}\n-----END PRIVATE KEY-----\n`;
  return { names, chain: leaf.toString('pem'), key };
}

export const HOST = 'app.example.com';
const certificate = await makeCertificate([HOST, 'other.example.com', '*.wild.example.com']);
export const appCertificate = certificate;

export interface Upstream {
  readonly port: number;
  readonly server: Server;
  readonly sockets: Set<Socket>;
  /** Connections so far. */
  readonly count: () => number;
  close(): Promise<void>;
}

/** A server of which each connection is the test's own. */
export async function startUpstream(
  onConnection: (socket: Socket, index: number) => void,
): Promise<Upstream> {
  const sockets = new Set<Socket>();
  let count = 0;
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    onConnection(socket, count++);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    server,
    sockets,
    count: () => count,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Answers each whole request head (without looking at bodies) with what `answer` gives. */
export function answering(answer: (head: string, socket: Socket) => string | undefined) {
  return (socket: Socket) => {
    let text = '';
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
      for (let end = text.indexOf('\r\n\r\n'); end !== -1; end = text.indexOf('\r\n\r\n')) {
        const head = text.slice(0, end + 4);
        text = text.slice(end + 4);
        const reply = answer(head, socket);
        if (reply !== undefined) socket.write(reply, 'latin1');
      }
    });
    socket.on('end', () => socket.end());
  };
}

export function settingsFor(
  port: number,
  protocol: UpstreamProtocol = 'http',
  changes: Partial<UpstreamSettings> = {},
): UpstreamSettings {
  return {
    protocol,
    addresses: [{ host: '127.0.0.1', port }],
    connectTimeoutMs: 2_000,
    readTimeoutMs: 30_000,
    sendTimeoutMs: 30_000,
    ...changes,
  };
}

export function routeTo(upstream: UpstreamSettings, host = HOST): Route {
  return { host: parseDomain(host), paths: [{ prefix: '/', upstream }] };
}

export interface Ingress {
  readonly port: number;
  readonly listener: Listener;
  connect(options?: ConnectionOptions): Promise<RawClient>;
  close(): Promise<void>;
}

export async function startIngress(
  routes: readonly Route[],
  options: Partial<ListenerOptions> = {},
): Promise<Ingress> {
  const listener = createListener({ host: '127.0.0.1', port: 0, log: silentLog, ...options });
  listener.setCertificates([certificate]);
  listener.setRoutes(routes);
  const { port } = await listener.listen();
  const clients = new Set<RawClient>();
  return {
    port,
    listener,
    async connect(changes) {
      const client = await connectRaw(port, changes);
      clients.add(client);
      return client;
    },
    async close() {
      for (const client of clients) client.socket.destroy();
      await listener.drain(0);
    },
  };
}

export interface RawClient {
  readonly socket: TLSSocket;
  send(text: string | Uint8Array): void;
  /** What has arrived up to and with `pattern`, which is taken away from what is yet to be read. */
  until(pattern: RegExp): Promise<string>;
  /** All that arrives up to the end; `clean` if it ended with close_notify and FIN rather than a reset. */
  rest(): Promise<{ text: string; clean: boolean }>;
  /** One reply with its body by Content-Length (or chunked, raw). */
  reply(): Promise<{ head: string; body: string; status: number }>;
  request(text: string): Promise<{ head: string; body: string; status: number }>;
}

export async function connectRaw(port: number, options: ConnectionOptions = {}): Promise<RawClient> {
  const socket = connect({
    host: '127.0.0.1',
    port,
    servername: HOST,
    ca: certificate.chain,
    allowHalfOpen: true,
    ...options,
  } as ConnectionOptions);
  await once(socket, 'secureConnect');
  return rawClient(socket);
}

export function rawClient(socket: TLSSocket): RawClient {
  let text = '';
  let state: 'open' | 'ended' | 'reset' = 'open';
  let wake = () => {};
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1');
    wake();
  });
  socket.on('end', () => {
    if (state === 'open') state = 'ended';
    wake();
  });
  socket.on('error', () => {
    state = 'reset';
  });
  socket.on('close', () => {
    if (state === 'open') state = 'reset';
    wake();
  });
  const change = () =>
    new Promise<void>((resolve) => {
      wake = resolve;
    });

  const until = async (pattern: RegExp) => {
    for (;;) {
      const match = pattern.exec(text);
      if (match !== null) {
        const end = match.index + match[0].length;
        const taken = text.slice(0, end);
        text = text.slice(end);
        return taken;
      }
      if (state !== 'open')
        throw new Error(`the connection was ${state} before ${pattern}: ${JSON.stringify(text)}`);
      await change();
    }
  };
  const reply = async () => {
    const head = await until(/^[\s\S]*?\r\n\r\n/);
    const length = /^content-length: (\d+)/im.exec(head)?.[1];
    let body = '';
    if (/^transfer-encoding: chunked/im.test(head))
      body = await until(/^[\s\S]*?(^|\r\n)0\r\n([^\r]+\r\n)*\r\n/);
    else if (length !== undefined && length !== '0') body = await until(new RegExp(`^[\\s\\S]{${length}}`));
    return { head, body, status: Number(head.slice(9, 12)) };
  };
  return {
    socket,
    send: (data) => void socket.write(data as string, 'latin1'),
    until,
    async rest() {
      while (state === 'open') await change();
      return { text, clean: state === 'ended' };
    },
    reply,
    request(data) {
      socket.write(data, 'latin1');
      return reply();
    },
  };
}

/** A request head with Host and an empty line. */
export function request(start: string, ...fields: string[]): string {
  return [`${start} HTTP/1.1`, `Host: ${HOST}`, ...fields, '', ''].join('\r\n');
}

/** RFC 6455 §1.3: a key, and what a server says to it. */
export const WEBSOCKET_KEY = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==';
export const WEBSOCKET_ACCEPT = 'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=';

/** Waits until `holds`, which something else will bring about. */
export async function eventually(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}
