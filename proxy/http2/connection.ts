// One HTTP/2 connection, of a client or to an upstream: frames, streams, windows and limits (RFC 9113).

import type { Socket } from 'node:net';
import { type ByteQueue, createByteQueue } from '../socket/byte-queue.ts';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import { destroyOnError, isRenegotiation } from '../socket/errors.ts';
import { createOutbox, giveBack, type Outbox, reserve, takeOut } from '../socket/outbox.ts';
import { addPiece, beginPieces, gathered, type Pieces } from '../socket/pieces.ts';
import { createRoster, createStreamTable } from '../socket/roster.ts';
import { fieldKind, isPseudo, kindOf } from './fields.ts';
import {
  DEFAULT_WINDOW,
  errorCode,
  FRAME_HEADER_BYTES,
  flag,
  frameType,
  LARGEST_STREAM_ID,
  LARGEST_WINDOW,
  MAX_FRAME_BYTES,
  PREFACE,
  putFrameHeader,
  setting,
  writeNumbers,
  writeSettings,
} from './frames.ts';
import {
  type BlockLimits,
  beginBlock,
  createDecoder,
  createEncoder,
  type HeaderField,
  type HpackDecoder,
  type HpackEncoder,
  limitTable,
  readBlock,
  writeField,
} from './hpack.ts';
import { LingeringStream } from './lingering.ts';

/** How a stream came to its end. */
export type StreamEnd =
  /** Both sides have said all they had to say, or all that was still wanted. */
  | 'complete'
  /** The peer reset it; `code` says why. */
  | 'reset'
  /** The peer did not begin with it, so that it may be sent again whatever its method (RFC 9113 §8.7). */
  | 'refused'
  /** The peer broke the rules on this stream, and we reset it. */
  | 'malformed'
  /** We had enough of it. */
  | 'given-up'
  /** Its connection is gone. */
  | 'lost';

/**
 * Who has a stream. Called from the connection's reading: none may throw. After streamClosed() nothing is called.
 * Field lists are lent: copy what is kept of them.
 */
export interface StreamUser {
  /** An interim reply (1xx). Of our requests only. */
  streamInterim?(status: number, fields: readonly HeaderField[]): void;
  /** The reply begins; `fields` hold the status as well. Of our requests only. */
  streamReplied?(status: number, fields: readonly HeaderField[], ended: boolean): void;
  /**
   * `bytes[start, end)`: lent if the connection's reader lends them. They count as taken unless the stream is paused
   * when this returns. `last`: the peer has said all; streamEnded() follows.
   */
  streamData(bytes: Buffer, start: number, end: number, last: boolean): void;
  /** Proven to be well-formed and free of pseudo-header fields; streamEnded() follows. */
  streamTrailers(fields: readonly HeaderField[]): void;
  /** The peer has said all; not called if it says so with the head of its message. */
  streamEnded(): void;
  /** There is room for more, after sendData() gave false. */
  streamDrained(): void;
  /** The end, called once; `stream.end` says which. */
  streamClosed(stream: Http2Stream): void;
}

export interface Http2Stream {
  readonly id: number;
  user: StreamUser;
  /** What its Content-Length announces; -1: nothing. A message that does not keep to it is malformed. */
  expects: number;
  readonly closed: boolean;
  readonly end: StreamEnd;
  /** RFC 9113 §7, of a reset by either side. */
  readonly code: number;
  /** The peer has said all. */
  readonly remoteEnded: boolean;
  /** Our side has been told to end; what is queued may still be on its way. */
  readonly ending: boolean;
  /** A header block has been sent that was not an interim reply. */
  readonly headersSent: boolean;
  /** Bytes that wait for the peer's windows or for the socket. */
  readonly queued: number;
  readonly paused: boolean;
  /** What the peer's windows would take beside what is queued; 0 while much is queued for other streams. */
  readonly room: number;
  /** Whether the peer has made many resets lately, by the count of its connection. */
  readonly restless: boolean;
  /** Bytes that wait for the peer to take them, of all streams of the connection. */
  readonly backlog: number;
  /** Of whoever has the connection; not looked at here. */
  note: unknown;
  /** A header block: beginHead(), addField() for each field with its name in lower case, endHead(). */
  beginHead(): void;
  addField(name: string, value: string, neverIndexed?: boolean): void;
  endHead(kind: 'interim' | 'open' | 'last'): void;
  /** Copies the bytes. False: enough is queued, and streamDrained() will say when it has gone. */
  sendData(bytes: Buffer, start: number, end: number, last: boolean): boolean;
  /** streamDrained() will say when the backlog has gone. */
  awaitDrain(): void;
  /** Ends our side, after what is queued. */
  sendEnd(): void;
  /** Ends our side with trailers, after what is queued. The list is kept. */
  sendTrailers(fields: readonly HeaderField[]): void;
  /** What arrives from now on is not taken: the peer's window stays as it is. It still reaches the user. */
  pause(): void;
  resume(): void;
  /** RST_STREAM, at once; what is queued is forgotten. */
  reset(code: number): void;
  /** RST_STREAM for a message that is malformed (RFC 9113 §8.1.1), counted against its sender. */
  resetMalformed(): void;
  /** Once our side has ended, the rest of the peer's is thrown away, and after a while refused (RFC 9113 §8.1). */
  refuseRest(): void;
}

export interface ConnectionUser {
  /** The peer's first SETTINGS have come. */
  greeted?(): void;
  /** The peer will begin or take no further streams. */
  goingAway?(): void;
  /** A request; set `stream.user` before returning. `tooLarge`: there were more fields than allowed. Clients' only. */
  streamOpened?(stream: Http2Stream, fields: readonly HeaderField[], ended: boolean, tooLarge: boolean): void;
  /** After the stream's own user was told. */
  streamClosed?(stream: Http2Stream): void;
  /** The end, called once, after all streams were closed. */
  connectionClosed(error: Error | undefined): void;
}

export interface Http2ConnectionOptions {
  /** Connected. What arrives is handed to receive() by whoever reads it. */
  readonly socket: Socket;
  /** `server`: the peer begins streams. */
  readonly role: 'server' | 'client';
  readonly deadlines: Deadlines;
  readonly user: ConnectionUser;
  /** Streams that a client may have open at once. */
  readonly maxConcurrentStreams?: number;
  /** What a peer may send on one stream, and on all together, before it is taken. */
  readonly streamWindow: number;
  readonly connectionWindow: number;
  readonly fieldLimits: BlockLimits;
}

