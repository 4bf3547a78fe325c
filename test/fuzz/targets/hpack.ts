// Header blocks of HTTP/2 (proxy/http2/hpack.ts): any octets end in an outcome, and what is written is read again.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  beginBlock,
  createDecoder,
  createEncoder,
  createField,
  type HeaderField,
  readBlock,
  writeField,
} from '../../../proxy/http2/hpack.ts';
import { createOutbox } from '../../../proxy/socket/outbox.ts';
import { encodeFields, requestFields } from '../../support/http2-frames.ts';
import { fuzzTarget, mutated } from '../target.ts';

const limits = { bytes: 16_384, count: 100 };
/** A browser's first request and a later one, from the tables (RFC 7541 Appendix C.4). */
const examples = [
  '828684418cf1e3c2e5f23a6ba0ab90f4ff',
  '828684be5886a8eb10649cbf',
  '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
].map((hex) => Buffer.from(hex, 'hex'));
const seeds = [...examples, encodeFields(requestFields('GET', [['cookie', 'a=b; c=d']]))];
const tokens = ['3fe11f', '20', '7f', 'ffffffff0f', '00', '10', '4082', 'be', '80'].map((hex) =>
  Buffer.from(hex, 'hex'),
);

interface Input {
  readonly blocks: readonly Buffer[];
  readonly fields: readonly (readonly [string, string, boolean])[];
}

/** Names as they are sent: lower case, latin-1. */
const octets = fc.string({
  unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)),
  maxLength: 80,
});

function readAll(blocks: readonly Buffer[]): void {
  const decoder = createDecoder();
  for (const block of blocks) {
    const into: HeaderField[] = [];
    const outcome = readBlock(decoder, block, 0, block.length, limits, into);
    assert.ok(into.length <= limits.count);
    assert.ok(decoder.bytes <= decoder.limit && decoder.limit <= decoder.allowed);
    const size = into.reduce((sum, { name, value }) => sum + name.length + value.length + 32, 0);
    assert.ok(size <= limits.bytes);
    if (outcome === 'broken') return;
  }
}

function writeAndRead(fields: Input['fields']): void {
  const [encoder, decoder, out] = [createEncoder(), createDecoder(), createOutbox()];
  // Twice: the second time from the table.
  for (let time = 0; time < 2; time++) {
    out.length = 0;
    beginBlock(encoder, out);
    for (const [name, value, secret] of fields) writeField(encoder, out, name, value, secret);
    const into: HeaderField[] = [];
    const bytes = Buffer.from(out.bytes.subarray(0, out.length));
    assert.equal(readBlock(decoder, bytes, 0, bytes.length, { bytes: 1e9, count: 1e6 }, into), 'whole');
    assert.deepEqual(
      into.map(({ name, value }) => [name, value]),
      fields.map(([name, value]) => [name, value]),
    );
  }
}

export const hpack = fuzzTarget<Input>({
  name: 'header blocks of HTTP/2',
  input: fc.record({
    blocks: fc.array(mutated(seeds, tokens), { maxLength: 5 }),
    fields: fc.array(
      fc.tuple(
        octets.map((name) => name.toLowerCase()),
        octets,
        fc.boolean(),
      ),
      { maxLength: 12 },
    ),
  }),
  check({ blocks, fields }) {
    readAll(blocks);
    writeAndRead(fields.map(([name, value, secret]) => [createField(name, value).name, value, secret]));
  },
  growing: {
    'a reference to the table again and again': (size) => ({
      blocks: [Buffer.alloc(size, 0x82)],
      fields: [],
    }),
    'changes of the table size': (size) => ({ blocks: [Buffer.alloc(size, 0x20)], fields: [] }),
    'entries that push each other out': (size) => ({
      blocks: [Buffer.concat(Array<Buffer>(Math.ceil(size / 5)).fill(Buffer.from('4001610162', 'hex')))],
      fields: [],
    }),
    'one long Huffman string': (size) => ({ blocks: [huffman(size)], fields: [] }),
  },
});

/** A literal whose value is `size` octets of Huffman code, all of them five bits of zero: "0". */
function huffman(size: number): Buffer {
  const head = [0x00, 0x01, 0x61];
  let rest = size - 127;
  head.push(0xff);
  for (; rest >= 128; rest = Math.floor(rest / 128)) head.push((rest % 128) | 128);
  head.push(rest);
  return Buffer.concat([Buffer.from(head), Buffer.alloc(size)]);
}
