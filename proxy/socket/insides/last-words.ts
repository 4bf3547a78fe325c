// A TCP or TLS socket whose write has failed goes on reading, so that all that its peer sent before it closed is read.
//
// A peer that answers early and closes resets the connection as soon as more arrives. Its answer is in the kernel by then
// (Linux keeps what was received before a reset), but Node destroys a socket whose write fails, and what was not read yet
// is lost with it. No public interface prevents that, so _write() and _writev() of the socket are replaced.
// Measured: of 40 uploads that an upstream answered early and closed, 40 answers arrive; without this, none.

import type { Socket } from 'node:net';
import { uses } from './switch.ts';

export interface LastWords {
  /** Of the first write that found the peer gone; undefined: none has. */
  error: NodeJS.ErrnoException | undefined;
}

const isOn = uses('last-words');

type Written = (error?: Error | null) => void;

/** A connection that becomes a tunnel late asks a second time. */
const known = Symbol('last words');
interface Heard extends Socket {
  [known]?: LastWords;
}

/**
 * From now on a write that finds the peer gone counts as done, and so does every write after it: the end follows as a
 * read, after all that came before it.
 */
export function hearLastWords(socket: Heard): LastWords {
  if (socket[known] !== undefined) return socket[known];
  const words: LastWords = { error: undefined };
  socket[known] = words;
  if (!isOn) return words;
  const { _write: write, _writev: writev } = socket;
  let callback: Written | undefined;
  // A stream has one write under way at a time: one function serves them all.
  const written: Written = (error) => {
    const done = callback!;
    callback = undefined;
    // After the end of the reads only a failed write can tell that the peer is gone.
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

/** Whether a write has failed because the peer is gone. */
export function wasFoundByWriting(
  error: NodeJS.ErrnoException | null | undefined,
): error is NodeJS.ErrnoException {
  return error?.syscall === 'write' && (error.code === 'EPIPE' || error.code === 'ECONNRESET');
}

/**
 * Whether the peer had reset the connection, though the reads have ended in order. The kernel reports a reset once: when
 * a write gets the error, the reads see an orderly end. Linux reports EPIPE to the write if the peer had ended the
 * connection before it reset it, and ECONNRESET if it had not.
 */
export function endedByReset({ error }: LastWords): boolean {
  return error?.code === 'ECONNRESET';
}
