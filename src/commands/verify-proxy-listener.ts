// The port of the verifying proxy: on loopback, for HTTP/1.1 and for HTTP/2 with prior knowledge.

import { once } from 'node:events';
import { type AddressInfo, createServer, isIPv4, type Socket } from 'node:net';
import { createHttp1Side } from './verify-proxy-http1.ts';
import { createHttp2Side } from './verify-proxy-http2.ts';
import type { Standing } from './verify-proxy-standing.ts';

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Throws for what other machines could reach: to them it would speak without TLS. */
export function readListen(text: string): ListenAddress {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+)):(\d{1,5})$/i.exec(text) ?? [];
  const host = bracketed ?? plain ?? '';
  const port = Number(digits);
  if (digits === undefined || port > 65_535)
    throw new Error(`--listen ${JSON.stringify(text)} is no address and port as in 127.0.0.1:8080`);
  if (host !== '::1' && !(isIPv4(host) && host.startsWith('127.')))
    throw new Error(`--listen ${JSON.stringify(text)} is not on the loopback: 127.0.0.1 or [::1]`);
  return { host, port };
}

export interface Listener {
  /** As in a URL. */
  readonly address: string;
  close(): void;
}

/** Rejects if the port cannot be had. `authority` is the host under its own name. */
export async function listen(
  { host, port }: ListenAddress,
  standing: Standing,
  authority: string,
): Promise<Listener> {
  const http1 = createHttp1Side(standing, authority);
  const http2 = createHttp2Side(standing, authority);
  const open = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket)).on('error', () => {});
    tellApart(socket, (isHttp2) => (isHttp2 ? http2 : http1).emit('connection', socket));
  });
  server.listen(port, host);
  await once(server, 'listening');
  const bound = server.address() as AddressInfo;
  return {
    address: `${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`,
    close() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

/** RFC 9113 §3.4. */
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const FIRST_BYTES_MS = 60_000;

function tellApart(socket: Socket, decided: (isHttp2: boolean) => void): void {
  let seen = Buffer.alloc(0);
  socket.setTimeout(FIRST_BYTES_MS, () => socket.destroy());
  const look = () => {
    const part = socket.read() as Buffer | null;
    if (part === null) return;
    seen = Buffer.concat([seen, part]);
    const length = Math.min(seen.length, PREFACE.length);
    const begins = seen.subarray(0, length).equals(PREFACE.subarray(0, length));
    if (begins && length < PREFACE.length) return;
    socket.off('readable', look);
    socket.setTimeout(0);
    socket.removeAllListeners('timeout');
    socket.unshift(seen);
    decided(begins);
  };
  socket.on('readable', look);
}
