// Bodies of HTTP/1.1 (proxy/http1/body.ts): the same content and the same end however they are cut.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { readBody } from '../../../proxy/http1/body.ts';
import { type BodyKind, beginBody, createBodyReader } from '../../../proxy/http1/body-reader.ts';
import { REFUSED } from '../../../proxy/http1/message.ts';
import { cuts, fuzzTarget, mutated, piecesOf } from '../target.ts';

const limits = { maxHeaderBytes: 16_384, maxHeaderCount: 100 };
const text = (value: string) => Buffer.from(value, 'latin1');
const tokens = [
  '\r\n',
  '\n',
  '0\r\n\r\n',
  ';',
  '="',
  '\\',
  'F',
  ' ',
  'x: y\r\n',
  '00000000',
  'ffffffffffff',
].map(text);
const seeds = [
  '5\r\nhello\r\n0\r\n\r\n',
  'a;name=value;q="a \\" b"\r\n0123456789\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n',
  '000A\r\n0123456789\r\n',
  '0\r\n\r\n',
].map(text);

interface Input {
  readonly kind: BodyKind;
  readonly length: number;
  readonly bytes: Buffer;
  readonly positions: readonly number[];
}

interface Reading {
  content: Buffer[];
  /** What would be passed on: all but what was cut out. */
  passed: Buffer[];
  refused: boolean;
  done: boolean;
  trailers: string;
  left: number;
}

function read({ kind, length }: Input, pieces: readonly Buffer[]): Reading {
  const body = createBodyReader();
  beginBody(body, kind, length);
  const reading: Reading = {
    content: [],
    passed: [],
    refused: false,
    done: body.done,
    trailers: '',
    left: 0,
  };
  for (const bytes of pieces) {
    let pos = 0;
    while (pos < bytes.length && !body.done && !reading.refused) {
      const next = readBody(body, bytes, pos, bytes.length, limits);
      if (next === REFUSED) {
        reading.refused = true;
        break;
      }
      assert.ok(next > pos && next <= bytes.length, `from ${pos} to ${next} of ${bytes.length}`);
      assert.ok(body.dataStart >= pos && body.dataEnd <= next && body.dataStart <= body.dataEnd);
      assert.ok(body.cutStart >= pos && body.cutEnd <= next && body.cutStart <= body.cutEnd);
      reading.content.push(bytes.subarray(body.dataStart, body.dataEnd));
      reading.passed.push(
        bytes.subarray(pos, body.cutStart),
        bytes.subarray(Math.max(body.cutEnd, body.cutStart), next),
      );
      pos = next;
    }
    reading.left += bytes.length - pos;
  }
  reading.done = body.done;
  reading.trailers = body.trailers?.text ?? '';
  return reading;
}

export const http1Body = fuzzTarget<Input>({
  name: 'body of an HTTP/1.1 message',
  input: fc.record({
    kind: fc.constantFrom<BodyKind>('chunked', 'chunked', 'chunked', 'length', 'until-close', 'none'),
    length: fc.nat({ max: 100 }),
    bytes: mutated(seeds, tokens),
    positions: cuts,
  }),
  check(input) {
    const { bytes, positions, kind, length } = input;
    const whole = read(input, bytes.length === 0 ? [] : [bytes]);
    const cut = read(input, piecesOf(bytes, positions));
    const content = Buffer.concat(whole.content);
    assert.equal(cut.refused, whole.refused);
    assert.equal(cut.done, whole.done);
    if (!whole.refused) {
      assert.ok(Buffer.concat(cut.content).equals(content));
      assert.equal(cut.trailers, whole.trailers);
      assert.equal(cut.left, whole.left);
    }
    if (kind === 'length') assert.ok(content.length <= length);
    // What is passed on reads the same once more, its extensions and trailers cut out.
    if (kind !== 'chunked' || whole.refused || !whole.done || whole.trailers !== '') return;
    const again = read(input, [Buffer.concat(whole.passed)]);
    assert.ok(again.done && !again.refused && again.left === 0);
    assert.ok(Buffer.concat(again.content).equals(content));
  },
  growing: {
    'chunks of one byte': (size) => chunked(text('1\r\nx\r\n'.repeat(size / 6))),
    'a long extension': (size) => chunked(text(`1;${'a'.repeat(size)}`)),
    'a long trailer section': (size) => chunked(text(`0\r\n${'a: b\r\n'.repeat(size / 6)}`)),
  },
});

function chunked(bytes: Buffer): Input {
  return { kind: 'chunked', length: 0, bytes, positions: [] };
}
