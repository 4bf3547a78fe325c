// Where one WebSocket frame ends and the next begins (RFC 6455 §5.2), in bytes that are passed on untouched.

import { randomBytes } from 'node:crypto';

/** One direction of a WebSocket. */
export interface FrameTracker {
  /** Between two frames: one of our own may go here. */
  atBoundary: boolean;
  /** A Close frame has passed: no other may follow it (RFC 6455 §5.5.1). */
  closed: boolean;
  /** Bytes of the mask and the payload still to come. */
  remaining: number;
  /** Bytes of an extended length still to come. */
  lengthBytes: number;
  step: number;
  masked: boolean;
  closing: boolean;
}

const FIRST = 0;
const SECOND = 1;
const LENGTH = 2;
const BODY = 3;

const CLOSE = 8;
/** RFC 6455 §7.4.1: going away. */
const GOING_AWAY = 1_001;

export function createFrameTracker(): FrameTracker {
  return {
    atBoundary: true,
    closed: false,
    remaining: 0,
    lengthBytes: 0,
    step: FIRST,
    masked: false,
    closing: false,
  };
}

/** Takes `bytes[start, end)`, or only up to the end of the frame under way. Returns the position after what it took. */
export function trackFrames(
  tracker: FrameTracker,
  bytes: Uint8Array,
  start: number,
  end: number,
  toBoundary: boolean,
): number {
  let pos = start;
  while (pos < end) {
    if (toBoundary && tracker.atBoundary) return pos;
    if (tracker.step === BODY) {
      const taken = Math.min(end - pos, tracker.remaining);
      tracker.remaining -= taken;
      pos += taken;
    } else readHead(tracker, bytes[pos++]!);
    if (tracker.step === BODY && tracker.remaining === 0) finishFrame(tracker);
  }
  return pos;
}

function readHead(tracker: FrameTracker, byte: number): void {
  if (tracker.step === FIRST) {
    tracker.atBoundary = false;
    tracker.closing = (byte & 0x0f) === CLOSE;
    tracker.step = SECOND;
    return;
  }
  if (tracker.step === SECOND) {
    const length = byte & 0x7f;
    tracker.masked = byte > 0x7f;
    tracker.lengthBytes = length === 126 ? 2 : length === 127 ? 8 : 0;
    tracker.remaining = tracker.lengthBytes === 0 ? length : 0;
    tracker.step = LENGTH;
  } else {
    tracker.remaining = tracker.remaining * 256 + byte;
    tracker.lengthBytes--;
  }
  if (tracker.lengthBytes > 0) return;
  tracker.step = BODY;
  if (tracker.masked) tracker.remaining += 4;
}

function finishFrame(tracker: FrameTracker): void {
  tracker.step = FIRST;
  tracker.atBoundary = true;
  tracker.closed ||= tracker.closing;
}

/** A Close frame that says "going away"; what goes to a server is masked (RFC 6455 §5.3). */
export function goingAwayFrame(masked: boolean): Buffer {
  const status = [GOING_AWAY >> 8, GOING_AWAY & 0xff];
  if (!masked) return Buffer.from([0x80 | CLOSE, 2, ...status]);
  const mask = randomBytes(4);
  return Buffer.from([0x80 | CLOSE, 0x80 | 2, ...mask, ...status.map((byte, i) => byte ^ mask[i]!)]);
}
