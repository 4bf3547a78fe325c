// The frames of a WebSocket that is passed through (proxy/tunnel/websocket-frames.ts): the same boundaries however they are cut.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { createFrameTracker, goingAwayFrame, trackFrames } from '../../../proxy/tunnel/websocket-frames.ts';
import { cuts, fuzzTarget, mutated, piecesOf } from '../target.ts';

const seeds = [
  Buffer.from([0x81, 0x02, 0x68, 0x69]),
  Buffer.from([0x82, 0x7e, 0x00, 0x03, 1, 2, 3]),
  Buffer.from([0x01, 0x82, 1, 2, 3, 4, 5, 6]),
  Buffer.from([0x80, 0x7f, 0, 0, 0, 0, 0, 0, 0, 2, 9, 9]),
  Buffer.from([0x89, 0x00]),
  goingAwayFrame(true),
  goingAwayFrame(false),
];

interface Input {
  readonly bytes: Buffer;
  readonly positions: readonly number[];
}

function track(pieces: readonly Buffer[]) {
  const tracker = createFrameTracker();
  for (const bytes of pieces) {
    const end = trackFrames(tracker, bytes, 0, bytes.length, false);
    assert.equal(end, bytes.length);
  }
  return { closed: tracker.closed, atBoundary: tracker.atBoundary };
}

export const websocketFrames = fuzzTarget<Input>({
  name: 'frames of a WebSocket',
  input: fc.record({ bytes: mutated(seeds), positions: cuts }),
  check({ bytes, positions }) {
    assert.deepEqual(track(piecesOf(bytes, positions)), track([bytes]));
    const tracker = createFrameTracker();
    const stop = trackFrames(tracker, bytes, 0, bytes.length, true);
    assert.ok(stop >= 0 && stop <= bytes.length);
    if (stop < bytes.length) assert.ok(tracker.atBoundary);
  },
  growing: {
    'empty frames': (size) => ({
      bytes: Buffer.alloc(size - (size % 2)).fill(Buffer.from([0x81, 0x00])),
      positions: [],
    }),
  },
});
