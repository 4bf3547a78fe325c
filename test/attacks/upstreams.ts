// The process of an upstream that Node serves: upstreams.ts http1|h2c, with the same paths over both.

import { once } from 'node:events';
import { createServer as createHttp1Server } from 'node:http';
import { createServer as createHttp2Server } from 'node:http2';
import type { AddressInfo, Server } from 'node:net';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

const MIB = 1024 * 1024;
const PIECE = Buffer.alloc(16 * 1024, 'x');

function* bytes(length: number) {
  for (let sent = 0; sent < length; sent += PIECE.length) yield PIECE;
}

/** Long enough to be under way when something happens, and over before its reader loses patience. */
async function* slow() {
  for (let sent = 0; sent < 64; sent++) {
    yield PIECE.subarray(0, 1_024);
    await sleep(60);
  }
}

async function answer(path: string, body: Readable, reply: Writable): Promise<void> {
  // What an attack asks for must not wear out the upstream, which is not what is tried here.
  if (path === '/hang') return;
  if (path === '/slow') return pipeline(Readable.from(slow()), reply);
  const length = { '/large': 64 * MIB, '/honest': 16 * MIB }[path];
  if (length !== undefined) return pipeline(Readable.from(bytes(length), { objectMode: false }), reply);
  let taken = 0;
  for await (const chunk of body) taken += (chunk as Buffer).length;
  reply.end(`ok ${taken}`);
}

const http1 = createHttp1Server({ keepAliveTimeout: 60_000 }, (request, reply) => {
  answer(request.url!, request, reply).catch(() => {});
});
const h2c = createHttp2Server((request, reply) => {
  answer(request.url, request, reply).catch(() => {});
});
h2c.on('sessionError', () => {});

process.on('disconnect', () => process.exit(0));
process.send!(await listen(process.argv[2] === 'h2c' ? (h2c as unknown as Server) : http1));

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}
