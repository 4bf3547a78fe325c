// The bodies of what the ingress answers itself, as streams: a reply's on its way to the client, a request's to its handler.

import type { LocalReply } from '../../src/lib/local-handler.ts';

type Source = AsyncIterable<Uint8Array>;

/** A stream that can also lend its pieces: each is good until the next one is asked for. */
export interface LendingSource extends Source {
  /** So many bytes at most. Undefined: that was all. */
  nextLent(most: number): Buffer | Promise<Buffer | undefined>;
}

function isLending(source: Source): source is LendingSource {
  return 'nextLent' in source;
}

/** Where a reply's body goes. */
export interface BodySink {
  /** How much of what is lent leaves at once: the rest would be copied. */
  readonly mostLent: number;
  /**
   * False: enough waits for the client; drained() will say when it has gone. `lent`: nobody may read the bytes once this
   * has returned.
   */
  take(bytes: Buffer, lent: boolean): boolean;
  /** That was all of it. */
  whole(): void;
  /** There is more to it, which will never come. */
  broken(cause: unknown): void;
}

/** Takes from a stream what the sink will take. */
export class ReplyBody {
  private readonly source: Source;
  private readonly length: number | undefined;
  private readonly sink: BodySink;
  private readonly lends: boolean;
  private iterator: AsyncIterator<Uint8Array> | undefined;
  private free: PromiseWithResolvers<void> | undefined;
  private over = false;

  constructor(source: Source, length: number | undefined, sink: BodySink) {
    this.source = source;
    this.length = length;
    this.sink = sink;
    this.lends = isLending(source);
  }

  async send(): Promise<void> {
    try {
      await this.pass();
    } catch (cause) {
      if (this.over) return;
      this.abandon();
      this.sink.broken(cause);
    }
  }

  /** The sink takes more. */
  drained(): void {
    this.free?.resolve();
    this.free = undefined;
  }

  /** Nobody takes it any more. */
  abandon(): void {
    if (this.over) return;
    this.over = true;
    this.drained();
    discard(this.source, this.iterator);
  }

  private async pass(): Promise<void> {
    const { length, sink } = this;
    let sent = 0;
    for (;;) {
      const bytes = await this.nextPiece();
      if (this.over) return;
      if (bytes === undefined) break;
      sent += bytes.length;
      if (length !== undefined && sent > length)
        throw new Error(`the body is longer than its ${length} bytes`);
      if (bytes.length === 0 || sink.take(bytes, this.lends)) continue;
      this.free = Promise.withResolvers();
      await this.free.promise;
      if (this.over) return;
    }
    if (length !== undefined && sent < length)
      throw new Error(`the body ended after ${sent} of ${length} bytes`);
    this.over = true;
    sink.whole();
  }

  private async nextPiece(): Promise<Buffer | undefined> {
    if (isLending(this.source)) return this.source.nextLent(this.sink.mostLent);
    this.iterator ??= this.source[Symbol.asyncIterator]();
    const { done, value } = await this.iterator.next();
    return done === true ? undefined : asBuffer(value);
  }
}

/** A stream of which no more is wanted. What goes wrong with it now is nobody's concern. */
export function discard(source: Source, iterator = source[Symbol.asyncIterator]()): void {
  // Node's streams wait with their return() for the read under way, which may never end.
  if ('destroy' in source && typeof source.destroy === 'function') {
    if ('on' in source && typeof source.on === 'function') source.on('error', () => {});
    source.destroy();
    return;
  }
  iterator.return?.().catch(() => {});
}

/** RFC 9110 §8.6: 204 has no Content-Length, and in 304 it would have to be that of the 200. */
export function hasNoBody(status: number): boolean {
  return status === 204 || status === 304;
}

export function fieldsOf({ headers, fields }: LocalReply): (readonly [name: string, value: string])[] {
  const pairs: (readonly [string, string])[] = Object.entries(headers);
  return fields === undefined ? pairs : [...pairs, ...fields];
}

export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Whoever has the client's end of a request's body. */
export interface BodyTap {
  /** The handler has taken all that had come, and waits for more. */
  more(): void;
}

/** What of a request's body waits for its handler, before the client is asked to wait as well. */
const MOST_WAITING = 64 * 1024;

/** One handler reads it, once. */
export class RequestBody implements AsyncIterable<Uint8Array>, AsyncIterator<Uint8Array, undefined> {
  private readonly tap: BodyTap;
  private readonly pieces: Buffer[] = [];
  private waiting = 0;
  private ended = false;
  private unwanted = false;
  private failure: Error | undefined;
  private asked: PromiseWithResolvers<void> | undefined;

  constructor(tap: BodyTap) {
    this.tap = tap;
  }

  /** Copies the bytes, which may be lent. False: enough waits. */
  add(bytes: Buffer, start: number, end: number): boolean {
    if (this.unwanted || end === start) return true;
    this.pieces.push(Buffer.from(bytes.subarray(start, end)));
    this.waiting += end - start;
    this.wake();
    return this.waiting < MOST_WAITING;
  }

  end(): void {
    this.ended = true;
    this.wake();
  }

  fail(why: Error): void {
    if (this.ended) return;
    this.failure = why;
    this.wake();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    for (;;) {
      if (this.failure !== undefined) throw this.failure;
      const piece = this.pieces.shift();
      if (piece !== undefined) {
        this.waiting -= piece.length;
        return { done: false, value: piece };
      }
      if (this.ended || this.unwanted) return { done: true, value: undefined };
      this.asked ??= Promise.withResolvers();
      const { promise } = this.asked;
      this.tap.more();
      await promise;
    }
  }

  /** The handler wants no more: the rest is thrown away as it comes. */
  async return(): Promise<IteratorResult<Uint8Array, undefined>> {
    this.unwanted = true;
    this.pieces.length = 0;
    this.waiting = 0;
    this.tap.more();
    return { done: true, value: undefined };
  }

  private wake(): void {
    this.asked?.resolve();
    this.asked = undefined;
  }
}
