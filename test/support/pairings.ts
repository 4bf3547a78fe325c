// The four ways through the ingress: clients of HTTP/1.1 and HTTP/2, upstreams of HTTP/1.1 and HTTP/2, driven alike.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, ServerResponse } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import { type ClientHttp2Session, connect, createServer as createHttp2Server } from 'node:http2';
import { Agent, request as requestHttp1 } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { connect as connectTls } from 'node:tls';
import type { ListenerOptions } from '../../proxy/listener/listener.ts';
import type { UpstreamSettings } from '../../proxy/rules/routes.ts';
import { encodeFields, flag, frame, frameType } from './http2-frames.ts';
import { appCertificate, HOST, routeTo, settingsFor, startIngress } from './proxy.ts';

export type ClientKind = 'h1' | 'h2';
export type UpstreamKind = 'h1' | 'h2c';

export interface Pairing {
  readonly client: ClientKind;
  readonly upstream: UpstreamKind;
  readonly name: string;
}

export const pairings: readonly Pairing[] = (['h1', 'h2'] as const).flatMap((client) =>
  (['h1', 'h2c'] as const).map((upstream) => ({ client, upstream, name: `${client}→${upstream}` })),
);

type Fields = Readonly<Record<string, string>>;

/** One request as an upstream sees it, whatever it speaks. */
export interface Served {
  /** Of all that this upstream was sent. */
  readonly index: number;
  /** Of the connection that brought it. */
  readonly connection: number;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, unknown>>;
  /** Resolves with the whole body; never, if it is not whole. */
  readonly body: Promise<string>;
  readonly trailers: () => Readonly<Record<string, unknown>>;
  interim(status: number, fields?: Fields): void;
  begin(status: number, fields?: Fields): void;
  write(text: string | Buffer): void;
  end(trailers?: Fields): void;
  reply(status: number, text?: string, fields?: Fields): void;
  /** A reply of exactly these fields and bytes, which Node's own server might not give. */
  odd(fields: readonly (readonly [string, string])[], text: string, status?: number | string): void;
  /** The connection ends at once, whatever it carries. */
  cut(): void;
  /** Over HTTP/2: the stream was never begun with. */
  refuse(): void;
  /** No more of the request is wanted: RST_STREAM without an error, or the end of the connection. */
  stop(): void;
  /** Over HTTP/1.1, to a request that asks for it: from now on a WebSocket, which echoes what it gets. */
  switch(): void;
  /** Resolves when no client waits for this reply any more. */
  readonly gone: Promise<void>;
}

export interface Serving {
  readonly port: number;
  readonly requests: readonly Served[];
  readonly connections: () => number;
}

export type Script = (served: Served) => void;

