// A gRPC upstream without a library in the way: /bench.Echo/Unary and /bench.Echo/Stream send each message back; a unit is a call.

import { createServer, type Http2SecureServer, type Http2Server, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { startWork, tellPort } from './parent.ts';

const work = startWork();
const server = createServer({ settings: { initialWindowSize: 1 << 20 } });
server.on('session', (session) => session.setLocalWindowSize(1 << 24));
server.on('stream', answer);
server.listen(0, '127.0.0.1', () => tellPort(portOf(server)));

function answer(stream: ServerHttp2Stream): void {
  stream.on('error', () => {});
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  // Messages arrive with their five-byte prefix and leave as they came.
  stream.on('data', (chunk: Buffer) => {
    if (!stream.write(chunk)) stream.pause();
  });
  stream.on('drain', () => stream.resume());
  stream.on('end', () => {
    work.done();
    stream.end();
  });
}

function portOf(listening: Http2Server | Http2SecureServer): number {
  return (listening.address() as AddressInfo).port;
}
