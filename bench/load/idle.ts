// Connections that make one request and then stay open and idle; a unit is one open connection.

import { readFileSync } from 'node:fs';
import { connect, type TLSSocket } from 'node:tls';
import { startWork } from './parent.ts';

export interface IdleSettings {
  readonly port: number;
  /** Path of the certificate that the proxy must show, PEM. */
  readonly chain: string;
  readonly path: string;
  readonly replyBytes: number;
  readonly connections: number;
  /** How many are being opened at a time. */
  readonly parallel: number;
}

const settings = JSON.parse(process.argv[2] ?? '') as IdleSettings;
const ca = readFileSync(settings.chain);
const sockets = new Set<TLSSocket>();
let left = settings.connections;
const work = startWork(async () => {
  for (const socket of sockets) socket.destroy();
});
for (let index = 0; index < settings.parallel; index += 1) openNext();

function openNext(): void {
  if (left === 0 || work.ending) return;
  left -= 1;
  let reply = '';
  const socket = connect({ host: '127.0.0.1', port: settings.port, servername: 'localhost', ca }, () => {
    socket.write(`GET ${settings.path} HTTP/1.1\r\nHost: localhost:${settings.port}\r\n\r\n`);
  });
  sockets.add(socket);
  socket.on('data', (chunk: Buffer) => {
    reply += chunk.toString('latin1');
    const bodyStart = reply.indexOf('\r\n\r\n') + 4;
    if (bodyStart === 3 || reply.length - bodyStart < settings.replyBytes) return;
    if (reply.startsWith('HTTP/1.1 200')) work.done();
    else work.failed(reply.slice(0, reply.indexOf('\r')));
    openNext();
  });
  socket.on('error', (error) => work.failed(error));
  socket.on('close', () => {
    if (!work.ending) work.failed('the proxy closed an idle connection');
  });
}
