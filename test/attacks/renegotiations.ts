// TLS 1.2 clients that renegotiate without end, over HTTP/1.1 and HTTP/2, and come back when they are cut off.

import { connect as connectTls } from 'node:tls';
import { type Attack, inLoops, pause } from './attack.ts';

const LOOPS = 8;
const TIMES = 200;
const CONNECTIONS = 10;

export const renegotiations: Attack = {
  name: 'renegotiations',
  does: `${TIMES} renegotiations on each of many connections`,
  async start(target) {
    return inLoops(target, LOOPS, async (stopped) => {
      for (let i = 0; i < CONNECTIONS && !stopped.aborted; i++) {
        await renegotiate(target.port, target.hosts.http1, target.ca, i % 2 === 0 ? 'h2' : 'http/1.1');
        await pause(10, stopped);
      }
    });
  },
};

function renegotiate(port: number, servername: string, ca: string, alpn: string): Promise<void> {
  return new Promise((resolve) => {
    const socket = connectTls({
      host: '127.0.0.1',
      port,
      servername,
      ca,
      maxVersion: 'TLSv1.2',
      ALPNProtocols: [alpn],
    });
    let left = TIMES;
    const again = () => {
      if (left-- === 0) socket.destroy();
      else if (!socket.destroyed) socket.renegotiate({}, (error) => (error ? socket.destroy() : again()));
    };
    socket.on('secureConnect', again);
    socket.on('error', () => {});
    socket.on('close', () => resolve());
    socket.resume();
  });
}
