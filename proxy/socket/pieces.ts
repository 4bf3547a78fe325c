// A message head that arrives in pieces, perhaps of one byte each: each byte is copied once, and the head is parsed again only when that can give a new result.

/** What has come so far. Made only for a head that is incomplete: a head that comes whole costs nothing. */
export interface Pieces {
  /** What has come is `room[0, length)`. */
  room: Buffer;
  length: number;
  /** From this length on it is parsed again in any case. */
  nextLook: number;
}

const LEAST_ROOM = 512;
const LF = 10;
const CR = 13;
const SP = 32;
const HTAB = 9;

/** Copies `bytes[start, end)`, which have been read and are not the whole of a head. */
export function beginPieces(bytes: Buffer, start: number, end: number): Pieces {
  const length = end - start;
  const room = Buffer.allocUnsafe(Math.max(LEAST_ROOM, 2 * length));
  bytes.copy(room, 0, start, end);
  return { room, length, nextLook: 2 * length };
}

/**
 * Adds `bytes[start, end)`. True: parse all of it again, because a line has ended, a byte has come that no line may hold,
 * or there is twice as much as at the last parse (or as much as `limit`). So a head is parsed about once for each of its
 * lines, which are few, and not once for each piece.
 */
export function addPiece(pieces: Pieces, bytes: Buffer, start: number, end: number, limit: number): boolean {
  const needed = pieces.length + end - start;
  if (needed > pieces.room.length) {
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * pieces.room.length));
    pieces.room.copy(larger, 0, 0, pieces.length);
    pieces.room = larger;
  }
  bytes.copy(pieces.room, pieces.length, start, end);
  const before = pieces.length;
  pieces.length = needed;
  if (needed < pieces.nextLook && !(before < limit && needed >= limit) && !tellsMore(bytes, start, end)) {
    return false;
  }
  pieces.nextLook = 2 * needed;
  return true;
}

/** What has come, as one; it may be kept if nothing is added to the pieces any more. */
export function gathered({ room, length }: Pieces): Buffer {
  return room.subarray(0, length);
}

function tellsMore(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (byte === LF || (byte < SP && byte !== CR && byte !== HTAB) || byte === 127) return true;
  }
  return false;
}
