// The bytes of an open file as a stream of a reply's body: parts of it, and what stands between them.

import type { FileHandle } from 'node:fs/promises';
import type { Range } from './file-ranges.ts';
import type { LendingSource } from './local-body.ts';

export type Part = Range | Uint8Array;

/** A read costs a visit to another thread, whatever it brings: who takes pieces fast gets large ones. */
const LARGEST_READ_BYTES = 256 * 1024;
/** Who takes them slowly holds little memory. */
const SMALLEST_READ_BYTES = 32 * 1024;
const FAST_MS = 50;

/**
 * Memory that large reads have been lent in. Used anew it is in the processor's caches, and the kernel has nothing to
 * clear. 4 MiB are kept; more are left to the garbage collector.
 */
const spare: Buffer[] = [];
const MOST_SPARE = 16;

function borrow(): Buffer {
  return spare.pop() ?? Buffer.allocUnsafeSlow(LARGEST_READ_BYTES);
}

function giveBack(memory: Buffer | undefined): void {
  if (memory?.length === LARGEST_READ_BYTES && spare.length < MOST_SPARE) spare.push(memory);
}

/** Closes the file at the end, be it reached or not. */
export class FileBody implements LendingSource, AsyncIterator<Uint8Array, undefined> {
  /** Of a reply that has no body. */
  static readonly none = new FileBody(undefined, []);

  private readonly parts: readonly Part[];
  private handle: FileHandle | undefined;
  private at = 0;
  private done = 0;
  private readBytes = SMALLEST_READ_BYTES * 4;
  private askedAt = 0;
  /** What lent pieces are cut from, and what of it has not been lent yet. */
  private memory: Buffer | undefined = undefined;
  private rest: Buffer | undefined = undefined;
  private isReading = false;

  constructor(handle: FileHandle | undefined, parts: readonly Part[]) {
    this.handle = handle;
    this.parts = parts;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Each piece has memory of its own. */
  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    const value = await this.read((bytes) => Buffer.allocUnsafeSlow(bytes));
    return value === undefined ? this.return() : { done: false, value };
  }

  nextLent(most: number): Buffer | Promise<Buffer | undefined> {
    const { rest } = this;
    return rest === undefined || rest.length === 0 ? this.readLent(most) : this.cut(rest, most);
  }

  private cut(bytes: Buffer, most: number): Buffer {
    this.rest = bytes.subarray(most);
    return bytes.subarray(0, most);
  }

  private async readLent(most: number): Promise<Buffer | undefined> {
    const bytes = await this.read((size) => this.memoryFor(size));
    if (bytes !== undefined) return this.cut(bytes, most);
    await this.return();
    return undefined;
  }

  private memoryFor(size: number): Buffer {
    if (size <= SMALLEST_READ_BYTES) {
      giveBack(this.memory);
      this.memory = Buffer.allocUnsafeSlow(size);
    } else if (this.memory?.length !== LARGEST_READ_BYTES) this.memory = borrow();
    return this.memory.subarray(0, size);
  }

  /** Undefined: that was all. A part of ours comes as it is. */
  private async read(memoryOf: (size: number) => Buffer): Promise<Buffer | undefined> {
    const part = this.parts[this.at];
    if (part === undefined || this.handle === undefined) return undefined;
    if (part instanceof Uint8Array) {
      this.at++;
      return Buffer.from(part);
    }
    const left = part.end - part.start - this.done;
    const piece = memoryOf(Math.min(left, this.nextSize()));
    this.isReading = true;
    const { bytesRead } = await this.handle
      .read(piece, 0, piece.length, part.start + this.done)
      .finally(() => this.noteRead());
    // It has been cut short since its size was told: that is told by a body that ends too early.
    if (bytesRead === 0) return undefined;
    this.done += bytesRead;
    if (bytesRead === left) {
      this.at++;
      this.done = 0;
    }
    return piece.subarray(0, bytesRead);
  }

  private noteRead(): void {
    this.isReading = false;
    if (this.handle === undefined) this.forgetMemory();
  }

  /** By how long it took to take the last one. */
  private nextSize(): number {
    const now = performance.now();
    const isFast = now - this.askedAt < FAST_MS;
    this.askedAt = now;
    this.readBytes = isFast
      ? Math.min(this.readBytes * 2, LARGEST_READ_BYTES)
      : Math.max(this.readBytes / 2, SMALLEST_READ_BYTES);
    return this.readBytes;
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
    this.rest = undefined;
    // A read that is under way still writes into it.
    if (!this.isReading) this.forgetMemory();
    await handle?.close();
    return { done: true, value: undefined };
  }

  private forgetMemory(): void {
    giveBack(this.memory);
    this.memory = undefined;
  }

  destroy(): void {
    // Nobody is left to be told.
    this.return().catch(() => {});
  }
}