export interface Http2Connection {
  readonly socket: Socket;
  /** Streams open now. */
  readonly openStreams: number;
  /** Streams that may be open at once, by the peer's leave. */
  readonly peerMaxStreams: number;
  /** Of a head, each field counted as RFC 9113 §6.5.2 does: what the peer has announced that it takes. */
  readonly peerMaxHeadBytes: number;
  /** The code of the peer's GOAWAY, once there was one that blamed us. */
  readonly blame: number;
  /** No stream can be begun any more. */
  readonly leaving: boolean;
  /** It is over; what was last said may still be on its way. */
  readonly closed: boolean;
  /** Takes what has arrived: `bytes[0, end)`. `lent`: they are overwritten after the call. */
  receive(bytes: Buffer, end: number): void;
  /** Begins a stream of ours; the caller sends its head at once. */
  openStream(user: StreamUser): Http2Stream;
  /** `answered` is called when the peer's answer has come. */
  ping(answered: () => void): void;
  /** Announces the end (RFC 9113 §6.8): the peer should begin no more streams, and those that it does are served. */
  announceEnd(): void;
  /** No more streams from now on; the connection ends with the last one. */
  end(): void;
  /** As end(), of a connection without streams, and without waiting for the peer. */
  leave(): void;
  /** Ends the connection with a GOAWAY of this code; all streams are closed. */
  fail(code: number, reason: string): void;
  /** At once, without a word. */
  destroy(error?: Error): void;
}

export function openHttp2Connection(options: Http2ConnectionOptions): Http2Connection {
  return new Connection(options);
}

/** What a stream may have queued before its source is asked to pause, while its peer takes what it is sent. */
const HIGH_WATER = 64 * 1024;
/** What the streams of a connection may have queued together before each pauses at its first byte. */
const HIGH_WATER_IN_ALL = 256 * 1024;
/**
 * What clients, all together, make us hold: of replies that they do not read, and of requests that are not read where they
 * go. Beyond it, the connection that makes us hold most is ended.
 */
const MOST_HELD = 256 * 1024 * 1024;
/** DATA frames up to this are put together with their neighbours before they go on. */
const SMALL_PIECE = 2 * 1024;
/** Gathered for one write to the socket. */
const WRITE_BYTES = 64 * 1024;
/** Answers to a peer that takes none of them: no more than this is kept. */
const MOST_UNTAKEN = 4 * 1024 * 1024;
/** How long a peer has to take our last words. */
const LINGER_MS = 1_000;
/** A header block as it is sent: more than this is no header block, and neither is one in more pieces. */
const MOST_BLOCK_BYTES = 64 * 1024;
const MOST_CONTINUATIONS = 16;
/** Streams that we reset and of which the peer may not know yet. */
const MOST_RESET_KNOWN = 1_000;
/** Those who pass over more have no error of their own any more. */
const MOST_PASSED_OVER = 32;
/** Frames that make us work and bring nothing: that many in each window of time. */
const STRIKES = 500;
const STRIKE_WINDOW_MS = 10_000;
/**
 * Octets of framing that bring next to nothing: that many in the same time, beyond twice what they bring. A session to an
 * upstream has many visitors, and no visitor makes its frames.
 */
const EXCESS_OF_CLIENT = 1024 * 1024;
const EXCESS_OF_UPSTREAM = 16 * EXCESS_OF_CLIENT;
/** Pages that are left and calls that run out of time bring no connection this far. */
const RESTLESS = 16;
/** Browsers cancel whole pages of requests at once; more than this is rapid reset (CVE-2023-44487). */
const RESET_BURST = 500;
const RESETS_PER_S = 33;
/**
 * Upstreams count our resets as we count those of clients, and ours are those of many clients: a session that has sent
 * this many takes no new streams, long before it is cut with all that are in it. They count for less with time.
 */
const RESETS_OF_SESSION = 64;
const RESETS_FORGOTTEN_PER_S = 10;

const NO_USER: StreamUser = {
  streamData() {},
  streamTrailers() {},
  streamEnded() {},
  streamDrained() {},
  streamClosed() {},
};
const NO_BYTES = Buffer.alloc(0);

class Stream implements Http2Stream {
  readonly id: number;
  readonly connection: Connection;
  user: StreamUser = NO_USER;
  expects = -1;
  closed = false;
  end: StreamEnd = 'complete';
  code: number = errorCode.noError;
  remoteEnded = false;
  ending = false;
  headersSent = false;
  queued = 0;
  paused = false;
  note: unknown = undefined;

  sendWindow: number;
  receiveWindow: number;
  /** Bytes taken of which the peer was not told yet. */
  credit = 0;
  /** Bytes that arrived while it was paused. */
  withheld = 0;
  received = 0;
  /** END_STREAM has been written. */
  localEnded = false;
  replied = false;
  queue: ByteQueue | undefined;
  trailers: readonly HeaderField[] | undefined;
  wantsDrain = false;
  refusesRest = false;
  waiting = false;

  constructor(id: number, connection: Connection) {
    this.id = id;
    this.connection = connection;
    this.sendWindow = connection.peerWindow;
    this.receiveWindow = connection.streamWindow;
  }

  get room(): number {
    const { connection } = this;
    if (connection.held - this.queued >= HIGH_WATER_IN_ALL) return 0;
    return Math.min(this.sendWindow, connection.sendWindow) - this.queued;
  }

  get restless(): boolean {
    return this.connection.resets >= RESTLESS;
  }

  // What is not sent must not be encoded either: the peer's table would no longer be ours.

  beginHead(): void {
    if (!this.closed && !this.ending) this.connection.beginHead();
  }

  addField(name: string, value: string, neverIndexed = false): void {
    if (this.closed || this.ending) return;
    const { encoder, out } = this.connection;
    writeField(encoder, out, name, value, neverIndexed);
  }

  endHead(kind: 'interim' | 'open' | 'last'): void {
    if (this.closed || this.ending) return;
    if (kind !== 'interim') this.headersSent = true;
    this.ending = kind === 'last';
    this.connection.endHead(this, this.ending);
  }

  sendData(bytes: Buffer, start: number, end: number, last: boolean): boolean {
    if (this.closed || this.ending) return true;
    this.ending = last;
    const { connection } = this;
    let pos = start;
    if (this.queue === undefined) pos = connection.writeData(this, bytes, start, end, last);
    if (pos < end) connection.enqueue(this, bytes, pos, end);
    else if (last && !this.localEnded) connection.wait(this);
    if (this.queued === 0 || (this.queued < HIGH_WATER && connection.isMoving(this))) return true;
    this.wantsDrain = true;
    return false;
  }

  get backlog(): number {
    return this.connection.out.length;
  }

  /** Of what waits for its turn. */
  get hasMore(): boolean {
    return this.queue !== undefined || this.wantsDrain || (this.ending && !this.localEnded);
  }

  awaitDrain(): void {
    if (this.closed || this.ending) return;
    this.wantsDrain = true;
    this.connection.wait(this);
  }

  sendEnd(): void {
    this.sendData(NO_BYTES, 0, 0, true);
  }

  sendTrailers(fields: readonly HeaderField[]): void {
    if (this.closed || this.ending) return;
    this.ending = true;
    this.trailers = fields;
    if (this.queue === undefined) this.connection.writeEnd(this);
    else this.connection.wait(this);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    const { withheld } = this;
    this.withheld = 0;
    if (withheld > 0) this.connection.release(this, withheld);
  }

  reset(code: number): void {
    if (!this.closed) this.connection.resetStream(this, code, 'given-up');
  }

  resetMalformed(): void {
    if (!this.closed) this.connection.resetStream(this, errorCode.protocolError, 'malformed');
  }

