// The bytes of an open file as a stream of a reply's body: parts of it, and what stands between them.

import type { FileHandle } from 'node:fs/promises';
import type { Range } from './file-ranges.ts';

export type Part = Range | Uint8Array;

/** A read costs a visit to another thread, whatever it brings: who takes pieces fast gets large ones. */
const LARGEST_PIECE_BYTES = 1024 * 1024;
/** Who takes them slowly holds little memory. */
const SMALLEST_PIECE_BYTES = 64 * 1024;
const FAST_MS = 50;

/** Closes the file at the end, be it reached or not. */
export class FileBody implements AsyncIterable<Uint8Array>, AsyncIterator<Uint8Array, undefined> {
  /** Of a reply that has no body. */
  static readonly none = new FileBody(undefined, []);

  private readonly parts: readonly Part[];
  private handle: FileHandle | undefined;
  private at = 0;
  private done = 0;
  private pieceBytes = SMALLEST_PIECE_BYTES * 2;
  private askedAt = 0;

  constructor(handle: FileHandle | undefined, parts: readonly Part[]) {
    this.handle = handle;
    this.parts = parts;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    const part = this.parts[this.at];
    if (part === undefined || this.handle === undefined) return this.return();
    if (part instanceof Uint8Array) {
      this.at++;
      return { done: false, value: part };
    }
    const left = part.end - part.start - this.done;
    const piece = Buffer.allocUnsafeSlow(Math.min(left, this.nextSize()));
    const { bytesRead } = await this.handle.read(piece, 0, piece.length, part.start + this.done);
    // It has been cut short since its size was told: that is told by a body that ends too early.
    if (bytesRead === 0) return this.return();
    this.done += bytesRead;
    if (bytesRead === left) {
      this.at++;
      this.done = 0;
    }
    return { done: false, value: bytesRead === piece.length ? piece : piece.subarray(0, bytesRead) };
  }

  /** By how long it took to take the last one. */
  private nextSize(): number {
    const now = performance.now();
    const isFast = now - this.askedAt < FAST_MS;
    this.askedAt = now;
    this.pieceBytes = isFast
      ? Math.min(this.pieceBytes * 2, LARGEST_PIECE_BYTES)
      : Math.max(this.pieceBytes / 2, SMALLEST_PIECE_BYTES);
    return this.pieceBytes;
  }

  /** All of it, for what is small. The file stays open. */
  async whole(): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    while (this.at < this.parts.length) {
      const { value } = await this.next();
      if (value === undefined) throw new Error('the file has been cut short');
      pieces.push(value);
    }
    return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
  }

  async return(): Promise<IteratorResult<Uint8Array, undefined>> {
    const { handle } = this;
    this.handle = undefined;
    await handle?.close();
    return { done: true, value: undefined };
  }

  destroy(): void {
    // Nobody is left to be told.
    this.return().catch(() => {});
  }
}
