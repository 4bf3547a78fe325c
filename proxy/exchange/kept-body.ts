// The beginning of a request body, kept as bytes: to wait for a connection, and to be sent again on another one.

const LEAST_CAPACITY = 1_024;

/** Copies what it is given: a thousand pieces of one byte take no more than a thousand bytes. */
export class KeptBody {
  private bytes: Buffer = Buffer.alloc(0);
  private length = 0;

  get size(): number {
    return this.length;
  }

  /** All of it; valid until the next piece is added. */
  get content(): Buffer {
    return this.bytes.subarray(0, this.length);
  }

  add(piece: Buffer, start: number, end: number): void {
    this.reserve(end - start);
    this.length += piece.copy(this.bytes, this.length, start, end);
  }

  /** Latin-1. */
  addText(text: string): void {
    this.reserve(text.length);
    this.length += this.bytes.write(text, this.length, 'latin1');
  }

  private reserve(more: number): void {
    const needed = this.length + more;
    if (needed <= this.bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * this.bytes.length, LEAST_CAPACITY));
    this.bytes.copy(larger, 0, 0, this.length);
    this.bytes = larger;
  }
}
