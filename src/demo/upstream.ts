// The demo's app behind the ingress: a page that shows the request, a WebSocket echo, and gRPC.

import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  Server as GrpcServer,
  type handleBidiStreamingCall,
  type handleUnaryCall,
  ServerCredentials,
} from '@grpc/grpc-js';
import { WebSocketServer } from 'ws';
import { type EchoMessage, echoService } from './echo.ts';

export interface DemoUpstream {
  /** HTTP/1.1 and WebSocket, on 127.0.0.1. */
  readonly httpPort: number;
  /** gRPC over HTTP/2 without TLS, on 127.0.0.1. */
  readonly grpcPort: number;
  stop(): Promise<void>;
}

export async function startDemoUpstream(): Promise<DemoUpstream> {
  const web = await startWeb();
  const grpc = await startGrpc();
  return {
    httpPort: web.port,
    grpcPort: grpc.port,
    async stop() {
      grpc.stop();
      await web.stop();
    },
  };
}

async function startWeb() {
  const server = createServer(showRequest);
  const sockets = new WebSocketServer({ server });
  sockets.on('connection', (socket) => {
    // After an error of a client its socket closes by itself.
    socket.on('error', () => {});
    socket.on('message', (data, binary) => socket.send(data, { binary }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async stop() {
      for (const socket of sockets.clients) socket.terminate();
      sockets.close();
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** What the app sees of a visitor: the page is text, so that a terminal shows it as a browser does. */
function showRequest(request: IncomingMessage, response: ServerResponse): void {
  // A body that nobody reads would hold up the connection.
  request.resume();
  const shown = Object.entries(request.headers).filter(
    ([name]) => name === 'host' || /^(x-)?forwarded|^x-real-ip|^via$/.test(name),
  );
  const lines = [
    'This is the app behind the demo ingress.',
    '',
    `${request.method} ${request.url} HTTP/${request.httpVersion}`,
    ...shown.map(([name, value]) => `${name}: ${value}`),
  ];
  response.writeHead(200, {
    'content-type': 'text/plain; charset=utf-8',
    'x-content-type-options': 'nosniff',
  });
  response.end(`${lines.join('\n')}\n`);
}

const say: handleUnaryCall<EchoMessage, EchoMessage> = (call, reply) => {
  reply(null, { text: `hello ${call.request.text}` });
};

const chat: handleBidiStreamingCall<EchoMessage, EchoMessage> = (call) => {
  call.on('data', (message: EchoMessage) => call.write(message));
  call.on('end', () => call.end());
};

async function startGrpc() {
  const server = new GrpcServer();
  server.addService(echoService, { say, chat });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return { port, stop: () => server.forceShutdown() };
}
