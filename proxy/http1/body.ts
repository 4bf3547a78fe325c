// Reads the body of an HTTP/1.1 message (RFC 9112 §6): what is content, what is framing, and where it ends.

import { type BodyReader, takeContent } from './body-reader.ts';
import { readChunked } from './chunked.ts';
import type { HeadLimits } from './message.ts';

/**
 * Takes one run from `bytes[pos, end)`: content, framing to leave out, or the end. Returns the position after it, or
 * REFUSED. Call it until the bytes are used up or `done`; bytes after `done` belong to the next message.
 * Without `cutStart..cutEnd` the bytes taken can be passed on as they are: they are proven to be well-formed.
 */
export function readBody(
  body: BodyReader,
  bytes: Buffer,
  pos: number,
  end: number,
  limits: HeadLimits,
): number {
  body.dataStart = body.dataEnd = body.cutStart = body.cutEnd = pos;
  if (body.done) return pos;
  if (body.kind === 'until-close') return takeContent(body, pos, end);
  if (body.kind === 'length') {
    const next = takeContent(body, pos, Math.min(end, pos + body.remaining));
    body.remaining -= next - pos;
    body.done = body.remaining === 0;
    return next;
  }
  return readChunked(body, bytes, pos, end, limits);
}
