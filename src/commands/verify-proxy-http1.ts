// HTTP/1.1 of local programs: each request goes on to the host under its name, bodies, trailers and upgrades as they are.

import {
  Agent,
  type ClientRequest,
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Duplex } from 'node:stream';
import { refusalBody } from './verify-proxy-refusal.ts';
import type { Standing } from './verify-proxy-standing.ts';

/** Connections come by its `connection` event. */
export function createHttp1Side(standing: Standing, authority: string): Server {
  const agents = new WeakMap<object, Agent>();
  const agentOf = (socket: Duplex): Agent => {
    const known = agents.get(socket);
    if (known !== undefined) return known;
    const agent = agentOver(standing);
    agents.set(socket, agent);
    socket.once('close', () => agent.destroy());
    return agent;
  };
  const begin = (request: IncomingMessage, upgrade: boolean): ClientRequest =>
    httpRequest({
      agent: agentOf(request.socket),
      method: request.method,
      path: request.url,
      headers: requestFields(request, authority, upgrade),
    });
  const server = createServer(
    {
      // An upload may take as long as it takes.
      requestTimeout: 0,
      shouldUpgradeCallback: isUpgrade,
    },
    (request, response) => {
      if (isOrigin(request)) forward(request, response, begin(request, false));
      else response.writeHead(400, { connection: 'close' }).end('the target of the request is no path\n');
    },
  );
  server.on('checkContinue', (request, response) => server.emit('request', request, response));
  server.on('upgrade', (request: IncomingMessage, socket, head) => {
    socket.on('error', () => {});
    if (isOrigin(request)) tunnel(begin(request, true), socket, head);
    else socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  });
  return server;
}

/** RFC 9112 §3.2: a target with a host of its own would name another one than ours. */
function isOrigin({ url = '' }: IncomingMessage): boolean {
  return url.startsWith('/') || url === '*';
}

/** Over TLS there is no changing to HTTP/2 (RFC 9113 §3.1), and a body before the change could not be passed on. */
function isUpgrade({ headers }: IncomingMessage): boolean {
  if (headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined) return false;
  return headers.upgrade?.toLowerCase() !== 'h2c';
}

/** One connection to the host for each local one. */
function agentOver(standing: Standing): Agent {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  agent.createConnection = (_options, done) => {
    standing.connect('http/1.1').then(
      (socket) => done?.(null, socket),
      (error: Error) => done?.(error, undefined as never),
    );
    return undefined;
  };
  return agent;
}

/** RFC 9110 §7.6.1: of one connection only. */
const ofConnection = ['connection', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade'];

function endToEnd({ rawHeaders, headers }: IncomingMessage, dropped: readonly string[]): string[] {
  const named = (headers.connection ?? '').split(',').map((name) => name.trim().toLowerCase());
  const drops = new Set([...ofConnection, ...named, ...dropped]);
  const kept: string[] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!;
    if (!drops.has(name.toLowerCase())) kept.push(name, rawHeaders[at + 1]!);
  }
  return kept;
}

function requestFields(request: IncomingMessage, authority: string, upgrade: boolean): string[] {
  const { headers } = request;
  const fields = ['Host', authority, ...endToEnd(request, ['host'])];
  if (upgrade) return [...fields, 'Connection', 'Upgrade', 'Upgrade', headers.upgrade ?? ''];
  if (headers['transfer-encoding'] !== undefined) fields.push('Transfer-Encoding', 'chunked');
  // Without it the other side would have to guess where a body of this method ends.
  else if (headers['content-length'] === undefined && !isBodiless(request))
    fields.push('Content-Length', '0');
  const wantsTrailers = /\btrailers\b/i.test(String(headers.te ?? ''));
  fields.push('Connection', wantsTrailers ? 'keep-alive, TE' : 'keep-alive');
  return wantsTrailers ? [...fields, 'TE', 'trailers'] : fields;
}

function isBodiless({ method = '' }: IncomingMessage): boolean {
  return ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE'].includes(method);
}

function pairs(raw: readonly string[]): [string, string][] {
  return Array.from({ length: raw.length >> 1 }, (_, at) => [raw[2 * at]!, raw[2 * at + 1]!]);
}

function forward(request: IncomingMessage, response: ServerResponse, upstream: ClientRequest): void {
  response.sendDate = false;
  upstream.on('continue', () => response.writeContinue());
  upstream.on('error', (error) => {
    if (response.headersSent) response.destroy();
    else refuse(request, response, error);
  });
  upstream.on('response', (reply) => {
    try {
      passReply(reply, response);
    } catch {
      // A head that Node reads and will not write.
      response.destroy();
    }
  });
  // A reply that nobody waits for any more is not to be made.
  response.on('close', () => response.writableFinished || upstream.destroy());
  request.on('error', () => upstream.destroy());
  request.pipe(upstream, { end: false });
  request.on('end', () => {
    if (request.rawTrailers.length > 0) upstream.addTrailers(pairs(request.rawTrailers));
    upstream.end();
  });
  upstream.flushHeaders();
}

function passReply(reply: IncomingMessage, response: ServerResponse): void {
  response.writeHead(reply.statusCode ?? 502, reply.statusMessage, endToEnd(reply, []));
  response.flushHeaders();
  reply.pipe(response, { end: false });
  reply.on('error', () => response.destroy());
  reply.on('end', () => {
    if (reply.rawTrailers.length > 0) response.addTrailers(pairs(reply.rawTrailers));
    response.end();
  });
  // Half of a reply must not look like a whole one.
  reply.on('close', () => reply.complete || response.destroy());
}

function refuse(request: IncomingMessage, response: ServerResponse, error: Error): void {
  request.unpipe();
  // The rest of the body is not worth reading.
  response.writeHead(502, { 'content-type': 'application/json', connection: 'close' });
  response.end(refusalBody(error));
}

function headOf({ statusCode, statusMessage }: IncomingMessage, fields: readonly string[]): string {
  const lines = pairs(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${statusCode} ${statusMessage}\r\n${lines.join('')}\r\n`;
}

function tunnel(upstream: ClientRequest, local: Duplex, head: Buffer): void {
  local.on('close', () => upstream.destroy());
  upstream.on('upgrade', (reply, socket: Duplex, first: Buffer) => {
    const fields = [...endToEnd(reply, []), 'Connection', 'Upgrade', 'Upgrade', reply.headers.upgrade ?? ''];
    local.write(headOf(reply, fields), 'latin1');
    local.write(first);
    socket.write(head);
    join(local, socket);
  });
  upstream.on('response', (reply) => {
    local.write(headOf(reply, [...endToEnd(reply, ['content-length']), 'Connection', 'close']), 'latin1');
    reply.on('error', () => local.destroy());
    reply.pipe(local);
  });
  upstream.on('error', (error) => {
    const body = refusalBody(error);
    const fields = `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close`;
    local.end(`HTTP/1.1 502 Bad Gateway\r\n${fields}\r\n\r\n${body}`);
  });
  upstream.end();
}

function join(local: Duplex, socket: Duplex): void {
  local.pipe(socket).pipe(local);
  for (const [one, other] of [
    [local, socket],
    [socket, local],
  ] as const)
    one.on('error', () => other.destroy()).on('close', () => other.destroy());
}