export async function serve(t: TestContext, kind: UpstreamKind, script: Script): Promise<Serving> {
  const requests: Served[] = [];
  const sockets = new Map<Socket, number>();
  let connections = 0;
  // A session hands out a stand-in for its socket.
  const socketOf = ({ remotePort }: Pick<Socket, 'remotePort'>): [number, Socket] => {
    const [socket, number] = [...sockets].find(([one]) => one.remotePort === remotePort)!;
    return [number, socket];
  };
  const take = (served: Served) => {
    requests.push(served);
    script(served);
  };
  const server =
    kind === 'h1'
      ? createServer({ keepAliveTimeout: 60_000 }, (request, response) =>
          take(servedByHttp1(requests.length, sockets.get(request.socket)!, request, response)),
        )
      : createHttp2Server().on('stream', (stream: ServerHttp2Stream, headers) =>
          take(servedByHttp2(requests.length, ...socketOf(stream.session!.socket), stream, headers)),
        );
  if (kind === 'h1') {
    const answer = (request: IncomingMessage, response: ServerResponse) =>
      server.emit('request', request, response);
    // Whether to go on is the script's to say.
    server.on('checkContinue', answer);
    server.on('upgrade', (request: IncomingMessage, socket: Socket) => {
      const response = new ServerResponse(request);
      response.assignSocket(socket);
      answer(request, response);
    });
  }
  server.on('connection', (socket: Socket) => {
    sockets.set(socket, connections++);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('clientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets.keys()) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, requests, connections: () => connections };
}

function servedByHttp1(
  index: number,
  connection: number,
  request: IncomingMessage,
  response: ServerResponse,
): Served {
  const whole = Promise.withResolvers<string>();
  const gone = Promise.withResolvers<void>();
  let text = '';
  request.on('data', (bytes: Buffer) => {
    text += bytes.toString('latin1');
  });
  request.on('end', () => whole.resolve(text));
  request.on('error', () => {});
  response.on('error', () => {});
  response.on('close', () => gone.resolve());
  const served: Served = {
    index,
    connection,
    method: request.method!,
    path: request.url!,
    headers: request.headers,
    body: whole.promise,
    trailers: () => request.trailers,
    interim(status, fields = {}) {
      if (status === 100) response.writeContinue();
      else request.socket.write(`HTTP/1.1 ${status} \r\n${linesOf(fields)}\r\n`);
    },
    begin: (status, fields = {}) => void response.writeHead(status, fields).flushHeaders(),
    write: (data) => void response.write(data),
    end(trailers) {
      if (trailers !== undefined) response.addTrailers(trailers);
      response.end();
    },
    reply(status, body = '', fields = {}) {
      response.writeHead(status, { 'content-length': body.length, ...fields });
      response.end(body);
    },
    odd(fields, body, status = 200) {
      const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
      request.socket.write(`HTTP/1.1 ${status} \r\n${lines}\r\n${body}`);
    },
    cut: () => void request.socket.destroy(),
    refuse: () => void request.socket.destroy(),
    stop: () => void request.socket.destroy(),
    switch() {
      const { socket } = request;
      response.detachSocket(socket);
      socket.write(
        `HTTP/1.1 101 \r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${acceptKey(request)}\r\n\r\n`,
      );
      socket.on('data', (bytes: Buffer) => socket.write(bytes));
      socket.on('end', () => socket.end());
    },
    gone: gone.promise,
  };
  return served;
}

/** RFC 6455 §4.2.2. */
function acceptKey({ headers }: IncomingMessage): string {
  const key = `${headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
  return createHash('sha1').update(key).digest('base64');
}

function linesOf(fields: Fields): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('');
}

function servedByHttp2(
  index: number,
  connection: number,
  socket: Socket,
  stream: ServerHttp2Stream,
  headers: Readonly<Record<string, unknown>>,
): Served {
  const whole = Promise.withResolvers<string>();
  const gone = Promise.withResolvers<void>();
  let text = '';
  let trailers: Readonly<Record<string, unknown>> = {};
  let own: Fields | undefined;
  stream.on('data', (bytes: Buffer) => {
    text += bytes.toString('latin1');
  });
  stream.on('end', () => whole.resolve(text));
  stream.on('trailers', (received) => {
    trailers = received;
  });
  stream.on('error', () => {});
  stream.on('close', () => gone.resolve());
  stream.on('wantTrailers', () => stream.sendTrailers(own ?? {}));
  const served: Served = {
    index,
    connection,
    method: String(headers[':method']),
    path: String(headers[':path']),
    headers,
    body: whole.promise,
    trailers: () => trailers,
    interim: (status, fields = {}) => stream.additionalHeaders({ ':status': status, ...fields }),
    begin: (status, fields = {}) =>
      stream.respond({ ':status': status, ...fields }, { waitForTrailers: true }),
    write: (data) => void stream.write(data),
    end(fields) {
      own = fields;
      stream.end();
    },
    reply(status, body = '', fields = {}) {
      stream.respond(
        { ':status': status, 'content-length': body.length, ...fields },
        { endStream: body === '' },
      );
      if (body !== '') stream.end(body);
    },
    odd: (fields, body, status = 200) => void socket.write(oddReply(stream.id!, fields, body, status)),
    cut: () => stream.session!.destroy(),
    refuse: () => stream.close(7),
    stop: () => stream.close(0),
    switch: () => {
      throw new Error('no stream of HTTP/2 switches protocols');
    },
    gone: gone.promise,
  };
  return served;
}

/** Frames behind the back of Node's session; literals leave the tables of both sides as they are. */
function oddReply(
  id: number,
  fields: readonly (readonly [string, string])[],
  body: string,
  status: number | string,
): Buffer {
  const block = encodeFields([[':status', String(status)], ...fields]);
  const first = block.subarray(0, 16_000);
  const rest = block.subarray(16_000);
  const ended = body === '' ? flag.endStream : 0;
  const frames = [
    frame(frameType.headers, ended | (rest.length === 0 ? flag.endHeaders : 0), id, first),
    ...(rest.length === 0 ? [] : [frame(frameType.continuation, flag.endHeaders, id, rest)]),
    ...(body === '' ? [] : [frame(frameType.data, flag.endStream, id, Buffer.from(body))]),
  ];
  return Buffer.concat(frames);
}

export interface Ask {
  readonly method?: string;
  readonly path?: string;
  readonly host?: string;
  readonly headers?: Fields;
  /** Without `length` its size is not announced. */
  readonly body?: string | Buffer;
  readonly chunked?: boolean;
  readonly trailers?: Fields;
  /** The body is sent after this. */
  readonly bodyAfter?: Promise<unknown>;
  readonly onInterim?: (status: number) => void;
  /** Asks for a WebSocket, in the way of its protocol; where there is one, this text goes there and back. */
  readonly websocket?: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly interims: readonly number[];
  readonly body: string;
  readonly trailers: Readonly<Record<string, unknown>>;
  /** The reply ended before it was whole, or there was none. */
  readonly cut: boolean;
}

export interface Client {
  ask(what?: Ask): Promise<Answer>;
  close(): void;
}

export interface Way {
  readonly settings?: Partial<UpstreamSettings>;
  readonly options?: Partial<ListenerOptions>;
}

/** An ingress to one upstream, and clients of it. */
export async function join(t: TestContext, { client, upstream }: Pairing, port: number, way: Way = {}) {
  const protocol = upstream === 'h1' ? 'http' : 'h2c';
  const ingress = await startIngress([routeTo(settingsFor(port, protocol, way.settings))], way.options);
  t.after(ingress.close);
  const clients: Client[] = [];
  t.after(() => {
    for (const one of clients) one.close();
  });
  return {
    ingress,
    client(): Client {
      const one = client === 'h1' ? http1Client(ingress.port) : http2Client(ingress.port);
      clients.push(one);
      return one;
    },
  };
}

const HANDSHAKE: Fields = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

/** One request after another over one connection, as long as that lasts. */
function http1Client(port: number): Client {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  return {
    ask: (what = {}) =>
      new Promise((resolve) => {
        const { method = 'GET', path = '/', host = HOST, headers = {}, body, chunked, trailers } = what;
        const interims: number[] = [];
        const framing: Fields =
          body === undefined
            ? {}
            : chunked || trailers
              ? { 'transfer-encoding': 'chunked' }
              : { 'content-length': String(body.length) };
        const request = requestHttp1({
          host: '127.0.0.1',
          port,
          servername: HOST,
          ca: appCertificate.chain,
          agent,
          method,
          path,
          headers: { host, ...headers, ...framing, ...(what.websocket === undefined ? {} : HANDSHAKE) },
        });
        const none = { status: 0, headers: {}, interims, body: '', trailers: {}, cut: true };
        let settled = false;
        const settle = (answer: Answer) => {
          if (settled) return;
          settled = true;
          resolve(answer);
          if (answer.cut) request.destroy();
        };
        request.on('information', ({ statusCode }) => {
          interims.push(statusCode);
          what.onInterim?.(statusCode);
        });
        request.on('continue', () => what.onInterim?.(100));
        request.on('error', () => setImmediate(() => settle(none)));
        request.on('upgrade', (response, socket) => {
          let text = '';
          socket.on('data', (bytes: Buffer) => {
            text += bytes.toString('latin1');
            if (text === what.websocket) socket.end();
          });
          socket.on('error', () => {});
          const { statusCode, headers: fields } = response;
          socket.on('close', () =>
            settle({
              ...none,
              status: statusCode!,
              headers: fields,
              body: text,
              cut: text !== what.websocket,
            }),
          );
          socket.write(what.websocket!);
        });
        request.on('response', (response) => {
          let text = '';
          response.on('data', (bytes: Buffer) => {
            text += bytes.toString('latin1');
          });
          response.on('error', () => {});
          response.on('close', () =>
            settle({
              status: response.statusCode!,
              headers: response.headers,
              interims,
              body: text,
              trailers: response.trailers,
              cut: !response.complete,
            }),
          );
        });
        request.flushHeaders();
        void (async () => {
          await what.bodyAfter;
          if (trailers !== undefined) request.addTrailers(trailers);
          request.end(body);
        })();
      }),
    close: () => agent.destroy(),
  };
}

function http2Client(port: number): Client {
  let session: ClientHttp2Session | undefined;
  const open = () => {
    const made = connect(`https://${HOST}`, {
      createConnection: () =>
        connectTls({
          host: '127.0.0.1',
          port,
          servername: HOST,
          ca: appCertificate.chain,
          ALPNProtocols: ['h2'],
        }).on('error', () => {}),
    });
    made.on('error', () => {});
    return made;
  };
  return {
    async ask(what = {}) {
      if (session === undefined || session.destroyed || session.closed) session = open();
      const { websocket } = what;
      // RFC 8441 §3: not before the server has said that it takes such requests.
      if (websocket !== undefined && session.connecting !== false) await once(session, 'remoteSettings');
      return askStream(session, what);
    },
    close: () => session?.destroy(),
  };
}

