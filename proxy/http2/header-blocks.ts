// HEADERS and CONTINUATION that arrive (RFC 9113 §6.2 and §6.10): blocks put together, and the messages that they begin or end.

import { strike } from './abuse.ts';
import { closeStream, fail } from './closing.ts';
import { endRemote } from './data.ts';
import { fieldKind, isPseudo, kindOf } from './fields.ts';
import { errorCode, flag, MAX_FRAME_BYTES } from './frames.ts';
import { type HeaderField, readBlock } from './hpack.ts';
import { isIdle, mayLagBehind, noteReset, refuseStream, resetStream } from './resets.ts';
import type { Http2ConnectionState, StreamState } from './state.ts';
import { Stream } from './stream.ts';

/**
 * What a header block may take beyond the limit of its fields: one that is too large by less is read, so that its stream
 * can be told why it is refused, and the tables of both ends still agree. Beyond it the block is an attack.
 */
const SPARE_BLOCK_BYTES = 64 * 1024;
/** Pieces beyond those of full frames. */
const SPARE_CONTINUATIONS = 16;
/** Skipped numbers of streams that are remembered: HEADERS of one of them are then told from those of a closed stream. */
const MOST_SKIPPED = 32;

/** Of the block that was read last. */
const fields: HeaderField[] = [];

export function receiveHeaders(
  connection: Http2ConnectionState,
  id: number,
  flags: number,
  bytes: Buffer,
  start: number,
  end: number,
) {
  let from = start;
  let to = end;
  if ((flags & flag.padded) !== 0) {
    if (from === to) return fail(connection, errorCode.frameSizeError, 'a padded frame without padding');
    to -= bytes[from++]!;
  }
  if ((flags & flag.priority) !== 0) from += 5;
  if (from > to) return fail(connection, errorCode.protocolError, 'more padding than frame');
  if (id === 0 || (connection.isServer && id % 2 === 0)) {
    return fail(connection, errorCode.protocolError, 'HEADERS of a stream that a client cannot begin');
  }
  if ((flags & flag.endHeaders) !== 0) return receiveBlock(connection, id, flags, bytes, from, to);
  connection.blockStream = id;
  connection.blockFlags = flags;
  connection.blockParts = [Buffer.from(bytes.subarray(from, to))];
  connection.blockBytes = to - from;
}

export function receiveContinuation(
  connection: Http2ConnectionState,
  flags: number,
  bytes: Buffer,
  start: number,
  end: number,
) {
  const { blockStream, blockParts } = connection;
  if (blockStream === 0) return fail(connection, errorCode.protocolError, 'CONTINUATION without HEADERS');
  connection.blockBytes += end - start;
  if (isEndless(connection)) {
    return fail(connection, errorCode.enhanceYourCalm, 'a header block without end');
  }
  blockParts.push(Buffer.from(bytes.subarray(start, end)));
  if ((flags & flag.endHeaders) === 0) return;
  const block = Buffer.concat(blockParts);
  connection.blockStream = 0;
  connection.blockParts = [];
  receiveBlock(connection, blockStream, connection.blockFlags, block, 0, block.length);
}

function isEndless({ blockBytes, blockParts, fieldLimits }: Http2ConnectionState): boolean {
  const most = fieldLimits.bytes + SPARE_BLOCK_BYTES;
  return blockBytes > most || blockParts.length > SPARE_CONTINUATIONS + most / MAX_FRAME_BYTES;
}

function receiveBlock(
  connection: Http2ConnectionState,
  id: number,
  flags: number,
  bytes: Buffer,
  start: number,
  end: number,
) {
  fields.length = 0;
  const outcome = readBlock(connection.decoder, bytes, start, end, connection.fieldLimits, fields);
  if (outcome === 'broken') {
    return fail(connection, errorCode.compressionError, 'a header block that does not decode');
  }
  const ended = (flags & flag.endStream) !== 0;
  const stream = connection.streams.get(id);
  if (stream !== undefined) {
    if (stream.remoteEnded) return resetStream(stream, errorCode.streamClosed, 'malformed');
    if (connection.isServer || stream.replied) return receiveTrailers(stream, ended && outcome === 'whole');
    return receiveReply(stream, ended, outcome === 'whole');
  }
  if (connection.isServer && id > connection.lastPeerStream) {
    return receiveRequest(connection, id, ended, outcome === 'too-large');
  }
  if (isIdle(connection, id) || wasSkipped(connection, id)) {
    return fail(connection, errorCode.protocolError, 'HEADERS of a stream that cannot begin');
  }
  if (!mayLagBehind(connection, id)) {
    return fail(connection, errorCode.streamClosed, 'HEADERS of a closed stream');
  }
  strike(connection);
}

/** RFC 9113 §5.1.1: numbers only rise. */
function wasSkipped({ skipped }: Http2ConnectionState, id: number): boolean {
  for (let i = 0; i < skipped.length; i += 2) {
    if (id >= skipped[i]! && id <= skipped[i + 1]!) return true;
  }
  return false;
}

function receiveRequest(connection: Http2ConnectionState, id: number, ended: boolean, tooLarge: boolean) {
  const { lastPeerStream, skipped, streams } = connection;
  if (id > lastPeerStream + 2 && skipped.length < MOST_SKIPPED) skipped.push(lastPeerStream + 1, id - 1);
  connection.lastPeerStream = id;
  // RFC 9113 §6.8: as if it had never come.
  if (id > connection.lastServed) return noteReset(connection, id);
  if (streams.size >= connection.maxConcurrentStreams) return refuseStream(connection, id);
  const stream = new Stream(id, connection);
  stream.remoteEnded = ended;
  streams.set(stream);
  connection.user.streamOpened?.(stream, fields, ended, tooLarge);
}

function receiveReply(stream: StreamState, ended: boolean, whole: boolean) {
  const status = whole ? statusOf(fields) : 0;
  const interim = status > 0 && status < 200;
  // RFC 9110 §15.2.2: a switch of protocols does not exist here.
  if (status === 0 || status === 101 || (interim && ended)) {
    return resetStream(stream, errorCode.protocolError, 'malformed');
  }
  if (interim) return stream.user.streamInterim?.(status, fields);
  stream.replied = true;
  stream.remoteEnded = ended;
  stream.user.streamReplied?.(status, fields, ended);
  if (ended && stream.localEnded && !stream.closed) closeStream(stream, 'complete', errorCode.noError);
}

function receiveTrailers(stream: StreamState, ended: boolean) {
  let sound = ended;
  for (const field of fields) {
    const kind = kindOf(field);
    // RFC 9110 §6.5.1: neither the length of a message nor where it goes can be said after it.
    if (kind === fieldKind.contentLength || kind === fieldKind.host) sound = false;
    if (kind === fieldKind.malformed || isPseudo(kind)) sound = false;
  }
  if (!sound) return resetStream(stream, errorCode.protocolError, 'malformed');
  stream.user.streamTrailers(fields);
  if (!stream.closed) endRemote(stream);
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
