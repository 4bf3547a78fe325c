// What an HTTP/2 connection and its streams offer to whoever has them, and what they call in return.

import type { Socket } from 'node:net';
import type { Deadlines } from '../socket/deadlines.ts';
import type { BlockLimits, HeaderField } from './hpack.ts';

/** How a stream came to its end. */
export type StreamEnd =
  /** Both sides have sent all of their message, or all that the other side still wanted. */
  | 'complete'
  /** The peer reset it; `code` says why. */
  | 'reset'
  /** The peer did not begin with it, so that it may be sent again whatever its method (RFC 9113 §8.7). */
  | 'refused'
  /** The peer broke the rules on this stream, and we reset it. */
  | 'malformed'
  /** We reset it for reasons of our own. */
  | 'given-up'
  /** Its connection is gone. */
  | 'lost';

/**
 * Who has a stream. Called while the connection reads: none may throw. After streamClosed() nothing is called.
 * Field lists are lent: copy what is kept of them.
 */
export interface StreamUser {
  /** An interim reply (1xx). Of our requests only. */
  streamInterim?(status: number, fields: readonly HeaderField[]): void;
  /** The reply begins; `fields` hold the status as well. Of our requests only. */
  streamReplied?(status: number, fields: readonly HeaderField[], ended: boolean): void;
  /**
   * `bytes[start, end)`: lent if the connection's reader lends them. They count as taken unless the stream is paused
   * when this returns. `last`: the message is whole; streamEnded() follows.
   */
  streamData(bytes: Buffer, start: number, end: number, last: boolean): void;
  /** Proven to be well-formed and free of pseudo-header fields; streamEnded() follows. */
  streamTrailers(fields: readonly HeaderField[]): void;
  /** The peer's message is whole; not called if its head said so already. */
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
  /** The peer has ended its side. */
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
  /** Whether the peer has made many resets lately, as its connection counts them. */
  readonly restless: boolean;
  /** Bytes that wait for the peer to take them, of all streams of the connection. */
  readonly backlog: number;
  /** For whoever has the connection; not looked at here. */
  note: unknown;
  /** A header block: beginHead(), addField() for each field with its name in lower case, endHead(). */
  beginHead(): void;
  addField(name: string, value: string, neverIndexed?: boolean): void;
  endHead(kind: 'interim' | 'open' | 'last'): void;
  /** Copies the bytes. False: enough is queued; streamDrained() follows when it has left. */
  sendData(bytes: Buffer, start: number, end: number, last: boolean): boolean;
  /** Asks for streamDrained() when the backlog has left. */
  awaitDrain(): void;
  /** Ends our side, after what is queued. */
  sendEnd(): void;
  /** Ends our side with trailers, after what is queued. The list is kept. */
  sendTrailers(fields: readonly HeaderField[]): void;
  /** Bytes that arrive from now on do not count as taken: the peer gets no credit for them. They still reach the user. */
  pause(): void;
  resume(): void;
  /** Sends RST_STREAM at once and forgets what is queued. */
  reset(code: number): void;
  /** RST_STREAM for a message that is malformed (RFC 9113 §8.1.1), counted against its sender. */
  resetMalformed(): void;
  /** Once our side has ended, the rest of the peer's is thrown away, and after a while refused (RFC 9113 §8.1). */
  refuseRest(): void;
}

export interface Http2ConnectionUser {
  /** The peer's first SETTINGS have come. */
  greeted?(): void;
  /** The peer will begin or take no further streams. */
  goingAway?(): void;
  /** A request; set `stream.user` before returning. `tooLarge`: there were more fields than allowed. Servers only. */
  streamOpened?(stream: Http2Stream, fields: readonly HeaderField[], ended: boolean, tooLarge: boolean): void;
  /** After the stream's own user was told. */
  streamClosed?(stream: Http2Stream): void;
  /** The end, called once, after all streams were closed. */
  connectionClosed(error: Error | undefined): void;
}

export interface Http2ConnectionOptions {
  /** Connected. Whoever reads it hands what arrives to receive(). */
  readonly socket: Socket;
  /** `server`: the peer begins streams. */
  readonly role: 'server' | 'client';
  readonly deadlines: Deadlines;
  readonly user: Http2ConnectionUser;
  /** Streams that a client may have open at once. */
  readonly maxConcurrentStreams?: number;
  /** What a peer may send on one stream, and on all together, before it is taken. */
  readonly streamWindow: number;
  /** What the window of a stream may grow to, if a round trip takes longer than the window lasts; absent: it does not grow. */
  readonly largestStreamWindow?: number;
  readonly connectionWindow: number;
  readonly fieldLimits: BlockLimits;
}

export interface Http2Connection {
  readonly socket: Socket;
  /** Streams open now. */
  readonly openStreams: number;
  /** Streams that the peer allows to be open at once. */
  readonly peerMaxStreams: number;
  /** The largest head that the peer has announced to take, each field counted as RFC 9113 §6.5.2 does. */
  readonly peerMaxHeadBytes: number;
  /** The error code of the peer's GOAWAY; 0 without one. */
  readonly blame: number;
  /** No stream can be begun any more. */
  readonly leaving: boolean;
  /** It is over; our last frames may still be on their way. */
  readonly closed: boolean;
  /** Whether the peer has left next to no window for a while: a new stream could not send its body. */
  isStarved(): boolean;
  /** Takes what has arrived: `bytes[0, end)`. They may be overwritten after the call. */
  receive(bytes: Buffer, end: number): void;
  /** Begins a stream of ours; the caller sends its head at once. */
  openStream(user: StreamUser): Http2Stream;
  /** `answered` is called when the peer's answer has come. */
  ping(answered: () => void): void;
  /** Announces the end (RFC 9113 §6.8): the peer should begin no more streams; those that it does begin are served. */
  announceEnd(): void;
  /** No more streams from now on; the connection ends with the last one. */
  end(): void;
  /** As end(), of a connection without streams, and without waiting for the peer. */
  leave(): void;
  /** Ends the connection with a GOAWAY of this code; all streams are closed. */
  fail(code: number, reason: string): void;
  /** Ends it at once, without a GOAWAY. */
  destroy(error?: Error): void;
}