  refuseRest(): void {
    if (this.closed || this.remoteEnded || this.refusesRest) return;
    this.refusesRest = true;
    this.resume();
    if (this.localEnded) this.connection.letFinish(this);
  }
}

class Connection implements Http2Connection {
  readonly socket: Socket;
  readonly isServer: boolean;
  readonly streamWindow: number;
  readonly encoder: HpackEncoder = createEncoder();
  readonly out: Outbox = createOutbox();
  peerWindow = DEFAULT_WINDOW;
  peerMaxStreams: number;
  peerMaxHeadBytes = Number.POSITIVE_INFINITY;
  blame: number = errorCode.noError;
  resets = 0;
  leaving = false;
  closed = false;
  dirty = false;
  /** Of the roster of those who make us hold something. */
  place = -1;
  /** Bytes queued, and bytes withheld, of all its streams. */
  held = 0;

  private readonly user: ConnectionUser;
  private readonly deadlines: Deadlines;
  private readonly maxConcurrentStreams: number;
  private readonly connectionWindow: number;
  private readonly fieldLimits: BlockLimits;
  private readonly decoder: HpackDecoder = createDecoder();
  private readonly streams = createStreamTable<Stream>();
  private readonly linger: Deadline;

  /** A frame that has not come whole, and how many of its bytes there have to be before it is looked at again. */
  private partial: Pieces | undefined;
  private partialNeeds = 0;
  private prefaceLeft: number;
  private greeted = false;
  /** The highest stream that the peer has begun, and the number of our next one. */
  private lastPeerStream = 0;
  private nextStream = 1;
  /** Streams of ours from this number on have not left yet. */
  private nextUnsent = 1;
  private resetByUs: Set<number> | undefined;
  /** Numbers that the peer has passed over: `[first, last]` in turn. */
  private passedOver: number[] = [];
  /** Streams above it are not served: we have said so. */
  private lastServed = LARGEST_STREAM_ID;
  private error: Error | undefined;
  private finished = false;
  /** Nobody waits for the peer's end. */
  private hurried = false;

  /** The DATA frame that is being read, bytes of which are still to come. */
  private dataStream: Stream | undefined;
  private dataLeft = 0;
  private paddingLeft = 0;
  private dataEnds = false;
  /** Small DATA of one stream that lies together now: `bytes[gatheredStart, gatheredEnd)` of those that are being read. */
  private gatheredFor: Stream | undefined;
  private gatheredStart = 0;
  private gatheredEnd = 0;

  /** The header block that is being read, if it comes in several frames. */
  private blockStream = 0;
  private blockFlags = 0;
  private blockParts: Buffer[] = [];
  private blockBytes = 0;

  sendWindow = DEFAULT_WINDOW;
  private receiveWindow: number;
  private credit = 0;
  private headAt = 0;
  /** Streams with something queued, in the order of their turns. */
  private waiting: Stream[] = [];
  /** What was read has opened windows. */
  private opened = false;
  private inFlight: Buffer | undefined;
  private readonly written: (error?: Error | null) => void;

  private pinged: (() => void) | undefined;
  private strikes = 0;
  private strikesSince: number;
  private excess = 0;
  private excessSince: number;
  private resetsAt: number;

  constructor(options: Http2ConnectionOptions) {
    const { socket, role, deadlines, user, streamWindow, connectionWindow, fieldLimits } = options;
    this.socket = socket;
    this.isServer = role === 'server';
    this.user = user;
    this.deadlines = deadlines;
    this.streamWindow = streamWindow;
    this.connectionWindow = connectionWindow;
    this.receiveWindow = connectionWindow;
    this.fieldLimits = fieldLimits;
    this.maxConcurrentStreams = options.maxConcurrentStreams ?? 0;
    // Until its SETTINGS come: what RFC 9113 §6.5.2 asks every peer to allow at least.
    this.peerMaxStreams = 100;
    this.prefaceLeft = this.isServer ? PREFACE.length : 0;
    this.strikesSince = deadlines.now();
    this.excessSince = this.strikesSince;
    this.resetsAt = this.strikesSince;
    this.linger = { at: Number.POSITIVE_INFINITY, expired: () => this.destroy() };
    this.written = (error) => this.onWritten(error);
    socket.on('end', () => this.onEnd());
    destroyOnError(socket, (error) => this.onError(error));
    socket.once('close', () => this.onClose());
    this.greet();
  }

  get openStreams(): number {
    return this.streams.size;
  }

  private greet(): void {
    const { out } = this;
    if (!this.isServer) {
      reserve(out, PREFACE.length);
      out.length += PREFACE.copy(out.bytes, out.length);
    }
    const common = [
      [setting.initialWindowSize, this.streamWindow],
      [setting.maxHeaderListSize, this.fieldLimits.bytes],
    ] as const;
    const own = this.isServer
      ? ([
          [setting.maxConcurrentStreams, this.maxConcurrentStreams],
          [setting.enableConnectProtocol, 1],
        ] as const)
      : ([[setting.enablePush, 0]] as const);
    writeSettings(out, [...common, ...own]);
    writeNumbers(out, frameType.windowUpdate, 0, 0, this.connectionWindow - DEFAULT_WINDOW);
    this.schedule();
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
    if (!this.closed) this.pump();
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
        pos = this.readData(bytes, pos, end);
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
    this.handOver(bytes);
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
    const streamId = readUint32(bytes, pos + 5) & LARGEST_STREAM_ID;
    if (length > MAX_FRAME_BYTES) {
      this.fail(errorCode.frameSizeError, 'a frame that is too large');
      return end;
    }
    if (!this.greeted && type !== frameType.settings) {
      this.fail(errorCode.protocolError, 'no SETTINGS at the beginning');
      return end;
    }
    if (this.blockStream !== 0 && (type !== frameType.continuation || streamId !== this.blockStream)) {
      this.fail(errorCode.protocolError, 'a header block that is not continued');
      return end;
    }
    const from = pos + FRAME_HEADER_BYTES;
    if (type === frameType.data) {
      const padded = (flags & flag.padded) !== 0;
      if (padded && length > 0 && left === FRAME_HEADER_BYTES) return pos;
      if (streamId !== this.gatheredFor?.id || (flags & flag.endStream) !== 0) this.handOver(bytes);
      if (this.closed) return end;
      this.beginData(streamId, flags, length, padded && length > 0 ? bytes[from]! : padded ? -1 : 0);
      return padded && length > 0 ? from + 1 : from;
    }
    if (left < FRAME_HEADER_BYTES + length) return pos;
    this.handOver(bytes);
    if (this.closed) return end;
    this.dispatch(type, flags, streamId, bytes, from, from + length);
    return from + length;
  }

