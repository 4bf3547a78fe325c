// Plain HTTP beside the TLS listener: answers http-01 challenges (RFC 8555 §8.3), sends everything else to https, and reads no body.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Log } from '../../src/lib/log.ts';
import { faultReply } from '../exchange/fault-reply.ts';
import type { FaultCode } from '../faults.ts';
import { parseHost } from '../http1/authority.ts';
import { createRouteTable, type Route } from '../rules/routes.ts';

export interface PlainHttpOptions {
  /** Default: every address, IPv6 and IPv4. */
  readonly host?: string;
  /** 0: any that is free. */
  readonly port: number;
  /** Several processes listen on one port, and the kernel spreads the connections. */
  readonly reusePort?: boolean;
  /** The descriptor of a socket that is bound already, in place of host and port. */
  readonly fd?: number;
  /** Where visitors find the TLS listener. */
  readonly httpsPort: number;
  readonly maxConnections: number;
  /** Longest time for a whole request; default 10 s. */
  readonly requestTimeoutMs?: number;
  /** What another instance wants the CA to find at this host under this token; asked for tokens that are not known here. */
  readonly findChallenge?: ((host: string, token: string) => Promise<string | undefined>) | undefined;
  readonly log: Log;
}

export interface PlainHttp {
  /** Rejects with the system's error if the port cannot be had. */
  listen(): Promise<{ address: string; port: number }>;
  /** The hosts that are known; requests for others are refused. */
  /** `hasSite`: whether rules serve a host that no route serves. */
  setRoutes(routes: readonly Route[], hasSite?: (host: string) => boolean): void;
  /** What the CA is to find under this token; undefined takes it away. */
  setChallenge(token: string, keyAuthorization: string | undefined): void;
  /** No new connections; open ones end with the request that they are at, and at the latest after `timeoutMs`. */
  drain(timeoutMs: number): Promise<void>;
}

interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

const CHALLENGES = '/.well-known/acme-challenge/';
/** Long enough for any link that is to be redirected. */
const MAX_HEAD_BYTES = 16 * 1024;
const LOOK_INTERVAL_MS = 1_000;

function refusal(
  { headers: { accept } }: IncomingMessage,
  code: FaultCode,
  more: Readonly<Record<string, string>> = {},
): Reply {
  const { status, fields, body } = faultReply(code, accept);
  return { status, headers: { ...Object.fromEntries(fields), ...more }, body };
}

/**
 * No keep-alive and no bodies: after a request that was answered nothing is read on its connection, so no second request
 * can hide there.
 */
export function createPlainHttp(options: PlainHttpOptions): PlainHttp {
  return new ChallengesAndRedirects(options);
}

class ChallengesAndRedirects implements PlainHttp {
  private readonly options: PlainHttpOptions;
  private readonly server: Server;
  private readonly challenges = new Map<string, string>();
  private routes = createRouteTable([]);
  /** In the order of their coming. */
  private readonly open = new Set<Socket>();

  constructor(options: PlainHttpOptions) {
    const { log, requestTimeoutMs = 10_000 } = options;
    this.options = options;
    const server = createServer({
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: requestTimeoutMs,
      requestTimeout: requestTimeoutMs,
      connectionsCheckingInterval: LOOK_INTERVAL_MS,
      // RFC 9112 §3.2; Node would otherwise take any, and of several the first.
      requireHostHeader: true,
    });
    const answer = (request: IncomingMessage, response: ServerResponse) =>
      void this.answer(request, response);
    server.on('connection', (socket) => this.makeRoom(socket));
    // A client that does not take its answer is not waited for either.
    server.setTimeout(requestTimeoutMs, (socket) => socket.destroy());
    server.on('request', answer);
    // No client is told to go on with a body that would not be read.
    server.on('checkContinue', answer);
    server.on('checkExpectation', answer);
    server.on('error', (error) => log.warn({ err: error }, 'accept failed'));
    this.server = server;
  }

