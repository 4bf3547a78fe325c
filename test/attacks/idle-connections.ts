// One peer that fills the limit with connections on which nothing is under way, over HTTP/1.1, HTTP/2 and before the handshake.

import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { limitsWith } from '../../proxy/limits.ts';
import { type Attack, inLoops, pause } from './attack.ts';

const LIMIT = 400;
const LOOPS = 30;
/** Of each loop in one round: all together hold many times what there is room for. */
const KEPT = 40;

export const idleConnections: Attack = {
  name: 'idle-connections',
  does: `${LOOPS * KEPT} idle connections where ${LIMIT} are allowed`,
  worker: { limits: limitsWith({ maxConnections: LIMIT }) },
  async start(target) {
    return inLoops(target, LOOPS, async (stopped) => {
      const kept: Socket[] = [];
      for (let i = 0; i < KEPT && !stopped.aborted; i++) {
        const tcp = connectTcp(target.port, '127.0.0.1').on('error', () => {});
        kept.push(tcp);
        if (i % 3 > 0) {
          connectTls({
            socket: tcp,
            servername: target.hosts.http1,
            ca: target.ca,
            ALPNProtocols: [i % 3 === 1 ? 'http/1.1' : 'h2'],
          })
            .on('error', () => {})
            .resume();
        }
        await pause(20, stopped);
      }
      await pause(1_000, stopped);
      for (const socket of kept) socket.destroy();
    });
  },
};
