// Load that never stops by itself: HTTP/1.1, HTTP/2, gRPC and open WebSockets at once, every failure kept.

import http2 from 'node:http2';
import https from 'node:https';
import { credentials, makeGenericClientConstructor } from '@grpc/grpc-js';
import { type ClientOptions, WebSocket } from 'ws';
import { type EchoMessage, echoService } from '../../src/demo/echo.ts';

export interface LoadTarget {
  readonly port: number;
  /** Resolved to loopback by the load itself. */
  readonly servername: string;
  readonly ca: string;
  /** What GET / answers. */
  readonly expected: string;
  /** Which kinds; default all. */
  readonly kinds?: readonly LoadKind[];
}

export type LoadKind = 'h1' | 'h2' | 'grpc' | 'websocket';

export interface Load {
  /** Requests and messages answered so far, by kind. */
  readonly done: Readonly<Record<LoadKind, number>>;
  readonly failures: readonly string[];
  /** Resolves once each kind has done so many more. */
  more(count: number): Promise<void>;
  /** Resolves when all has come to a clean end. */
  stop(): Promise<void>;
}

const LANES = 4;

export function startLoad(target: LoadTarget): Load {
  const done: Record<LoadKind, number> = { h1: 0, h2: 0, grpc: 0, websocket: 0 };
  const failures: string[] = [];
  let stopping = false;
  const kinds = target.kinds ?? ['h1', 'h2', 'grpc', 'websocket'];

  /** Sends one after the other until told to stop. */
  async function lane(kind: LoadKind, once: () => Promise<void>): Promise<void> {
    while (!stopping) {
      try {
        await once();
        done[kind]++;
      } catch (error) {
        failures.push(`${kind}: ${(error as Error).message}`);
        // A target that is gone must not be asked a thousand times a second.
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  const starters: Record<LoadKind, () => Lanes> = {
    h1: () => http1Lanes(target),
    h2: () => http2Lanes(target),
    grpc: () => grpcLanes(target),
    websocket: () => websocketLanes(target),
  };
  const running = kinds.map((kind) => {
    const lanes = starters[kind]();
    const ends = lanes.each.map((once) => lane(kind, once));
    return { lanes, ends };
  });

  return {
    done,
    failures,
    async more(count) {
      const goals = new Map(kinds.map((kind) => [kind, done[kind] + count]));
      const until = Date.now() + 60_000;
      while (kinds.some((kind) => done[kind] < goals.get(kind)!)) {
        if (Date.now() > until)
          throw new Error(`the load stands still: ${JSON.stringify(done)} ${failures.slice(0, 5)}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    async stop() {
      stopping = true;
      for (const { lanes, ends } of running) {
        await Promise.all(ends);
        await lanes.close();
      }
    },
  };
}

interface Lanes {
  readonly each: (() => Promise<void>)[];
  close(): Promise<void> | void;
}

function http1Lanes({ port, servername, ca, expected }: LoadTarget): Lanes {
  const agent = new https.Agent({ keepAlive: true, maxSockets: LANES, ca, servername });
  const once = () =>
    new Promise<void>((resolve, reject) => {
      const request = https.get(
        { host: '127.0.0.1', port, agent, headers: { host: servername }, path: '/' },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () =>
            check(response.statusCode, Buffer.concat(chunks).toString(), expected, resolve, reject),
          );
        },
      );
      request.on('error', reject);
    });
  return { each: Array.from({ length: LANES }, () => once), close: () => agent.destroy() };
}

/**
 * New sessions when the server says goodbye, and once more what was refused without being looked at (RFC 9113 §8.7), as
 * browsers do: Node's client refuses by itself what it was asked in the moment in which the GOAWAY arrives.
 */
function http2Lanes({ port, servername, ca, expected }: LoadTarget): Lanes {
  let session: http2.ClientHttp2Session | undefined;
  const open = () => {
    if (session !== undefined && !session.closed && !session.destroyed) return session;
    const fresh = http2.connect(`https://127.0.0.1:${port}`, { ca, servername });
    fresh.on('error', () => {});
    fresh.on('goaway', () => {
      if (session === fresh) session = undefined;
      fresh.close();
    });
    session = fresh;
    return fresh;
  };
  const attempt = () =>
    new Promise<void>((resolve, reject) => {
      const stream = open().request({ ':path': '/', ':authority': servername });
      let status: number | undefined;
      let body = '';
      stream.setEncoding('utf8');
      stream.on('response', (headers) => {
        status = headers[':status'];
      });
      stream.on('data', (text: string) => {
        body += text;
      });
      stream.on('error', reject);
      stream.on('close', () => check(status, body, expected, resolve, reject));
      stream.end();
    });
  const once = () =>
    attempt().catch((error: Error) => {
      if (!error.message.includes('NGHTTP2_REFUSED_STREAM')) throw error;
      session = undefined;
      return attempt();
    });
  return {
    each: Array.from({ length: LANES }, () => once),
    close: () => session?.destroy(),
  };
}

function grpcLanes({ port, servername, ca }: LoadTarget): Lanes {
  const Client = makeGenericClientConstructor(echoService, 'demo.Echo');
  const client = new Client(`127.0.0.1:${port}`, credentials.createSsl(Buffer.from(ca)), {
    'grpc.ssl_target_name_override': servername,
    'grpc.default_authority': servername,
  }) as unknown as {
    say(message: EchoMessage, done: (error: Error | null, reply?: EchoMessage) => void): void;
    close(): void;
  };
  const once = () =>
    new Promise<void>((resolve, reject) => {
      client.say({ text: 'load' }, (error, reply) => {
        if (error !== null) return reject(error);
        check(200, reply?.text ?? '', 'hello load', resolve, reject);
      });
    });
  return { each: Array.from({ length: LANES }, () => once), close: () => client.close() };
}

/** Opened once and kept: a socket that closes is a failure of its own. */
function websocketLanes({ port, servername, ca }: LoadTarget): Lanes {
  const lanes = Array.from({ length: LANES }, () => {
    const options: ClientOptions & { servername: string } = { ca, servername, headers: { host: servername } };
    const socket = new WebSocket(`wss://127.0.0.1:${port}/ws`, options);
    const opened = new Promise<void>((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('the WebSocket was closed')));
    });
    opened.catch(() => {});
    let sent = 0;
    const once = async () => {
      await opened;
      const text = `message ${sent++}`;
      await new Promise<void>((resolve, reject) => {
        if (socket.readyState !== WebSocket.OPEN) return reject(new Error('the WebSocket is closed'));
        const closed = () => reject(new Error('the WebSocket was closed'));
        socket.once('close', closed);
        socket.once('message', (data) => {
          socket.off('close', closed);
          check(200, String(data), text, resolve, reject);
        });
        socket.send(text);
      });
      await new Promise((resolve) => setTimeout(resolve, 5));
    };
    return { socket, once };
  });
  return {
    each: lanes.map(({ once }) => once),
    close: () => {
      for (const { socket } of lanes) socket.terminate();
    },
  };
}

function check(
  status: number | undefined,
  body: string,
  expected: string,
  resolve: () => void,
  reject: (error: Error) => void,
): void {
  if (status === 200 && body === expected) resolve();
  else reject(new Error(`status ${status}, body ${JSON.stringify(body.slice(0, 120))}`));
}