  private dispatch(type: number, flags: number, id: number, bytes: Buffer, start: number, end: number) {
    switch (type) {
      case frameType.headers:
        return this.onHeaders(id, flags, bytes, start, end);
      case frameType.windowUpdate:
        return this.onWindowUpdate(id, bytes, start, end);
      case frameType.rstStream:
        return this.onReset(id, bytes, start, end);
      case frameType.settings:
        return this.onSettings(id, flags, bytes, start, end);
      case frameType.ping:
        return this.onPing(id, flags, bytes, start, end);
      case frameType.goaway:
        return this.onGoaway(id, bytes, start, end);
      case frameType.continuation:
        return this.onContinuation(flags, bytes, start, end);
      case frameType.priority:
        // RFC 9113 §5.3.2: of no further use.
        if (id === 0) return this.fail(errorCode.protocolError, 'PRIORITY of no stream');
        if (end - start !== 5) return this.fail(errorCode.frameSizeError, 'PRIORITY of the wrong size');
        return this.countExcess(FRAME_HEADER_BYTES + 5);
      case frameType.pushPromise:
        return this.fail(errorCode.protocolError, 'PUSH_PROMISE');
      default:
        // RFC 9113 §5.5: what is unknown is ignored.
        return this.countExcess(FRAME_HEADER_BYTES);
    }
  }

  /** `padding`: -1 if the frame says that it is padded and is empty. */
  private beginData(id: number, flags: number, length: number, padding: number) {
    if (id === 0) return this.fail(errorCode.protocolError, 'DATA of no stream');
    const content = (flags & flag.padded) === 0 ? length : length - 1 - padding;
    if (padding < 0 || content < 0) return this.fail(errorCode.protocolError, 'more padding than frame');
    this.receiveWindow -= length;
    if (this.receiveWindow < 0) return this.fail(errorCode.flowControlError, 'more than the window');
    const stream = this.streams.get(id);
    this.dataStream = undefined;
    this.dataLeft = content;
    this.paddingLeft = Math.max(0, padding);
    this.dataEnds = (flags & flag.endStream) !== 0;
    if (!this.dataEnds) this.countExcess(FRAME_HEADER_BYTES + length - 3 * content);
    if (this.closed) return;
    if (stream === undefined) {
      if (this.isIdle(id)) return this.fail(errorCode.protocolError, 'DATA of an idle stream');
      if (!this.mayLagBehind(id)) return this.fail(errorCode.streamClosed, 'DATA of a closed stream');
      return this.refund(length);
    }
    if (stream.remoteEnded || (!this.isServer && !stream.replied)) {
      this.resetStream(
        stream,
        stream.remoteEnded ? errorCode.streamClosed : errorCode.protocolError,
        'malformed',
      );
      return this.refund(length);
    }
    stream.receiveWindow -= length;
    if (stream.receiveWindow < 0) {
      this.resetStream(stream, errorCode.flowControlError, 'malformed');
      return this.refund(length);
    }
    if (stream.expects >= 0 && stream.received + content > stream.expects) {
      this.resetStream(stream, errorCode.protocolError, 'malformed');
      return this.refund(length);
    }
    stream.received += content;
    this.dataStream = stream;
    if (length > content) {
      if (!this.isServer) this.refund(length - content);
      this.take(stream, length - content);
    }
    if (content === 0) {
      if (!this.dataEnds) this.strike();
      if (this.paddingLeft === 0) this.finishData();
    }
  }

  private readData(bytes: Buffer, pos: number, end: number): number {
    const stream = this.dataStream;
    let at = pos;
    if (this.dataLeft > 0) {
      const size = Math.min(end - at, this.dataLeft);
      this.dataLeft -= size;
      if (stream !== undefined) this.gather(stream, bytes, at, at + size, end);
      at += size;
    }
    const skipped = Math.min(end - at, this.paddingLeft);
    this.paddingLeft -= skipped;
    if (this.dataLeft === 0 && this.paddingLeft === 0) this.finishData();
    return at + skipped;
  }

  /**
   * DATA goes on as it comes if the pieces are large. Small ones are moved together, in the memory that they came in, and
   * go on as one: as many frames as there are octets must not become as many writes to whoever is behind us.
   */
  private gather(stream: Stream, bytes: Buffer, start: number, end: number, stop: number) {
    const size = end - start;
    if (this.gatheredFor === undefined) {
      const more = end < stop && size <= SMALL_PIECE && !this.dataEnds;
      if (!more) return this.hand(stream, bytes, start, end, this.isLastPiece(stream));
      this.gatheredFor = stream;
      this.gatheredStart = start;
      this.gatheredEnd = end;
      return;
    }
    if (size > SMALL_PIECE) {
      this.handOver(bytes);
      return this.hand(stream, bytes, start, end, false);
    }
    if (size === 1) bytes[this.gatheredEnd] = bytes[start]!;
    else bytes.copyWithin(this.gatheredEnd, start, end);
    this.gatheredEnd += size;
  }

  /** What was gathered goes to its stream. */
  private handOver(bytes: Buffer): void {
    const stream = this.gatheredFor;
    if (stream === undefined) return;
    this.gatheredFor = undefined;
    this.hand(stream, bytes, this.gatheredStart, this.gatheredEnd, false);
  }

  private hand(stream: Stream, bytes: Buffer, start: number, end: number, last: boolean): void {
    const size = end - start;
    // Others' streams are in a session to an upstream: what one of them holds back must not close it for all. The window
    // of the stream bounds what can come of it.
    if (!this.isServer) this.refund(size);
    if (!stream.closed) stream.user.streamData(bytes, start, end, last);
    if (stream.closed) {
      if (this.isServer) this.refund(size);
    } else if (stream.paused) {
      stream.withheld += size;
      this.hold(size);
    } else this.take(stream, size);
  }

  private isLastPiece({ expects, received }: Stream): boolean {
    if (!this.dataEnds || this.dataLeft > 0 || this.paddingLeft > 0) return false;
    return expects < 0 || received === expects;
  }

  private finishData(): void {
    const stream = this.dataStream;
    this.dataStream = undefined;
    if (this.dataEnds && stream !== undefined && !stream.closed) this.endRemote(stream);
  }

  private endRemote(stream: Stream) {
    if (stream.expects >= 0 && stream.received !== stream.expects) {
      return this.resetStream(stream, errorCode.protocolError, 'malformed');
    }
    stream.remoteEnded = true;
    stream.user.streamEnded();
    if (stream.localEnded && !stream.closed) this.closeStream(stream, 'complete', errorCode.noError);
  }

  private onHeaders(id: number, flags: number, bytes: Buffer, start: number, end: number) {
    let from = start;
    let to = end;
    if ((flags & flag.padded) !== 0) {
      if (from === to) return this.fail(errorCode.frameSizeError, 'a padded frame without padding');
      to -= bytes[from++]!;
    }
    if ((flags & flag.priority) !== 0) from += 5;
    if (from > to) return this.fail(errorCode.protocolError, 'more padding than frame');
    if (id === 0 || (this.isServer && id % 2 === 0)) {
      return this.fail(errorCode.protocolError, 'HEADERS of a stream that cannot be');
    }
    if ((flags & flag.endHeaders) !== 0) return this.onBlock(id, flags, bytes, from, to);
    this.blockStream = id;
    this.blockFlags = flags;
    this.blockParts = [Buffer.from(bytes.subarray(from, to))];
    this.blockBytes = to - from;
  }

