// Mixed load at a steady pace: connections of every kind are opened, used and closed; a unit is one that has ended well.

import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2, type OutgoingHttpHeaders } from 'node:http2';
import { Agent, request as requestHttps } from 'node:https';
import { WebSocket } from 'ws';
import { grpcMessage } from './grpc-message.ts';
import { startWork } from './parent.ts';

export interface MixedSettings {
  readonly port: number;
  /** Path of the certificate that the proxy must show, PEM. */
  readonly chain: string;
  readonly connections: number;
  /** All of them are opened evenly over this time. */
  readonly durationMs: number;
}

const settings = JSON.parse(process.argv[2] ?? '') as MixedSettings;
const ca = readFileSync(settings.chain);
const UPLOAD = Buffer.alloc(256 * 1_024, 'u');
const MESSAGE = grpcMessage(64);
const KINDS = [requests, uploads, streams, calls, messages, abandoned] as const;

const startedAt = performance.now();
const underWay = new Set<Promise<void>>();
let opened = 0;
const work = startWork(async () => {
  clearInterval(pace);
  await Promise.all(underWay);
});
const pace = setInterval(openDue, 5);

function openDue(): void {
  const due = Math.ceil(((performance.now() - startedAt) / settings.durationMs) * settings.connections);
  while (opened < Math.min(due, settings.connections)) {
    const kind = KINDS[opened % KINDS.length]!;
    opened += 1;
    const connection = kind()
      .then(work.done, (error) => work.failed(`${kind.name}: ${(error as Error).message}`))
      .finally(() => underWay.delete(connection));
    underWay.add(connection);
  }
}

/** A browser: some requests on one connection. */
async function requests(): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ca });
  for (let index = 0; index < 5; index += 1) await expectBody(agent, undefined, 1_024);
  agent.destroy();
}

async function uploads(): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ca });
  await expectBody(agent, UPLOAD, String(UPLOAD.length).length);
  agent.destroy();
}

function expectBody(agent: Agent, body: Buffer | undefined, bytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const options = { agent, port: settings.port, host: 'localhost', family: 4, path: '/' };
    const request = requestHttps({ ...options, method: body ? 'POST' : 'GET' }, (response) => {
      let received = 0;
      response.on('data', (chunk: Buffer) => {
        received += chunk.length;
      });
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200 && received === bytes) return resolve();
        reject(new Error(`status ${response.statusCode}, ${received} bytes`));
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}

function streams(): Promise<void> {
  return withSession((session) =>
    Promise.all(Array.from({ length: 8 }, () => exchange(session, { ':path': '/' }, undefined, 1_024))),
  );
}

function calls(): Promise<void> {
  const headers = {
    ':path': '/bench.Echo/Unary',
    ':method': 'POST',
    'content-type': 'application/grpc',
    te: 'trailers',
  };
  return withSession((session) =>
    Promise.all(Array.from({ length: 4 }, () => exchange(session, headers, MESSAGE, MESSAGE.length))),
  );
}

/** Clients that leave in the middle of a reply must leave nothing behind in the proxy. */
function abandoned(): Promise<void> {
  return withSession(async (session) => {
    const stream = session.request({ ':path': '/' });
    stream.on('error', () => {});
    await new Promise((resolve) => stream.once('response', resolve));
  });
}

async function withSession(use: (session: ClientHttp2Session) => Promise<unknown>): Promise<void> {
  const session = connectHttp2(`https://localhost:${settings.port}`, { ca });
  const broken = new Promise<never>((_, reject) => session.on('error', reject));
  await Promise.race([use(session), broken]);
  session.destroy();
}

function exchange(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body: Buffer | undefined,
  bytes: number,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers);
    let received = 0;
    stream.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
    stream.on('error', reject);
    stream.on('end', () => (received === bytes ? resolve() : reject(new Error(`${received} bytes`))));
    stream.end(body);
  });
}

function messages(): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://localhost:${settings.port}/`, { ca, perMessageDeflate: false });
    let left = 10;
    socket.on('open', () => socket.send('m'));
    socket.on('message', () => {
      left -= 1;
      if (left > 0) socket.send('m');
      else socket.close();
    });
    socket.on('error', reject);
    socket.on('close', () => (left === 0 ? resolve() : reject(new Error('closed early'))));
  });
}
