// Bytes that wait to be sent. They are copied into blocks, so that many small pieces cost no more than their bytes.

export interface ByteQueue {
  readonly length: number;
  /** The bytes at its head that lie together: `head[headStart, headStart + headLength)`. */
  readonly head: Buffer;
  readonly headStart: number;
  readonly headLength: number;
  /** Copies `bytes[start, end)` to its end. */
  append(bytes: Buffer, start: number, end: number): void;
  /** Takes up to headLength bytes away from its head. */
  drop(size: number): void;
}

const NO_BYTES = Buffer.alloc(0);
/** A piece of this size gets a block of its own length; smaller ones share blocks that grow with what there is. */
const OWN_BLOCK = 4 * 1024;
/** Small, because many short messages are never added to. */
const FIRST_BLOCK = 64;

export function createByteQueue(): ByteQueue {
  return new Blocks();
}

class Blocks implements ByteQueue {
  length = 0;
  headStart = 0;
  private readonly blocks: Buffer[] = [];
  /** How much of the last block is in use. */
  private tailEnd = 0;

  get head(): Buffer {
    return this.blocks[0] ?? NO_BYTES;
  }

  get headLength(): number {
    const { blocks } = this;
    if (blocks.length === 0) return 0;
    return (blocks.length === 1 ? this.tailEnd : blocks[0]!.length) - this.headStart;
  }

  append(bytes: Buffer, start: number, end: number): void {
    const { blocks } = this;
    const tail = blocks[blocks.length - 1];
    let from = start;
    if (tail !== undefined && this.tailEnd < tail.length) {
      const size = bytes.copy(tail, this.tailEnd, start, end);
      this.tailEnd += size;
      from += size;
    }
    if (from < end) {
      const block = this.allocate(end - from);
      bytes.copy(block, 0, from, end);
      this.tailEnd = end - from;
      blocks.push(block);
    }
    this.length += end - start;
  }

  drop(size: number): void {
    const { blocks } = this;
    const all = size === this.headLength;
    this.length -= size;
    this.headStart += size;
    if (!all) return;
    blocks.shift();
    this.headStart = 0;
  }

  /** Not from Node's pool: one slice of it would keep all 64 KiB alive. */
  private allocate(size: number): Buffer {
    if (size >= OWN_BLOCK) return Buffer.allocUnsafeSlow(size);
    return Buffer.allocUnsafeSlow(Math.max(size, FIRST_BLOCK, Math.min(OWN_BLOCK, 2 * this.length)));
  }
}