  private onContinuation(flags: number, bytes: Buffer, start: number, end: number) {
    if (this.blockStream === 0) return this.fail(errorCode.protocolError, 'CONTINUATION of nothing');
    this.blockBytes += end - start;
    if (this.blockBytes > MOST_BLOCK_BYTES || this.blockParts.length > MOST_CONTINUATIONS) {
      return this.fail(errorCode.enhanceYourCalm, 'a header block without end');
    }
    this.blockParts.push(Buffer.from(bytes.subarray(start, end)));
    if ((flags & flag.endHeaders) === 0) return;
    const block = Buffer.concat(this.blockParts);
    const id = this.blockStream;
    this.blockStream = 0;
    this.blockParts = [];
    this.onBlock(id, this.blockFlags, block, 0, block.length);
  }

  private onBlock(id: number, flags: number, bytes: Buffer, start: number, end: number) {
    fields.length = 0;
    const outcome = readBlock(this.decoder, bytes, start, end, this.fieldLimits, fields);
    if (outcome === 'broken')
      return this.fail(errorCode.compressionError, 'a header block that does not decode');
    const ended = (flags & flag.endStream) !== 0;
    const stream = this.streams.get(id);
    if (stream !== undefined) {
      if (stream.remoteEnded) return this.resetStream(stream, errorCode.streamClosed, 'malformed');
      if (this.isServer || stream.replied) return this.onTrailers(stream, ended && outcome === 'whole');
      return this.onReply(stream, ended, outcome === 'whole');
    }
    if (this.isServer && id > this.lastPeerStream) return this.onRequest(id, ended, outcome === 'too-large');
    if (this.isIdle(id) || this.wasPassedOver(id)) {
      return this.fail(errorCode.protocolError, 'HEADERS of a stream that cannot begin');
    }
    if (!this.mayLagBehind(id)) return this.fail(errorCode.streamClosed, 'HEADERS of a closed stream');
    this.strike();
  }

  /** RFC 9113 §5.1.1: numbers only rise. */
  private wasPassedOver(id: number): boolean {
    const { passedOver } = this;
    for (let i = 0; i < passedOver.length; i += 2) {
      if (id >= passedOver[i]! && id <= passedOver[i + 1]!) return true;
    }
    return false;
  }

  private onRequest(id: number, ended: boolean, tooLarge: boolean) {
    if (id > this.lastPeerStream + 2 && this.passedOver.length < MOST_PASSED_OVER) {
      this.passedOver.push(this.lastPeerStream + 1, id - 1);
    }
    this.lastPeerStream = id;
    // RFC 9113 §6.8: as if they had never come.
    if (id > this.lastServed) return this.noteReset(id);
    if (this.streams.size >= this.maxConcurrentStreams) {
      this.noteReset(id);
      writeNumbers(this.out, frameType.rstStream, 0, id, errorCode.refusedStream);
      this.schedule();
      return this.countReset();
    }
    const stream = new Stream(id, this);
    stream.remoteEnded = ended;
    this.streams.set(stream);
    this.user.streamOpened?.(stream, fields, ended, tooLarge);
  }

  private onReply(stream: Stream, ended: boolean, whole: boolean) {
    const status = whole ? statusOf(fields) : 0;
    const interim = status > 0 && status < 200;
    // RFC 9110 §15.2.2: a switch of protocols does not exist here.
    if (status === 0 || status === 101 || (interim && ended)) {
      return this.resetStream(stream, errorCode.protocolError, 'malformed');
    }
    if (interim) return stream.user.streamInterim?.(status, fields);
    stream.replied = true;
    stream.remoteEnded = ended;
    stream.user.streamReplied?.(status, fields, ended);
    if (ended && stream.localEnded && !stream.closed) this.closeStream(stream, 'complete', errorCode.noError);
  }

  private onTrailers(stream: Stream, ended: boolean) {
    let sound = ended;
    for (const field of fields) {
      const kind = kindOf(field);
      // RFC 9110 §6.5.1: neither the length of a message nor where it goes can be said after it.
      if (kind === fieldKind.contentLength || kind === fieldKind.host) sound = false;
      if (kind === fieldKind.malformed || isPseudo(kind)) sound = false;
    }
    if (!sound) return this.resetStream(stream, errorCode.protocolError, 'malformed');
    stream.user.streamTrailers(fields);
    if (!stream.closed) this.endRemote(stream);
  }

  private onReset(id: number, bytes: Buffer, start: number, end: number) {
    if (id === 0) return this.fail(errorCode.protocolError, 'RST_STREAM of no stream');
    if (end - start !== 4) return this.fail(errorCode.frameSizeError, 'RST_STREAM of the wrong size');
    const stream = this.streams.get(id);
    if (stream === undefined) {
      if (this.isIdle(id)) return this.fail(errorCode.protocolError, 'RST_STREAM of an idle stream');
      return this.strike();
    }
    const code = readUint32(bytes, start);
    // A client that has its whole reply may leave off sending.
    if (this.isServer && stream.localEnded) this.closeStream(stream, 'complete', code);
    else this.closeStream(stream, code === errorCode.refusedStream ? 'refused' : 'reset', code);
    if (this.isServer) this.countReset();
  }

  private onWindowUpdate(id: number, bytes: Buffer, start: number, end: number) {
    if (end - start !== 4) return this.fail(errorCode.frameSizeError, 'WINDOW_UPDATE of the wrong size');
    const increment = readUint32(bytes, start) & LARGEST_WINDOW;
    this.countExcess(FRAME_HEADER_BYTES + 4 - 2 * increment);
    if (id === 0) {
      if (increment === 0) return this.fail(errorCode.protocolError, 'WINDOW_UPDATE of nothing');
      this.sendWindow += increment;
      if (this.sendWindow > LARGEST_WINDOW)
        return this.fail(errorCode.flowControlError, 'a window too large');
      this.opened = true;
      return;
    }
    const stream = this.streams.get(id);
    if (stream === undefined) {
      if (this.isIdle(id)) this.fail(errorCode.protocolError, 'WINDOW_UPDATE of an idle stream');
      return;
    }
    if (increment === 0) return this.resetStream(stream, errorCode.protocolError, 'malformed');
    stream.sendWindow += increment;
    if (stream.sendWindow > LARGEST_WINDOW) {
      return this.resetStream(stream, errorCode.flowControlError, 'malformed');
    }
    if (stream.waiting) this.opened = true;
  }

  private onSettings(id: number, flags: number, bytes: Buffer, start: number, end: number) {
    const size = end - start;
    if (id !== 0) return this.fail(errorCode.protocolError, 'SETTINGS of a stream');
    if ((flags & flag.ack) !== 0) {
      if (size !== 0) return this.fail(errorCode.frameSizeError, 'an acknowledgement with settings');
      if (!this.greeted) return this.fail(errorCode.protocolError, 'no SETTINGS at the beginning');
      return this.countExcess(FRAME_HEADER_BYTES);
    }
    if (size % 6 !== 0) return this.fail(errorCode.frameSizeError, 'SETTINGS of the wrong size');
    // RFC 9113 §6.5.2: without a limit of its own it has none.
    if (!this.greeted) this.peerMaxStreams = Number.POSITIVE_INFINITY;
    let window = this.peerWindow;
    for (let at = start; at < end; at += 6) {
      const id = (bytes[at]! << 8) | bytes[at + 1]!;
      const value = readUint32(bytes, at + 2);
      const refusal = this.applySetting(id, value);
      if (refusal !== errorCode.noError) return this.fail(refusal, 'a setting that cannot be');
      if (id === setting.initialWindowSize) window = value;
    }
    if (!this.moveWindows(window)) return this.fail(errorCode.flowControlError, 'a window too large');
    reserve(this.out, FRAME_HEADER_BYTES);
    putFrameHeader(this.out.bytes, this.out.length, 0, frameType.settings, flag.ack, 0);
    this.out.length += FRAME_HEADER_BYTES;
    this.schedule();
    if (!this.greeted) {
      this.greeted = true;
      this.user.greeted?.();
    }
    this.strike();
    this.opened = true;
  }

