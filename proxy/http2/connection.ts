// One HTTP/2 connection, of a client or to an upstream: reads frames and gives each to its part (RFC 9113).

import { destroyOnError, isRenegotiation } from '../socket/errors.ts';
import { addPiece, beginPieces, gathered, type Pieces } from '../socket/pieces.ts';
import { countExcess } from './abuse.ts';
import { announceEnd, close, destroy, end, fail, finish, leave } from './closing.ts';
import type { Http2Connection, Http2ConnectionOptions, Http2Stream, StreamUser } from './contract.ts';
import { ping, receiveGoaway, receivePing, receivePriority, receiveWindowUpdate } from './control.ts';
import { beginData, handOver, readData } from './data.ts';
import {
  errorCode,
  FRAME_HEADER_BYTES,
  flag,
  frameType,
  LARGEST_STREAM_ID,
  MAX_FRAME_BYTES,
  PREFACE,
  readUint32,
} from './frames.ts';
import { receiveContinuation, receiveHeaders } from './header-blocks.ts';
import { receiveReset } from './resets.ts';
import { continueSending, pump } from './sending.ts';
import { greet, receiveSettings } from './settings.ts';
import { isStarved } from './shares.ts';
import { Http2ConnectionState } from './state.ts';
import { Stream } from './stream.ts';

export type {
  Http2Connection,
  Http2ConnectionOptions,
  Http2ConnectionUser,
  Http2Stream,
  StreamEnd,
  StreamUser,
} from './contract.ts';

export function openHttp2Connection(options: Http2ConnectionOptions): Http2Connection {
  return new OpenHttp2Connection(options);
}

/** Answers to a peer that takes none of them: no more than this is kept. */
const MOST_UNTAKEN = 4 * 1024 * 1024;

class OpenHttp2Connection extends Http2ConnectionState implements Http2Connection {
  constructor(options: Http2ConnectionOptions) {
    super(options);
    const { socket } = this;
    // A peer that ends its side may not take what is under way either.
    socket.on('end', () => finish(this));
    destroyOnError(socket, (error) => this.onError(error));
    socket.once('close', () => this.onClose());
    greet(this);
  }

  get openStreams(): number {
    return this.streams.size;
  }

  isStarved(): boolean {
    return isStarved(this);
  }

  // --- Reading ---

  receive(bytes: Buffer, end: number) {
    if (this.closed) return;
    if (this.out.length > MOST_UNTAKEN) return this.destroy(new Error('the peer takes none of our answers'));
    if (this.partial === undefined) this.read(bytes, 0, end);
    else this.completePartial(this.partial, bytes, end);
    // Once for all that has come: any number of small updates costs one look at those who wait.
    if (!this.opened) return;
    this.opened = false;
    if (!this.closed) pump(this);
  }

  /** However small the pieces, each byte of a frame is copied once and looked at twice. */
  private completePartial(partial: Pieces, bytes: Buffer, end: number) {
    let pos = 0;
    while (pos < end && !this.closed) {
      const taken = Math.min(this.partialNeeds - partial.length, end - pos);
      addPiece(partial, bytes, pos, pos + taken, 0);
      pos += taken;
      if (partial.length < this.partialNeeds) return;
      const frame = gathered(partial);
      const next = this.readFrame(frame, 0, frame.length);
      if (next > 0) {
        this.partial = undefined;
        return this.read(bytes, pos, end);
      }
      this.partialNeeds = neededOf(frame, 0, frame.length);
    }
  }

  private read(bytes: Buffer, start: number, end: number): void {
    let pos = this.prefaceLeft > 0 ? this.readPreface(bytes, end) : start;
    while (pos < end && !this.closed) {
      if (this.dataLeft > 0 || this.paddingLeft > 0) {
        pos = readData(this, bytes, pos, end);
        continue;
      }
      const next = this.readFrame(bytes, pos, end);
      if (next === pos) {
        // Bytes may be lent, and those that wait must not be overwritten.
        this.partial = beginPieces(bytes, pos, end);
        this.partialNeeds = neededOf(bytes, pos, end);
        break;
      }
      pos = next;
    }
    handOver(this, bytes);
  }

  private readPreface(bytes: Buffer, end: number): number {
    const from = PREFACE.length - this.prefaceLeft;
    const taken = Math.min(end, this.prefaceLeft);
    if (bytes.compare(PREFACE, from, from + taken, 0, taken) !== 0) {
      this.fail(errorCode.protocolError, 'no connection preface');
      return end;
    }
    this.prefaceLeft -= taken;
    return taken;
  }