  listen(): Promise<{ address: string; port: number }> {
    const { options, server } = this;
    const { promise, resolve, reject } = Promise.withResolvers<{ address: string; port: number }>();
    server.once('error', reject);
    server.listen(
      options.fd !== undefined
        ? { fd: options.fd }
        : {
            port: options.port,
            ...(options.host !== undefined && { host: options.host }),
            ...(options.reusePort === true && { reusePort: true }),
          },
      () => {
        server.off('error', reject);
        const { address, port } = server.address() as { address: string; port: number };
        resolve({ address, port });
      },
    );
    return promise;
  }

  setRoutes(list: readonly Route[], hasSite?: (host: string) => boolean): void {
    this.routes = createRouteTable(list, {
      siteFor: (host) => (hasSite?.(host) === true ? host : undefined),
    });
  }

  setChallenge(token: string, keyAuthorization: string | undefined): void {
    if (keyAuthorization === undefined) this.challenges.delete(token);
    else this.challenges.set(token, keyAuthorization);
  }

  async drain(timeoutMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    const timer = setTimeout(() => this.server.closeAllConnections(), timeoutMs);
    await closed;
    clearTimeout(timer);
  }

  /** A connection carries one request and its answer: the one that has been open longest waits only for a request. */
  private makeRoom(socket: Socket): void {
    const { open } = this;
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    if (open.size <= this.options.maxConnections) return;
    const [longest] = open;
    open.delete(longest!);
    longest!.destroy();
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const reply = this.replyTo(request);
    const { status, headers, body = '' } = reply instanceof Promise ? await reply : reply;
    response.sendDate = false;
    response.writeHead(status, {
      ...headers,
      'Content-Length': String(Buffer.byteLength(body)),
      Connection: 'close',
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  private replyTo(request: IncomingMessage): Reply | Promise<Reply> {
    const { httpsPort } = this.options;
    const host = hostOf(request);
    const target = request.url ?? '';
    // RFC 9112 §3.2.1: origin-form; what is not plain ASCII could not be sent back in a Location.
    if (host === undefined || !/^\/[\x21-\x7e]*$/.test(target)) return refusal(request, 'bad-request');
    // RFC 9110 §15.5.20: a redirect for names that are not ours would make us everyone's open redirect.
    if (!this.routes.knows(host)) return refusal(request, 'misdirected');
    if (target.startsWith(CHALLENGES))
      return this.challengeReply(request, host, target.slice(CHALLENGES.length));
    const port = httpsPort === 443 ? '' : `:${httpsPort}`;
    return { status: 308, headers: { Location: `https://${host}${port}${target}` } };
  }

  private challengeReply(request: IncomingMessage, host: string, token: string): Reply | Promise<Reply> {
    const { method } = request;
    if (method !== 'GET' && method !== 'HEAD')
      return refusal(request, 'method-refused', { Allow: 'GET, HEAD' });
    const own = this.challenges.get(token);
    const { findChallenge } = this.options;
    if (own !== undefined || findChallenge === undefined) return challengeText(request, own);
    return findChallenge(host, token).then((found) => challengeText(request, found));
  }
}

function challengeText(request: IncomingMessage, body: string | undefined): Reply {
  if (body === undefined) return refusal(request, 'no-route');
  return { status: 200, headers: { 'Content-Type': 'application/octet-stream' }, body };
}

const LABEL = '[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?';
const NAME = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`);

/**
 * The name in the one Host field, lower case and without port. A wildcard route takes any first label: one with a `#` or
 * a `/` in it would end the host of the Location early, and send the visitor somewhere else.
 */
function hostOf({ rawHeaders }: IncomingMessage): string | undefined {
  const hosts = rawHeaders.filter((_, i) => i % 2 === 1 && /^host$/i.test(rawHeaders[i - 1]!));
  if (hosts.length !== 1) return undefined;
  const host = parseHost(hosts[0]!);
  return host !== undefined && NAME.test(host) ? host : undefined;
}