  /** RFC 9113 §6.9.2. The last of several in a frame counts: no stream can have seen the others. */
  private moveWindows(size: number): boolean {
    const difference = size - this.peerWindow;
    this.peerWindow = size;
    if (difference === 0) return true;
    for (const stream of this.streams.list()) {
      stream.sendWindow += difference;
      if (stream.sendWindow > LARGEST_WINDOW) return false;
    }
    return true;
  }

  /** Returns the error that it is; RFC 9113 §6.5.2. */
  private applySetting(id: number, value: number): number {
    switch (id) {
      case setting.headerTableSize:
        limitTable(this.encoder, value);
        break;
      case setting.enablePush:
        // Only clients have a use for it, and only of 0.
        if (value > (this.isServer ? 1 : 0)) return errorCode.protocolError;
        break;
      case setting.maxConcurrentStreams:
        this.peerMaxStreams = value;
        break;
      case setting.initialWindowSize:
        if (value > LARGEST_WINDOW) return errorCode.flowControlError;
        break;
      case setting.maxHeaderListSize:
        this.peerMaxHeadBytes = value;
        break;
      case setting.maxFrameSize:
        if (value < MAX_FRAME_BYTES || value >= 2 ** 24) return errorCode.protocolError;
        break;
      case setting.enableConnectProtocol:
        if (value > 1) return errorCode.protocolError;
    }
    return errorCode.noError;
  }

  private onPing(id: number, flags: number, bytes: Buffer, start: number, end: number) {
    if (id !== 0) return this.fail(errorCode.protocolError, 'PING of a stream');
    if (end - start !== 8) return this.fail(errorCode.frameSizeError, 'PING of the wrong size');
    if ((flags & flag.ack) !== 0) {
      const { pinged } = this;
      this.pinged = undefined;
      if (pinged === undefined) return this.countExcess(FRAME_HEADER_BYTES + 8);
      return pinged();
    }
    writeNumbers(
      this.out,
      frameType.ping,
      flag.ack,
      0,
      readUint32(bytes, start),
      readUint32(bytes, start + 4),
    );
    this.schedule();
    this.strike();
  }

  private onGoaway(id: number, bytes: Buffer, start: number, end: number) {
    if (id !== 0) return this.fail(errorCode.protocolError, 'GOAWAY of a stream');
    if (end - start < 8) return this.fail(errorCode.frameSizeError, 'GOAWAY of the wrong size');
    this.leaving = true;
    this.blame = readUint32(bytes, start + 4);
    this.strike();
    if (this.closed) return;
    this.user.goingAway?.();
    if (this.isServer) return this.end();
    const last = readUint32(bytes, start) & LARGEST_STREAM_ID;
    for (const stream of this.streams.list()) {
      if (stream.id > last) this.closeStream(stream, 'refused', errorCode.refusedStream);
    }
    this.finishIfIdle();
  }

  /** Whether the stream was never begun. */
  private isIdle(id: number): boolean {
    // What the other side would have to begin (RFC 9113 §5.1.1), but never does here, is idle for ever.
    if (this.isServer) return id % 2 === 0 || id > this.lastPeerStream;
    return id % 2 === 0 || id >= this.nextStream;
  }

  /** Whether the peer may not know yet that the stream is closed. */
  private mayLagBehind(id: number): boolean {
    return !this.isServer || this.resetByUs?.has(id) === true;
  }

  private noteReset(id: number): void {
    if (!this.isServer) return;
    this.resetByUs ??= new Set();
    this.resetByUs.add(id);
    if (this.resetByUs.size > MOST_RESET_KNOWN) {
      for (const oldest of this.resetByUs) {
        this.resetByUs.delete(oldest);
        break;
      }
    }
  }

  private strike(): void {
    const now = this.deadlines.now();
    if (now - this.strikesSince > STRIKE_WINDOW_MS) {
      this.strikesSince = now;
      this.strikes = 0;
    }
    if (++this.strikes > STRIKES) this.fail(errorCode.enhanceYourCalm, 'too many frames for nothing');
  }

  /** Octets that brought nothing, or almost; less than none if they brought enough. Looks at the clock now and then. */
  private countExcess(octets: number): void {
    if (octets <= 0) return;
    this.excess += octets;
    if (this.excess <= (this.isServer ? EXCESS_OF_CLIENT : EXCESS_OF_UPSTREAM)) return;
    const now = this.deadlines.now();
    const period = now - this.excessSince;
    this.excess = 0;
    this.excessSince = now;
    if (period < STRIKE_WINDOW_MS)
      this.fail(errorCode.enhanceYourCalm, 'frames with next to nothing in them');
  }

  /** Resets by the peer, and those that it made us send. */
  private countReset(): void {
    if (this.addReset(RESETS_PER_S) > RESET_BURST) this.fail(errorCode.enhanceYourCalm, 'too many resets');
  }

  /** A session that has reset enough is left to end with its streams. */
  private countOwnReset(): void {
    if (this.addReset(RESETS_FORGOTTEN_PER_S) >= RESETS_OF_SESSION) this.end();
  }

  private addReset(forgottenPerS: number): number {
    const now = this.deadlines.now();
    this.resets = Math.max(0, this.resets - ((now - this.resetsAt) / 1_000) * forgottenPerS) + 1;
    this.resetsAt = now;
    return this.resets;
  }

  // --- What was taken ---

  /** What was withheld of the stream is taken after all. */
  release(stream: Stream, size: number): void {
    this.letGo(size);
    this.take(stream, size);
  }

  /** `size` bytes of the stream need no room any more. What an upstream's session lends to all was given back on receipt. */
  private take(stream: Stream, size: number): void {
    if (this.isServer) this.refund(size);
    stream.credit += size;
    if (stream.credit < this.streamWindow / 2 || stream.remoteEnded || stream.closed) return;
    writeNumbers(this.out, frameType.windowUpdate, 0, stream.id, stream.credit);
    stream.receiveWindow += stream.credit;
    stream.credit = 0;
    this.schedule();
  }

  private refund(size: number): void {
    this.credit += size;
    if (this.credit < this.connectionWindow / 2 || this.closed) return;
    writeNumbers(this.out, frameType.windowUpdate, 0, 0, this.credit);
    this.receiveWindow += this.credit;
    this.credit = 0;
    this.schedule();
  }