  /** Reads one frame, or of DATA its header. Returns the position after it; `pos` itself if more bytes are needed. */
  private readFrame(bytes: Buffer, pos: number, end: number): number {
    const left = end - pos;
    if (left < FRAME_HEADER_BYTES) return pos;
    const length = (bytes[pos]! << 16) | (bytes[pos + 1]! << 8) | bytes[pos + 2]!;
    const type = bytes[pos + 3]!;
    const flags = bytes[pos + 4]!;
    const id = readUint32(bytes, pos + 5) & LARGEST_STREAM_ID;
    if (!this.allows(length, type, id)) return end;
    const from = pos + FRAME_HEADER_BYTES;
    if (type === frameType.data) {
      // Of DATA that is padded the first byte says how much.
      const padded = (flags & flag.padded) !== 0 && length > 0;
      if (padded && left === FRAME_HEADER_BYTES) return pos;
      if (id !== this.gatheredFor?.id || (flags & flag.endStream) !== 0) handOver(this, bytes);
      if (this.closed) return end;
      const emptyPadding = (flags & flag.padded) !== 0 ? -1 : 0;
      beginData(this, id, flags, length, padded ? bytes[from]! : emptyPadding);
      return padded ? from + 1 : from;
    }
    if (left < FRAME_HEADER_BYTES + length) return pos;
    handOver(this, bytes);
    if (this.closed) return end;
    this.dispatch(type, flags, id, bytes, from, from + length);
    return from + length;
  }

  /** Whether a frame of this size and type may come now; if not, the connection has failed. */
  private allows(length: number, type: number, id: number): boolean {
    if (length > MAX_FRAME_BYTES) this.fail(errorCode.frameSizeError, 'a frame that is too large');
    else if (!this.greeted && type !== frameType.settings) {
      this.fail(errorCode.protocolError, 'no SETTINGS at the beginning');
    } else if (this.blockStream !== 0 && (type !== frameType.continuation || id !== this.blockStream)) {
      this.fail(errorCode.protocolError, 'a header block that is not continued');
    } else return true;
    return false;
  }

  private dispatch(type: number, flags: number, id: number, bytes: Buffer, start: number, end: number) {
    switch (type) {
      case frameType.headers:
        return receiveHeaders(this, id, flags, bytes, start, end);
      case frameType.windowUpdate:
        return receiveWindowUpdate(this, id, bytes, start, end);
      case frameType.rstStream:
        return receiveReset(this, id, bytes, start, end);
      case frameType.settings:
        return receiveSettings(this, id, flags, bytes, start, end);
      case frameType.ping:
        return receivePing(this, id, flags, bytes, start, end);
      case frameType.goaway:
        return receiveGoaway(this, id, bytes, start, end);
      case frameType.continuation:
        return receiveContinuation(this, flags, bytes, start, end);
      case frameType.priority:
        return receivePriority(this, id, start, end);
      case frameType.pushPromise:
        return this.fail(errorCode.protocolError, 'PUSH_PROMISE');
      default:
        // RFC 9113 §5.5: what is unknown is ignored.
        return countExcess(this, FRAME_HEADER_BYTES);
    }
  }

  // --- What its user asks for ---

  openStream(user: StreamUser): Http2Stream {
    const stream = new Stream(this.nextStream, this);
    stream.user = user;
    this.nextStream += 2;
    if (this.nextStream > LARGEST_STREAM_ID - 2) this.leaving = true;
    this.streams.set(stream);
    return stream;
  }

  ping(answered: () => void): void {
    ping(this, answered);
  }

  announceEnd(): void {
    announceEnd(this);
  }

  end(): void {
    end(this);
  }

  leave(): void {
    leave(this);
  }

  fail(code: number, reason: string): void {
    fail(this, code, reason);
  }

  destroy(error?: Error): void {
    destroy(this, error);
  }

  // --- What its socket reports ---

  onWritten(error: Error | null | undefined): void {
    continueSending(this, error);
  }

  private onError(error: Error): void {
    this.error ??= error;
    // RFC 9113 §9.2.1: the peer is told, as far as it can be at once; not from within OpenSSL's reading.
    if (isRenegotiation(error)) setImmediate(() => this.fail(errorCode.protocolError, error.message));
  }

  private onClose(): void {
    this.deadlines.forget(this.linger);
    close(this);
  }
}

/** How many bytes of the frame at `pos`, of which there are too few, there have to be for the next step of reading it. */
function neededOf(bytes: Buffer, pos: number, end: number): number {
  if (end - pos < FRAME_HEADER_BYTES) return FRAME_HEADER_BYTES;
  // Of DATA the header is read at once, and the length of its padding with it.
  if (bytes[pos + 3] === frameType.data) return FRAME_HEADER_BYTES + 1;
  return FRAME_HEADER_BYTES + ((bytes[pos]! << 16) | (bytes[pos + 1]! << 8) | bytes[pos + 2]!);
}
