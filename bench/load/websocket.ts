// WebSocket messages: every connection sends one, waits for its echo, sends the next; a unit is one message there and back.

import { readFileSync } from 'node:fs';
import { WebSocket } from 'ws';
import { startWork } from './parent.ts';

export interface WebSocketSettings {
  readonly port: number;
  /** Path of the certificate that the proxy must show, PEM. */
  readonly chain: string;
  readonly connections: number;
  readonly bytes: number;
}

const settings = JSON.parse(process.argv[2] ?? '') as WebSocketSettings;
const message = Buffer.alloc(settings.bytes, 'm');
const sockets = Array.from({ length: settings.connections }, open);
const work = startWork(async () => {
  for (const socket of sockets) socket.close();
});

function open(): WebSocket {
  const socket = new WebSocket(`wss://localhost:${settings.port}/`, {
    ca: readFileSync(settings.chain),
    perMessageDeflate: false,
  });
  socket.on('open', () => socket.send(message));
  socket.on('message', (data: Buffer) => {
    if (data.length !== message.length) return work.failed(`an echo of ${data.length} bytes`);
    work.done();
    if (!work.ending) socket.send(message);
  });
  socket.on('error', (error) => work.failed(error));
  socket.on('close', (code) => {
    if (!work.ending) work.failed(`closed with ${code}`);
  });
  return socket;
}
