// Bytes that are about to be written to one socket, gathered in buffers that all connections share.

/** Append at `bytes[length]`, after reserve(), and move `length`. */
export interface Outbox {
  bytes: Buffer;
  length: number;
}

const NO_BYTES = Buffer.alloc(0);
/** Most turns of the event loop send no more than a small one holds. A large one holds a full read from an upstream. */
const SMALL = 16 * 1024;
const LARGE = 80 * 1024;
/** 4 MiB of each size are kept for reuse; more are left to the garbage collector. */
const MOST_SPARE_SMALL = 256;
const MOST_SPARE_LARGE = 52;

const small: Buffer[] = [];
const large: Buffer[] = [];

/** An idle connection holds no buffer: it borrows one when it has something to send. */
export function createOutbox(): Outbox {
  return { bytes: NO_BYTES, length: 0 };
}

/** Makes room for `size` more bytes; `bytes` may be another buffer afterwards. */
export function reserve(out: Outbox, size: number): void {
  const needed = out.length + size;
  if (needed <= out.bytes.length) return;
  const before = out.bytes;
  out.bytes = borrow(needed);
  before.copy(out.bytes, 0, 0, out.length);
  giveBack(before);
}

/** Takes out what is there, to be given back once it has been written, and leaves the box empty. */
export function takeOut(out: Outbox): Buffer {
  const taken = out.bytes.subarray(0, out.length);
  out.bytes = NO_BYTES;
  out.length = 0;
  return taken;
}

/** Gives back `bytes` from takeOut(). Nobody may read them afterwards. */
export function giveBack(bytes: Buffer): void {
  const { byteOffset, buffer } = bytes;
  if (byteOffset !== 0) return;
  if (buffer.byteLength === SMALL && small.length < MOST_SPARE_SMALL) small.push(Buffer.from(buffer));
  else if (buffer.byteLength === LARGE && large.length < MOST_SPARE_LARGE) large.push(Buffer.from(buffer));
}

function borrow(size: number): Buffer {
  if (size <= SMALL) return small.pop() ?? Buffer.allocUnsafeSlow(SMALL);
  if (size <= LARGE) return large.pop() ?? Buffer.allocUnsafeSlow(LARGE);
  return Buffer.allocUnsafeSlow(Math.max(size, 2 * LARGE));
}