  // --- Streams ---

  openStream(user: StreamUser): Http2Stream {
    const stream = new Stream(this.nextStream, this);
    stream.user = user;
    this.nextStream += 2;
    if (this.nextStream > LARGEST_STREAM_ID - 2) this.leaving = true;
    this.streams.set(stream);
    return stream;
  }

  resetStream(stream: Stream, code: number, end: StreamEnd): void {
    if (this.closed) return;
    writeNumbers(this.out, frameType.rstStream, 0, stream.id, code);
    this.schedule();
    this.noteReset(stream.id);
    this.closeStream(stream, end, code);
    if (!this.isServer) this.countOwnReset();
    else if (end === 'malformed') this.countReset();
  }

  private closeStream(stream: Stream, end: StreamEnd, code: number): void {
    if (stream.closed) return;
    this.streams.delete(stream.id);
    stream.closed = true;
    stream.end = end;
    stream.code = code;
    this.letGo(stream.queued + stream.withheld);
    stream.queue = undefined;
    stream.queued = 0;
    if (this.isServer && stream.withheld > 0) this.refund(stream.withheld);
    stream.user.streamClosed(stream);
    stream.user = NO_USER;
    this.user.streamClosed?.(stream);
    this.finishIfIdle();
  }

  // --- Writing ---

  beginHead(): void {
    const { out } = this;
    reserve(out, FRAME_HEADER_BYTES);
    this.headAt = out.length;
    out.length += FRAME_HEADER_BYTES;
    beginBlock(this.encoder, out);
  }

  endHead(stream: Stream, last: boolean): void {
    const { out, headAt } = this;
    const size = out.length - headAt - FRAME_HEADER_BYTES;
    const flags = last ? flag.endStream : 0;
    if (size <= MAX_FRAME_BYTES) {
      putFrameHeader(out.bytes, headAt, size, frameType.headers, flags | flag.endHeaders, stream.id);
    } else this.splitHead(stream.id, flags, size);
    this.schedule();
    if (last) this.endLocal(stream);
  }

  /** RFC 9113 §6.10. */
  private splitHead(id: number, flags: number, size: number): void {
    const { out, headAt } = this;
    const block = Buffer.from(out.bytes.subarray(headAt + FRAME_HEADER_BYTES, out.length));
    out.length = headAt;
    for (let at = 0; at < size; at += MAX_FRAME_BYTES) {
      const length = Math.min(MAX_FRAME_BYTES, size - at);
      const final = at + length === size ? flag.endHeaders : 0;
      reserve(out, FRAME_HEADER_BYTES + length);
      const type = at === 0 ? frameType.headers : frameType.continuation;
      putFrameHeader(out.bytes, out.length, length, type, (at === 0 ? flags : 0) | final, id);
      out.length += FRAME_HEADER_BYTES;
      out.length += block.copy(out.bytes, out.length, at, at + length);
    }
  }

  /** Writes as much as windows and the socket allow. Returns the position after it. */
  writeData(stream: Stream, bytes: Buffer, start: number, end: number, last: boolean): number {
    const { out } = this;
    let pos = start;
    while (pos < end) {
      if (out.length >= WRITE_BYTES) this.flush();
      if (out.length >= WRITE_BYTES) return pos;
      const room = Math.min(stream.sendWindow, this.sendWindow, MAX_FRAME_BYTES);
      if (room <= 0) return pos;
      const size = Math.min(room, end - pos);
      const ends = last && pos + size === end;
      this.writeDataFrame(stream, bytes, pos, size, ends);
      pos += size;
      if (ends) {
        this.endLocal(stream);
        return pos;
      }
    }
    if (last && start === end) {
      this.writeDataFrame(stream, bytes, pos, 0, true);
      this.endLocal(stream);
    }
    return pos;
  }

  private writeDataFrame(stream: Stream, bytes: Buffer, pos: number, size: number, ends: boolean): void {
    const { out } = this;
    reserve(out, FRAME_HEADER_BYTES + size);
    putFrameHeader(out.bytes, out.length, size, frameType.data, ends ? flag.endStream : 0, stream.id);
    out.length += FRAME_HEADER_BYTES;
    if (size > 0) out.length += bytes.copy(out.bytes, out.length, pos, pos + size);
    stream.sendWindow -= size;
    this.sendWindow -= size;
    this.schedule();
  }

  private endLocal(stream: Stream): void {
    stream.localEnded = true;
    if (stream.closed) return;
    if (stream.remoteEnded) this.closeStream(stream, 'complete', errorCode.noError);
    else if (stream.refusesRest) this.letFinish(stream);
  }

  /** A reset right behind the end of a reply is an error to many clients, who would never see the reply. */
  letFinish(stream: Stream): void {
    stream.user = new LingeringStream(stream.user, this.deadlines, () =>
      this.resetStream(stream, errorCode.noError, 'complete'),
    );
  }

  /** Whether what the stream has queued is on its way, and not kept by a peer that takes nothing. */
  isMoving(stream: Stream): boolean {
    return stream.sendWindow > 0 && this.sendWindow > 0 && this.held < HIGH_WATER_IN_ALL;
  }

  /** Copies the bytes. */
  enqueue(stream: Stream, bytes: Buffer, start: number, end: number): void {
    stream.queue ??= createByteQueue();
    stream.queue.append(bytes, start, end);
    stream.queued += end - start;
    this.hold(end - start);
    this.wait(stream);
  }

  private hold(size: number): void {
    this.held += size;
    if (!this.isServer) return;
    holders.add(this);
    heldInAll += size;
    if (heldInAll > MOST_HELD) relieveSoon();
  }

  private letGo(size: number): void {
    this.held -= size;
    if (!this.isServer) return;
    heldInAll -= size;
    if (this.held === 0) holders.remove(this);
  }

  wait(stream: Stream): void {
    if (stream.waiting) return;
    stream.waiting = true;
    this.waiting.push(stream);
  }

  /** What is queued goes out, in turns of one frame, as far as windows and the socket allow. */
  private pump(): void {
    const { waiting, out } = this;
    if (waiting.length === 0) return;
    for (let moved = true; moved && waiting.length > 0; ) {
      moved = false;
      let kept = 0;
      for (let i = 0; i < waiting.length; i++) {
        const stream = waiting[i]!;
        if (this.closed) return;
        if (out.length >= WRITE_BYTES) this.flush();
        if (out.length < WRITE_BYTES && !stream.closed && this.writeQueued(stream)) moved = true;
        if (!stream.closed && stream.hasMore) {
          waiting[kept++] = stream;
        } else stream.waiting = false;
      }
      waiting.length = kept;
    }
  }

