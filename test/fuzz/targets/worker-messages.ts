// What a worker says (src/workers/channel.ts, and the schema of its messages): read the same however it is cut, and judged without a throw.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import * as z from 'zod';
import { LONGEST_FROM_WORKER, readMessages } from '../../../src/workers/channel.ts';
import { FromWorkerSchema } from '../../../src/workers/messages.ts';
import { fromSchema, type JsonSchema } from '../json-schema.ts';
import { cuts, fuzzTarget, mutated, piecesOf } from '../target.ts';

const LENGTH_BYTES = 4;

function framed(body: string, length = Buffer.byteLength(body)): Buffer {
  const frame = Buffer.alloc(LENGTH_BYTES + Buffer.byteLength(body));
  frame.writeUInt32BE(length);
  frame.write(body, LENGTH_BYTES);
  return frame;
}

interface Heard {
  readonly messages: unknown[];
  readonly violations: number;
}

async function hear(pieces: readonly Buffer[]): Promise<Heard> {
  const channel = new PassThrough();
  const messages: unknown[] = [];
  let violations = 0;
  readMessages(
    channel,
    (json) => {
      assert.equal(violations, 0, 'nothing is read after a violation');
      messages.push(json);
    },
    () => violations++,
  );
  const closed = once(channel, 'close');
  for (const piece of pieces) if (!channel.destroyed) channel.write(piece);
  if (!channel.destroyed) channel.end();
  await closed;
  return { messages, violations };
}

/** The same, told by what the format says and nothing else. */
function expected(bytes: Buffer): Heard {
  const messages: unknown[] = [];
  for (let at = 0; at + LENGTH_BYTES <= bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    if (length === 0 || length > LONGEST_FROM_WORKER) return { messages, violations: 1 };
    const body = bytes.subarray(at + LENGTH_BYTES, at + LENGTH_BYTES + length);
    if (body.length < length) break;
    try {
      messages.push(JSON.parse(body.toString('utf8')));
    } catch {
      return { messages, violations: 1 };
    }
    at += LENGTH_BYTES + length;
  }
  return { messages, violations: 0 };
}

/** What is let through is only what the schema describes, and judging it again changes nothing. */
function judge(json: unknown): void {
  const { success, data } = FromWorkerSchema.safeParse(json);
  if (success) assert.deepEqual(FromWorkerSchema.parse(data), data);
}

const described = z.toJSONSchema(FromWorkerSchema, { io: 'input', unrepresentable: 'any' }) as JsonSchema;
/** Of the shape that the schema describes, more or less. */
const message = fromSchema(described).map((value) => framed(JSON.stringify(value)));
const seeds = fc.sample(message, { seed: 1, numRuns: 60 });
/** As long as may be, give or take a byte. */
const long = fc
  .integer({ min: -1, max: 1 })
  .map((more) => framed(`"${'x'.repeat(LONGEST_FROM_WORKER - 2 + more)}"`));
const lengths = [0, 1, LONGEST_FROM_WORKER, LONGEST_FROM_WORKER + 1, 0xffffffff];

interface Input {
  readonly bytes: Buffer;
  readonly positions: readonly number[];
}

const whole = (bytes: Buffer): Input => ({ bytes, positions: [] });

export const workerMessages = fuzzTarget<Input>({
  name: 'messages from workers',
  input: fc.record({
    bytes: fc.oneof(
      fc.array(message, { maxLength: 4 }).map((frames) => Buffer.concat(frames)),
      fc.json().map((text) => framed(text)),
      long,
      mutated(
        seeds,
        lengths.map((length) => framed('', length)),
      ),
    ),
    positions: cuts,
  }),
  async check({ bytes, positions }) {
    const heard = await hear(piecesOf(bytes, positions));
    assert.deepEqual(heard, expected(bytes));
    for (const json of heard.messages) judge(json);
  },
  growing: {
    'short messages': (size) => whole(Buffer.alloc(size - (size % 5), framed('7'))),
    'messages of the longest kind': (size) => {
      const frame = framed(`"${'x'.repeat(LONGEST_FROM_WORKER - 2)}"`);
      return whole(Buffer.concat(Array<Buffer>(Math.ceil(size / frame.length)).fill(frame)));
    },
    'byte by byte': (size) => ({
      bytes: framed(`"${'x'.repeat((size >> 4) % LONGEST_FROM_WORKER)}"`),
      positions: Array.from({ length: size >> 4 }, (_, at) => at),
    }),
  },
});
