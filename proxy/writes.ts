// Writes that save system calls and copies.

interface Sink {
  readonly writableLength: number;
  write(data: string | Uint8Array, encoding?: BufferEncoding): boolean;
}

/** `text` (latin-1) and `bytes[start, end)` leave as one write: one TLS record, one system call. Copies the bytes. */
export function writeJoined(sink: Sink, text: string, bytes: Buffer, start: number, end: number): boolean {
  if (start >= end) return sink.write(text, 'latin1');
  const joined = Buffer.allocUnsafe(text.length + end - start);
  joined.write(text, 0, 'latin1');
  bytes.copy(joined, text.length, start, end);
  return sink.write(joined);
}

/**
 * Writes bytes that are only lent. An idle TLS socket encrypts at once and is done with them; what would have to wait
 * behind other writes is copied.
 */
export function writeLent(sink: Sink, bytes: Buffer, start: number, end: number): boolean {
  const piece = bytes.subarray(start, end);
  return sink.write(sink.writableLength > 0 ? Buffer.from(piece) : piece);
}