  /** One frame of what the stream has queued, or its end. Returns whether there was anything that could go. */
  private writeQueued(stream: Stream): boolean {
    const { queue } = stream;
    if (queue === undefined) {
      const drained = stream.wantsDrain;
      stream.wantsDrain = false;
      this.writeEnd(stream);
      if (drained && !stream.closed) stream.user.streamDrained();
      return true;
    }
    const size = Math.min(stream.sendWindow, this.sendWindow, MAX_FRAME_BYTES, queue.headLength);
    if (size <= 0) return false;
    const ends = size === queue.length && stream.ending && stream.trailers === undefined;
    this.writeDataFrame(stream, queue.head, queue.headStart, size, ends);
    queue.drop(size);
    if (queue.length === 0) stream.queue = undefined;
    stream.queued -= size;
    this.letGo(size);
    if (ends) this.endLocal(stream);
    // Not before all of it has gone: what comes next may be a whole read of an upstream.
    else if (stream.wantsDrain && stream.queued === 0) {
      stream.wantsDrain = false;
      stream.user.streamDrained();
    }
    return true;
  }

  /** Nothing is queued any more: the end itself, with the trailers if there are any. */
  writeEnd(stream: Stream): void {
    const { trailers } = stream;
    if (trailers === undefined) {
      if (stream.ending && !stream.localEnded) this.writeData(stream, NO_BYTES, 0, 0, true);
      return;
    }
    stream.trailers = undefined;
    this.beginHead();
    for (const { name, value, neverIndexed } of trailers) {
      writeField(this.encoder, this.out, name, value, neverIndexed);
    }
    this.endHead(stream, true);
  }

  /** Everything that is said in one turn of the event loop leaves in one write. */
  schedule(): void {
    if (this.dirty || this.inFlight !== undefined) return;
    this.dirty = true;
    if (dirtyConnections.push(this) === 1) setImmediate(flushAll);
  }

  flush(): void {
    const { socket, out } = this;
    if (this.inFlight !== undefined || out.length === 0 || socket.destroyed) return;
    this.inFlight = takeOut(out);
    this.nextUnsent = this.nextStream;
    socket.write(this.inFlight, this.written);
  }

  private onWritten(error: Error | null | undefined): void {
    const { inFlight, out } = this;
    this.inFlight = undefined;
    if (error) return;
    giveBack(inFlight!);
    if (!this.closed) this.pump();
    if (out.length > 0) this.flush();
    else if (this.finished) this.endSocket();
  }

  // --- The end ---

  ping(answered: () => void): void {
    this.pinged = answered;
    writeNumbers(this.out, frameType.ping, 0, 0, 0, 0);
    this.schedule();
  }

  announceEnd(): void {
    if (this.closed || this.leaving) return;
    this.sayGoaway(LARGEST_STREAM_ID, errorCode.noError);
  }

  end(): void {
    if (this.closed) return;
    if (this.isServer && this.lastServed === LARGEST_STREAM_ID) {
      this.lastServed = this.lastPeerStream;
      this.sayGoaway(this.lastServed, errorCode.noError);
    }
    this.leaving = true;
    this.finishIfIdle();
  }

  leave(): void {
    if (this.closed) this.socket.destroy();
    this.hurried = true;
    this.end();
  }

  private endSocket(): void {
    if (this.hurried) this.socket.destroySoon();
    else this.socket.end();
  }

  private finishIfIdle(): void {
    if (this.leaving && this.streams.size === 0 && !this.closed) this.finish();
  }

  fail(code: number, reason: string): void {
    if (this.closed) return;
    this.error ??= new Error(reason);
    this.sayGoaway(this.lastPeerStream, code);
    this.finish();
  }

  private sayGoaway(lastStream: number, code: number): void {
    writeNumbers(this.out, frameType.goaway, 0, 0, lastStream, code);
    this.schedule();
  }

  /** No further word but those already said; the peer has a moment to take them. */
  private finish(): void {
    if (this.finished) return;
    this.finished = true;
    this.close();
    if (this.out.length > 0) this.flush();
    else if (this.inFlight === undefined) this.endSocket();
    this.linger.at = this.deadlines.now() + LINGER_MS;
    if (!this.socket.destroyed) this.deadlines.watch(this.linger);
  }

  destroy(error?: Error): void {
    if (error !== undefined) this.error ??= error;
    this.close();
    this.socket.destroy();
  }

  /** Streams end with their connection; nothing that arrives is read any more. */
  private close(): void {
    if (this.closed) return;
    this.closed = true;
    this.leaving = true;
    this.partial = undefined;
    this.blockParts = [];
    const firstUnsent = this.isServer ? Number.POSITIVE_INFINITY : this.nextUnsent;
    // What has not left stays here: then it is certain that the peer has not begun with it.
    if (firstUnsent < this.nextStream) this.out.length = 0;
    for (const stream of this.streams.list()) {
      this.closeStream(stream, stream.id >= firstUnsent ? 'refused' : 'lost', errorCode.cancel);
    }
    this.user.connectionClosed(this.error);
  }

  /** Whoever will not hear or say any more has left, whatever was under way. */
  private onEnd(): void {
    this.finish();
  }

  private onError(error: Error): void {
    this.error ??= error;
    // RFC 9113 §9.2.1: the peer is told, as far as it can be at once; not from within OpenSSL's reading.
    if (isRenegotiation(error)) setImmediate(() => this.fail(errorCode.protocolError, error.message));
  }

  private onClose(): void {
    this.deadlines.forget(this.linger);
    this.close();
  }
}

/** Of the block that was read last. */
const fields: HeaderField[] = [];
const dirtyConnections: Connection[] = [];

/** Connections of clients for whose streams something is held. */
const holders = createRoster<Connection>();
let heldInAll = 0;
let relieving = false;

/** Not from within the reading of a connection, which may be the one that has to go. */
function relieveSoon(): void {
  if (relieving) return;
  relieving = true;
  setImmediate(() => {
    relieving = false;
    while (heldInAll > MOST_HELD && holders.size > 0) {
      const most = holders.list().reduce((a, b) => (b.held > a.held ? b : a));
      most.fail(errorCode.enhanceYourCalm, 'it makes us hold more than all others do');
    }
  });
}

function flushAll(): void {
  // A write may make others dirty, who then wait for the next turn.
  const connections = dirtyConnections.splice(0);
  for (const connection of connections) {
    connection.dirty = false;
    connection.flush();
  }
}

/** How many bytes of the frame at `pos`, of which there are too few, there have to be for the next step of reading it. */
function neededOf(bytes: Buffer, pos: number, end: number): number {
  if (end - pos < FRAME_HEADER_BYTES) return FRAME_HEADER_BYTES;
  // Of DATA the header is read at once, and the length of its padding with it.
  if (bytes[pos + 3] === frameType.data) return FRAME_HEADER_BYTES + 1;
  return FRAME_HEADER_BYTES + ((bytes[pos]! << 16) | (bytes[pos + 1]! << 8) | bytes[pos + 2]!);
}

function readUint32(bytes: Buffer, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** Of a reply that is well-formed (RFC 9113 §8.3.2); 0 of any other. */
function statusOf(list: readonly HeaderField[]): number {
  for (let i = 0; i < list.length; i++) {
    const kind = kindOf(list[i]!);
    if (kind === fieldKind.malformed) return 0;
    if ((i === 0) !== (kind === fieldKind.status) || (i > 0 && isPseudo(kind))) return 0;
  }
  const status = list[0]?.value ?? '';
  return /^[1-9]\d\d$/.test(status) ? Number(status) : 0;
}
