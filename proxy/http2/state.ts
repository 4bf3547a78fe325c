// The fields of an HTTP/2 connection and of its streams: one object each, because every frame reads and writes them.

import type { Socket } from 'node:net';
import type { ByteQueue } from '../socket/byte-queue.ts';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import { createOutbox, type Outbox } from '../socket/outbox.ts';
import type { Pieces } from '../socket/pieces.ts';
import { createStreamTable } from '../socket/roster.ts';
import type {
  Http2ConnectionOptions,
  Http2ConnectionUser,
  Http2Stream,
  StreamEnd,
  StreamUser,
} from './contract.ts';
import { DEFAULT_WINDOW, errorCode, LARGEST_STREAM_ID, PREFACE } from './frames.ts';
import type { Holder } from './held.ts';
import {
  type BlockLimits,
  createDecoder,
  createEncoder,
  type HeaderField,
  type HpackDecoder,
  type HpackEncoder,
} from './hpack.ts';

/** The user of a stream that has none yet, or none any more. */
export const NO_USER: StreamUser = {
  streamData() {},
  streamTrailers() {},
  streamEnded() {},
  streamDrained() {},
  streamClosed() {},
};

/** What stream.ts makes a stream of. */
export abstract class StreamState implements Http2Stream {
  readonly id: number;
  readonly connection: Http2ConnectionState;
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

  /** What the peer may be sent, and what it may send. */
  sendWindow: number;
  receiveWindow: number;
  /** What it may send before any of it is taken: grows (growth.ts). */
  window: number;
  /** Bytes taken since, and since when. */
  measured = 0;
  measuredSince = 0;
  /** Bytes taken for which the peer has not been given credit yet. */
  credit = 0;
  /** Bytes that arrived while it was paused. */
  withheld = 0;
  /** Content that has arrived. */
  received = 0;
  /** END_STREAM has been written. */
  localEnded = false;
  /** The head of the reply has come. */
  replied = false;
  queue: ByteQueue | undefined;
  trailers: readonly HeaderField[] | undefined;
  wantsDrain = false;
  refusesRest = false;
  /** It is in the connection's list of those that wait for their turn to send. */
  waiting = false;

  constructor(id: number, connection: Http2ConnectionState) {
    this.id = id;
    this.connection = connection;
    this.sendWindow = connection.peerWindow;
    this.receiveWindow = connection.streamWindow;
    this.window = connection.streamWindow;
  }

  abstract readonly room: number;
  abstract readonly restless: boolean;
  abstract readonly backlog: number;
  abstract beginHead(): void;
  abstract addField(name: string, value: string, neverIndexed?: boolean): void;
  abstract endHead(kind: 'interim' | 'open' | 'last'): void;
  abstract sendData(bytes: Buffer, start: number, end: number, last: boolean): boolean;
  abstract awaitDrain(): void;
  abstract sendEnd(): void;
  abstract sendTrailers(fields: readonly HeaderField[]): void;
  abstract pause(): void;
  abstract resume(): void;
  abstract reset(code: number): void;
  abstract resetMalformed(): void;
  abstract refuseRest(): void;
}

/** What connection.ts makes a connection of. Each part of this folder takes it as its first argument. */
export abstract class Http2ConnectionState implements Holder {
  readonly socket: Socket;
  readonly isServer: boolean;
  readonly user: Http2ConnectionUser;
  readonly deadlines: Deadlines;
  readonly maxConcurrentStreams: number;
  readonly fieldLimits: BlockLimits;
  readonly streams = createStreamTable<StreamState>();

  /** What the peer's SETTINGS say. */
  peerWindow = DEFAULT_WINDOW;
  peerMaxStreams: number;
  peerMaxHeadBytes = Number.POSITIVE_INFINITY;
  greeted = false;

  // The end
  leaving = false;
  closed = false;
  finished = false;
  /** The socket does not wait for the peer's end. */
  hurried = false;
  error: Error | undefined;
  blame: number = errorCode.noError;
  /** Our GOAWAY has said that streams above this one are not served. */
  lastServed = LARGEST_STREAM_ID;
  readonly linger: Deadline = { at: Number.POSITIVE_INFINITY, expired: () => this.destroy() };

