// The trailer section of a chunked body (RFC 9112 §7.1.2).

import { addPiece, beginPieces, gathered } from '../socket/pieces.ts';
import { type BodyReader, refuseBody } from './body-reader.ts';
import { readFields } from './field-lines.ts';
import { field } from './known-fields.ts';
import { createMessageHead, type HeadLimits, LINE, type MessageHead } from './message.ts';

/** RFC 9112 §7.1.2. The section is collected whole, cut out, and left for the caller to pass on what may pass. */
export function readTrailers(
  body: BodyReader,
  bytes: Buffer,
  start: number,
  end: number,
  limits: HeadLimits,
): number {
  const before = body.trailerBytes?.length ?? 0;
  const room = limits.maxHeaderBytes - before;
  const last = Math.min(end, start + room);
  if (body.trailerBytes === undefined) body.trailerBytes = beginPieces(bytes, start, last);
  else addPiece(body.trailerBytes, bytes, start, last, limits.maxHeaderBytes);
  const section = gathered(body.trailerBytes);
  const blank = section.indexOf('\r\n\r\n', Math.max(0, before - 3), 'latin1');
  body.cutStart = start;
  if (blank === -1) {
    if (end - start >= room)
      return refuseBody(body, 'a trailer section that is too large', 'headers-too-large');
    body.cutEnd = end;
    return end;
  }
  const size = blank + 4;
  const head = createMessageHead();
  if (readFields(head, section, 0, 0, size, limits.maxHeaderCount) !== size)
    return refuseBody(body, 'a malformed trailer section');
  head.text = section.toString('latin1', 0, size);
  // RFC 9110 §6.5.1: the length of a message cannot be said after it.
  if (readsFraming(head)) return refuseBody(body, 'a trailer section with a length');
  body.trailers = head;
  body.trailerBytes = undefined;
  body.done = true;
  body.cutEnd = start + size - before;
  return body.cutEnd;
}

function readsFraming({ lines, count }: MessageHead): boolean {
  for (let line = 0; line < count; line++) {
    const id = lines[line * LINE + 4];
    if (id === field.contentLength || id === field.transferEncoding) return true;
  }
  return false;
}
