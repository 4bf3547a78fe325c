// Bytes that wait to be sent. They are copied into blocks, so that many small pieces cost no more than their bytes.

export interface ByteQueue {
  readonly length: number;
  /** The bytes at its head that lie together: `head[headStart, headStart + headLength)`. */
  readonly head: Buffer;
  readonly headStart: number;
  readonly headLength: number;
  /** Copies `bytes[start, end)` to its end. */
  append(bytes: Buffer, start: number, end: number): void;
  /** Takes up to headLength bytes away from its head. What was got as `head` before may be gone. */
  drop(size: number): void;
  /** Gives the memory of all of it back; nothing is in it any more. */
  clear(): void;
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
    free(blocks.shift()!);
    this.headStart = 0;
  }

  clear(): void {
    for (const block of this.blocks) free(block);
    this.blocks.length = 0;
    this.length = this.headStart = this.tailEnd = 0;
  }

  /** Not from Node's pool, of which a single slice keeps all 64 KiB. */
  private allocate(size: number): Buffer {
    if (size >= OWN_BLOCK) return Buffer.allocUnsafeSlow(size);
    return Buffer.allocUnsafeSlow(Math.max(size, FIRST_BLOCK, Math.min(OWN_BLOCK, 2 * this.length)));
  }
}

/**
 * At once, not when V8 collects next: of streams that come and go unread, some 64 MiB would lie about until then, and the
 * heap that glibc made for them is not given back.
 */
function free(block: Buffer): void {
  if (block.length >= OWN_BLOCK) (block.buffer as ArrayBuffer).transfer(0);
}