  // Reading frames
  prefaceLeft: number;
  /** A frame that has not come whole, and how many of its bytes there have to be before it is looked at again. */
  partial: Pieces | undefined;
  partialNeeds = 0;

  // Reading DATA: the frame of which bytes are still to come
  dataStream: StreamState | undefined;
  dataLeft = 0;
  paddingLeft = 0;
  dataEnds = false;
  /** Small DATA of one stream, moved together: `bytes[gatheredStart, gatheredEnd)` of those that are being read. */
  gatheredFor: StreamState | undefined;
  gatheredStart = 0;
  gatheredEnd = 0;

  // Reading HEADERS: a block that comes in several frames
  readonly decoder: HpackDecoder = createDecoder();
  blockStream = 0;
  blockFlags = 0;
  blockParts: Buffer[] = [];
  blockBytes = 0;

  // Numbers of streams
  /** The highest that the peer has begun, and that of our next one. */
  lastPeerStream = 0;
  nextStream = 1;
  /** Streams of ours from this number on have not left yet. */
  nextUnsent = 1;
  resetByUs: Set<number> | undefined;
  /** Numbers that the peer has skipped: `[first, last]` in turn. */
  skipped: number[] = [];

  // What the peer may send
  readonly streamWindow: number;
  /** What the window of a stream may grow to. */
  readonly largestWindow: number;
  /** By how much the windows of all streams have grown. */
  growth = 0;
  /** The shortest that was seen, as growth.ts counts; 0 before the first. */
  roundTrip = 0;
  settingsSentAt = 0;
  pingSentAt = 0;
  readonly connectionWindow: number;
  receiveWindow: number;
  credit = 0;

  // Sending
  readonly encoder: HpackEncoder = createEncoder();
  readonly out: Outbox = createOutbox();
  sendWindow = DEFAULT_WINDOW;
  /** The largest that `sendWindow` has been: what the peer lends to all our streams together. */
  widest = DEFAULT_WINDOW;
  /** Since when `sendWindow` is known to be next to nothing. */
  starvedSince = Number.POSITIVE_INFINITY;
  /** Where in `out` the header block begins that is being written. */
  headAt = 0;
  /** Streams with something to send, in the order of their turns. */
  waiting: StreamState[] = [];
  /** What was read has opened windows. */
  opened = false;
  /** It is in the list of those that have something to flush. */
  dirty = false;
  inFlight: Buffer | undefined;
  readonly written: (error?: Error | null) => void = (error) => this.onWritten(error);
  pinged: (() => void) | undefined;

  // What it costs us
  place = -1;
  held = 0;
  strikes = 0;
  strikesSince: number;
  excess = 0;
  excessSince: number;
  resets = 0;
  resetsAt: number;

  constructor(options: Http2ConnectionOptions) {
    const { socket, role, deadlines, user, streamWindow, connectionWindow, fieldLimits } = options;
    this.socket = socket;
    this.isServer = role === 'server';
    this.user = user;
    this.deadlines = deadlines;
    this.maxConcurrentStreams = options.maxConcurrentStreams ?? 0;
    this.fieldLimits = fieldLimits;
    // Until its SETTINGS come: what RFC 9113 §6.5.2 asks every peer to allow at least.
    this.peerMaxStreams = 100;
    this.prefaceLeft = this.isServer ? PREFACE.length : 0;
    this.streamWindow = streamWindow;
    this.largestWindow = options.largestStreamWindow ?? streamWindow;
    this.connectionWindow = connectionWindow;
    this.receiveWindow = connectionWindow;
    this.strikesSince = deadlines.now();
    this.excessSince = this.strikesSince;
    this.resetsAt = this.strikesSince;
  }

  // What the parts of this folder call without knowing connection.ts.
  abstract fail(code: number, reason: string): void;
  abstract destroy(error?: Error): void;
  abstract onWritten(error: Error | null | undefined): void;
}