function askStream(session: ClientHttp2Session, what: Ask): Promise<Answer> {
  return new Promise((resolve) => {
    const { method = 'GET', path = '/', host = HOST, headers = {}, body, chunked, trailers } = what;
    const interims: number[] = [];
    const framing: Fields =
      body === undefined || chunked || trailers ? {} : { 'content-length': String(body.length) };
    const { websocket } = what;
    const connect: Fields =
      websocket === undefined
        ? { ':method': method }
        : { ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https' };
    const stream = session.request(
      { ...connect, ':path': path, ':authority': host, ...headers, ...framing },
      {
        endStream: body === undefined && websocket === undefined,
        waitForTrailers: trailers !== undefined,
      },
    );
    let status = 0;
    let received: Readonly<Record<string, unknown>> = {};
    let ending: Readonly<Record<string, unknown>> = {};
    let text = '';
    let ended = false;
    stream.on('headers', (interim) => {
      interims.push(Number(interim[':status']));
      what.onInterim?.(Number(interim[':status']));
    });
    stream.on('response', (fields) => {
      status = Number(fields[':status']);
      received = fields;
      if (websocket !== undefined && status === 200) stream.write(websocket);
    });
    stream.on('trailers', (fields) => {
      ending = fields;
    });
    stream.on('data', (bytes: Buffer) => {
      text += bytes.toString('latin1');
      if (text === websocket) stream.end();
    });
    stream.on('end', () => {
      ended = true;
      // Whoever has the whole reply and sends nothing more says so.
      if (!stream.writableEnded) setTimeout(() => stream.close(), 100);
    });
    stream.on('error', () => {});
    stream.on('wantTrailers', () => stream.sendTrailers(trailers!));
    stream.on('close', () =>
      resolve({
        status,
        headers: received,
        interims,
        body: text,
        trailers: ending,
        cut: status === 0 || !ended || (stream.rstCode ?? 0) !== 0,
      }),
    );
    void (async () => {
      await what.bodyAfter;
      if (body !== undefined && !stream.destroyed) stream.end(body);
    })();
  });
}
