// A socket whose reads are believed before its writes: what a peer said before it went away is heard to the end.

import type { Socket } from 'node:net';

/** What a write has found out; the reads go on until they say the same. */
export interface LastWords {
  /** Of the first write that failed because the peer was gone. */
  error: NodeJS.ErrnoException | undefined;
}

type Written = (error?: Error | null) => void;

/** A connection that becomes a tunnel late is asked twice. */
const known = Symbol('last words');
interface Heard extends Socket {
  [known]?: LastWords;
}

/**
 * A peer that answers early and closes resets the connection as soon as more arrives. Its answer is in the kernel by
 * then (Linux keeps what was received before a reset), but Node destroys a socket whose write fails, and what was not
 * read yet is lost with it. From now on such a write, and every one after it, counts as done: the end follows as a read,
 * after all that came before it.
 */
export function hearLastWords(socket: Heard): LastWords {
  if (socket[known] !== undefined) return socket[known];
  const words: LastWords = { error: undefined };
  socket[known] = words;
  const { _write: write, _writev: writev } = socket;
  let callback: Written | undefined;
  // A stream has one write under way at a time: one function serves them all.
  const written: Written = (error) => {
    const done = callback!;
    callback = undefined;
    // Nothing is heard any more of a peer that has said all: only this write tells that it is gone.
    if (socket.readableEnded || !wasFoundByWriting(error)) return done(error);
    words.error ??= error;
    done();
  };
  socket._write = (chunk, encoding, done) => {
    if (words.error !== undefined) return done();
    callback = done;
    write.call(socket, chunk, encoding, written);
  };
  if (writev != null) {
    socket._writev = (chunks, done) => {
      if (words.error !== undefined) return done();
      callback = done;
      writev.call(socket, chunks, written);
    };
  }
  return words;
}

/** Whether the peer is gone, and it is a write that said so. */
export function wasFoundByWriting(
  error: NodeJS.ErrnoException | null | undefined,
): error is NodeJS.ErrnoException {
  return error?.syscall === 'write' && (error.code === 'EPIPE' || error.code === 'ECONNRESET');
}

/**
 * Whether the end that was read is a reset in truth. A write that finds a reset first takes the error with it, and what
 * is read after that looks like an orderly end. Linux says EPIPE where the peer had ended before it reset, and
 * ECONNRESET where it had not.
 */
export function endedByReset({ error }: LastWords): boolean {
  return error?.code === 'ECONNRESET';
}
