// An upstream that takes uploads (the reply is the number of bytes; a unit is a request), echoes WebSocket messages and serves small replies.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocketServer } from 'ws';
import { startWork, tellPort } from './parent.ts';

const KIBIBYTE = Buffer.alloc(1_024, 'x');

const work = startWork();
const server = createServer({ keepAliveTimeout: 300_000 }, (request, response) => {
  let received = 0;
  request.on('data', (chunk: Buffer) => {
    received += chunk.length;
  });
  request.on('end', () => {
    work.done();
    response.end(request.method === 'POST' ? String(received) : KIBIBYTE);
  });
});

new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on('error', () => socket.terminate());
});

server.listen(0, '127.0.0.1', () => tellPort((server.address() as AddressInfo).port));
