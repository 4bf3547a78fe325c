// Request heads that we take and that some upstreams do not: nginx ends a session over a field of more than 8 KiB.

import { type Attack, inLoops, pause } from './attack.ts';
import { attackConnection, requestFrame } from './frames.ts';

const CONNECTIONS = 4;
const FIELD_BYTES = 12_000;
const REQUESTS = 40;

export const largeHeads: Attack = {
  name: 'large-heads',
  does: `requests with a field of ${FIELD_BYTES} bytes, ${CONNECTIONS} clients at once`,
  async start(target) {
    const host = target.hosts.nginx;
    const more = [['x-large', 'x'.repeat(FIELD_BYTES)]] as const;
    return inLoops(target, CONNECTIONS, async (stopped) => {
      const connection = await attackConnection(target, host);
      for (let i = 0; i < REQUESTS && !stopped.aborted; i++) {
        await connection.send(requestFrame(2 * i + 1, host, '/', { more }));
        await pause(20, stopped);
      }
      connection.close();
    });
  },
};
