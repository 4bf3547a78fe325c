// The pipe between the supervisor and a worker: messages with their length before them, and a bound on what may come.

import type { Duplex } from 'node:stream';
import { deserialize, serialize } from 'node:v8';
import type { FromWorker, ToWorker } from './messages.ts';
import { createAssembly, partsOf } from './order-parts.ts';

/** Where a worker finds its end of the pipe. */
export const CHANNEL_FD = 3;
/** Where it finds the pipe for lines of the access log that go to a file; nobody reads it if there is none. */
export const LINES_FD = 4;
/** Where it finds sockets that its supervisor has bound for it, if any: that of TLS, then that of plain HTTP. */
export const FIRST_SOCKET_FD = 5;

/**
 * Messages of workers are short. Node's own channel would take 4 GiB in one message. It also hands the bytes to V8's
 * deserializer, which is not made for bytes of strangers and throws into the supervisor.
 */
export const LONGEST_FROM_WORKER = 128 * 1024;
/** Room for the certificates and routes of thousands of domains. A longer order is a fault of ours. */
const LONGEST_TO_WORKER = 1024 ** 3;
const LENGTH_BYTES = 4;

/** How many `findChallenge` of one worker may be open. An honest worker keeps to it, see worker.ts. */
export const MOST_QUESTIONS = 64;

/** How many passwords of one worker may be compared at once. An honest worker keeps to it. */
export const MOST_COMPARISONS = 64;

/** V8's format carries maps and bytes as they are; a worker trusts its supervisor. */
export function writeOrder(channel: Duplex, order: ToWorker, done: (error?: Error | null) => void): void {
  // With the last part all that came before it is written as well.
  for (const part of partsOf(order)) {
    if ('type' in part) channel.write(framed(serialize(part)), done);
    else channel.write(framed(serialize(part)));
  }
}

/** What takes a while to read is followed by whatever else the process has to do. */
const LONG_READ_BYTES = 16 * 1024;

export function readOrders(channel: Duplex, onOrder: (order: ToWorker) => void): void {
  const assemble = createAssembly();
  readFrames(channel, LONGEST_TO_WORKER, (bytes) => {
    const order = assemble(deserialize(bytes));
    if (bytes.length >= LONG_READ_BYTES) {
      channel.pause();
      setImmediate(() => channel.resume());
    }
    if (order !== undefined) onOrder(order);
  });
}

export function writeMessage(channel: Duplex, message: FromWorker): void {
  writeJson(channel, message);
}

/** Read by readMessages() at the other end. */
export function writeJson(channel: Duplex, json: object): void {
  channel.write(framed(Buffer.from(JSON.stringify(json))));
}

/** The messages as JSON, still to be checked. After `onViolation`, which is called once at most, nothing more is read. */
export function readMessages(
  channel: Duplex,
  onMessage: (json: unknown) => void,
  onViolation: (why: string) => void,
): void {
  readFrames(
    channel,
    LONGEST_FROM_WORKER,
    (bytes) => {
      const json = parsed(bytes);
      if (json === undefined) violated('bytes that are not JSON');
      else onMessage(json);
    },
    violated,
  );

  function violated(why: string): void {
    // Whatever it still sends is not read.
    channel.destroy();
    onViolation(why);
  }
}

/** Undefined if the bytes are not JSON, which has no undefined of its own. */
function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}

function framed(body: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(LENGTH_BYTES + body.length);
  frame.writeUInt32BE(body.length);
  body.copy(frame, LENGTH_BYTES);
  return frame;
}

/** Each byte is copied once, in however many pieces it comes. */
function readFrames(
  channel: Duplex,
  longest: number,
  onFrame: (body: Buffer) => void,
  onTooLong: (why: string) => void = () => channel.destroy(),
): void {
  let part = Buffer.allocUnsafe(LENGTH_BYTES);
  let filled = 0;
  let inBody = false;

  channel.on('data', (chunk: Buffer) => {
    for (let at = 0; at < chunk.length && !channel.destroyed; ) {
      const taken = chunk.copy(part, filled, at);
      at += taken;
      filled += taken;
      if (filled === part.length) endPart();
    }
  });

  function endPart(): void {
    const whole = part;
    const length = inBody ? LENGTH_BYTES : whole.readUInt32BE();
    filled = 0;
    // No message is empty.
    if (length === 0 || length > longest) {
      onTooLong(`a message of ${length} bytes`);
      return;
    }
    part = Buffer.allocUnsafe(length);
    if (inBody) onFrame(whole);
    inBody = !inBody;
  }
}
