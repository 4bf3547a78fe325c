// Visitors who do no harm, on connections of their own: over HTTP/1.1 and HTTP/2, kept and new, short requests and long.

import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { Agent, request } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { hosts } from './hosts.ts';

export interface BystanderReport {
  readonly requests: number;
  /** What was not served, and how it ended. */
  readonly failures: readonly string[];
  /** Of the short requests. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

interface Place {
  readonly port: number;
  readonly ca: string;
}

interface Visitor {
  readonly name: string;
  /** Its body. Rejects if it was not served whole. */
  ask(path: string): Promise<string>;
  leave(): void;
}

/** Between two requests of a visitor. */
const EVERY_MS = 100;
const SLOW_LENGTH = 64 * 1024;
const PATIENCE_MS = 20_000;

export function startBystanders(place: Place): { stop(): Promise<BystanderReport> } {
  const latencies: number[] = [];
  const failures: string[] = [];
  let requests = 0;
  let stopped = false;
  const visit = async (visitor: Visitor, path: string, sound: (body: string) => boolean, counts: boolean) => {
    while (!stopped) {
      const began = performance.now();
      requests++;
      try {
        const body = await inTime(visitor.ask(path));
        if (!sound(body)) throw new Error(`a body of ${body.length} bytes`);
        if (counts) latencies.push(performance.now() - began);
      } catch (error) {
        failures.push(`${visitor.name} ${path}: ${(error as Error).message}`);
        // One that fails at once must not fill the list.
        await sleep(200);
      }
      await sleep(EVERY_MS);
    }
    visitor.leave();
  };
  const short = (visitor: Visitor) => visit(visitor, '/', (body) => body.startsWith('ok'), true);
  const long = (visitor: Visitor) => visit(visitor, '/slow', ({ length }) => length === SLOW_LENGTH, false);
  const all = Promise.all(
    Object.values(hosts).flatMap((host) => [
      short(overHttp1(place, host, 'kept')),
      short(overHttp1(place, host, 'new')),
      short(overHttp2(place, host)),
      long(overHttp1(place, host, 'kept')),
      long(overHttp2(place, host)),
    ]),
  );
  return {
    async stop() {
      stopped = true;
      await all;
      latencies.sort((a, b) => a - b);
      const at = (share: number) => latencies[Math.floor(latencies.length * share)] ?? Number.NaN;
      return { requests, failures, p50Ms: at(0.5), p99Ms: at(0.99) };
    },
  };
}

/** A download of 16 MiB over each protocol: what a worker has once got for such, it keeps. */
export async function moveMuch(place: Place): Promise<void> {
  for (const visitor of [overHttp1(place, hosts.nginx, 'kept'), overHttp2(place, hosts.http1)]) {
    await visitor.ask('/honest');
    visitor.leave();
  }
}

async function inTime<T>(answer: Promise<T>): Promise<T> {
  const late = new AbortController();
  const tooLate = sleep(PATIENCE_MS, undefined, { signal: late.signal }).then(() => {
    throw new Error(`nothing within ${PATIENCE_MS} ms`);
  });
  tooLate.catch(() => {});
  return Promise.race([answer, tooLate]).finally(() => late.abort());
}

function overHttp1({ port, ca }: Place, host: string, connections: 'kept' | 'new'): Visitor {
  const agent = new Agent({ keepAlive: connections === 'kept', maxSockets: 1 });
  return {
    name: `http/1.1 ${connections} ${host}`,
    // A connection that was kept may be closed while nothing is under way (RFC 9112 §9.5): then it is asked anew.
    ask: (path) => ask(path).catch((error) => (error.idleLoss ? ask(path) : Promise.reject(error))),
    leave: () => agent.destroy(),
  };

  function ask(path: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const options = { agent, host: '127.0.0.1', port, ca, servername: host, path, headers: { host } };
      const asked = request(options, async (reply) => {
        try {
          let body = '';
          for await (const chunk of reply.setEncoding('latin1')) body += chunk;
          if (reply.statusCode === 200) resolve(body);
          else reject(new Error(`status ${reply.statusCode}`));
        } catch (error) {
          reject(error);
        }
      });
      asked.on('error', (error) => {
        reject(Object.assign(error, { idleLoss: asked.reusedSocket }));
      });
      asked.end();
    });
  }
}

function overHttp2({ port, ca }: Place, host: string): Visitor {
  let session: ClientHttp2Session | undefined;
  const sessionNow = () => {
    if (session !== undefined && !session.closed && !session.destroyed) return session;
    session = connect(`https://${host}`, {
      createConnection: () =>
        connectTls({ host: '127.0.0.1', port, ca, servername: host, ALPNProtocols: ['h2'] }),
    });
    session.on('error', () => {});
    return session;
  };
  let stream: ClientHttp2Stream | undefined;
  const ask = (path: string) =>
    new Promise<string>((resolve, reject) => {
      const asked = sessionNow().request({ ':path': path, ':authority': host });
      stream = asked;
      let body = '';
      let status = 0;
      asked.setEncoding('latin1');
      asked.on('response', (headers) => {
        status = headers[':status'] ?? 0;
      });
      asked.on('data', (chunk: string) => {
        body += chunk;
      });
      asked.on('error', reject);
      asked.on('close', () => {
        if (status === 200 && asked.rstCode === 0) resolve(body);
        else reject(new Error(`status ${status}, reset with ${asked.rstCode}`));
      });
    });
  return {
    name: `h2 ${host}`,
    // A request that crossed a GOAWAY was never begun (RFC 9113 §8.7): every client asks it anew.
    ask: (path) =>
      ask(path).catch((error) =>
        stream?.rstCode === constants.NGHTTP2_REFUSED_STREAM ? ask(path) : Promise.reject(error),
      ),
    leave: () => session?.destroy(),
  };
}
