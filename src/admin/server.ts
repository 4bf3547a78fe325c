// The admin server: health, metrics, status as JSON and as a page. It reads no body, changes nothing, and waits for nobody.

import { chmodSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { AdminAddress } from '../config/admin.ts';
import type { Log } from '../lib/log.ts';
import { contentTypes, type Format, formatFor } from './exposition.ts';
import type { Live } from './live.ts';
import type { Page } from './page.ts';
import type { Readiness } from './readiness.ts';
import { judge, type Trust } from './trust.ts';

export interface Shown {
  readiness(): Readiness;
  metrics(format: Format): Buffer;
  status(): Promise<Buffer>;
  config(): Buffer;
  readonly page: Page;
  readonly live: Live;
  /** What a listener of events is told first. */
  now(): string;
}

export interface AdminServer {
  /** Rejects with the system's error if the address cannot be had. */
  listen(): Promise<void>;
  /** No new questions, and no more answers. */
  close(): Promise<void>;
}

/** Enough for Prometheus, a few dashboards and a pair of terminals. */
const MOST_CONNECTIONS = 128;
const MAX_HEAD_BYTES = 8 * 1024;
const REQUEST_MS = 5_000;
/** Whoever takes longer to read an answer goes without the rest. */
const ANSWER_MS = 30_000;
const LOOK_INTERVAL_MS = 1_000;

const COMMON = {
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
};
const TEXT = { 'Content-Type': 'text/plain; charset=utf-8' };
const JSON_TYPE = { 'Content-Type': 'application/json' };

export function createAdminServer(address: AdminAddress, trust: Trust, shown: Shown, log: Log): AdminServer {
  const open = new Set<Socket>();
  const server = createServer(
    {
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: REQUEST_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: REQUEST_MS,
      connectionsCheckingInterval: LOOK_INTERVAL_MS,
      requireHostHeader: true,
    },
    (request, response) => {
      answer(request, response, trust, shown).catch((err: unknown) => {
        log.error({ err }, 'the admin server could not answer');
        response.destroy();
      });
    },
  );
  server.maxConnections = MOST_CONNECTIONS;
  server.on('connection', (socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
  // Nobody is told to go on with a body that is not read.
  server.on('checkContinue', refuseBody);
  server.on('checkExpectation', refuseBody);
  server.on('error', (err) => log.warn({ err }, 'the admin server failed to accept'));
  return {
    listen: () => listen(server, address),
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

async function listen(server: Server, address: AdminAddress): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  if ('path' in address) listenPrivately(server, address.path);
  else server.listen({ host: address.host, port: address.port, exclusive: true });
  server.once('listening', resolve);
  await promise;
  server.off('error', reject);
}

/** The socket is bound within this call: at no moment may others open it. */
function listenPrivately(server: Server, path: string): void {
  const before = process.umask(0o177);
  try {
    server.listen({ path });
  } finally {
    process.umask(before);
  }
  server.once('listening', () => chmodSync(path, 0o600));
}

function refuseBody(_request: IncomingMessage, response: ServerResponse): void {
  reply(response, 413, TEXT, 'nothing here takes a body\n', true);
}

const HEALTH = new Set(['/livez', '/readyz', '/healthz']);

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  trust: Trust,
  shown: Shown,
): Promise<void> {
  const { method, headers } = request;
  const path = (request.url ?? '').split('?', 1)[0]!;
  if (headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0')
    return refuseBody(request, response);
  const verdict = judge(headers, trust, HEALTH.has(path));
  if (verdict === 'wrong-host')
    return reply(response, 421, TEXT, 'ask by address or as localhost, not by a name\n');
  if (verdict === 'needs-token') {
    const fields = { ...TEXT, 'WWW-Authenticate': 'Basic realm="dstack-ingress", charset="UTF-8"' };
    return reply(response, 401, fields, 'this needs ADMIN_TOKEN\n');
  }
  if (method !== 'GET' && method !== 'HEAD')
    return reply(response, 405, { ...TEXT, Allow: 'GET, HEAD' }, 'nothing can be changed here\n');
  await show(path, request, response, shown);
}

async function show(
  path: string,
  { headers }: IncomingMessage,
  response: ServerResponse,
  shown: Shown,
): Promise<void> {
  switch (path) {
    case '/livez':
      return reply(response, 200, TEXT, 'ok\n');
    case '/readyz':
    case '/healthz':
      return tellReadiness(response, shown.readiness());
    case '/metrics': {
      const format = formatFor(headers.accept);
      return reply(
        response,
        200,
        { 'Content-Type': contentTypes[format], Vary: 'Accept' },
        shown.metrics(format),
      );
    }
    case '/status.json':
      return reply(response, 200, JSON_TYPE, await shown.status());
    case '/config.json':
      return reply(response, 200, JSON_TYPE, shown.config());
    case '/events':
      return follow(response, shown);
    case '/':
      return reply(response, 200, shown.page.headers, shown.page.body);
    default:
      return reply(response, 404, TEXT, 'there is nothing of that name\n');
  }
}

function tellReadiness(response: ServerResponse, { ready, conditions }: Readiness): void {
  const lines = conditions.map(({ name, holds, why }) => `${holds ? 'ok ' : 'not'} ${name}: ${why}\n`);
  reply(response, ready ? 200 : 503, TEXT, `${ready ? 'ready' : 'not ready'}\n${lines.join('')}`);
}

function follow(response: ServerResponse, { live, now }: Shown): void {
  if (response.req.method === 'HEAD' || !live.add(response)) {
    reply(response, 503, { ...TEXT, 'Retry-After': '10' }, 'too many listen already\n');
    return;
  }
  response.writeHead(200, { ...COMMON, 'Content-Type': 'text/event-stream' });
  response.write(`retry: 3000\ndata: ${now()}\n\n`);
}

function reply(
  response: ServerResponse,
  status: number,
  fields: Readonly<Record<string, string>>,
  body: string | Buffer,
  close = false,
): void {
  const patience = setTimeout(() => response.destroy(), ANSWER_MS).unref();
  response.once('close', () => clearTimeout(patience));
  response.writeHead(status, {
    ...COMMON,
    ...fields,
    'Content-Length': String(Buffer.byteLength(body)),
    ...(close && { Connection: 'close' }),
  });
  response.end(response.req.method === 'HEAD' ? undefined : body);
}
